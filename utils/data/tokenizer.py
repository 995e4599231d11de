"""Tokenizers that tokenise as their models were pretrained."""

import hashlib
import json
from pathlib import Path

from utils.data.hub import find_file, from_pretrained
from utils.errors import InputError
from utils.files import read_json, write_json

# Facts about this machine, not the tokenizer.
_PLACES = ("is_local", "local_files_only", "name_or_path")


def load_tokenizer(source: str, *, cache_dir=None, revision: str = "main", trust_remote_code: bool = False):
    """The fast tokenizer of a folder or hub name, made to tokenise exactly as its SentencePiece model does.

    transformers 5 turns the user-defined pieces of a SentencePiece vocabulary (ALBERT's `( ) " - . – £ €`) into added
    tokens: text is cut at them and the piece after gets a word start it never had in pretraining ("bill-paying" ends
    in `▁paying` instead of `pay ing`). They are ordinary pieces of the vocabulary, so here they are no added tokens.
    Raises InputError where there are no tokenizer files.
    """
    from transformers import AutoTokenizer

    hub = {"cache_dir": cache_dir, "revision": revision}
    tokenizer = from_pretrained(AutoTokenizer, source, trust_remote_code=trust_remote_code, **hub)
    _require_files(tokenizer, source, hub)
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


def _require_files(tokenizer, source: str, hub: dict) -> None:
    """Raise InputError where transformers made a tokenizer without a vocabulary, which turns every word into [UNK]."""
    files = dict(tokenizer.vocab_files_names)
    whole = files.pop("tokenizer_file", "tokenizer.json")
    if find_file(source, whole, **hub) or all(find_file(source, name, **hub) for name in files.values()):
        return
    needed = f"{whole} or {', '.join(files.values())}" if files else whole
    raise InputError(f"{source}: holds no tokenizer ({needed}); copy it there, or give --tokenizer_name")


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
    if tokenizer.is_fast:  # encoding leaves its length there; a run that found its tokens in the cache encodes nothing
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    config_path = Path(folder) / "tokenizer_config.json"
    config = read_json(config_path)
    for private in _PLACES:
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
        merges = [" ".join(pair) for pair in getattr(tokenizer, "bpe_ranks", ())]
        said = {
            name: value
            for name, value in tokenizer.init_kwargs.items()
            if name not in _PLACES and not name.endswith("_file")
        }
        content = json.dumps(
            [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), merges, said], sort_keys=True, default=str
        )
    for name, usual in (("split_special_tokens", False), ("truncation_side", "right")):
        if (value := getattr(tokenizer, name, usual)) != usual:
            content += f" {name} {value}"
    return hashlib.sha256(content.encode()).hexdigest()
