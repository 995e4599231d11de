"""The data sets that have names, as records: columns, label names, splits, metrics. A new one is one more record; nothing
else needs to know it. GLUE's nine come first, then sets of pairs in the files that their authors published.

Sources: the files' own headers and keys; label order as in the GLUE TSV readers of transformers; submission names and label
texts from gluebenchmark.com.
"""

from dataclasses import dataclass

from utils.errors import InputError


@dataclass(frozen=True)
class Split:
    """One split: its file, its name on the hub, its short name in reports, the file of its predictions.

    also: other names and formats in which the same split circulates; the first file that is there is read.
    """

    file: str
    hub: str
    short: str
    server: str | None = None
    also: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return self.file, *self.also


@dataclass(frozen=True)
class Task:
    """One task.

    text_columns and label_column: names of columns (of keys, in JSON Lines) of train and dev; a number instead of a name
    means that the file has no header and gives the column's position. labels: the class names, in class-number order, ()
    for regression. tsv_labels: how the files (and the GLUE server) spell them, where that differs. unlabelled: what stands
    in place of a label in rows that have none; such rows are left out. hub_dataset, hub_name: data set and configuration
    on the hub; without hub_text_columns it is not there. The hub numbers the classes of some tasks in another order; its
    own names say which, so no order is stored for it here. skip_short_rows: the official file is known to hold rows that
    are cut short. score_range: the lowest and highest score that a regression predicts. hypothesis_first: of the two texts the
    hypothesis comes first.
    """

    name: str
    text_columns: tuple
    label_column: str | int
    labels: tuple[str, ...]
    metrics: tuple[str, ...]  # the first is the headline
    dev: dict[str, Split]
    test: dict[str, Split]
    train: Split = Split("train.tsv", "train", "train")
    hub_dataset: str = "nyu-mll/glue"
    hub_name: str | None = None
    hub_text_columns: tuple[str, ...] = ()
    hub_label_column: str = "label"
    tsv_labels: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    test_text_columns: tuple = ()  # where the test file names its columns otherwise
    id_column: str | None = None
    genre_column: str | None = None
    skip_short_rows: bool = False
    score_range: tuple[float, float] | None = None
    hypothesis_first: bool = False

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train} | self.dev | self.test

    @property
    def text_names(self) -> tuple[str, ...]:
        """What the texts are called: as in the training file, where it has a header, else as on the hub."""
        return self.text_columns if isinstance(self.text_columns[0], str) else self.hub_text_columns

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def label_texts(self) -> dict[str, int]:
        """Every spelling that a file may use for a class -> class number."""
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


def _splits_in(pattern: str, short: str, *, hub: str = "", also: str = "", names=("train", "dev", "test")) -> dict:
    """The splits whose files are one pattern with another word in it. hub: the same for the hub, where it says dev."""

    def split(name: str) -> Split:
        on_hub = hub.format(name) if hub else {"dev": "validation"}.get(name, name)
        more = (also.format(name),) if also else ()
        return Split(pattern.format(name), on_hub, short, f"{short}_test_predictions.tsv", more)

    return {
        "train": split(names[0]),
        "dev": {names[1]: split(names[1])},
        "test": {name: split(name) for name in names[2:]},
    }


def _anli(round_number: int) -> Task:
    name = f"r{round_number}"
    return Task(
        name=f"anli-{name}", text_columns=("context", "hypothesis"), label_column="label", labels=_NLI,
        tsv_labels=("c", "e", "n"), metrics=("acc",), id_column="uid", hub_dataset="facebook/anli",
        hub_text_columns=("premise", "hypothesis"),
        **_splits_in(f"R{round_number}/{{}}.jsonl", f"anli-{name}", hub=f"{{}}_{name}"),
    )  # fmt: skip


_MULTINLI = ("multinli_1.0_{}.jsonl", "multinli_1.0_{}.txt")
_NLI = ("contradiction", "entailment", "neutral")
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
        id_column="index", genre_column="genre", score_range=(0.0, 5.0),
        **_one_of_each("sts-b", "STS-B"),
    ),
    Task(
        name="qqp", text_columns=("question1", "question2"), label_column="is_duplicate",
        labels=("not_duplicate", "duplicate"), tsv_labels=_01, metrics=("acc", "f1", "acc_and_f1"),
        hub_name="qqp", hub_text_columns=("question1", "question2"), id_column="id", skip_short_rows=True,
        **_one_of_each("qqp", "QQP"),
    ),
    Task(
        name="mnli", text_columns=_SENTENCES, label_column="gold_label", labels=_NLI, metrics=("acc",), unlabelled=("-",),
        hub_name="mnli", hub_text_columns=("premise", "hypothesis"), id_column="pairID", genre_column="genre",
        train=Split("train.tsv", "train", "train", also=tuple(name.format("train") for name in _MULTINLI)),
        dev={
            f"dev_{part}": Split(
                f"dev_{part}.tsv", f"validation_{part}", short,
                also=tuple(name.format(f"dev_{part}") for name in _MULTINLI),
            )
            for part, short in (("matched", "mnli"), ("mismatched", "mnli-mm"))
        },
        test={
            "test_matched": Split("test_matched.tsv", "test_matched", "mnli", "MNLI-m.tsv"),
            "test_mismatched": Split("test_mismatched.tsv", "test_mismatched", "mnli-mm", "MNLI-mm.tsv"),
        },
    ),
    Task(
        name="qnli", text_columns=("question", "sentence"), label_column="label", labels=_ENTAILMENT,
        metrics=("acc",), hub_name="qnli", hub_text_columns=("question", "sentence"), id_column="index",
        hypothesis_first=True,
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
    # ------------------------------------------------------------------------------------------------ beside GLUE
    Task(
        name="snli", text_columns=_SENTENCES, label_column="gold_label", labels=_NLI, metrics=("acc",), unlabelled=("-", ""),
        id_column="pairID", hub_dataset="stanfordnlp/snli", hub_text_columns=("premise", "hypothesis"),
        **_splits_in("snli_1.0_{}.jsonl", "snli", also="snli_1.0_{}.txt"),
    ),
    *(_anli(number) for number in (1, 2, 3)),
    Task(  # its authors publish no dev set
        name="wanli", text_columns=("premise", "hypothesis"), label_column="gold", labels=_NLI, metrics=("acc",),
        id_column="pairID", genre_column="genre", hub_dataset="alisawuffles/WANLI",
        hub_text_columns=("premise", "hypothesis"), hub_label_column="gold",
        **_splits_in("{}.jsonl", "wanli", names=("train", "test")),
    ),
    Task(  # the claim is the hypothesis, its evidence the premise; the hub copy names the two the other way round
        name="fever-nli", text_columns=("context", "query"), label_column="label", labels=_NLI,
        tsv_labels=("REFUTES", "SUPPORTS", "NOT ENOUGH INFO"), metrics=("acc",), unlabelled=("",), id_column="cid",
        hub_dataset="pietrolesci/nli_fever", hub_text_columns=("hypothesis", "premise"),
        **_splits_in("{}_fitems.jsonl", "fever-nli", hub="{}"),
    ),
    Task(
        name="paws", text_columns=_SENTENCES, label_column="label", labels=("not_paraphrase", "paraphrase"),
        tsv_labels=_01, metrics=("acc", "f1"), id_column="id", hub_dataset="google-research-datasets/paws",
        hub_name="labeled_final", hub_text_columns=_SENTENCES, **_splits_in("{}.tsv", "paws"),
    ),
)  # fmt: skip

TASKS = {task.name: task for task in _TASKS}


def get_task(name: str) -> Task:
    """The task of that name in any letter case, with or without its hyphen. Raises InputError for others."""
    key = name.lower().replace("_", "-")
    for task in TASKS.values():
        if key in (task.name, task.name.replace("-", "")):
            return task
    raise InputError(
        f"--task_name {name} is not a GLUE task or another one that has a record; known: {', '.join(TASKS)}. For data of "
        "your own give --train_file and --validation_file, or --dataset_name"
    )
