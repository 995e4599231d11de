"""A split as ragged token arrays, cached on disk."""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.command_line import bars_wanted
from utils.data.tokenizer import tokenizer_hash
from utils.errors import InputError
from utils.files import cache_entry, cache_home, entry_damage, save_array

logger = logging.getLogger(__name__)

_FORMAT = 2  # of the cache; raise it when its content would change for the same key


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
    changed data or another tokenizer can never meet a stale entry. Every file of an entry is checked by its hash (0.1 s
    for MNLI); a damaged entry is made again. Raises InputError where a tokenizer has no padding token or leaves no room
    for text, and for an example without any token.
    """
    if tokenizer.pad_token_id is None:
        raise InputError(f"{type(tokenizer).__name__} has no padding token; give an encoder's tokenizer")
    if max_length <= tokenizer.num_special_tokens_to_add(pair=len(texts) == 2):
        raise InputError(f"--max_seq_length {max_length} leaves no room for text beside the special tokens")
    identity = [_FORMAT, fingerprint, tokenizer_hash(tokenizer), tokenizer.truncation_side, max_length, segments]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    folder = Path(cache_dir or cache_home()) / "encoded" / key
    if overwrite_cache:
        shutil.rmtree(folder, ignore_errors=True)
    if problem := entry_damage(folder):
        logger.warning("cached tokens in %s are damaged (%s): tokenising again", folder, problem)
        shutil.rmtree(folder)
    if not folder.exists():
        arrays = _tokenise(texts, tokenizer, max_length, segments, description)
        with cache_entry(folder, fingerprint=fingerprint, max_length=max_length, n=len(texts[0])) as entry:
            for name, array in arrays.items():
                save_array(entry / f"{name}.npy", array)
    arrays = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    return Encoded(
        arrays["input_ids"], arrays.get("token_type_ids"), np.asarray(arrays["offsets"]), labels,
        tokenizer.pad_token_id, fingerprint,
    )  # fmt: skip


def _tokenise(texts, tokenizer, max_length, segments, description) -> dict[str, np.ndarray]:
    n = len(texts[0])
    lengths = np.empty(n, dtype=np.int64)
    ids, types = [], []
    with tqdm(total=n, desc=description, unit=" ex", disable=n < 20_000 or not bars_wanted()) as bar:
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
            if [] in rows:
                raise InputError(
                    f"example {start + rows.index([])}: its text is empty, and the tokenizer adds no special tokens, so there "
                    "is nothing for the model to read; remove the example"
                )
            lengths[start : start + len(rows)] = [len(row) for row in rows]
            ids.append(np.fromiter((token for row in rows for token in row), dtype=np.int32))
            if segments:
                types.append(np.fromiter((t for row in chunk["token_type_ids"] for t in row), dtype=np.uint8))
            bar.update(len(rows))
    arrays = {"input_ids": np.concatenate(ids), "offsets": np.concatenate([[0], np.cumsum(lengths)])}
    if segments:
        arrays["token_type_ids"] = np.concatenate(types)
    return arrays
