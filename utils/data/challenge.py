"""What the project asks of a challenge set: a labelled set whose groups show whether a model learnt a shortcut.

HANS is the first member (`hans/challenge.py`). Sweeps and reports know the records below only, so a further challenge set
touches none of their code. Challenge sets that a run evaluates itself need no record of their own: `grouped_set` makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WORST, MEAN = "worst group", "mean over groups"


@dataclass(frozen=True)
class Cell:
    """Accuracies that a table prints one after the other. columns: {label: column of results.csv}."""

    title: str
    columns: dict[str, str]

    @property
    def heading(self) -> str:
        return f"{self.title} ({', '.join(self.columns)})"


@dataclass(frozen=True, kw_only=True)
class ChallengeColumns:
    """Where the accuracies of one challenge set stand in results.csv and in a report.

    name: as printed. cells: what tables and figures show. headline: the column that stands for the set where there is
    room for one. compared: the columns that are compared with random. grouped_by: what its groups are, for captions.
    chance: the accuracy of guessing, where it is known.
    """

    name: str
    cells: tuple[Cell, ...]
    headline: str
    compared: tuple[str, ...]
    grouped_by: str = "group"
    chance: float | None = None

    @property
    def columns(self) -> frozenset[str]:
        """Every column that this challenge set may give."""
        inside = {column for cell in self.cells for column in cell.columns.values()}
        return frozenset(inside | {self.headline, *self.compared})


@dataclass(frozen=True, kw_only=True)
class ChallengeScores(ChallengeColumns):
    """A challenge set that a script of its own evaluates.

    results_file: the file that holds a run's results, relative to the run's folder. read(contents of that file) ->
    {column: accuracy in [0, 1]}; it may raise KeyError or TypeError where the contents are not what the script writes.
    """

    results_file: str
    read: Callable[[dict], dict[str, float]]


def grouped_set(name: str, groups: list[str]) -> ChallengeColumns:
    """The record of a set that a run evaluated itself: accuracy by group, the worst of them, their mean."""
    worst, mean = grouped_column(name, WORST), grouped_column(name, MEAN)
    cells = (
        Cell(name, {WORST: worst, MEAN: mean}),
        Cell(f"{name} by group", {group: grouped_column(name, group) for group in groups}),
    )
    return ChallengeColumns(name=name, cells=cells, headline=worst, compared=(worst, mean))


def grouped_column(name: str, what: str) -> str:
    """The column of one group, or of WORST or MEAN."""
    return f"{name}: {what}"


def grouped_sets(columns: list[str]) -> list[ChallengeColumns]:
    """The sets that `grouped_column` named among these columns."""
    found = []
    for column in columns:
        name, _, what = column.partition(": ")
        if what == WORST:
            inside = [other.partition(": ")[2] for other in columns if other.partition(": ")[0] == name]
            found.append(grouped_set(name, [group for group in inside if group not in ("", WORST, MEAN)]))
    return found


@dataclass(frozen=True)
class ChallengeRun:
    """How a sweep evaluates its runs on one challenge set.

    scores: how the results are read. script: the module name of the script; it is loaded once for all runs, and so are the modules that `preload` names. flags(folder of the run) -> the script's flags.
    num_examples: pairs per run, for the prediction of time. identity: facts that must be the same in the whole sweep,
    for example which file the set came from and its fingerprint.
    """

    scores: ChallengeScores
    script: str
    flags: Callable[[Path], list[str]]
    num_examples: int
    identity: dict
    preload: tuple[str, ...] = ()
