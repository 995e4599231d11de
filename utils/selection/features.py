"""What one checkpoint says of a set of examples: a folder that `get_embeddings.py` wrote."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import read_npy
from utils.selection.embeddings import load_embeddings


@dataclass(frozen=True)
class Features:
    """embeddings: float32 (n, d); about: their json; logits: float32 (n, C) and gold: int64 (n,), or float32 scores, where
    the folder has them."""

    embeddings: np.ndarray
    about: dict
    logits: np.ndarray | None = None
    gold: np.ndarray | None = None

    @property
    def has_gradients(self) -> bool:
        """Whether the gradient of the classifier layer can be worked out."""
        return self.about["pooling"] == "pooler" and self.logits is not None and self.gold is not None


def load_features(folder) -> Features:
    """Read a folder of one split. Raises InputError where it is missing, holds several splits, or its files do not
    belong together."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; make it with get_embeddings.py")
    embeddings = load_embeddings(folder)
    suffix = f"_{embeddings.about['task']}_{embeddings.about['split']}.npy"
    n = len(embeddings.array)
    logits = gold = None
    if (path := folder / f"logits{suffix}").exists():
        found = load_embeddings(path)
        if found.fingerprint != embeddings.fingerprint or found.about.get("weights") != embeddings.about.get("weights"):
            raise InputError(f"{path}: logits of other examples or another checkpoint than the embeddings beside it")
        logits = np.asarray(found.array)
    if (path := folder / f"gold{suffix}").exists():
        gold = read_npy(path, way_out="run get_embeddings.py again")
        if gold.shape != (n,) or gold.dtype.kind not in "if":
            raise InputError(f"{path}: holds {gold.dtype} {gold.shape}, but the embeddings beside it have {n} rows")
        if logits is not None:
            _check_gold(path, gold, found.about, logits.shape[1])
    return Features(embeddings.array, embeddings.about, logits, gold)


def _check_gold(path: Path, gold: np.ndarray, about: dict, classes: int) -> None:
    """Raise InputError unless these labels are those of the logits that `about` describes. Files of earlier versions have no
    hash there."""
    wrong = gold[(gold < 0) | (gold >= classes)] if gold.dtype.kind == "i" else gold[:0]
    if len(wrong):
        raise InputError(f"{path}: holds the class number {wrong[0]}, but the logits beside it have {classes} classes")
    if about.get("gold_sha256") not in (None, array_sha256(gold)):
        raise InputError(
            f"{path}: does not match the checksum in the json of the logits: it was damaged or is of other data; run "
            "get_embeddings.py --logits again, with --overwrite_output_dir"
        )


def array_sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
