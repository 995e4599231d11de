"""The data set that the flags name: a task with a record, files of the user's own, or a data set of the hub or of
`save_to_disk`. Finds the columns and the classes of data that has no record, and says what it found.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.data.class_names import canonical
from utils.data.examples import Columns, Examples, examples_of, load_from_hub, load_split, texts_of_labels
from utils.data.tables import Table, read_table, table_of
from utils.data.tasks import TASKS, Split, Task, get_task
from utils.errors import InputError, quoted
from utils.flags import SourceSettings

logger = logging.getLogger(__name__)

# Names of columns that say what they hold.
TEXT_COLUMNS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"),
    ("context", "hypothesis"), ("text1", "text2"), ("text",), ("sentence",),
)  # fmt: skip
LABEL_COLUMNS = ("label", "gold_label", "labels", "gold")
ID_COLUMNS = ("pairID", "guid", "uid", "id", "idx")
NO_LABEL = ("", "-", "-1")
OWN = "custom"  # the name of a task that files of the user's own give
PREDICTIONS = "test_predictions.tsv"


@dataclass(frozen=True)
class Data:
    """A data set: the record of its task, the names of its splits, and load(split) -> Examples."""

    task: Task
    splits: tuple[str, ...]
    load: Callable[[str], Examples]


def data_name(settings: SourceSettings) -> str:
    """The name of the task that the settings give: of its record, of the data set, or `custom`. Reads nothing."""
    if settings.task_name:
        return get_task(settings.task_name).name
    if not settings.dataset_name:
        return OWN
    words = [*Path(settings.dataset_name).parts[-2:], settings.dataset_config_name or ""]
    if Path(settings.dataset_name).is_dir():
        words = [Path(settings.dataset_name).resolve().name]
    name = "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words if word)
    return f"{name}-{OWN}" if name in TASKS else name or OWN


def open_data(settings: SourceSettings, *, cache_dir=None) -> Data:
    """The data set that the settings name. Raises InputError where it cannot be read, or where columns or classes are not
    clear."""
    if settings.task_name:
        task = get_task(settings.task_name)
        return Data(
            task,
            tuple(task.splits),
            lambda split: load_split(task, split, data_dir=settings.data_dir, cache_dir=cache_dir),
        )
    read = _hub_splits(settings, cache_dir) if settings.dataset_name else _files(settings)
    from_test_file = ("test",) if settings.test_file else ()  # a validation file may be called test
    test = [name for name in read if name in from_test_file or (settings.dataset_name and name.startswith("test"))]
    dev = [name for name in read if name not in ("train", *test)]
    reference = next((name for name in ("train", *dev) if name in read), None)
    if reference is None:
        raise InputError("classes are read from training or validation data: give --train_file or --validation_file")
    table = read[reference]()
    columns = choose_columns(table, settings.text_columns, settings.label_column)
    task = _task_of(table, columns, settings, dev, test)
    first = examples_of(table, task, reference, columns)

    def load(split: str) -> Examples:
        if split == reference:
            return first
        if split not in read:
            raise InputError(f"there is no {split} data: the flags name {', '.join(read)}")
        return _examples(read[split](), task, split)

    return Data(task, tuple(read), load)


def _files(settings: SourceSettings) -> dict[str, Callable[[], Table]]:
    """Split -> reader of its file."""
    files = {"train": settings.train_file} if settings.train_file else {}
    for text in settings.validation_file or ():
        name, path = named_path(text, "dev")
        if name in files or (name == "test" and settings.test_file):
            raise InputError(
                f"--validation_file {text}: two splits are called {name}; give each a name of its own, name=path"
            )
        files[name] = path
    files |= {"test": settings.test_file} if settings.test_file else {}
    return {name: lambda path=path: read_table(path) for name, path in files.items()}


def named_path(text: str, default: str | None = None) -> tuple[str, str]:
    """`name=path` -> (name, path); a bare path takes the default name. Raises InputError where a name is missing."""
    name, equals, path = text.partition("=")
    if equals and path and re.fullmatch(r"[\w.-]+", name) and not Path(text).exists():
        return name, path
    if default is None:
        raise InputError(f"{text!r}: give name=path; a name has letters, digits, dots, dashes and underscores")
    return default, text


def _hub_splits(settings: SourceSettings, cache_dir) -> dict[str, Callable[[], Table]]:
    """Split -> reader. A folder is one of `save_to_disk`; validation sets are called dev, as everywhere here."""
    name, way_out = settings.dataset_name, "Give a hub name, a folder of save_to_disk, or --train_file"
    if Path(name).is_dir():
        data = _load_from_disk(name, way_out)
    else:
        data = load_from_hub(name, settings.dataset_config_name, cache_dir=cache_dir, way_out=way_out)
    if hasattr(data, "column_names") and not isinstance(data, dict):
        data = {"train": data}
    kept = [split for split in data if re.match(r"(train$|validation|dev|test)", split)]
    if not kept:
        raise InputError(f"{name}: its splits are {', '.join(data)}; train, validation and test are read")
    renamed: dict[str, str] = {}
    for split in kept:
        other = renamed.setdefault(re.sub(r"^validation", "dev", split), split)
        if other != split:
            raise InputError(
                f"{name}: its splits {other} and {split} would have one name here; rename or remove one of them"
            )
    return {ours: lambda split=split: table_of(data[split], f"{name}/{split}") for ours, split in renamed.items()}


def _load_from_disk(folder: str, way_out: str):
    try:
        import datasets
    except ImportError:
        raise InputError(f"{folder}: reading it needs the package datasets (pip install datasets). {way_out}") from None
    try:
        return datasets.load_from_disk(folder)
    except Exception as error:  # FileNotFoundError and several of pyarrow's
        first_line = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"--dataset_name {folder}: not a data set of save_to_disk ({type(error).__name__}: {first_line[:200]}). {way_out}"
        ) from None


# ------------------------------------------------------------------------------------------------------------- columns
def choose_columns(table: Table, texts: list[str] | None, label: str | None) -> Columns:
    """The columns that the user named, and guesses for the rest, which are logged. Raises InputError where a named column
    is missing, or where not exactly one guess fits."""
    if texts and len(texts) > 2:
        raise InputError(f"--text_columns {' '.join(texts)}: one text column or two, not {len(texts)}")
    for name in [*(texts or ()), *([label] if label else ())]:
        if name not in table.names:
            raise InputError(f"{table.path}: no column {name!r}; its columns are {_listed(table.names)}")
    fitting = [names for names in TEXT_COLUMNS if set(names) <= set(table.names)]
    # In question + sentence, the second alone is no guess of its own.
    fitting = [names for names in fitting if not any(set(names) < set(other) for other in fitting)]
    found = tuple(texts) if texts else _only(fitting, table, "text", "--text_columns")
    labels = [(name,) for name in LABEL_COLUMNS if name in table.names and name not in found]
    chosen = label or _only(labels, table, "label", "--label_column")[0]
    if chosen in found or len(set(found)) < len(found):
        raise InputError(f"--text_columns {' '.join(found)}, --label_column {chosen}: one column cannot be two things")
    if not (texts and label):
        logger.info(
            "%s: texts in %s, labels in %s (guessed; --text_columns and --label_column say otherwise)", table.path,
            " and ".join(found), chosen,
        )  # fmt: skip
    return Columns(found, chosen, next((name for name in ID_COLUMNS if name in table.names), None), "genre")


def _only(fitting: list[tuple], table: Table, what: str, flag: str) -> tuple:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        either = " or ".join(" and ".join(names) for names in fitting)
        raise InputError(f"{table.path}: the {what} could be in {either}; say which with {flag}")
    raise InputError(
        f"{table.path}: which column holds the {what}? Say it with {flag}; there are {_listed(table.names)}"
    )


def _listed(names: list) -> str:
    return quoted(", ".join(names[:20]), 300)


def _examples(table: Table, task: Task, split: str) -> Examples:
    """The examples of a split that is not the one in which columns and classes were found."""
    label = None if split in task.test else task.label_column
    needed = [*task.text_columns, *([label] if label else ())]
    missing = [name for name in needed if name not in table.names]
    if missing:
        raise InputError(
            f"{table.path}: no column {missing[0]!r}; it needs the columns of the training data ({', '.join(needed)}) and "
            f"has {_listed(table.names)}"
        )
    return examples_of(table, task, split, Columns(task.text_columns, label, task.id_column, task.genre_column))


# ------------------------------------------------------------------------------------------------------------- classes
def _task_of(table: Table, columns: Columns, settings: SourceSettings, dev: list[str], test: list[str]) -> Task:
    """The record that this data set would have. Its classes are those of the reference split, by name."""
    found = Counter(text for text in texts_of_labels(table, columns.label) if text not in NO_LABEL)
    if not found:
        raise InputError(f"{table.path}: no row has a gold label in the column {columns.label!r}")
    labels = () if settings.do_regression else _class_names(table, columns.label, found)
    if labels:
        _check_classes(table, columns.label, labels, found)
    logger.info("%s: %s", table.path, _described(labels, found))
    return Task(
        name=data_name(settings),
        text_columns=columns.texts,
        label_column=columns.label,
        labels=labels,
        metrics=("acc",) if labels else ("corr", "pearson", "spearmanr"),
        dev={name: Split(name, name, name) for name in dev},
        test={name: Split(name, name, name, PREDICTIONS.replace("test", name)) for name in test},
        unlabelled=NO_LABEL if labels else ("",),
        id_column=columns.guid,
        genre_column=columns.genre,
    )


def _class_names(table: Table, column: str, found: Counter) -> tuple[str, ...]:
    """The names that the data set states, or else the labels themselves: numbers in their order, names in that of the
    alphabet. () where the labels are numbers with decimals."""
    if column in table.class_names:
        return tuple(table.class_names[column])
    try:
        numbers = {text: float(text) for text in found}
    except ValueError:
        return tuple(sorted(found))
    odd = next((text for text, value in numbers.items() if not math.isfinite(value)), None)
    if odd is not None:
        raise InputError(
            f"{table.path}: the column {column!r} holds {odd!r} among numbers; leave the cell empty where there is no gold label"
        )
    if any(value != round(value) for value in numbers.values()):
        return ()
    return tuple(sorted(numbers, key=numbers.get))


def _check_classes(table: Table, column: str, labels: tuple[str, ...], found: Counter) -> None:
    """Raise InputError where the labels cannot be meant as classes."""
    rows = sum(found.values())
    if len(labels) < 2:
        raise InputError(
            f"{table.path}: every label in the column {column!r} is {quoted(labels[0])}; two classes are needed"
        )
    if len(found) > 20 and 2 * len(found) > rows:
        raise InputError(
            f"{table.path}: the column {column!r} has {len(found)} different values in {rows} rows; is it the label? Name "
            "another one with --label_column, or give --do_regression where its numbers are scores"
        )
    spelt: dict[str, str] = {}
    for name in labels:
        if re.search(r"[\t\r\n]", name):
            raise InputError(f"{table.path}: the label {quoted(name)} holds a tab or a line break; rename it")
        other = spelt.setdefault(canonical(re.sub(r"[\s_-]+", " ", name.casefold())), name)
        if other != name:
            raise InputError(
                f"{table.path}: the labels {other!r} and {name!r} are one class in two spellings; use one of them"
            )


def _described(labels: tuple[str, ...], found: Counter) -> str:
    if not labels:
        return "labels are scores (regression)"
    shown = ", ".join(f"{name} ({found[name]})" for name in labels[:20]) + (", ..." if len(labels) > 20 else "")
    numbers = all(re.fullmatch(r"-?\d+", name) for name in labels)
    return f"{len(labels)} classes: {shown}" + ("; numbers without names (scores: --do_regression)" if numbers else "")
