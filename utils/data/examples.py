"""Reads one split of one GLUE task, from a TSV folder or from the hub, into `Examples`. Knows no model and no tokens."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.tasks import TASKS, Task
from utils.errors import InputError, quoted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """One split in file order; row i is example_index i everywhere in this project.

    texts: one list of n strings per text column; labels: int64 (n,) class numbers in the task's own order, float32
    (n,) for regression, None for a test split; guids: n ids; genres: n strings or None. `fingerprint` is a hash of
    the texts and label names, so the same rows have the same one whether they came from a TSV or from the hub.
    """

    task: Task
    split: str
    texts: tuple[list[str], ...]
    labels: np.ndarray | None
    guids: list[str]
    genres: list[str] | None
    fingerprint: str
    source: str

    def __len__(self) -> int:
        return len(self.texts[0])

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.task.labels


def load_split(task: Task, split: str, *, data_dir=None, cache_dir=None) -> Examples:
    """Read `split` ("train" or a name in task.dev / task.test) from `data_dir`, or from the hub without one.

    Raises InputError that names file and row for anything that is not this task's layout.
    """
    if split != "train" and split not in task.dev and split not in task.test:
        raise InputError(f"{task.name} has no split {split!r}; it has train, {', '.join([*task.dev, *task.test])}")
    if data_dir is None:
        return _read_hub(task, split, cache_dir)
    return _read_tsv(task, split, Path(data_dir))


def _fingerprint(texts, label_names) -> str:
    digest = hashlib.sha256()
    for column in (*texts, label_names):
        # The count keeps two columns from running into each other.
        digest.update(f"{len(column)}\n".encode())
        digest.update("\n".join(column).encode())
    return digest.hexdigest()[:32]


def _examples(task, split, texts, labels, guids, genres, source) -> Examples:
    if labels is None:
        names = []
    elif task.regression:
        names = [f"{value:g}" for value in labels.tolist()]
    else:
        names = [task.labels[i] for i in labels.tolist()]
    return Examples(task, split, texts, labels, guids, genres, _fingerprint(texts, names), source)


# ----------------------------------------------------------------------------------------------------------------- TSV
@dataclass(frozen=True)
class _Columns:
    """Where a TSV file has what: positions of columns, None where the file lacks them. width: columns of a whole row."""

    texts: list[int]
    label: int | None
    guid: int | None
    genre: int | None
    width: int
    has_header: bool


def _read_tsv(task: Task, split: str, folder: Path) -> Examples:
    path = folder / ("train.tsv" if split == "train" else (task.dev | task.test)[split].file)
    lines = _read_lines(path, task)
    columns = _find_columns(path, task, lines[0], is_test=split in task.test)
    rows, numbers, skipped = [], [], 0
    for number, line in enumerate(lines[columns.has_header :], start=1 + columns.has_header):
        fields = line.split("\t")
        if len(fields) != columns.width:
            if len(fields) < columns.width and task.skip_short_rows:
                if len(fields) <= max(at for at in (*columns.texts, columns.label) if at is not None):
                    skipped += 1
                    continue
            else:
                raise InputError(_wrong_width(path, number, fields, columns, task))
        rows.append(fields)
        numbers.append(number)
    if not rows:
        raise InputError(f"{path}: holds no examples, only {'a header line' if columns.has_header else 'nothing'}")
    if skipped:
        logger.warning(
            "%s: skipped %d rows with too few columns, as the official %s file has", path, skipped, task.name
        )
    texts = tuple([fields[at] for fields in rows] for at in columns.texts)
    labels = None
    if columns.label is not None:
        labels = _parse_labels(path, task, [fields[columns.label] for fields in rows], numbers)
    guids = [f"{split}-{i}" for i in range(len(rows))]
    if columns.guid is not None:
        guids = [fields[columns.guid] for fields in rows]
    genres = None if columns.genre is None else [fields[columns.genre] for fields in rows]
    return _examples(task, split, texts, labels, guids, genres, str(path))


def _find_columns(path: Path, task: Task, first_line: str, *, is_test: bool) -> _Columns:
    """Raises InputError where the header lacks a needed column or has it twice."""
    text_columns = (is_test and task.test_text_columns) or task.text_columns
    if not isinstance(text_columns[0], str):  # a file without a header
        width = max(*text_columns, task.label_column) + 1
        return _Columns(list(text_columns), task.label_column, None, None, width, False)
    header = first_line.split("\t")
    for column in [*text_columns] if is_test else [*text_columns, task.label_column]:
        if column not in header:
            raise InputError(
                f"{path}: no column {column!r} in its header ({quoted(', '.join(header[:20]), 300)}); is it the file of "
                f"another task than {task.name}{_resembling(header, task)}?"
            )
    twice = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise InputError(
            f"{path}: its header names {quoted(', '.join(twice))} more than once; keep one column of each name"
        )

    def position(name: str | None) -> int | None:
        return header.index(name) if name in header else None

    texts = [header.index(column) for column in text_columns]
    label = None if is_test else position(task.label_column)
    return _Columns(texts, label, position(task.id_column), position(task.genre_column), len(header), True)


def _wrong_width(path: Path, number: int, fields: list[str], columns: _Columns, task: Task) -> str:
    found = f"{path}: line {number} has {len(fields)} tab-separated columns where {columns.width} are due"
    if len(fields) < columns.width:
        return f"{found}; the line is cut short, or the folder belongs to another task than {task.name}"
    return f"{found}; a text holds a tab, which would shift the columns after it: replace it with a space"


def _read_lines(path: Path, task: Task) -> list[str]:
    if not path.parent.is_dir():
        raise InputError(f"--data_dir {path.parent}: no such folder; it should hold {path.name} of {task.name}")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.tsv") if p.is_file())
        held = f"it holds {', '.join(there)}" if there else "it holds no .tsv file"
        raise InputError(f"--data_dir {path.parent}: no {path.name}, which {task.name} needs; {held}")
    data = path.read_bytes()
    try:
        # MRPC's files begin with a byte-order mark. Lines end at \n alone: GLUE text holds U+2028 and the like.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); convert the file, for example with iconv"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines] if "\r" in text else lines


def _parse_labels(path: Path, task: Task, label_texts: list[str], numbers: list[int]) -> np.ndarray:
    """Labels as int64 class numbers or float32 scores. Raises InputError that names the line of an unknown one."""
    if task.regression:
        values = np.empty(len(label_texts), dtype=np.float32)
        for i, (text, number) in enumerate(zip(label_texts, numbers, strict=True)):
            try:
                values[i] = float(text)
            except ValueError:
                values[i] = np.nan
            if not np.isfinite(values[i]):
                raise InputError(
                    f"{path}: line {number}: {quoted(text)} is not a number where {task.name} has its score"
                )
        return values
    known = task.label_texts
    values = np.empty(len(label_texts), dtype=np.int64)
    for i, (text, number) in enumerate(zip(label_texts, numbers, strict=True)):
        label = known.get(text)
        if label is None:
            raise InputError(
                f"{path}: line {number}: unknown label {quoted(text)}; {task.name} has {', '.join(task.server_labels)}"
            )
        values[i] = label
    return values


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
    import datasets

    hub_split = "train" if split == "train" else (task.dev | task.test)[split].hub
    source = f"{task.hub_dataset}/{task.hub_name}"

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(task.hub_dataset, task.hub_name, split=hub_split, cache_dir=cache_dir)
    except Exception as error:  # the library raises a dozen unrelated types for "cannot reach it"
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        raise InputError(
            f"cannot load {source} from the hub{offline}: {type(error).__name__}. Give "
            f"--data_dir <folder with the {task.name} TSV files>, or try `make demo`, which needs no network"
        ) from error
    texts = tuple(list(data[column]) for column in task.hub_text_columns)
    labels = None
    if split not in task.test:
        if task.regression:
            labels = np.asarray(data["label"], dtype=np.float32)
        else:
            names = data.features["label"].names
            if sorted(names) != sorted(task.labels):
                raise InputError(f"{source} has classes {names}, expected {list(task.labels)}")
            ours = np.array([task.labels.index(name) for name in names], dtype=np.int64)
            labels = ours[np.asarray(data["label"], dtype=np.int64)]
    ids = data["idx"] if "idx" in data.column_names else range(len(data))
    return _examples(task, split, texts, labels, [str(i) for i in ids], None, f"{source}/{hub_split}")
