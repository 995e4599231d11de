"""The nine GLUE tasks as records: columns, label names, splits, metrics, what the GLUE server takes. A new task is one
more record; nothing else needs to know it.

Sources: the tasks' own TSV headers; label order as in the GLUE TSV readers of transformers; submission names and label
texts from gluebenchmark.com.
"""

from dataclasses import dataclass

from utils.errors import InputError


@dataclass(frozen=True)
class Split:
    """One evaluation split: its TSV file, its name on the hub, its short name in reports, its GLUE server file."""

    file: str
    hub: str
    short: str
    server: str | None = None


@dataclass(frozen=True)
class Task:
    """One task.

    text_columns and label_column: names of TSV header columns of train and dev; a number instead of a name means that the
    file has no header and gives the column's position. labels: the class names, in class-number order, () for
    regression. tsv_labels: how the TSV (and the GLUE server) spells them, where that differs. hub_dataset, hub_name: data
    set and configuration on the hub. The hub numbers the classes of some tasks in another order; its own names say which,
    so no order is stored for it here. skip_short_rows: the official file is known to hold rows that are cut short.
    """

    name: str
    text_columns: tuple
    label_column: str | int
    labels: tuple[str, ...]
    metrics: tuple[str, ...]  # the first is the headline
    hub_name: str
    hub_text_columns: tuple[str, ...]
    dev: dict[str, Split]
    test: dict[str, Split]
    tsv_labels: tuple[str, ...] = ()
    test_text_columns: tuple = ()  # where the test file names its columns otherwise
    id_column: str | None = None
    genre_column: str | None = None
    skip_short_rows: bool = False
    hub_dataset: str = "nyu-mll/glue"

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def label_texts(self) -> dict[str, int]:
        """Every spelling that a TSV may use for a class -> class number."""
        texts = {name: i for i, name in enumerate(self.labels)}
        texts.update({text: i for i, text in enumerate(self.tsv_labels)})
        return texts

    @property
    def server_labels(self) -> tuple[str, ...]:
        return self.tsv_labels or self.labels


def _one_of_each(short: str, server: str) -> dict:
    return {
        "dev": {"dev": Split("dev.tsv", "validation", short)},
        "test": {"test": Split("test.tsv", "test", short, f"{server}.tsv")},
    }


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_01 = ("0", "1")

_TASKS = (
    Task(
        name="cola", text_columns=(3,), label_column=1, labels=("unacceptable", "acceptable"), tsv_labels=_01,
        metrics=("mcc", "acc"), hub_name="cola", hub_text_columns=("sentence",), test_text_columns=("sentence",),
        **_one_of_each("cola", "CoLA"),
    ),
    Task(
        name="sst-2", text_columns=("sentence",), label_column="label", labels=("negative", "positive"), tsv_labels=_01,
        metrics=("acc",), hub_name="sst2", hub_text_columns=("sentence",),
        **_one_of_each("sst-2", "SST-2"),
    ),
    Task(
        name="mrpc", text_columns=("#1 String", "#2 String"), label_column="Quality",
        labels=("not_equivalent", "equivalent"), tsv_labels=_01, metrics=("acc", "f1", "acc_and_f1"),
        hub_name="mrpc", hub_text_columns=_SENTENCES,
        **_one_of_each("mrpc", "MRPC"),
    ),
    Task(
        name="sts-b", text_columns=_SENTENCES, label_column="score", labels=(),
        metrics=("corr", "pearson", "spearmanr"), hub_name="stsb", hub_text_columns=_SENTENCES,
        id_column="index", genre_column="genre",
        **_one_of_each("sts-b", "STS-B"),
    ),
    Task(
        name="qqp", text_columns=("question1", "question2"), label_column="is_duplicate",
        labels=("not_duplicate", "duplicate"), tsv_labels=_01, metrics=("acc", "f1", "acc_and_f1"),
        hub_name="qqp", hub_text_columns=("question1", "question2"), id_column="id", skip_short_rows=True,
        **_one_of_each("qqp", "QQP"),
    ),
    Task(
        name="mnli", text_columns=_SENTENCES, label_column="gold_label",
        labels=("contradiction", "entailment", "neutral"), metrics=("acc",),
        hub_name="mnli", hub_text_columns=("premise", "hypothesis"), id_column="pairID", genre_column="genre",
        dev={
            "dev_matched": Split("dev_matched.tsv", "validation_matched", "mnli"),
            "dev_mismatched": Split("dev_mismatched.tsv", "validation_mismatched", "mnli-mm"),
        },
        test={
            "test_matched": Split("test_matched.tsv", "test_matched", "mnli", "MNLI-m.tsv"),
            "test_mismatched": Split("test_mismatched.tsv", "test_mismatched", "mnli-mm", "MNLI-mm.tsv"),
        },
    ),
    Task(
        name="qnli", text_columns=("question", "sentence"), label_column="label", labels=_ENTAILMENT,
        metrics=("acc",), hub_name="qnli", hub_text_columns=("question", "sentence"), id_column="index",
        **_one_of_each("qnli", "QNLI"),
    ),
    Task(
        name="rte", text_columns=_SENTENCES, label_column="label", labels=_ENTAILMENT,
        metrics=("acc",), hub_name="rte", hub_text_columns=_SENTENCES, id_column="index",
        **_one_of_each("rte", "RTE"),
    ),
    Task(
        name="wnli", text_columns=_SENTENCES, label_column="label", labels=("not_entailment", "entailment"),
        tsv_labels=_01, metrics=("acc",), hub_name="wnli", hub_text_columns=_SENTENCES, id_column="index",
        **_one_of_each("wnli", "WNLI"),
    ),
)  # fmt: skip

TASKS = {task.name: task for task in _TASKS}


def get_task(name: str) -> Task:
    """The task of that name in any letter case, with or without its hyphen. Raises InputError for others."""
    key = name.lower().replace("_", "-")
    for task in TASKS.values():
        if key in (task.name, task.name.replace("-", "")):
            return task
    raise InputError(f"--task_name {name} is not a GLUE task; known: {', '.join(TASKS)}")
