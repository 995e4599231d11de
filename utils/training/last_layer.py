"""Deep feature reweighting: the last layer of a trained classifier, fitted again to data in which all groups are equal."""

import logging
import time

import numpy as np
import torch

from utils.data.tokens import Encoded
from utils.models.families import final_linear
from utils.models.session import Session
from utils.selection.selection import Selection
from utils.training.shortcut import Groups

logger = logging.getLogger(__name__)

FITS = 10  # balanced draws, whose layers are averaged
PENALTIES = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C of scikit-learn: the smaller, the stronger


def retrain_last_layer(session: Session, data: Encoded, selection: Selection, groups: Groups, seed: int) -> dict:
    """Replace the last layer in place; returns counts and times as `train` does, and what was chosen.

    Logistic regression on what the layer takes in, standardised, on draws of equally many examples of each group from
    the selection's rows; C is the one with the best worst-group accuracy on the half of a draw that was held out. Mean of
    ten draws. Kirichenko et al. 2023, arXiv 2204.02937 (DFR on the training set); there the penalty is L1 and C is
    chosen on validation data. Weights of the selection do not count. Every group has two examples, and every class some:
    `shortcut.find_shortcut` sees to it.
    """
    started = time.perf_counter()
    rows = np.unique(selection.indices)
    members = [rows[groups.of[rows] == g] for g in range(len(groups.names))]
    size, number = min(map(len, members)), len(session.classifier.labels)
    draws = [_balanced(members, size, [seed, i]) for i in range(FITS)]
    needed = np.unique(np.concatenate([np.concatenate(draw) for draw in draws]))
    options = {"pooling": "pooler", "description": "features of the last layer"}
    features = np.concatenate([outputs.features for outputs in session.infer(data, needed, **options)])
    mean, spread = features.mean(0), np.maximum(features.std(0), 1e-6)
    features = (features - mean) / spread

    def part(draw):
        chosen = np.concatenate(draw)
        return features[np.searchsorted(needed, chosen)], data.labels[chosen]

    worst = {c: _worst_group(c, draws[0], size // 2, part, number) for c in PENALTIES}
    chosen = max(worst, key=lambda c: worst[c])
    fits = [_fit(*part(draw), chosen, number) for draw in draws]
    slopes, offsets = (np.mean(values, axis=0) for values in zip(*fits, strict=True))
    slopes = slopes / spread
    _replace(session, slopes, offsets - slopes @ mean)
    logger.info("last layer fitted to %d examples of each of %d groups, C = %g", size, len(members), chosen)
    tokens = int(data.lengths[needed].sum())
    return {
        "batch_size": 0, "epochs": 0.0, "steps": 0, "full_steps": 0, "examples": 0, "tokens": 0,
        "computed_tokens": tokens, "probed": len(needed), "padded_share": 0.0,
        "seconds": time.perf_counter() - started, "C": chosen, "per_group": size, "worst_group": worst[chosen],
    }  # fmt: skip


def _balanced(members: list[np.ndarray], size: int, seed: list[int]) -> list[np.ndarray]:
    """`size` rows of each group, in random order."""
    rng = np.random.default_rng(seed)
    return [rng.choice(own, size, replace=False) for own in members]


def _worst_group(c: float, draw: list[np.ndarray], half: int, part, num_classes: int) -> float:
    """The lowest accuracy of a group on the second half of the draw, of a layer fitted to the first."""
    slopes, offsets = _fit(*part([own[:half] for own in draw]), c, num_classes)
    found = []
    for own in draw:
        x, y = part([own[half:]])
        found.append(float((np.argmax(x @ slopes.T + offsets, axis=1) == y).mean()))
    return min(found)


def _fit(x: np.ndarray, y: np.ndarray, c: float, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(slopes (C, d), offsets (C,)) of multinomial logistic regression; a class that a small draw lacks is never said."""
    from sklearn.linear_model import LogisticRegression

    slopes, offsets = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -30.0)
    present = np.unique(y)
    if len(present) == 1:
        offsets[present] = 0.0
        return slopes, offsets
    model = LogisticRegression(C=c, max_iter=500).fit(x, y)
    sides = np.array([[-0.5], [0.5]]) if len(present) == 2 else 1.0  # of two classes there is one slope
    slopes[present], offsets[present] = sides * model.coef_, np.ravel(sides * model.intercept_)
    return slopes, offsets


def _replace(session: Session, slopes: np.ndarray, offsets: np.ndarray) -> None:
    """Write slopes and offsets, by label, into the layer, whose outputs may be in another order."""
    layer, columns = final_linear(session.classifier.model), session.classifier.columns
    outputs = torch.arange(len(offsets)) if columns is None else columns.cpu()
    with torch.no_grad():
        for values, parameter in ((slopes, layer.weight), (offsets, layer.bias)):
            parameter[outputs.to(parameter.device)] = torch.from_numpy(values).to(parameter)
