"""Text to tokens: loading a tokenizer that tokenises as its model was pretrained, and encoding a split once, without
padding, into arrays that are cached on disk. Knows nothing of batches or models' weights.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import sys
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.runs import InputError, cache_home, read_json, write_json

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the cache; raise it when its content would change for the same key
_CHUNK = 8192  # pairs per tokenizer call: enough to keep all cores busy


@dataclass(frozen=True)
class Encoded:
    """A split as ragged arrays: row i owns tokens offsets[i]:offsets[i+1].

    input_ids int32 (t,); token_type_ids uint8 (t,), or None for models without segments; offsets int64 (n+1,);
    labels as in Examples; pad_id fills padding. Memory-mapped where they come from the cache: MNLI's training set is
    80 MB here and 1.2 GB as padded int64.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray | None
    pad_id: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def from_pretrained(auto_class, source: str, **kwargs):
    """`auto_class.from_pretrained` with one clear line where `source` is neither a folder nor reachable."""
    if not Path(source).is_dir():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(
                f"{source}: no such folder, and not the form of a hub name (name or owner/name){_OFFLINE_HINT}"
            )
        _require_hub(source)
    try:
        return auto_class.from_pretrained(source, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{source}: cannot be loaded as {auto_class.__name__}: {first_line}{_OFFLINE_HINT}") from error


_OFFLINE_HINT = ". `make demo` shows the whole thing without a network"


def _require_hub(name: str) -> None:
    """Fail at once where the hub cannot be reached: the library itself retries for most of a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    if try_to_load_from_cache(name, "config.json") or any(k.lower().endswith("_proxy") for k in os.environ):
        return
    if not constants.HF_HUB_OFFLINE:
        address = urllib.parse.urlsplit(constants.ENDPOINT)
        try:
            socket.create_connection((address.hostname, address.port or 443), timeout=10).close()
            return
        except OSError:
            pass
    raise InputError(
        f"{name}: neither a folder here nor reachable on the hub (no connection, not in the cache){_OFFLINE_HINT}"
    )


# ----------------------------------------------------------------------------------------------------------- tokenizer
def load_tokenizer(source: str, *, cache_dir=None, revision: str = "main"):
    """The fast tokenizer of a folder or hub name, made to tokenise exactly as its SentencePiece model does.

    transformers 5 turns the user-defined pieces of a SentencePiece vocabulary (ALBERT's `( ) " - . – £ €`) into added
    tokens: text is cut at them and the piece after gets a word start it never had in pretraining ("bill-paying" ends
    in `▁paying` instead of `pay ing`). They are ordinary pieces of the vocabulary, so here they are no added tokens.
    """
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, source, cache_dir=cache_dir, revision=revision)
    if not tokenizer.is_fast:
        return tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"].get("type") != "Unigram":
        return tokenizer
    named = {str(token) for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    pieces = {piece for piece, _ in backend["model"]["vocab"]}
    cutting = [t for t in backend["added_tokens"] if t["content"] not in named and t["content"] in pieces]
    if not cutting:
        return tokenizer
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token not in cutting]
    return _plain_tokenizer(tokenizer, json.dumps(backend))


def _plain_tokenizer(like, backend: str):
    """A class-free fast tokenizer with that backend. Saved, it loads again verbatim: the model-specific class would
    rebuild the added tokens from its vocabulary, and would leave out the segment ids."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    special = {name: token for name, token in like.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend),
        model_max_length=like.model_max_length,
        padding_side=like.padding_side,
        truncation_side=like.truncation_side,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **special,
    )


def save_tokenizer(tokenizer, folder, *, segments: bool) -> None:
    """Save so that `AutoTokenizer.from_pretrained(folder)` encodes as we do, segment ids included where the model has
    segments: ALBERT's own tokenizer class no longer returns them unasked."""
    if segments and tokenizer.is_fast and "token_type_ids" not in tokenizer.model_input_names:
        tokenizer = _plain_tokenizer(tokenizer, tokenizer.backend_tokenizer.to_str())
    tokenizer.save_pretrained(folder)
    config_path = Path(folder) / "tokenizer_config.json"
    config = read_json(config_path)
    for private in ("is_local", "local_files_only", "name_or_path"):  # facts about this machine, not the tokenizer
        config.pop(private, None)
    write_json(config_path, config)


def uses_segments(config) -> bool:
    """Whether a model tells premise from hypothesis by segment ids: the model's property, not the tokenizer's."""
    return getattr(config, "type_vocab_size", 0) > 1


def tokenizer_hash(tokenizer) -> str:
    """Identity of what a tokenizer does: its whole content, not its name."""
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        content = tokenizer.backend_tokenizer.to_str()
    else:
        content = json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    return hashlib.sha256(content.encode()).hexdigest()


# -------------------------------------------------------------------------------------------------------------- encode
def encode(
    texts: tuple[list[str], ...],
    tokenizer,
    *,
    fingerprint: str,
    max_length: int,
    segments: bool,
    labels: np.ndarray | None = None,
    cache_dir=None,
    overwrite_cache: bool = False,
    description: str = "tokenising",
) -> Encoded:
    """Encode one or two text columns, truncating the longer text first, as the Hugging Face scripts do.

    The result is cached under `cache_dir`, keyed by the data's fingerprint, the tokenizer's content and the length;
    changed data or another tokenizer can never meet a stale entry. Raises InputError where a tokenizer has no padding
    token or leaves no room for text.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(f"{type(tokenizer).__name__} has no padding token; give an encoder's tokenizer")
    if max_length <= tokenizer.num_special_tokens_to_add(pair=len(texts) == 2):
        raise InputError(f"--max_seq_length {max_length} leaves no room for text beside the special tokens")
    identity = [_FORMAT, fingerprint, tokenizer_hash(tokenizer), max_length, segments]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    folder = Path(cache_dir or cache_home()) / "encoded" / key
    if overwrite_cache:
        shutil.rmtree(folder, ignore_errors=True)
    if not (folder / "about.json").exists():
        arrays = _tokenise(texts, tokenizer, max_length, segments, description)
        _store(folder, arrays, {"fingerprint": fingerprint, "max_length": max_length, "n": len(texts[0])})
    arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    return Encoded(
        arrays["input_ids"], arrays.get("token_type_ids"), np.asarray(arrays["offsets"]), labels,
        tokenizer.pad_token_id, fingerprint,
    )  # fmt: skip


def _tokenise(texts, tokenizer, max_length, segments, description) -> dict[str, np.ndarray]:
    n = len(texts[0])
    lengths = np.empty(n, dtype=np.int64)
    ids, types = [], []
    with tqdm(total=n, desc=description, unit=" ex", disable=n < 20_000 or not sys.stderr.isatty()) as bar:
        for start in range(0, n, _CHUNK):
            chunk = tokenizer(
                *(column[start : start + _CHUNK] for column in texts),
                truncation=True,
                max_length=max_length,
                return_token_type_ids=segments,
                return_attention_mask=False,
                verbose=False,
            )
            rows = chunk["input_ids"]
            lengths[start : start + len(rows)] = [len(row) for row in rows]
            ids.append(np.fromiter((token for row in rows for token in row), dtype=np.int32))
            if segments:
                types.append(np.fromiter((t for row in chunk["token_type_ids"] for t in row), dtype=np.uint8))
            bar.update(len(rows))
    arrays = {"input_ids": np.concatenate(ids), "offsets": np.concatenate([[0], np.cumsum(lengths)])}
    if segments:
        arrays["token_type_ids"] = np.concatenate(types)
    return arrays


def _store(folder: Path, arrays: dict, about: dict) -> None:
    """Write the entry beside its place and rename it there: readers see a whole entry or none."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        write_json(temporary / "about.json", about)
        try:
            os.rename(temporary, folder)
        except OSError:
            # Another process was faster with the same content, or the folder is a half-removed entry.
            if not (folder / "about.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
