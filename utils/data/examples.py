"""Makes `Examples` of a table, and reads the splits of the data sets that have a record, from a folder or from the hub.
Knows no model and no tokens. Data of the user's own: `sources`.
"""

import hashlib
import logging
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.tables import Table, read_table, read_tsv, table_of
from utils.data.tasks import TASKS, Task
from utils.errors import InputError, quoted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """One split in file order; row i is example_index i everywhere in this project. Rows that have no gold label, or are
    cut short, are left out before anything is counted.

    texts: one list of n strings per text column; labels: int64 (n,) class numbers in the task's own order, float32
    (n,) for regression, None for a test split; guids: n ids; genres: n strings or None; numbers: int64 (n,), the line or
    row of the file, from 1. `fingerprint` is a hash of the texts and label names, so the same rows have the same one
    whether they came from a TSV or from the hub.
    """

    task: Task
    split: str
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    guids: list[str]
    genres: list[str] | None
    fingerprint: str
    source: str
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.texts[0])

    @property
    def premise_first(self) -> tuple[list[str], ...]:
        """The texts with the premise before the hypothesis: what word overlap, heuristics and shallow models look at."""
        return self.texts[::-1] if self.task.hypothesis_first else self.texts

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.task.labels


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what; None where there is none."""

    texts: tuple
    label: str | int | None
    guid: str | None = None
    genre: str | None = None


def check_same_data(file, n: int, fingerprint: str, data, *, way_out: str) -> None:
    """Raise InputError unless `file`, made for n rows with that fingerprint, was made for `data`, which is Examples
    or anything else with a length, a fingerprint and a source. way_out: what the user can do."""
    if n != len(data) or fingerprint != data.fingerprint:
        raise InputError(
            f"{file}: made for other data: {n} rows with fingerprint {str(fingerprint)[:12]}, but {data.source} has "
            f"{len(data)} rows with fingerprint {data.fingerprint[:12]}; {way_out}"
        )


def load_split(task: Task, split: str, *, data_dir=None, cache_dir=None) -> Examples:
    """Read `split` ("train" or a name in task.dev / task.test) from `data_dir`, or from the hub without one.

    Raises InputError that names file and row for anything that is not this task's layout.
    """
    if split not in task.splits:
        raise InputError(f"{task.name} has no split {split!r}; it has {', '.join(task.splits)}")
    if data_dir is None:
        return _read_hub(task, split, cache_dir)
    return _read_folder(task, split, Path(data_dir))


def examples_of(table: Table, task: Task, split: str, columns: Columns) -> Examples:
    """The examples in a table, without the rows that have no gold label. Raises InputError for a text that is none, an
    unknown label, and where no row is left."""
    kept, labels = range(len(table)), None
    if columns.label is not None:
        label_texts = texts_of_labels(table, columns.label)
        kept = _labelled(table, label_texts, task)
        labels = (
            _scores(table, task, label_texts, kept) if task.regression else _classes(table, task, label_texts, kept)
        )

    def of_kept(column: list) -> list:
        return column if len(kept) == len(column) else [column[i] for i in kept]

    def named(name: str | None) -> list[str] | None:
        return [_plain(value) for value in of_kept(table.column(name))] if name in table.names else None

    texts = tuple(of_kept(_texts(table, name)) for name in columns.texts)
    guids = named(columns.guid) or [f"{split}-{i}" for i in range(len(kept))]
    label_names = [] if labels is None else [
        _score_name(value) if task.regression else task.labels[value] for value in labels.tolist()
    ]  # fmt: skip
    numbers = np.asarray(of_kept(list(table.numbers)), dtype=np.int64)
    return Examples(
        task, split, texts, labels, guids, named(columns.genre), fingerprint_of(texts, label_names),
        table.path, numbers,
    )  # fmt: skip


def fingerprint_of(texts, label_names: list[str]) -> str:
    """A hash of the columns of texts and of the name of each label."""
    digest = hashlib.sha256()
    for column in (*texts, label_names):
        # The count keeps two columns from running into each other, the lengths two texts of several lines.
        digest.update(f"{len(column)}\n".encode())
        joined = "\n".join(column)
        if joined.count("\n") >= max(len(column), 1):
            digest.update(f"{[len(text) for text in column]}\n".encode())
        digest.update(joined.encode())
    return digest.hexdigest()[:32]


def _score_name(value: float) -> str:
    """A float32 as text: six digits where they tell it from all others, else nine, which always do."""
    short = f"{value:g}"
    return short if np.float32(short) == value else f"{value:.9g}"


def _texts(table: Table, name) -> list[str]:
    values = table.column(name)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            found = "nothing" if value is None else quoted(value)
            raise InputError(f"{table.where(i)}: {found} in the column {name!r}, where a text is due")
    return values


# -------------------------------------------------------------------------------------------------------------- labels
def texts_of_labels(table: Table, column) -> list[str]:
    """The labels as texts, by name where the data set names its classes; "" for none. 1, 1.0 and "1.0" are all "1"."""
    names = table.class_names.get(column)
    values = table.column(column)
    if names is None:
        for i, value in enumerate(values):
            if isinstance(value, (list, dict)):
                raise InputError(f"{table.where(i)}: {quoted(value)} in the column {column!r}, where a label is due")
        texts = [_plain(value) for value in values]
        one_spelling = {text: re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip()) for text in set(texts)}
        return [one_spelling[text] for text in texts]
    for i, value in enumerate(values):
        if value is not None and not isinstance(value, int):
            raise InputError(
                f"{table.where(i)}: {quoted(value)} in the column {column!r}, where the data set says that class numbers are; "
                "write the file again without its metadata"
            )
        if value is not None and not -1 <= value < len(names):
            raise InputError(f"{table.where(i)}: class number {value}, but the data set names {len(names)} classes")
    return ["" if value is None or value < 0 else names[value] for value in values]


def _plain(value) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _labelled(table: Table, label_texts: list[str], task: Task) -> range | list[int]:
    """The rows that have a gold label. The others are counted and named; InputError where no row has one."""
    without = [i for i, text in enumerate(label_texts) if text in task.unlabelled]
    if not without:
        return range(len(label_texts))
    if len(without) == len(label_texts):
        raise InputError(f"{table.path}: no row has a gold label (all are {quoted(label_texts[0])})")
    first = ", ".join(str(table.numbers[i]) for i in without[:5])
    found = ", ".join(sorted({quoted(label_texts[i]) for i in without}))
    logger.warning(
        "%s: left out %d of %d rows that have no gold label (%s): %s %s%s", table.path, len(without), len(label_texts),
        found, table.unit, first, ", ..." if len(without) > 5 else "",
    )  # fmt: skip
    left_out = set(without)
    return [i for i in range(len(label_texts)) if i not in left_out]


def _scores(table: Table, task: Task, label_texts: list[str], kept) -> np.ndarray:
    """float32 (kept,). Raises InputError that names the row of what is no finite number."""
    values = np.empty(len(kept), dtype=np.float32)
    for at, i in enumerate(kept):
        try:
            values[at] = float(label_texts[i])
        except ValueError:
            values[at] = np.nan
        if not np.isfinite(values[at]):
            raise InputError(
                f"{table.where(i)}: {quoted(label_texts[i])} is not a number where {task.name} has its score"
            )
    return values


def _classes(table: Table, task: Task, label_texts: list[str], kept) -> np.ndarray:
    """int64 (kept,), class numbers in the task's order. Raises InputError that names the row of an unknown label."""
    known = task.label_texts
    values = np.empty(len(kept), dtype=np.int64)
    for at, i in enumerate(kept):
        number = known.get(label_texts[i])
        if number is None:
            raise InputError(
                f"{table.where(i)}: unknown label {quoted(label_texts[i])}; {task.name} has "
                f"{quoted(', '.join(task.server_labels), 300)[1:-1]}"
            )
        values[at] = number
    return values


# ------------------------------------------------------------------------------------------------- tasks with a record
def _read_folder(task: Task, split: str, folder: Path) -> Examples:
    path = _find_file(folder, task, split)
    is_test = split in task.test
    texts = (is_test and task.test_text_columns) or task.text_columns
    needed = (*texts,) if is_test else (*texts, task.label_column)
    if path.suffix == ".tsv":
        headerless = not isinstance(texts[0], str)
        table = read_tsv(
            path, width=max(needed) + 1 if headerless else None, short_rows=needed if task.skip_short_rows else None
        )
        if not len(table):
            raise InputError(f"{path}: holds no examples, only a header line")
    else:
        table = read_table(path)
    for column in needed:
        if column not in table.names:
            raise InputError(
                f"{path}: no column {column!r} in its header ({quoted(', '.join(table.names[:20]), 300)}); is it the file of "
                f"another task than {task.name}{_resembling(table.names, task)}?"
            )
    label = None if is_test else task.label_column
    return examples_of(table, task, split, Columns(texts, label, task.id_column, task.genre_column))


def _find_file(folder: Path, task: Task, split: str) -> Path:
    """The first of the split's files that is there. Raises InputError where none is."""
    files = task.splits[split].files
    wanted = " or ".join([", ".join(files[:-1]), files[-1]] if len(files) > 1 else files)
    if not folder.is_dir():
        raise InputError(f"--data_dir {folder}: no such folder; it should hold {wanted} of {task.name}")
    for name in files:
        if (folder / name).is_file():
            return folder / name
    suffix = Path(files[0]).suffix
    there = sorted(path.name for path in folder.glob(f"*{suffix}") if path.is_file())
    held = f"it holds {', '.join(there)}" if there else f"it holds no {suffix} file"
    raise InputError(f"--data_dir {folder}: no {wanted}, which {task.name} needs; {held}")


def _resembling(header, task) -> str:
    """' (it looks like qnli)' where exactly that other task's columns are all there."""
    fits = [
        other
        for other in TASKS.values()
        if other is not task and all(column in header for column in (*other.text_columns, other.label_column))
    ]
    most = max((len(other.text_columns) for other in fits), default=0)  # SST-2's columns are QNLI's too
    names = [other.name for other in fits if len(other.text_columns) == most]
    return f" (it looks like {' or '.join(names)})" if names else ""


# ----------------------------------------------------------------------------------------------------------------- hub
def _read_hub(task: Task, split: str, cache_dir) -> Examples:
    """The same split of the task's data set on the hub. Class numbers are mapped by the data set's own label names."""
    if not task.hub_text_columns:
        raise InputError(f"{task.name} is not on the hub: give --data_dir, the folder with {task.splits[split].file}")
    source = f"{task.hub_dataset}/{task.hub_name}" if task.hub_name else task.hub_dataset
    hub_split = task.splits[split].hub
    way_out = f"Give --data_dir <folder with the {task.name} files>, or try `make demo`, which needs no network"
    data = load_from_hub(task.hub_dataset, task.hub_name, cache_dir=cache_dir, split=hub_split, way_out=way_out)
    table = table_of(data, f"{source}/{hub_split}")
    label = None if split in task.test else task.hub_label_column
    names = table.class_names.get(label)
    if names and sorted(names) not in (sorted(task.labels), sorted(task.tsv_labels)):
        raise InputError(f"{source} has classes {names}, expected {list(task.labels)}")
    return examples_of(table, task, split, Columns(task.hub_text_columns, label, "idx"))


def load_from_hub(name: str, configuration: str | None, *, cache_dir, way_out: str, **options):
    """`datasets.load_dataset`, with one clear line where it fails."""
    try:
        import datasets
    except ImportError:
        raise InputError(f"{name}: reading it needs the package datasets (pip install datasets). {way_out}") from None

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, configuration, cache_dir=cache_dir, **options)
    except Exception as error:  # the library raises a dozen unrelated types for "cannot reach it"
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        source = f"{name}/{configuration}" if configuration else name
        raise InputError(f"cannot load {source} from the hub{offline}: {type(error).__name__}. {way_out}") from error
