"""Reads one split of one GLUE task, from a TSV folder or from the hub, into `Examples`. Knows no model and no tokens."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.tasks import TASKS, Task
from utils.errors import InputError

logger = logging.getLogger(__name__)

HUB_DATASET = "nyu-mll/glue"


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
def _read_tsv(task: Task, split: str, folder: Path) -> Examples:
    path = folder / ("train.tsv" if split == "train" else (task.dev | task.test)[split].file)
    lines = _read_lines(path, task)
    is_test = split in task.test
    text_columns = (is_test and task.test_text_columns) or task.text_columns
    has_header = isinstance(text_columns[0], str)
    if has_header:
        header = lines[0].split("\t")
        wanted = [*text_columns] if is_test else [*text_columns, task.label_column]
        for column in wanted:
            if column not in header:
                raise InputError(
                    f"{path}: no column {column!r} in its header ({', '.join(header[:20])}); is it the file of another "
                    f"task than {task.name}{_resembling(header, task)}?"
                )
        text_at = [header.index(column) for column in text_columns]
        label_at = None if is_test else header.index(task.label_column)
        width = len(header)
        id_at = header.index(task.id_column) if task.id_column in header else None
        genre_at = header.index(task.genre_column) if task.genre_column in header else None
    else:
        text_at, label_at, width = list(text_columns), task.label_column, max(*text_columns, task.label_column) + 1
        id_at = genre_at = None

    needed = max(at for at in (*text_at, label_at) if at is not None) + 1 if task.skip_short_rows else width
    texts: tuple[list[str], ...] = tuple([] for _ in text_at)
    label_texts, guids, genres, skipped = [], [], [], 0
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        fields = line.split("\t")
        if len(fields) < needed:
            if task.skip_short_rows:
                skipped += 1
                continue
            raise InputError(
                f"{path}: line {number} has {len(fields)} tab-separated columns where {width} are due; the line is cut "
                f"short, or the folder belongs to another task than {task.name}"
            )
        for column, at in zip(texts, text_at, strict=True):
            column.append(fields[at])
        if label_at is not None:
            label_texts.append((fields[label_at], number))
        guids.append(fields[id_at] if id_at is not None else f"{split}-{len(guids)}")
        if genre_at is not None:
            genres.append(fields[genre_at])
    if not texts[0]:
        raise InputError(f"{path}: holds no examples, only {'a header line' if has_header else 'nothing'}")
    if skipped:
        logger.warning(
            "%s: skipped %d rows with too few columns, as the official %s file has", path, skipped, task.name
        )
    labels = None if label_at is None else _parse_labels(path, task, label_texts)
    return _examples(task, split, texts, labels, guids, genres or None, str(path))


def _read_lines(path: Path, task: Task) -> list[str]:
    if not path.parent.is_dir():
        raise InputError(f"--data_dir {path.parent}: no such folder; it should hold {path.name} of {task.name}")
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.tsv"))
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


def _parse_labels(path, task, label_texts) -> np.ndarray:
    if task.regression:
        values = np.empty(len(label_texts), dtype=np.float32)
        for i, (text, number) in enumerate(label_texts):
            try:
                values[i] = float(text)
            except ValueError:
                values[i] = np.nan
            if not np.isfinite(values[i]):
                raise InputError(f"{path}: line {number}: {text!r} is not a number where {task.name} has its score")
        return values
    known = task.label_texts
    values = np.empty(len(label_texts), dtype=np.int64)
    for i, (text, number) in enumerate(label_texts):
        label = known.get(text)
        if label is None:
            raise InputError(
                f"{path}: line {number}: unknown label {text!r}; {task.name} has {', '.join(task.server_labels)}"
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
    """The same split of nyu-mll/glue. Class numbers are mapped by the data set's own label names."""
    hub_split = "train" if split == "train" else (task.dev | task.test)[split].hub
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(HUB_DATASET, task.hub_name, split=hub_split, cache_dir=cache_dir)
    except Exception as error:  # the library raises a dozen unrelated types for "cannot reach it"
        offline = " (offline mode is on)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        raise InputError(
            f"cannot load {HUB_DATASET}/{task.hub_name} from the hub{offline}: {type(error).__name__}. Give "
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
                raise InputError(f"{HUB_DATASET}/{task.hub_name} has classes {names}, expected {list(task.labels)}")
            ours = np.array([task.labels.index(name) for name in names], dtype=np.int64)
            labels = ours[np.asarray(data["label"], dtype=np.int64)]
    ids = data["idx"] if "idx" in data.column_names else range(len(data))
    return _examples(
        task, split, texts, labels, [str(i) for i in ids], None, f"{HUB_DATASET}/{task.hub_name}/{hub_split}"
    )
