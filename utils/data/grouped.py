"""Challenge sets that a run evaluates itself: a labelled file with a column `group`."""

import dataclasses
import re
from dataclasses import dataclass

from utils.data.challenge import MEAN, WORST
from utils.data.examples import Columns, Examples, examples_of, fingerprint_of, texts_of_labels
from utils.data.sources import NO_LABEL, choose_columns, named_path
from utils.data.tables import read_table
from utils.data.tasks import Task
from utils.errors import InputError, quoted

GROUP = "group"


@dataclass(frozen=True)
class GroupedSet:
    """One set. examples: with the file's own classes, by name; their genres are the groups. fingerprint: of texts, labels
    and groups."""

    name: str
    examples: Examples
    fingerprint: str

    @property
    def groups(self) -> list[str]:
        return self.examples.genres


def read_grouped(given: list[str] | None, task: Task) -> list[GroupedSet]:
    """The sets that `--challenge name=path ...` names, for models of this task. Raises InputError for a file that cannot be
    read, has no groups, or has another number of texts than the task."""
    sets = [_read(*named_path(text), task) for text in given or ()]
    names = [found.name for found in sets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--challenge: two sets are called {twice[0]}; give each a name of its own")
    return sets


def _read(name: str, path: str, task: Task) -> GroupedSet:
    if task.regression:
        raise InputError(f"--challenge {name}: {task.name} has scores, no classes to be right or wrong about")
    table = read_table(path)
    if GROUP not in table.names:
        raise InputError(
            f"--challenge {name}: {path} has no column {GROUP!r}; it says which group an example belongs to"
        )
    texts = list(task.text_columns) if set(task.text_columns) <= set(table.names) else None
    columns = choose_columns(table, texts, task.label_column if task.label_column in table.names else None)
    if len(columns.texts) != len(task.text_columns):
        raise InputError(
            f"--challenge {name}: {path} has the texts {' and '.join(columns.texts)}, but {task.name} has "
            f"{len(task.text_columns)} in each example"
        )
    classes = tuple(sorted({text for text in texts_of_labels(table, columns.label) if text not in NO_LABEL}))
    own = dataclasses.replace(task, name=name, labels=classes, tsv_labels=(), unlabelled=NO_LABEL)
    examples = examples_of(table, own, name, Columns(columns.texts, columns.label, columns.guid, GROUP))
    taken = {WORST, MEAN} & set(examples.genres)
    if taken or name == "chosen":
        raise InputError(
            f"--challenge {name}: reports use the name {min(taken, default=name)!r} otherwise; give another one"
        )
    odd = next((group for group in examples.genres if re.search(r"[\t\r\n]", group)), None)
    if odd is not None:
        row = examples.numbers[examples.genres.index(odd)]
        raise InputError(
            f"--challenge {name}: {path}: {table.unit} {row}: the {GROUP!r} {quoted(odd)} holds a tab or a line break; rename it"
        )
    if "" in examples.genres:
        row = examples.numbers[examples.genres.index("")]
        raise InputError(f"--challenge {name}: {path}: {table.unit} {row} has an empty {GROUP!r}")
    labels = [classes[i] for i in examples.labels]
    return GroupedSet(name, examples, fingerprint_of((*examples.texts, examples.genres), labels))
