"""Strategies that spread over the embedding space: k-center, herding, facility location.

Their plain forms cost n m d operations, or n^2 numbers. Here no array grows with n x m or n x n.
"""

import heapq

import numpy as np

from utils.selection.blocks import row_blocks
from utils.selection.neighbors import largest
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Cost, Picks, Pool, strategy
from utils.selection.strategies.vectors import mean_of, squared_distances, unit

REFRESHED = 4096  # k-center: examples whose distances are brought up to date at once ...
CANDIDATES = 1024  # ... and that are compared with each other at once
CHUNK = 256  # chosen examples that others are compared with at once
BLOCK_ROWS = 4096  # herding: candidates of one pick
EXACT_ROWS = 8192  # facility location: rows up to which all similarities are held, 268 MB of float32
NEIGHBOURS = 2  # facility location above EXACT_ROWS: edges of an example, in units of n / m ...
LEAST_NEIGHBOURS = 32  # ... but at least so many
EDGES = 80_000_000  # of the graph, 640 MB: enough for all of MNLI at 1 %; smaller budgets are judged by a sample


# ------------------------------------------------------------------------------------------------------------- k-center
def _kcenter_cost(n: int, d: int, k: int, m: int) -> Cost:
    return Cost(1.0 * n * m * d, 12.0 * n + 2e8, "exact")  # a quarter to a half of all distances


@strategy(
    "kcenter",
    needs=("embeddings",),
    source="Sener & Savarese 2018, arXiv 1708.00489",
    cost=_kcenter_cost,
    version=2,
    fidelity="equal to greedy farthest-first (Gonzalez 1985) at every size",
)
def kcenter(inputs: Inputs, pool: Pool) -> Picks:
    """greedily the example farthest from all chosen ones."""
    return Picks(farthest_first(inputs.embeddings, pool))


def farthest_first(embeddings, pool: Pool) -> np.ndarray:
    """int64 (m,): rows, each the one farthest from all before it. Without a start set the first is random.

    Two things save work. Distances to the nearest chosen row only shrink, so an outdated one is an upper bound: a row is
    compared with further chosen rows only while its bound is among the largest (`Bounds`). And many picks share one look
    at all bounds: the candidates are compared with each other, and as long as the farthest of them is at least as far as
    the bound of every other row, it is the farthest of all.
    """
    rows = pool.shuffled()  # ties go to the earlier one
    bounds = Bounds(embeddings, rows, pool.start)
    if not len(pool.start):
        bounds.choose([0])
    while len(bounds.order) < pool.m:
        candidates, floor = bounds.largest(min(REFRESHED, len(rows)))
        bounds.refresh(candidates, floor)
        candidates, floor = bounds.largest(min(CANDIDATES, len(rows)), candidates, floor)
        candidates = candidates[bounds.values[candidates] >= floor]
        points = bounds.points(rows[candidates])
        between, current, taken = squared_distances(points, points), bounds.values[candidates], []
        left = pool.m - len(bounds.order)
        while len(taken) < min(left, len(candidates)) and current[best := int(current.argmax())] >= max(floor, 0):
            taken.append(best)
            current = np.minimum(current, between[best])
            current[best] = -1
        bounds.values[candidates] = current
        bounds.choose(candidates[taken])
    return rows[np.asarray(bounds.order, dtype=np.int64)]


class Bounds:
    """values: float32 (r,), for each of `rows` an upper bound of its squared distance to the nearest chosen one, -1 where
    it is chosen itself. order: positions that were chosen, first to last. The start rows count as chosen before them."""

    def __init__(self, embeddings, rows, start):
        self.embeddings, self.rows, self.mean = embeddings, rows, mean_of(embeddings, rows)
        self.values = np.full(len(rows), np.inf, dtype=np.float32)
        self.order: list[int] = []
        self._chosen = start.tolist()  # rows
        self._seen = np.zeros(len(rows), dtype=np.int32)  # whole chunks of the chosen that each row was compared with

    def points(self, rows) -> np.ndarray:
        return self.embeddings[rows] - self.mean

    def choose(self, positions) -> None:
        self.values[positions] = -1
        self.order.extend(np.asarray(positions).tolist())
        self._chosen.extend(self.rows[positions].tolist())

    def largest(self, size: int, among=None, floor: float = -1.0) -> tuple[np.ndarray, float]:
        """Ascending positions of the `size` largest values, and the largest of all others.

        among, floor: such an answer for a larger size; then only these positions are searched.
        """
        values = self.values if among is None else self.values[among]
        size = min(size, len(values))
        order = np.argpartition(-values, size - 1)
        kept = np.sort(order[:size])
        return kept if among is None else among[kept], float(values[order[size:]].max(initial=floor))

    def refresh(self, positions, floor: float) -> None:
        """Compare those rows with the chosen ones that they have not seen, each until its value is below the floor."""
        points, seen, values = self.points(self.rows[positions]), self._seen[positions], self.values[positions]
        for chunk in range(int(seen.min()), -(-len(self._chosen) // CHUNK)):
            own = np.flatnonzero((seen == chunk) & (values >= floor) & (values >= 0))
            if not len(own):
                continue
            chosen = np.array(self._chosen[chunk * CHUNK : (chunk + 1) * CHUNK])
            nearest = squared_distances(points[own], self.points(chosen)).min(1)
            values[own] = np.minimum(values[own], nearest)
            seen[own] += len(chosen) == CHUNK
        self.values[positions], self._seen[positions] = values, seen


# -------------------------------------------------------------------------------------------------------------- herding
def _herding_cost(n: int, d: int, k: int, m: int) -> Cost:
    # One look at a block for each pick runs at the speed of memory, far below that of matrix products.
    return Cost(20.0 * min(n, BLOCK_ROWS) * m * d, 4.0 * n * d, "exact" if n <= BLOCK_ROWS else "candidates in blocks")


@strategy(
    "herding",
    needs=("embeddings",),
    holds_all=True,
    source="Welling 2009, ICML; as in Rebuffi et al. 2017, arXiv 1611.07725",
    cost=_herding_cost,
    version=2,
    fidelity=(
        "equal to greedy mean matching (iCaRL's rule, which is Welling's on rows of one length) up to 4,096 rows; beyond, "
        "each pick looks at a block of 4,096 rows in turn: the mean's error is within 1.2 times that of exact greedy"
    ),
)
def herding(inputs: Inputs, pool: Pool) -> Picks:
    """greedily the example that brings the mean of the chosen closest to the mean of all."""
    embeddings = inputs.embeddings
    mean = mean_of(embeddings, np.union1d(pool.rows, pool.start))
    start_sum = (embeddings[pool.start] - mean).sum(0)
    blocks = np.array_split(pool.shuffled(), -(-len(pool.rows) // BLOCK_ROWS))
    vectors = [embeddings[rows] - mean for rows in blocks]
    picked = herd(vectors, pool.m, start_sum)
    return Picks(np.array([blocks[block][i] for block, i in picked], dtype=np.int64), counts={"blocks": len(blocks)})


def herd(blocks: list[np.ndarray], count: int, start_sum: np.ndarray) -> list[tuple[int, int]]:
    """(block, position) of each pick, greedily argmin_i norm(S + e_i) over the block whose turn it is.

    blocks: vectors (b, d) whose target mean is 0; S: the sum of the chosen, which begins at start_sum (d,).
    norm(S + e_i)^2 = norm(S)^2 + 2 <S, e_i> + norm(e_i)^2, so one product with the block decides.
    """
    total = start_sum.astype(np.float32)
    squares = [np.square(block).sum(1) for block in blocks]
    picked = []
    for turn in range(count):
        number = turn % len(blocks)
        best = int((squares[number] + 2 * (blocks[number] @ total)).argmin())
        picked.append((number, best))
        total += blocks[number][best]
        squares[number][best] = np.inf
    return picked


# ---------------------------------------------------------------------------------------------------- facility location
def _facility_cost(n: int, d: int, k: int, m: int) -> Cost:
    if n <= EXACT_ROWS:
        return Cost(2.0 * n * n * (d + 50), 8.0 * n * n, "exact")
    neighbours, covered = graph_size(n, m)
    return Cost(
        2.0 * covered * n * (d + 50), 24.0 * covered * neighbours + 8.0 * n * d, f"graph of {neighbours} neighbours"
    )


def graph_size(n: int, m: int, neighbours: int = NEIGHBOURS) -> tuple[int, int]:
    """Edges of each example in the graph, and how many of the n examples have them, for m picks."""
    neighbours = min(n - 1, max(LEAST_NEIGHBOURS, neighbours * n // m))
    return neighbours, min(n, EDGES // neighbours)


@strategy(
    "facility_location",
    needs=("embeddings",),
    holds_all=True,
    cost=_facility_cost,
    source="Wei et al. 2015, ICML; lazy greedy: Minoux 1978",
    version=2,
    fidelity=(
        "equal to exact lazy greedy up to 8,192 rows (similarity (1 + cosine) / 2 about the mean); beyond, lazy greedy on a "
        "graph of nearest neighbours: at least 90 % of exact greedy's gain over random"
    ),
)
def facility_location(inputs: Inputs, pool: Pool) -> Picks:
    """greedily the example that most raises the sum over all of the similarity to their nearest chosen one."""
    rows = pool.shuffled()
    mean = mean_of(inputs.embeddings, rows)
    own, start = unit(inputs.embeddings[rows] - mean), unit(inputs.embeddings[pool.start] - mean)
    order, notes = greedy_cover(
        lambda which: similarity(own[which], own), len(rows), pool.m, pool.rng, own=own, start=start
    )
    return Picks(rows[order], notes=notes)


def greedy_cover(
    similar, n: int, m: int, rng, *, own=None, start=(), neighbours: int = NEIGHBOURS
) -> tuple[list[int], dict]:
    """Positions of m of the n candidates, chosen greedily so that every candidate is similar to a chosen one; and facts
    for the provenance.

    similar(positions int64 (b,)) -> float32 (b, n): their similarities to all candidates, at least 0, in an array that
    may be overwritten. start: vectors (s, d) of examples that are chosen already; own: vectors (n, d) of the candidates,
    needed with a start. neighbours: edges of an example in units of n / m. Where a few examples lie far from all others,
    more edges are needed.
    """
    if n <= EXACT_ROWS:
        lines, notes = np.arange(n), {"similarities": "all"}
        similarities, covered = similar(lines), np.zeros(n, dtype=np.float32)

        def column(j):
            return slice(None), similarities[j]

    else:
        lines, column, covered, notes = _graph(similar, n, m + len(start), rng, neighbours)
    for part in row_blocks(len(start), len(lines)):
        np.maximum(covered, similarity(own[lines], start[part]).max(1), out=covered)
    return lazy_greedy(column, covered, n, m), notes


def _graph(similar, n: int, picks: int, rng, neighbours: int):
    """The examples that have edges, each candidate's edges, and the similarities that count as reached already.

    An example has edges to its nearest candidates only. From the beginning it counts as being as similar to a chosen one
    as it is to the farthest of them. With m picks, about `neighbours` of its edges lead to a chosen candidate.
    """
    from scipy import sparse

    neighbours, count = graph_size(n, picks, neighbours)
    lines = np.sort(rng.choice(n, count, replace=False)) if count < n else np.arange(n)
    highest = np.empty(count, dtype=np.float32)  # similarity of each line to itself

    def products(block):
        found, which = similar(lines[block]), (np.arange(block.stop - block.start), lines[block])
        highest[block] = found[which]
        found[which] = -np.inf  # the edge to itself is added below
        return found

    indices, values = largest(products, count, n, neighbours)
    covered = values.min(1)
    rows = sparse.csr_matrix(
        (
            np.append(values, highest[:, None], axis=1).ravel(),
            np.append(indices, lines[:, None].astype(np.int32), axis=1).ravel(),
            np.arange(count + 1) * (neighbours + 1),
        ),
        shape=(count, n),
    )
    del indices, values
    edges = rows.tocsc()

    def column(j):
        span = slice(edges.indptr[j], edges.indptr[j + 1])
        return edges.indices[span], edges.data[span]

    return lines, column, covered, {"similarities": "graph", "neighbours": neighbours, "covered": count}


def similarity(a, b) -> np.ndarray:
    """float32 (len(a), len(b)), (1 + cosine) / 2 of rows of length 1: in [0, 1]."""
    products = a @ b.T
    products += 1
    products *= 0.5
    return products


def lazy_greedy(column, covered: np.ndarray, n: int, count: int) -> list[int]:
    """Positions of `count` of n candidates, greedily the largest gain sum_i max(s_ij - covered_i, 0).

    column(j) -> (which i, their s_ij); covered: float32, changed in place. Gains only shrink as more is chosen
    (submodularity), so an outdated gain is an upper bound and only the top of the heap needs a new look. Ties go to the
    earlier position.
    """

    def gain(j):
        which, values = column(j)
        return float(np.maximum(values - covered[which], 0).sum(dtype=np.float64))

    heap = [(-gain(j), j) for j in range(n)]
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
        which, values = column(j)
        covered[which] = np.maximum(covered[which], values)
    return chosen
