"""Strategies on gradients of the classifier layer, and towards a target.

The gradient of example i is g_i = (p_i - y_i) outer (h_i, 1), h the classifier's input, so that every inner product is
<p_i - y_i, p_j - y_j> (<h_i, h_j> + 1): nothing larger than (n, C) and (n, d) is stored.
"""

import numpy as np

from utils.data.logits import errors
from utils.selection.blocks import row_blocks
from utils.selection.neighbors import largest
from utils.selection.strategies.coverage import greedy_cover
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.ordering import interleave
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy
from utils.selection.strategies.vectors import unit

NEIGHBOURS = 8  # craig: edges of an example in units of n / m; a few gradients are far longer than the others


@strategy(
    "rds",
    needs=("embeddings", "target"),
    holds_all=True,
    source="Ivison et al. 2025, arXiv 2503.01807",
    fidelity=(
        "equal to round-robin over the target examples by cosine; the embeddings are whatever is given (the paper: "
        "position-weighted means of a decoder's last layer; with an encoder take get_embeddings.py --pooling mean)"
    ),
)
def rds(inputs: Inputs, pool: Pool) -> Picks:
    """for each target example in turn, the most similar example that is not chosen yet."""
    rows = pool.shuffled()
    own, wanted = unit(inputs.embeddings[rows]), unit(np.asarray(inputs.target[0].embeddings))
    count = min(len(rows), 4 * -(-pool.m // len(wanted)) + 16)
    while True:
        indices, values = largest(lambda block: wanted[block] @ own.T, len(wanted), len(rows), count)
        nearest = np.take_along_axis(indices, np.argsort(-values, axis=1, kind="stable"), 1)
        order = round_robin(nearest, pool.m)
        if len(order) == pool.m:
            return Picks(rows[order], notes={"target": len(wanted)})
        count = min(len(rows), 4 * count)


def round_robin(preferences: np.ndarray, m: int) -> list[int]:
    """At most m candidates: the rows of preferences (t, k) take turns, each with its first that is not taken. Stops early
    where a row runs out."""
    taken, order, at = set(), [], [0] * len(preferences)
    wishes = preferences.tolist()
    while len(order) < m:
        for turn, own in enumerate(wishes):
            while at[turn] < len(own) and own[at[turn]] in taken:
                at[turn] += 1
            if at[turn] == len(own):
                return order
            taken.add(own[at[turn]])
            order.append(own[at[turn]])
            if len(order) == m:
                break
    return order


@strategy(
    "tracin",
    needs=("labels", "gradients", "target gradients"),
    source="Pruthi et al. 2020, arXiv 2002.08484",
    fidelity="equal to TracInCP on the classifier layer, with checkpoints of equal learning rates",
)
def tracin(inputs: Inputs, pool: Pool) -> Picks:
    """largest inner product of its gradient and the target's, summed over checkpoints, first."""
    scores = np.zeros(inputs.n)
    for own, wanted in zip(inputs.checkpoints, inputs.target, strict=True):
        error = errors(own.logits, inputs.classes)
        by_class = errors(wanted.logits, wanted.gold).T.astype(np.float64)
        direction = by_class @ np.asarray(wanted.embeddings, dtype=np.float64) / len(wanted.gold)
        offset = by_class.mean(1)
        for block in row_blocks(*own.embeddings.shape):
            products = own.embeddings[block] @ direction.T + offset
            scores[block] += (error[block] * products).sum(1)
    scores = scores.astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores, notes={"checkpoints": len(inputs.checkpoints)})


def _craig_cost(n: int, d: int, k: int, m: int) -> Cost:
    return Cost(3.0 * n * (n + m) * d / 3, 8.0 * n * d, "class by class")


@strategy(
    "craig",
    needs=("labels", "logits", "pooler"),
    holds_all=True,
    source="Mirzasoleiman et al. 2020, arXiv 1906.01827",
    weighted=True,
    cost=_craig_cost,
    fidelity=(
        "equal to greedy facility location over gradients of the classifier layer, class by class, up to 8,192 rows a "
        "class; beyond, on a graph of nearest neighbours, as facility_location. Weights are cluster sizes, scaled to mean 1"
    ),
)
def craig(inputs: Inputs, pool: Pool) -> Picks:
    """medoids of the gradients, class by class, each weighted by the examples that it stands for."""
    rows = pool.shuffled()
    own = inputs.classes[rows]
    sizes = np.bincount(own)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    turns = interleave(groups, pool.m, share=sizes)
    order, weights = np.empty(pool.m, dtype=np.int64), np.empty(pool.m)
    for label in np.unique(groups[turns]):
        places = groups[turns] == label
        members = rows[own == label]
        error, features = errors(inputs.logits[members], inputs.classes[members]), inputs.embeddings[members]
        similar = GradientSimilarity(error, features)
        medoids, _ = greedy_cover(similar, len(members), int(places.sum()), pool.rng, neighbours=NEIGHBOURS)
        order[places] = members[medoids]
        weights[places] = np.bincount(similar.nearest(np.asarray(medoids)), minlength=len(medoids))
    return Picks(order, weights=weights / weights.mean())


class GradientSimilarity:
    """Largest possible distance of two gradients minus their distance, for examples of one class."""

    def __init__(self, error: np.ndarray, features: np.ndarray):
        self.error, self.features = error, features
        self.squares = np.square(error).sum(1) * (np.square(features).sum(1) + 1)
        self.bound = 2 * float(np.sqrt(self.squares.max()))

    def __call__(self, which: np.ndarray) -> np.ndarray:
        """float32 (b, n), of those examples to all."""
        found = self.features[which] @ self.features.T
        found += 1
        found *= self.error[which] @ self.error.T
        found *= -2
        found += self.squares[which, None]
        found += self.squares
        np.sqrt(np.maximum(found, 0, out=found), out=found)
        return np.subtract(np.float32(self.bound), found, out=found)

    def nearest(self, which: np.ndarray) -> np.ndarray:
        """int64 (n,): for each example, the position in `which` of the most similar one."""
        best = np.full(len(self.error), -np.inf, dtype=np.float32)
        position = np.zeros(len(self.error), dtype=np.int64)
        for block in row_blocks(len(which), len(self.error)):
            found = self(which[block])
            top = found.argmax(0)
            value = found[top, np.arange(len(best))]
            better = value > best
            best[better], position[better] = value[better], top[better] + block.start
        return position
