"""What the project asks of a challenge set: a labelled set whose groups show whether a model learnt a shortcut.

HANS is the first member (`hans/challenge.py`). Sweeps and reports know these two records only, so a further challenge
set touches none of their code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ChallengeScores:
    """How the accuracies of one challenge set stand in results.csv and in a report.

    name: as printed. results_file: the file that holds a run's results, relative to the run's folder. read(contents of
    that file) -> {column: accuracy in [0, 1]}. cells: (heading, columns) of each cell of the main table, whose columns are
    printed one after the other. headline: the column that the overview shows. compared: the columns that are compared
    with random. sides: two columns, (where the shortcut is right, where it is wrong), or () where there are no such sides.
    """

    name: str
    results_file: str
    read: Callable[[dict], dict[str, float]]
    cells: tuple[tuple[str, tuple[str, ...]], ...]
    headline: str
    compared: tuple[str, ...]
    sides: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """Every column that this challenge set may give."""
        inside = {column for _, columns in self.cells for column in columns}
        return frozenset(inside | {self.headline, *self.compared, *self.sides})


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
