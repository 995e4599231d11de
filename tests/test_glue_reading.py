"""Every GLUE task from files in its official TSV layout, made here with the traps the real ones hold; the hub reading
agrees; every kind of bad input is one line that names file and row."""

import numpy as np
import pytest

from tests import tiny
from utils.data.examples import load_split
from utils.data.tasks import TASKS, get_task
from utils.errors import InputError

# task -> (train header or None, rows of cells, where the texts and the label are, texts and labels expected)
LAYOUTS = {
    "cola": (None, [["src", "0", "*", 'He "said" it.'], ["src", "1", "", "Fine ."]],
             ([('He "said" it.', "Fine .")]), ["unacceptable", "acceptable"]),
    "sst-2": (["sentence", "label"], [["a 'gem' ", "1"], ["bad\u2028one", "0"]],
              ([("a 'gem' ", "bad\u2028one")]), ["positive", "negative"]),
    "mrpc": (["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
             [["1", "7", "8", '"One said ,', "One said"], ["0", "9", "10", "Two", "Zwei"]],
             ([('"One said ,', "Two"), ("One said", "Zwei")]), ["equivalent", "not_equivalent"]),
    "sts-b": (["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"],
              [["0", "news", "f", "2012", "1", "n", "n", "A plane.", "A jet.", "3.800"],
               ["1", "forum", "f", "2013", "2", "n", "n", "A cat.", "A dog.", "0"]],
              ([("A plane.", "A cat."), ("A jet.", "A dog.")]), [3.8, 0.0]),
    "qqp": (["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
            [["5", "1", "2", "Why?", "How come?", "1"], ["6", "3", "4", "Who?", "When?", "0"]],
            ([("Why?", "Who?"), ("How come?", "When?")]), ["duplicate", "not_duplicate"]),
    "mnli": (["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse",
              "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "label1", "gold_label"],
             [["0", "1", "1e", "fiction", "", "", "", "", "He left.", "He went.", "neutral", "entailment"],
              ["1", "2", "2c", "travel", "", "", "", "", "It rains.", "It is dry.", "entailment", "contradiction"]],
             ([("He left.", "It rains."), ("He went.", "It is dry.")]), ["entailment", "contradiction"]),
    "qnli": (["index", "question", "sentence", "label"],
             [["0", "Who?", "Ann did.", "entailment"], ["1", "When?", "Here.", "not_entailment"]],
             ([("Who?", "When?"), ("Ann did.", "Here.")]), ["entailment", "not_entailment"]),
    "rte": (["index", "sentence1", "sentence2", "label"],
            [["0", "A died.", "A is dead.", "entailment"], ["1", "B ran.", "B sat.", "not_entailment"]],
            ([("A died.", "B ran."), ("A is dead.", "B sat.")]), ["entailment", "not_entailment"]),
    "wnli": (["index", "sentence1", "sentence2", "label"],
             [["0", "It broke.", "The cup broke.", "1"], ["1", "He fell.", "She fell.", "0"]],
             ([("It broke.", "He fell."), ("The cup broke.", "She fell.")]), ["entailment", "not_entailment"]),
}  # fmt: skip


def write(folder, name, *, split="train", rows=None, header=True, end="\n"):
    columns, own_rows, _, _ = LAYOUTS[name]
    task = get_task(name)
    file = "train.tsv" if split == "train" else (task.dev | task.test)[split].file
    lines = [columns] if columns and header else []
    lines += own_rows if rows is None else rows
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(("".join("\t".join(cells) + end for cells in lines)).encode())
    return folder / file


def names_of(examples):
    if examples.task.regression:
        return pytest.approx(examples.labels.tolist())
    return [examples.label_names[i] for i in examples.labels]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_train_and_dev_of_every_task(tmp_path, name, end):
    _, _, texts, labels = LAYOUTS[name]
    for split in ("train", *TASKS[name].dev):
        write(tmp_path, name, split=split, end=end)
        examples = load_split(get_task(name), split, data_dir=tmp_path)
        assert [tuple(column) for column in examples.texts] == texts
        assert labels == names_of(examples)
        assert len(examples.guids) == len(examples) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_test_split_without_labels(tmp_path, name):
    task = get_task(name)
    columns, rows, texts, _ = LAYOUTS[name]
    texts_named = task.test_text_columns or task.text_columns
    if columns is None:  # CoLA's test file, unlike its others, has a header and an index
        columns, body = ["index", "sentence"], [[str(i), text] for i, text in enumerate(texts[0])]
    else:
        keep = [i for i, column in enumerate(columns) if column != task.label_column]
        columns, body = [columns[i] for i in keep], [[row[i] for i in keep] for row in rows]
    for split, about in task.test.items():
        lines = ["\t".join(cells) for cells in [columns, *body]]
        (tmp_path / about.file).write_text("\n".join(lines) + "\n")
        examples = load_split(task, split, data_dir=tmp_path)
        assert [tuple(column) for column in examples.texts] == texts and examples.labels is None
        assert len(texts_named) == len(examples.texts)


def test_genres_and_ids_where_the_task_has_them(tmp_path):
    write(tmp_path, "mnli")
    examples = load_split(get_task("mnli"), "train", data_dir=tmp_path)
    assert examples.genres == ["fiction", "travel"] and examples.guids == ["1e", "2c"]
    write(tmp_path, "sts-b")
    examples = load_split(get_task("sts-b"), "train", data_dir=tmp_path)
    assert examples.genres == ["news", "forum"] and examples.guids == ["0", "1"]
    write(tmp_path, "qqp")
    examples = load_split(get_task("qqp"), "train", data_dir=tmp_path)
    assert examples.genres is None and examples.guids == ["5", "6"]
    write(tmp_path, "cola")
    assert load_split(get_task("cola"), "train", data_dir=tmp_path).guids == ["train-0", "train-1"]


def test_the_gold_label_counts_not_one_annotators(tmp_path):
    """MNLI's dev files have five annotators' labels before the gold one."""
    columns, rows, _, _ = LAYOUTS["mnli"]
    more = [f"label{i}" for i in range(2, 6)]
    lines = [[*columns[:-1], *more, "gold_label"], *([*row[:-1], *["neutral"] * 4, row[-1]] for row in rows)]
    (tmp_path / "dev_matched.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    examples = load_split(get_task("mnli"), "dev_matched", data_dir=tmp_path)
    assert names_of(examples) == ["entailment", "contradiction"]


def test_byte_order_mark_and_missing_last_newline(tmp_path):
    path = write(tmp_path, "mrpc")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    assert names_of(load_split(get_task("mrpc"), "train", data_dir=tmp_path)) == ["equivalent", "not_equivalent"]


def test_qqps_broken_rows_are_skipped_with_a_warning(tmp_path, caplog):
    rows = LAYOUTS["qqp"][1]
    write(tmp_path, "qqp", rows=[rows[0], ["9", "cut"], rows[1]])
    assert len(load_split(get_task("qqp"), "train", data_dir=tmp_path)) == 2
    assert "skipped 1 rows" in caplog.text


def test_same_rows_same_fingerprint_other_labels_another(tmp_path):
    write(tmp_path / "a", "rte")
    write(tmp_path / "b", "rte", end="\r\n")
    rows = LAYOUTS["rte"][1]
    write(tmp_path / "c", "rte", rows=[rows[0], [*rows[1][:-1], "entailment"]])
    write(tmp_path / "d", "rte", rows=[["0", "AB", "C", "entailment"]])
    write(tmp_path / "e", "rte", rows=[["0", "A", "BC", "entailment"]])
    a, b, c, d, e = (load_split(get_task("rte"), "train", data_dir=tmp_path / x).fingerprint for x in "abcde")
    assert a == b and len({a, c, d, e}) == 4


# ------------------------------------------------------------------------------------------------------------------ hub
# task -> its configuration, text columns and class names on the hub. MNLI's real class order is not that of its TSV
# reader; the others' orders are turned round here, so that a reader which trusts the numbers is wrong for all of them.
HUB = {
    "cola": ("cola", ("sentence",), ["acceptable", "unacceptable"]),
    "sst-2": ("sst2", ("sentence",), ["positive", "negative"]),
    "mrpc": ("mrpc", ("sentence1", "sentence2"), ["equivalent", "not_equivalent"]),
    "sts-b": ("stsb", ("sentence1", "sentence2"), None),
    "qqp": ("qqp", ("question1", "question2"), ["duplicate", "not_duplicate"]),
    "mnli": ("mnli", ("premise", "hypothesis"), ["entailment", "neutral", "contradiction"]),
    "qnli": ("qnli", ("question", "sentence"), ["not_entailment", "entailment"]),
    "rte": ("rte", ("sentence1", "sentence2"), ["not_entailment", "entailment"]),
    "wnli": ("wnli", ("sentence1", "sentence2"), ["entailment", "not_entailment"]),
}
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"} | {
    f"{ours}_{part}": f"{theirs}_{part}"
    for ours, theirs in (("dev", "validation"), ("test", "test"))
    for part in ("matched", "mismatched")
}


class Hub:
    """Stands in for `datasets.load_dataset`: the rows of LAYOUTS, without labels (-1) in test splits."""

    def __init__(self, name, class_names=None):
        self.asked = None
        self.texts, self.labels = LAYOUTS[name][2:]
        self.columns = HUB[name][1]
        self.class_names = class_names or HUB[name][2]

    def __call__(self, dataset, configuration, *, split, cache_dir):
        import datasets

        self.asked = (dataset, configuration, split)
        regression = self.class_names is None
        features = dict.fromkeys(self.columns, datasets.Value("string"))
        features["label"] = datasets.Value("float32") if regression else datasets.ClassLabel(names=self.class_names)
        labels = self.labels if regression else [self.class_names.index(label) for label in self.labels]
        if split.startswith("test"):
            labels = [-1 for _ in labels]
        rows = dict(zip(self.columns, self.texts, strict=True)) | {"label": labels, "idx": [70, 71]}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features | {"idx": datasets.Value("int32")}))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_hub_numbers_classes_otherwise_and_is_mapped_by_name(tmp_path, monkeypatch, name):
    task, hub = TASKS[name], Hub(name)
    monkeypatch.setattr("datasets.load_dataset", hub)
    for split in ("train", *task.dev):
        write(tmp_path, name, split=split)
        tsv, read = load_split(task, split, data_dir=tmp_path), load_split(task, split)
        assert hub.asked == ("nyu-mll/glue", HUB[name][0], HUB_SPLITS[split])
        assert read.texts == tsv.texts and read.guids == ["70", "71"]
        assert read.labels.tolist() == tsv.labels.tolist() and read.labels.dtype == tsv.labels.dtype
        assert read.fingerprint == tsv.fingerprint
    for split in task.test:
        assert load_split(task, split).labels is None and hub.asked[2] == HUB_SPLITS[split]


def test_other_classes_on_the_hub_are_refused(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", Hub("rte", ["entailment", "neutral", "not_entailment"]))
    with pytest.raises(InputError, match=r"glue/rte has classes .*'neutral'.*expected"):
        load_split(get_task("rte"), "train")


def test_without_the_hub_it_says_what_to_do(monkeypatch):
    import datasets

    def fail(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"Give --data_dir"):
        load_split(get_task("rte"), "train")


# ------------------------------------------------------------------------------------------------------------ bad input
def refused(folder, name, pattern, split="train"):
    with pytest.raises(InputError, match=pattern) as error:
        load_split(get_task(name), split, data_dir=folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if not TASKS[name].regression])
def test_an_unknown_label_names_its_line(tmp_path, name):
    _, rows, _, _ = LAYOUTS[name]
    at = LAYOUTS[name][0].index(TASKS[name].label_column) if LAYOUTS[name][0] else TASKS[name].label_column
    bad = [*rows[1]]
    bad[at] = "maybe"
    write(tmp_path, name, rows=[rows[0], bad])
    refused(tmp_path, name, rf"train\.tsv: line {3 if LAYOUTS[name][0] else 2}: unknown label 'maybe'")


@pytest.mark.parametrize("score", ["high", "", "nan", "inf"])
def test_a_score_that_is_no_number(tmp_path, score):
    rows = LAYOUTS["sts-b"][1]
    write(tmp_path, "sts-b", rows=[rows[0], [*rows[1][:-1], score]])
    refused(tmp_path, "sts-b", rf"line 3: '{score}' is not a number")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "qqp"])
def test_a_short_row_names_its_line(tmp_path, name):
    rows = LAYOUTS[name][1]
    write(tmp_path, name, rows=[rows[0], rows[1][:1]])
    refused(tmp_path, name, rf"line {3 if LAYOUTS[name][0] else 2} has 1 tab-separated columns")


def test_a_short_row_counts_where_nothing_of_ours_is_missing(tmp_path):
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\tnote\n0\tA\tB\tentailment\n")
    refused(tmp_path, "rte", r"train\.tsv: line 2 has 4 tab-separated columns where 5 are due")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("cola", "qqp")])
def test_a_short_row_of_a_test_split(tmp_path, name):
    columns, rows, _, _ = LAYOUTS[name]
    (split, about), *_ = TASKS[name].test.items()
    (tmp_path / about.file).write_text("\t".join(columns) + "\n" + "\t".join(rows[0]) + "\ncut\n")
    refused(tmp_path, name, rf"{about.file}: line 3 has 1 tab-separated columns", split=split)


@pytest.mark.parametrize(
    "name, column",
    [(name, column) for name in LAYOUTS if LAYOUTS[name][0] for column in (*TASKS[name].text_columns, TASKS[name].label_column)],
)  # fmt: skip
def test_a_missing_column_is_named(tmp_path, name, column):
    columns, rows, _, _ = LAYOUTS[name]
    keep = [i for i, there in enumerate(columns) if there != column]
    lines = [[cells[i] for i in keep] for cells in (columns, *rows)]
    (tmp_path / "train.tsv").write_text("".join("\t".join(cells) + "\n" for cells in lines))
    refused(tmp_path, name, rf"train\.tsv: no column '{column}' in its header \('{columns[keep[0]]}")


@pytest.mark.parametrize(
    "content, pattern",
    [(b"", "the file is empty"), (b"\n \n", "the file is empty"), (b"index\tsentence1\tsentence2\tlabel\n", "holds no examples"),
     (b"index\tsentence1\tsentence2\tlabel\n0\t\xff\t\t\n", "line 2 is not UTF-8")],
    ids=["empty", "blank", "header only", "latin-1"],
)  # fmt: skip
def test_files_without_content(tmp_path, content, pattern):
    (tmp_path / "train.tsv").write_bytes(content)
    refused(tmp_path, "rte", pattern)


def test_another_tasks_file_is_recognised(tmp_path):
    write(tmp_path, "qnli")
    refused(tmp_path, "rte", r"no column 'sentence1'.*looks like qnli")


def test_wrong_folders(tmp_path):
    refused(tmp_path / "nowhere", "rte", "no such folder")
    refused(tmp_path, "rte", "holds no .tsv file")
    write(tmp_path, "rte", split="dev")
    refused(tmp_path, "rte", "no train.tsv, which rte needs; it holds dev.tsv")
    with pytest.raises(InputError, match="no split 'validation'"):
        load_split(get_task("rte"), "validation", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["MNLI", "mnli", "SST-2", "sst2", "STS_B", "CoLA"])
def test_task_names_in_any_spelling(name):
    assert get_task(name).name == name.lower().replace("_", "-").replace("sst2", "sst-2")


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(InputError, match=r"xnli is not a GLUE task.*mnli"):
        get_task("xnli")


def test_labels_are_arrays_of_the_right_kind(tmp_path):
    write(tmp_path, "rte")
    assert load_split(get_task("rte"), "train", data_dir=tmp_path).labels.dtype == np.int64
    write(tmp_path, "sts-b")
    assert load_split(get_task("sts-b"), "train", data_dir=tmp_path).labels.dtype == np.float32


@pytest.mark.parametrize("split", ["train", "dev_matched"])
def test_a_surplus_tab_does_not_shift_the_columns(tmp_path, split):
    """Shifted by one, an MNLI row still holds a valid label and two texts: only the number of columns shows it."""
    path = tiny.write_mnli(tmp_path) / f"{split}.tsv"
    lines = path.read_text().split("\n")
    lines[3] = lines[3].replace(" ", "\t", 1)
    path.write_text("\n".join(lines))
    width = len(lines[0].split("\t"))
    with pytest.raises(InputError, match=f"line 4 has {width + 1} tab-separated columns where {width} are due"):
        load_split(get_task("mnli"), split, data_dir=tmp_path)


def test_a_surplus_tab_does_not_cut_a_cola_sentence(tmp_path):
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tA good sentence.\ngj04\t1\t\tThe\tdog runs.\n")
    with pytest.raises(InputError, match="line 2 has 5 tab-separated columns where 4 are due"):
        load_split(get_task("cola"), "train", data_dir=tmp_path)


@pytest.mark.parametrize("twice", ["index", "sentence1", "label"])
def test_a_doubled_header_column_is_refused(tmp_path, twice):
    (tmp_path / "train.tsv").write_text(f"index\tsentence1\t{twice}\tsentence2\tlabel\n0\ta\tb\tc\tentailment\n")
    with pytest.raises(InputError, match=f"names '{twice}' more than once"):
        load_split(get_task("rte"), "train", data_dir=tmp_path)


def test_a_huge_field_is_not_echoed_whole(tmp_path):
    (tmp_path / "train.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n0\ta\tb\t{'x' * 10**7}\n")
    with pytest.raises(InputError, match=r"unknown label 'xxx.*rte has entailment, not_entailment") as refused:
        load_split(get_task("rte"), "train", data_dir=tmp_path)
    assert len(str(refused.value)) < 400


@tiny.needs_shared
@pytest.mark.parametrize(
    "folder, task, rows",
    [
        ("mnli_pairs", "mnli", 31_601),
        ("nli_pool", "mnli", 133_891),
        ("glue/RTE", "rte", 2490),
        ("glue/CoLA", "cola", 7250),
    ],
)
def test_real_files_hold_whole_rows(folder, task, rows):
    task = get_task(task)
    assert len(load_split(task, "train", data_dir=tiny.SHARED / folder)) == rows
    for split in task.dev:
        assert len(load_split(task, split, data_dir=tiny.SHARED / folder))
