"""D2: difficulty passed along a graph of nearest neighbours."""

import heapq

import numpy as np

from utils.errors import InputError
from utils.selection.neighbors import nearest
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import difficulty
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy
from utils.selection.strategies.vectors import mean_of


def _cost(n: int, d: int, k: int, m: int) -> Cost:
    return Cost(2.0 * n * n * min(d, 256) + 100.0 * n * m, 4.0 * n * d + 100.0 * n, "neighbour graph")


@strategy(
    "d2",
    needs=("difficulty", "embeddings"),
    holds_all=True,
    source="Maharana et al. 2023, arXiv 2310.07931",
    cost=_cost,
    version=2,
    fidelity=(
        "equal to the published code where it is given the k nearest neighbours (a directed graph; sums; weighted dampening). "
        "The command in its README takes another path: an undirected graph, class by class, the hardest left out by aum, and "
        "forgetting as the score. On very large data the neighbours are searched in a projection that finds at least 95 % of "
        "them"
    ),
)
def d2(
    inputs: Inputs, pool: Pool, *, neighbors: int = 5, gamma: float = 0.1, mis_ratio: float = 0.4, score: str = "el2n"
) -> Picks:
    """difficulty spread over a nearest-neighbour graph, then picks that dampen their neighbours.

    neighbors: neighbours of each example in the graph
    gamma: a pick lowers its neighbours by exp(-gamma x distance) times its own score
    mis_ratio: hardest share of the examples, left out as probably mislabelled; a large budget leaves out fewer
    """
    if neighbors < 1:
        raise InputError(f"--neighbors {neighbors}: an example needs at least one neighbour")
    if not 0 <= mis_ratio < 1:
        raise InputError(f"--mis_ratio {mis_ratio:g} is outside [0, 1); it is a fraction: 0.4 means 40 %")
    scores = difficulty(inputs, score).astype(np.float64)
    by_difficulty = pool.by_score(scores)
    left_out = min(round(mis_ratio * len(by_difficulty)), len(by_difficulty) - pool.m)
    rows = by_difficulty[left_out:]
    indices, distances, dims = nearest(inputs.embeddings[rows] - mean_of(inputs.embeddings, rows), neighbors)
    own = scores[rows] - min(0.0, float(scores[rows].min()))
    order = message_passing(indices, distances, own, pool.m, gamma=gamma)
    return Picks(rows[order], scores=scores, notes={"searched_dimensions": dims}, counts={"left_out": left_out})


def message_passing(neighbors, distances, scores, m: int, *, gamma: float) -> np.ndarray:
    """int64 (m,): D2's picks. neighbors and distances: (n, k) of each example; scores: (n,), not negative.

    Forward: x_i = s_i + sum over the neighbours j of i of exp(-d_ij) s_j. Then m times the largest x that is not taken,
    which lowers each of its neighbours j by exp(-gamma d_ij) x_i.
    """
    x = scores + (np.exp(-distances.astype(np.float64)) * scores[neighbors]).sum(1)
    messages = np.exp(-gamma * distances.astype(np.float64))
    heap = list(zip((-x).tolist(), range(len(x)), strict=True))  # an entry counts while it holds the present score
    heapq.heapify(heap)
    chosen = np.empty(m, dtype=np.int64)
    for i in range(m):
        while -x[heap[0][1]] != heap[0][0]:
            heapq.heapreplace(heap, (-float(x[heap[0][1]]), heap[0][1]))
        v = heapq.heappop(heap)[1]
        chosen[i] = v
        x[neighbors[v]] -= messages[v] * x[v]
        if x[v] < 0:  # its message raises its neighbours
            for j in neighbors[v][np.isfinite(x[neighbors[v]])].tolist():
                heapq.heappush(heap, (-float(x[j]), j))
        x[v] = -np.inf
    return chosen
