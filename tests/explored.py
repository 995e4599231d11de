"""Examples with embeddings, clusters, training dynamics and Selections, in memory: what an explorer is made of."""

import numpy as np

from utils.data.examples import Examples
from utils.data.tasks import get_task
from utils.explore.build import write_explorer
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection
from utils.selection.strategies import Inputs

HOSTILE = (
    "</script><script>window.broken = 1</script><img src=http://0.0.0.0/x onerror='window.broken = 1'> <!-- ${style}"
)
FINGERPRINT = "0" * 32
WORDS = np.array("dogs cats women men sleep eat see near park houses red blue not big small \u2028 é".split(" "))


def world(n: int, *, clusters: int = 4, seed: int = 0) -> tuple[Examples, Inputs, dict[str, Selection]]:
    """n pairs, the first of them hostile; pair i holds the word number<i>."""
    rng = np.random.default_rng(seed)
    premises = [f"number{i} {' '.join(WORDS[row])}" for i, row in enumerate(rng.integers(len(WORDS), size=(n, 8)))]
    hypotheses = [" ".join(premise.split(" ")[1 : 2 + i % 5]) for i, premise in enumerate(premises)]
    premises[0] = HOSTILE
    labels, groups = rng.integers(3, size=n), np.sort(rng.integers(clusters, size=n))
    genres = [HOSTILE if i == 0 else f"genre {i % 3}" for i in range(n)]
    task = get_task("mnli")
    guids = [f"p{i}" for i in range(n)]
    examples = Examples(
        task, "train", (premises, hypotheses), labels, guids, genres, FINGERPRINT, "train.tsv", np.arange(1, n + 1)
    )
    centers = 6 * rng.normal(size=(clusters, 8))
    embeddings = (centers[groups] + rng.normal(size=(n, 8))).astype(np.float32)
    logits = rng.normal(size=(4, n, 3))
    logits[:, np.arange(n), labels] += rng.normal(size=n) + 1
    logits[:, 1] = np.nan  # never seen
    dynamics = Dynamics(logits.astype(np.float16), labels, task.labels, np.arange(4), "train", FINGERPRINT)
    parts = Clusters(groups, centers.astype(np.float32), np.ones(n, np.float32), FINGERPRINT, n)
    inputs = Inputs.of(examples, embeddings=embeddings, clusters=parts, dynamics=dynamics)
    return examples, inputs, {name: chosen(rows, n) for name, rows in ways(n, rng).items()}


def ways(n: int, rng) -> dict[str, np.ndarray]:
    first = rng.permutation(n)[: n // 5]
    return {HOSTILE: first, "half of it": np.repeat(first[: n // 10], 2), "other": rng.permutation(n)[: n // 5]}


def chosen(rows, n: int) -> Selection:
    return Selection(rows, np.ones(len(rows)), n, FINGERPRINT, scores=np.arange(n))


def write(folder, made, *, max_points: int = 50_000) -> str:
    """The page in the folder; returns its note."""
    examples, inputs, selections = made
    return write_explorer(examples, inputs, folder, selections=selections, max_points=max_points, seed=0)
