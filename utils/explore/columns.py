"""What is known of each example, as columns that the page can colour by, show and sort; and where it lies on the maps."""

from dataclasses import dataclass

import numpy as np

from utils.data.examples import Examples
from utils.data.logits import softmax
from utils.data.overlap import HEURISTICS
from utils.data.predictions import read_predictions
from utils.errors import InputError, quoted
from utils.selection.cluster_quality import PairFacts
from utils.selection.dynamics import Dynamics, mean_where_seen
from utils.selection.kmeans import prepare
from utils.selection.selection import Selection
from utils.selection.strategies import Inputs

UNKNOWN = -1  # in place of the number of a category
MEASURES = {
    "confidence": "confidence", "variability": "variability", "correctness": "correctness",
    "forgetting events": "forgetting_counts", "EL2N": "el2n", "loss": "loss", "AUM": "aum",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One fact of n examples.

    values: of a category, integers (n,) that number `names`, UNKNOWN where there is none; of a number, float32 (n,), NaN
    where it is unknown. group: the heading that it stands under; main: whether the table shows it at all times.
    """

    group: str
    name: str
    values: np.ndarray
    names: tuple[str, ...] = ()
    main: bool = False


@dataclass(frozen=True)
class Map:
    """A scatter plot of the n examples; x and y: float32 (n,), NaN where an example has no place on it."""

    title: str
    x_title: str
    y_title: str
    x: np.ndarray
    y: np.ndarray


def maps_of(inputs: Inputs, facts: PairFacts, measures: dict[str, np.ndarray]) -> list[Map]:
    """The principal axes and the data map, as far as their files are there; else the length against the overlap."""
    found = []
    if inputs.embeddings is not None:
        found.append(_principal_axes(inputs.embeddings))
    if measures:
        snapshots = ", ".join(str(run.num_snapshots) for run in inputs.runs)
        title = f"Data map ({snapshots} snapshots, {inputs.dynamics.mode} mode)"
        found.append(Map(title, "variability", "confidence", measures["variability"], measures["confidence"]))
    if not found:
        words = np.log10(np.maximum(1, facts.lengths)).astype(np.float32)
        x, x_title = np.arange(inputs.n, dtype=np.float32), "row"
        if facts.overlap is not None:
            x, x_title = facts.overlap, "share of the hypothesis's words that are in the premise"
        found.append(Map("Length of the texts", x_title, "words (logarithm to the base 10)", x, words))
    return found


def _principal_axes(embeddings: np.ndarray) -> Map:
    prepared = prepare(embeddings, pca=min(2, *embeddings.shape))
    points = np.zeros((len(embeddings), 2), dtype=np.float32)
    for block, rows in prepared.blocks():
        points[block, : rows.shape[1]] = rows
    variance = points.var(axis=0, dtype=np.float64)
    share = prepared.explained * variance / max(variance.sum(), 1e-30)
    titles = [f"principal axis {i + 1} ({share[i]:.0%} of the variance)" for i in range(2)]
    return Map("Map of the embeddings", *titles, *points.T)


def measures_of(runs: tuple[Dynamics, ...]) -> dict[str, np.ndarray]:
    """The measures of training dynamics, averaged over runs; none for regression, which has no measures."""
    if not runs or not np.issubdtype(runs[0].labels.dtype, np.integer):
        return {}
    return {name: mean_where_seen(np.stack([getattr(run, how)() for run in runs])) for name, how in MEASURES.items()}


def columns_of(
    examples: Examples,
    inputs: Inputs,
    facts: PairFacts,
    measures: dict[str, np.ndarray],
    selections: dict[str, Selection],
    predictions=None,
) -> list[Column]:
    """Every column, in the order in which the page offers them. predictions: a predictions_*.tsv of this split."""
    columns = [*_of_the_pair(examples, facts), *_of_the_model(examples, inputs, predictions)]
    columns += [Column("training dynamics", name, values) for name, values in measures.items()]
    if inputs.clusters is not None:
        names = tuple(f"{j}" for j in range(inputs.clusters.k))
        columns.append(Column("clusters", "cluster", inputs.clusters.labels, names, main=True))
        columns.append(Column("clusters", "distance to centroid", inputs.clusters.distances))
    if inputs.scores is not None:
        columns.append(Column("scores", "your score", inputs.scores))
    for name, selection in selections.items():
        if selection.scores is not None:
            columns.append(Column("scores", f"score of {name}", selection.scores))
    for name, selection in selections.items():
        columns.append(Column("Selections", name, members(selection).astype(np.int8), ("not chosen", "chosen")))
    return columns


def members(selection: Selection) -> np.ndarray:
    """bool (n_total,): which rows are chosen, however often."""
    chosen = np.zeros(selection.n_total, dtype=bool)
    chosen[selection.indices] = True
    return chosen


def _of_the_pair(examples: Examples, facts: PairFacts) -> list[Column]:
    columns = []
    if examples.labels is not None:
        columns.append(Column("example", "gold label", examples.labels, examples.label_names, main=True))
    if facts.genres is not None:
        columns.append(Column("example", "genre", facts.genres, facts.genre_names, main=True))
    columns.append(Column("example", "words", facts.lengths))
    if facts.overlap is not None:
        columns.append(Column("example", "word overlap", facts.overlap))
    if facts.supports:  # each implies the one before, so the last that holds says all
        holds = sum(supports.astype(np.int64) for supports in facts.supports.values())
        names = ("none", *(name.replace("_", " ") for name in HEURISTICS))
        columns.append(Column("HANS heuristics", "HANS heuristic that holds", holds, names))
        if facts.classes is not None and "entailment" in facts.label_names:
            entailed = facts.classes == facts.label_names.index("entailment")
            verdict = np.where(holds == 0, 0, np.where(entailed, 1, 2))
            names = ("none holds", "right: entailment", "wrong: another label")
            columns.append(Column("HANS heuristics", "what HANS heuristics predict", verdict, names))
    return columns


def _of_the_model(examples: Examples, inputs: Inputs, predictions) -> list[Column]:
    """Prediction, correctness and probability of the gold label: from the predictions file, else from the logits, else from
    the last snapshot of the dynamics."""
    logits = inputs.logits
    if logits is None and inputs.dynamics is not None:
        logits = inputs.dynamics.logits[-1]
    if predictions:
        predicted, gold = predictions_of(predictions, examples)
    elif logits is not None and examples.label_names:
        logits = np.asarray(logits, dtype=np.float32)
        seen = ~np.isnan(logits).any(axis=1)
        predicted = np.where(seen, np.nan_to_num(logits).argmax(axis=1), UNKNOWN)
        gold = None
        if examples.labels is not None:
            gold = np.take_along_axis(softmax(logits), examples.labels[:, None], axis=1)[:, 0]
    else:
        return []
    columns = [Column("model", "prediction", predicted, examples.label_names, main=True)]
    if examples.labels is not None and examples.label_names:
        right = np.where(predicted == UNKNOWN, UNKNOWN, predicted == examples.labels)
        columns.append(Column("correctness", "prediction is", right, ("wrong", "right")))
    if gold is not None:
        columns.append(Column("model", "probability of the gold label", gold))
    return columns


def predictions_of(path, examples: Examples) -> tuple[np.ndarray, np.ndarray | None]:
    """What a run predicted: int64 (n,) classes, or float32 scores for regression; and the probability of the gold label,
    None for regression. Rows that the file lacks are unknown.

    Raises InputError where the file is not a predictions_*.tsv, or is of other examples: their gold labels tell.
    """
    if examples.labels is None:
        raise InputError(f"--predictions {path}: {examples.source} has no labels to check it by; leave the flag out")
    found = read_predictions(path)
    classes = {name: i for i, name in enumerate(examples.label_names)}
    try:
        gold, answers = (
            [classes[name] if classes else float(name) for name in own] for own in (found.gold, found.answers)
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"--predictions {path}: it holds {quoted(error.args[0])}, which is no label of this task"
        ) from None
    for i, own in zip(found.index.tolist(), gold, strict=True):
        if not 0 <= i < len(examples):
            raise InputError(
                f"--predictions {path}: it names row {i}, but {examples.source} has the rows 0 to {len(examples) - 1}"
            )
        if not np.isclose(own, examples.labels[i], rtol=1e-4):
            raise InputError(
                f"--predictions {path}: it gives row {i} another gold label than {examples.source}; is it of another --split?"
            )
    predicted = np.full(len(examples), UNKNOWN if classes else np.nan, dtype=np.int64 if classes else np.float32)
    probability = np.full(len(examples), np.nan, dtype=np.float32)
    predicted[found.index], probability[found.index] = answers, found.p_gold
    return predicted, probability if classes else None
