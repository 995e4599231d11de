"""What one checkpoint says of a set of examples: a folder that `get_embeddings.py` wrote."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import read_npy
from utils.selection.embeddings import load_embeddings


@dataclass(frozen=True)
class Features:
    """embeddings: float32 (n, d); about: their json; logits: float32 (n, C) and gold: int64 (n,), where the folder has
    them."""

    embeddings: np.ndarray
    about: dict
    logits: np.ndarray | None = None
    gold: np.ndarray | None = None

    @property
    def has_gradients(self) -> bool:
        """Whether the gradient of the classifier layer can be worked out."""
        return self.about["pooling"] == "pooler" and self.logits is not None and self.gold is not None


def load_features(folder) -> Features:
    """Read a folder of one split. Raises InputError where it is none, holds several, or its files do not fit."""
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
        if gold.shape != (n,) or gold.dtype.kind != "i":
            raise InputError(f"{path}: holds {gold.dtype} {gold.shape}, but the embeddings beside it have {n} rows")
    return Features(embeddings.array, embeddings.about, logits, gold)
