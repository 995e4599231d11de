"""Strategies that spread over the embedding space: k-center, herding, facility location, SemDeDup, D2.

Their exact forms cost n m d or n^2. Here no array grows with n x m or n x n: k-center keeps one running vector of
minima, the others work in blocks of at most BLOCK_ROWS examples. Up to one block (or, for k-center, EXACT_VALUES
numbers) the result is the exact one.
"""

import heapq

import numpy as np

from utils.errors import InputError
from utils.selection.embeddings import row_blocks
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.model_scores import difficulty
from utils.selection.strategies.ordering import interleave
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy

BLOCK_ROWS = 4096  # a block's similarities are 67 MB of float32
EXACT_VALUES = 2_000_000  # n x d up to which k-center takes the exact farthest example every time
SLACK = 0.1  # beyond: any example within 10 % of the farthest distance will do
CANDIDATES = 2048  # looked at together in one pass over the data


# ------------------------------------------------------------------------------------------------------------- k-center
def _kcenter_cost(n: int, d: int, k: int, m: int) -> Cost:
    exact = n * d <= EXACT_VALUES
    # One pass over the data for each pick runs at the speed of memory, far below that of matrix products.
    return Cost(
        (40.0 if exact else 2.0) * n * m * d,
        12.0 * n + 2e8,
        "exact" if exact else f"within {SLACK:.0%} of the farthest",
    )


@strategy("kcenter", needs=("embeddings",), source="Sener & Savarese 2018, arXiv 1708.00489", cost=_kcenter_cost)
def kcenter(inputs: Inputs, pool: Pool) -> Picks:
    """greedily the example farthest from all chosen ones."""
    slack = 0.0 if inputs.n * inputs.embeddings.shape[1] <= EXACT_VALUES else SLACK
    order = farthest_first(inputs.embeddings, pool, slack=slack)
    return Picks(order, notes={"slack": slack})


def farthest_first(embeddings, pool: Pool, *, slack: float) -> np.ndarray:
    """int64 (m,): rows, each at least (1 - slack) times as far from the chosen ones as the farthest is.

    slack 0 is Gonzalez's greedy, whose covering radius is at most twice the optimum; otherwise the bound is
    2 / (1 - slack). Many examples share one pass over the data: random ones of those that are far enough are compared
    with each other, and taken as long as they stay far enough. Without a start set the first is random.
    """
    rows = pool.rows
    mean = mean_of(embeddings, rows)
    minima = np.full(len(rows), np.inf, dtype=np.float32)  # squared distance to the nearest chosen one
    for block in row_blocks(len(pool.start), 4 * embeddings.shape[1]):
        _lower(minima, embeddings, rows, embeddings[pool.start[block]] - mean, mean)
    order = []
    if not len(pool.start):
        order.append(int(pool.rng.integers(len(rows))))
        _lower(minima, embeddings, rows, embeddings[rows[order]] - mean, mean)
        minima[order] = -1
    while len(order) < pool.m:
        enough = (1 - slack) ** 2 * float(minima.max())
        candidates = pool.rng.permutation(np.flatnonzero(minima >= enough))[:CANDIDATES]
        points = embeddings[rows[candidates]] - mean
        between, current, taken = squared_distances(points, points), minima[candidates], []
        while len(taken) < len(candidates) and current[best := int(current.argmax())] >= enough:
            taken.append(best)
            current = np.minimum(current, between[best])
            current[best] = -1
        _lower(minima, embeddings, rows, points[taken], mean)
        order.extend(candidates[taken].tolist())
        minima[candidates[taken]] = -1
    return rows[np.asarray(order[: pool.m], dtype=np.int64)]


def _lower(minima, embeddings, rows, points, mean) -> None:
    """Update the running minima with the distances to new points (b, d), all of them centred."""
    for block in row_blocks(len(rows), max(embeddings.shape[1], len(points))):
        own = embeddings[rows[block]] - mean
        np.minimum(minima[block], squared_distances(own, points).min(1), out=minima[block])


def squared_distances(a, b) -> np.ndarray:
    """float32 (len(a), len(b)), never negative."""
    products = a @ b.T
    products *= -2
    products += np.square(a).sum(1)[:, None]
    products += np.square(b).sum(1)
    return np.maximum(products, 0, out=products)


# --------------------------------------------------------------------------------------------------- greedy inside blocks
def _blocks(pool: Pool, block_rows: int, clusters=None) -> list[np.ndarray]:
    """The rows in random order, neighbouring clusters together where there are any, cut into equal blocks."""
    rows = pool.shuffled()
    if clusters is not None:
        priority = pool.rng.permutation(clusters.k)
        rows = rows[np.argsort(priority[clusters.labels[rows]], kind="stable")]
    return np.array_split(rows, -(-len(rows) // block_rows))


def _greedy_in_blocks(pool: Pool, blocks, greedy) -> np.ndarray:
    """`greedy(rows, count)` -> positions, run in every block for its share of m; prefixes hold each block's share."""
    sizes = np.array([len(rows) for rows in blocks])
    groups = np.repeat(np.arange(len(blocks)), sizes)
    ranks = np.concatenate([np.arange(size) for size in sizes])
    turns = interleave(groups, ranks, share=sizes)[: pool.m]
    counts = np.bincount(groups[turns], minlength=len(blocks))
    chosen = [rows[greedy(rows, count)] if count else rows[:0] for rows, count in zip(blocks, counts, strict=True)]
    return np.array([chosen[group][rank] for group, rank in zip(groups[turns], ranks[turns], strict=True)])


def _block_cost(n: int, d: int, k: int, m: int) -> Cost:
    size = min(n, BLOCK_ROWS)
    # Beside the products: every similarity is looked at once or twice, at about a hundredth of their speed.
    return Cost(
        2.0 * n * size * (d + 50), 4.0 * (2 * size * size + size * d), "exact" if n <= size else f"blocks of {size}"
    )


@strategy("herding", needs=("embeddings",), source="Welling 2009, ICML", cost=_block_cost)
def herding(inputs: Inputs, pool: Pool, *, block_rows: int = BLOCK_ROWS) -> Picks:
    """greedily the example that brings the mean of the chosen closest to the mean of all.

    block_rows: examples that are compared with each other at once
    """
    embeddings = inputs.embeddings
    # Random blocks, not clusters: each must be able to reach the mean of all.
    blocks = _blocks(pool, block_rows)
    mean = mean_of(embeddings, np.union1d(pool.rows, pool.start))

    start_sum = (embeddings[pool.start] - mean).sum(0) / len(blocks)

    def greedy(rows, count):
        return herd(embeddings[rows] - mean, count, start_sum)

    return Picks(_greedy_in_blocks(pool, blocks, greedy), notes={"blocks": len(blocks)})


def herd(centred, count: int, start_sum) -> list[int]:
    """Positions, greedily argmin_i norm(S + e_i), for e (b, d) whose target mean is 0, S the sum of the chosen.

    start_sum: (d,), where S begins. norm(S + e_i)^2 = const + 2 <S, e_i> + norm(e_i)^2, so the Gram matrix is enough.
    """
    gram = centred @ centred.T
    criterion = np.diag(gram) + 2.0 * (centred @ start_sum).astype(np.float64)
    chosen = []
    for _ in range(count):
        best = int(criterion.argmin())
        chosen.append(best)
        criterion += 2.0 * gram[best]
        criterion[best] = np.inf
    return chosen


@strategy(
    "facility_location", needs=("embeddings",), cost=_block_cost,
    source="Wei et al. 2015, ICML; lazy greedy: Minoux 1978",
)  # fmt: skip
def facility_location(inputs: Inputs, pool: Pool, *, block_rows: int = BLOCK_ROWS) -> Picks:
    """greedily the example that most raises the sum over all of the similarity to their nearest chosen one."""
    embeddings = inputs.embeddings
    blocks = _blocks(pool, block_rows, inputs.clusters)
    mean = mean_of(embeddings, pool.rows)
    start = unit(embeddings[pool.start] - mean)

    def greedy(rows, count):
        own = unit(embeddings[rows] - mean)
        covered = np.zeros(len(rows), dtype=np.float32)
        for part in row_blocks(len(start), len(rows)):
            np.maximum(covered, similarity(own, start[part]).max(1), out=covered)
        return lazy_greedy(similarity(own, own), covered, count)

    return Picks(_greedy_in_blocks(pool, blocks, greedy), notes={"blocks": len(blocks)})


def similarity(a, b) -> np.ndarray:
    """float32 (len(a), len(b)), (1 + cosine) / 2 of rows of length 1: in [0, 1]."""
    products = a @ b.T
    products += 1
    products *= 0.5
    return products


def lazy_greedy(similarities, covered, count: int) -> list[int]:
    """Positions, greedily the largest gain sum_i max(s_ij - covered_i, 0), of symmetric similarities (b, b).

    Gains only shrink as more is chosen (submodularity), so an outdated gain is an upper bound and only the top of the
    heap needs a new look. Ties go to the earlier position.
    """

    def gain(j):
        return float(np.maximum(similarities[j] - covered, 0).sum(dtype=np.float64))

    heap = [(-gain(j), j) for j in range(len(covered))]
    heapq.heapify(heap)
    chosen = []
    while len(chosen) < count:
        bound, j = heap[0]
        now = -gain(j)
        if now > bound and len(heap) > 1 and (now, j) > min(heap[1:3]):
            heapq.heapreplace(heap, (now, j))
            continue
        heapq.heappop(heap)
        chosen.append(j)
        covered = np.maximum(covered, similarities[j])
    return chosen


# ------------------------------------------------------------------------------------------------------------- SemDeDup
def _dedup_cost(n: int, d: int, k: int, m: int) -> Cost:
    return Cost(2.0 * n * n / k * d, 4.0 * BLOCK_ROWS * (2 * BLOCK_ROWS + d), "inside clusters")


@strategy(
    "semdedup",
    needs=("labels", "embeddings", "clusters"),
    source="Abbas et al. 2023, arXiv 2303.09540",
    cost=_dedup_cost,
)
def semdedup(inputs: Inputs, pool: Pool, *, eps: float = 0.05) -> Picks:
    """drop near duplicates of one label in one cluster (cosine above 1 - eps); the kept at random, then the dropped.

    eps: examples of a cosine above 1 - eps are duplicates
    """
    if not 0 <= eps < 1:
        raise InputError(f"--eps {eps:g} is outside [0, 1): examples of cosine similarity above 1 - eps are duplicates")
    mean = mean_of(inputs.embeddings, pool.rows)
    duplicate = np.zeros(inputs.n, dtype=bool)
    farthest = pool.by_score(inputs.clusters.distances)  # of two duplicates the one farther from its centroid stays
    group = inputs.clusters.labels[farthest].astype(np.int64) * (inputs.classes.max() + 1) + inputs.classes[farthest]
    order = np.argsort(group, kind="stable")
    for members in np.split(farthest[order], np.flatnonzero(np.diff(group[order])) + 1):
        duplicate[members] = near_duplicates(inputs.embeddings, members, mean, 1 - eps)
    rows = pool.shuffled()
    dropped = duplicate[rows]
    kept = int((~dropped).sum())
    return Picks(np.concatenate([rows[~dropped], rows[dropped]]), natural=kept, notes={"kept": kept})


def near_duplicates(embeddings, rows, mean, threshold: float) -> np.ndarray:
    """bool (r,): rows whose cosine similarity (about the mean) to an earlier row that is kept exceeds the threshold."""
    dropped = np.zeros(len(rows), dtype=bool)
    blocks = [slice(i, min(i + BLOCK_ROWS, len(rows))) for i in range(0, len(rows), BLOCK_ROWS)]
    for at, block in enumerate(blocks):
        own = unit(embeddings[rows[block]] - mean)
        for before in blocks[:at]:
            kept = rows[before][~dropped[before]]
            dropped[block] |= (own @ unit(embeddings[kept] - mean).T > threshold).any(1)
        close = np.triu(own @ own.T > threshold, 1)
        here = dropped[block]
        for i in np.flatnonzero(close.any(1)):
            if not here[i]:
                here |= close[i]
    return dropped


# ------------------------------------------------------------------------------------------------------------------- D2
def _d2_cost(n: int, d: int, k: int, m: int) -> Cost:
    size = min(n, BLOCK_ROWS)
    return Cost(
        2.0 * n * size * (d + 50) + 10.0 * n * m, 8.0 * size * size + 80.0 * n, f"neighbours in blocks of {size}"
    )


@strategy(
    "d2", needs=("difficulty", "embeddings", "clusters"), source="Maharana et al. 2023, arXiv 2310.07931", cost=_d2_cost
)  # fmt: skip
def d2(inputs: Inputs, pool: Pool, *, neighbors: int = 10, gamma: float = 1.0, score: str = "el2n") -> Picks:
    """difficulty spread over a nearest-neighbour graph, then picks that dampen their neighbours.

    neighbors: neighbours of each example in the graph
    gamma: a neighbour's message is exp(-gamma x squared distance)
    """
    if neighbors < 1:
        raise InputError(f"--neighbors {neighbors}: an example needs at least one neighbour")
    rows, parts = [], []
    mean = mean_of(inputs.embeddings, pool.rows)
    for block in _blocks(pool, BLOCK_ROWS, inputs.clusters):
        parts.append(neighbor_graph(unit(inputs.embeddings[block] - mean), neighbors, gamma))
        rows.append(block)
    from scipy import sparse

    rows, graph = np.concatenate(rows), sparse.block_diag(parts, format="csr")
    raw = difficulty(inputs, score)[rows].astype(np.float64)
    scaled = (raw - raw.min()) / (np.ptp(raw) or 1.0)
    return Picks(
        rows[message_passing(graph, scaled, pool.m)], notes={"graph": "exact" if len(parts) == 1 else "blocks"}
    )


def neighbor_graph(points, neighbors: int, gamma: float):
    """Symmetric sparse (b, b): exp(-gamma d^2) between rows of length 1 where either is among the other's nearest."""
    from scipy import sparse

    b = len(points)
    k = min(neighbors, b - 1)
    if k == 0:
        return sparse.csr_matrix((b, b))
    distances = squared_distances(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    values = np.exp(-gamma * np.take_along_axis(distances, nearest, 1))
    graph = sparse.csr_matrix((values.ravel(), nearest.ravel(), np.arange(b + 1) * k), shape=(b, b))
    return graph.maximum(graph.T).tocsr()


def message_passing(graph, scores, m: int) -> np.ndarray:
    """int64 (m,): D2's picks. Forward: x = s + A s; then m times the largest x, taking A_uv x_v off its neighbours."""
    x = scores + graph @ scores
    chosen = np.empty(m, dtype=np.int64)
    for i in range(m):
        chosen[i] = v = int(x.argmax())
        span = slice(graph.indptr[v], graph.indptr[v + 1])
        x[graph.indices[span]] -= graph.data[span] * x[v]
        x[v] = -np.inf
    return chosen


# --------------------------------------------------------------------------------------------------------------- vectors
def unit(vectors) -> np.ndarray:
    """Rows scaled to length 1; rows of 0 stay 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def mean_of(embeddings, rows) -> np.ndarray:
    """float32 (d,): mean of those rows, summed in float64. [CLS] vectors share a large constant part: cosines and
    products of float32 are taken after it is gone."""
    total = np.zeros(embeddings.shape[1])
    for block in row_blocks(len(rows), embeddings.shape[1]):
        total += embeddings[rows[block]].sum(0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)
