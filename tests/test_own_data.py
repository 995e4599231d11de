"""Data of the user's own: five formats, names and numbers as labels, rows without labels, files that do not fit."""

import argparse
import csv
import json
import logging

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from tests import tiny
from utils.data.class_names import score_orders, stated_names
from utils.data.examples import fingerprint_of, load_split
from utils.data.export import columns_of_examples
from utils.data.sources import data_name, named_path, open_data
from utils.data.tables import read_table, write_table
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.flags import SourceSettings, name_data

PAIRS = tiny.pairs(12)
COLUMNS = {
    "premise": [p for p, _, _ in PAIRS], "hypothesis": [h for _, h, _ in PAIRS], "label": [label for *_, label in PAIRS],
}  # fmt: skip
ODD = ['He said "no".', "one, two", "line\nbreak", " spaces ", "NA", "null", "\u2028", "1.0", "'", "", "a", "b"]


def opened(**flags):
    return open_data(
        SourceSettings(
            **{key: str(value) if key in ("train_file", "test_file") else value for key, value in flags.items()}
        )
    )


def names_of(examples):
    return [examples.label_names[i] for i in examples.labels]


def write_csv(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(path, labels, *, column="label"):
    """A CSV of texts with these labels."""
    return write_csv(path, ["text", column], [(f"text {i}", label) for i, label in enumerate(labels)])


# --------------------------------------------------------------------------------------------------------------- formats
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    columns = COLUMNS if suffix == "tsv" else COLUMNS | {"premise": ODD}
    path = tmp_path / f"train.{suffix}"
    if suffix == "json":
        path.write_text(
            json.dumps([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        )
    else:
        write_table(path, columns)
    train = opened(train_file=path).load("train")
    assert [list(texts) for texts in train.texts] == [columns["premise"], columns["hypothesis"]]
    assert names_of(train) == columns["label"] and train.label_names == tiny.LABELS
    saved = datasets.Dataset.from_dict(columns).class_encode_column("label")
    saved.save_to_disk(tmp_path / "saved")
    again = opened(dataset_name=str(tmp_path / "saved")).load("train")
    assert again.fingerprint == train.fingerprint and again.task.name == "saved" and train.task.name == "custom"


def test_a_text_of_two_lines_is_another_text_than_two(tmp_path):
    prints = []
    for name, texts in (("a", ["a\nb", "c"]), ("b", ["a", "b\nc"])):
        write_table(tmp_path / f"{name}.csv", {"text": texts, "label": ["x", "y"]})
        prints.append(opened(train_file=tmp_path / f"{name}.csv").load("train").fingerprint)
    assert prints[0] != prints[1]


def test_splits_of_a_saved_data_set(tmp_path):
    part = datasets.Dataset.from_dict(COLUMNS)
    datasets.DatasetDict({"train": part, "validation": part, "test": part, "extra": part}).save_to_disk(
        tmp_path / "mnli"
    )
    data = opened(dataset_name=str(tmp_path / "mnli"))
    assert (
        data.splits == ("train", "dev", "test") and list(data.task.dev) == ["dev"] and list(data.task.test) == ["test"]
    )
    assert data.load("test").labels is None and names_of(data.load("dev")) == COLUMNS["label"]
    assert data.task.name == "mnli-custom"  # GLUE's record is another


def test_scores_that_differ_have_different_fingerprints(tmp_path):
    def fingerprint(*scores):
        return opened(train_file=labelled(tmp_path / "a.csv", scores)).load("train").fingerprint

    assert fingerprint(1.2345671, 2.5) != fingerprint(1.2345672, 2.5)
    plain = fingerprint_of(([f"text {i}" for i in range(3)],), ["3.8", "0.3333", "2"])
    assert fingerprint(3.8, 0.3333, 2) == plain


def test_two_splits_of_one_name_are_refused(tmp_path):
    part = datasets.Dataset.from_dict(COLUMNS)
    datasets.DatasetDict({"train": part, "validation": part, "dev": part}).save_to_disk(tmp_path / "saved")
    refused("its splits validation and dev would have one name", dataset_name=str(tmp_path / "saved"))


def test_several_validation_files_have_names(tmp_path):
    for name in ("train", "a", "b"):
        write_table(tmp_path / f"{name}.csv", COLUMNS)
    data = opened(
        train_file=tmp_path / "train.csv", validation_file=[f"easy={tmp_path / 'a.csv'}", f"{tmp_path / 'b.csv'}"]
    )
    assert data.splits == ("train", "easy", "dev") and data.load("easy").split == "easy"
    with pytest.raises(InputError, match="two splits are called dev"):
        opened(train_file=tmp_path / "train.csv", validation_file=[str(tmp_path / "a.csv")] * 2)
    assert named_path("x=y.csv") == ("x", "y.csv") and named_path("dir/x=y.csv", "dev") == ("dev", "dir/x=y.csv")


# ---------------------------------------------------------------------------------------------------------------- labels
def test_numbers_have_no_names_and_keep_their_order(tmp_path):
    train = opened(train_file=labelled(tmp_path / "a.csv", [10, 2, 2.0, "10", "1.0", 1]))
    assert train.task.labels == ("1", "2", "10")
    assert names_of(train.load("train")) == ["10", "2", "2", "10", "1", "1"]


def test_the_names_of_a_saved_data_set_count_not_its_numbers(tmp_path):
    """Two splits, and a Parquet file, number the same classes in different orders."""
    hub, ours = ["entailment", "neutral", "contradiction"], ["neutral", "contradiction", "entailment"]
    parts = {}
    for split, order in (("train", hub), ("validation", ours)):
        features = datasets.Features(
            {k: datasets.Value("string") for k in COLUMNS} | {"label": datasets.ClassLabel(names=order)}
        )
        rows = COLUMNS | {"label": [order.index(label) for label in COLUMNS["label"]]}
        parts[split] = datasets.Dataset.from_dict(rows, features=features)
        parts[split].save_to_disk(tmp_path / "saved" / split)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    parts["validation"].to_parquet(tmp_path / "dev.parquet")
    saved = opened(dataset_name=str(tmp_path / "saved"))
    assert saved.task.labels == tuple(hub)
    assert names_of(saved.load("train")) == names_of(saved.load("dev")) == COLUMNS["label"]
    write_table(tmp_path / "train.csv", COLUMNS)
    files = opened(train_file=tmp_path / "train.csv", validation_file=[str(tmp_path / "dev.parquet")])
    assert names_of(files.load("dev")) == COLUMNS["label"]


def test_numbers_are_no_names(tmp_path):
    """A dev file of numbers beside a training file of names: which number is which class is unknown."""
    labelled(tmp_path / "train.csv", ["neg", "pos"] * 3)
    data = opened(train_file=tmp_path / "train.csv", validation_file=[str(labelled(tmp_path / "dev.csv", [0, 1]))])
    with pytest.raises(InputError, match=r"dev.csv: line 2: unknown label '0'; custom has neg, pos"):
        data.load("dev")


def test_a_dev_file_may_lack_a_class_but_not_add_one(tmp_path):
    labelled(tmp_path / "train.csv", ["a", "b", "c"] * 3)
    data = opened(train_file=tmp_path / "train.csv", validation_file=[str(labelled(tmp_path / "dev.csv", ["c", "a"]))])
    assert names_of(data.load("dev")) == ["c", "a"]
    data = opened(train_file=tmp_path / "train.csv", validation_file=[str(labelled(tmp_path / "dev.csv", ["c", "d"]))])
    with pytest.raises(InputError, match="line 3: unknown label 'd'"):
        data.load("dev")


def test_scores(tmp_path):
    path = labelled(tmp_path / "a.csv", [0, 2.5, "", 5, -1])
    data = opened(train_file=path)
    assert data.task.regression and data.task.metrics[0] == "corr"
    assert data.load("train").labels.tolist() == [0, 2.5, 5, -1]  # -1 is a score here, an empty cell is none
    whole = labelled(tmp_path / "b.csv", [1, 2, 3, 2])
    assert opened(train_file=whole).task.labels == ("1", "2", "3")
    assert opened(train_file=whole, do_regression=True).load("train").labels.tolist() == [1, 2, 3, 2]


def test_rows_without_a_gold_label_are_left_out_and_named(tmp_path, caplog):
    path = labelled(tmp_path / "a.csv", ["yes", "-", "no", "", "-1", "yes"])
    train = opened(train_file=path).load("train")
    assert names_of(train) == ["yes", "no", "yes"] and train.texts[0] == ["text 0", "text 2", "text 5"]
    assert train.numbers.tolist() == [2, 4, 7] and len(train.guids) == 3
    assert "left out 3 of 6 rows that have no gold label ('', '-', '-1'): line 3, 5, 6" in caplog.text
    write_csv(tmp_path / "c.csv", ["text", "label"], [["text 0", "yes"], ["text 2", "no"], ["text 5", "yes"]])
    assert opened(train_file=tmp_path / "c.csv").load("train").fingerprint == train.fingerprint
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    saved = datasets.Dataset.from_dict({"text": list("abc"), "label": [1, -1, 0]}, features=features)
    saved.save_to_disk(tmp_path / "saved")
    assert names_of(opened(dataset_name=str(tmp_path / "saved")).load("train")) == ["yes", "no"]


def test_what_was_guessed_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_table(
        tmp_path / "a.csv", {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "gold_label": ["x", "y"], "label1": "xy"}
    )
    data = opened(train_file=tmp_path / "a.csv")
    assert data.task.text_columns == ("sentence1", "sentence2") and data.task.label_column == "gold_label"
    assert "texts in sentence1 and sentence2, labels in gold_label (guessed; --text_columns" in caplog.text
    assert "2 classes: x (1), y (1)" in caplog.text


def test_a_checkpoint_of_numbered_classes_is_matched_by_these_numbers():
    assert stated_names({0: "0", 1: "1"}) is None and stated_names({0: "0", 1: "1"}, ("0", "1")) == ("0", "1")
    assert stated_names({0: "LABEL_0", 1: "LABEL_1"}, ("0", "1")) is None


def test_orders_of_many_classes_are_found_without_trying_all():
    rng = np.random.default_rng(0)
    names = tuple(f"c{i}" for i in range(40))
    gold, order = rng.integers(0, 40, 4000), rng.permutation(40)
    outputs = np.where(rng.random(4000) < 0.7, np.argsort(order)[gold], rng.integers(0, 40, 4000))
    scored = score_orders(outputs, gold, names)
    assert scored[0][0] == tuple(names[i] for i in order) and len(scored) == 3 and dict(scored)[names] < 0.2
    assert len(score_orders(outputs % 5, gold % 5, names[:5])) == 120


# ----------------------------------------------------------------------------------------------------------- the records
def nli_row(premise, hypothesis, label):
    return {
        "gold_label": label,
        "sentence1": premise,
        "sentence2": hypothesis,
        "pairID": f"{len(premise)}n",
        "captionID": "x",
    }


def write_lines(path, rows, *, tsv=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)] if tsv else map(json.dumps, rows)
    path.write_text("\n".join(lines) + "\n")


RECORDS = {  # task -> file, the rows of one split
    "snli": ("snli_1.0_train.jsonl", [nli_row(*pair) for pair in PAIRS]),
    "SNLI": ("snli_1.0_train.txt", [nli_row(*pair) for pair in PAIRS]),
    "mnli": ("multinli_1.0_train.jsonl", [nli_row(*pair) | {"genre": "g"} for pair in PAIRS]),
    "MNLI": ("multinli_1.0_train.txt", [nli_row(*pair) | {"genre": "g"} for pair in PAIRS]),
    "anli-r2": ("R2/train.jsonl", [{"uid": "u", "context": p, "hypothesis": h, "label": label[0]} for p, h, label in PAIRS]),
    "wanli": ("train.jsonl", [{"id": 1, "premise": p, "hypothesis": h, "gold": label, "pairID": "7"} for p, h, label in PAIRS]),
    "fever_nli": ("train_fitems.jsonl", [
        {"cid": 1, "context": p, "query": h,
         "label": {"e": "SUPPORTS", "c": "REFUTES", "n": "NOT ENOUGH INFO"}[label[0]]} for p, h, label in PAIRS
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_the_original_files_of_the_nli_sets(tmp_path, caplog, name):
    file, rows = RECORDS[name]
    key = next(key for key in rows[0] if key in ("gold_label", "label", "gold"))
    unlabelled = [rows[0] | {key: "-"}] if key == "gold_label" else []
    write_lines(tmp_path / file, unlabelled + rows, tsv=file.endswith(".txt"))
    train = load_split(get_task(name), "train", data_dir=tmp_path)
    assert list(zip(*train.texts, names_of(train), strict=True)) == PAIRS
    assert len(set(train.guids)) >= 1 and ("left out 1 of 13 rows" in caplog.text) == bool(unlabelled)


def test_paws(tmp_path):
    rows = [{"id": i, "sentence1": p, "sentence2": h, "label": i % 2} for i, (p, h, _) in enumerate(PAIRS)]
    write_lines(tmp_path / "train.tsv", rows, tsv=True)
    train = load_split(get_task("paws"), "train", data_dir=tmp_path)
    assert names_of(train) == ["not_paraphrase", "paraphrase"] * 6


def test_fever_nli_on_the_hub_has_claim_and_evidence_the_other_way_round(monkeypatch):
    rows = {"premise": ["claim", "c"], "hypothesis": ["evidence", "e"], "label": [0, 1]}
    features = datasets.Features(
        {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string"),
         "label": datasets.ClassLabel(names=["entailment", "neutral"])}
    )  # fmt: skip
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *args, **options: datasets.Dataset.from_dict(rows, features=features)
    )
    with pytest.raises(InputError, match="has classes"):
        load_split(get_task("fever-nli"), "train")
    features["label"] = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    train = load_split(get_task("fever-nli"), "train")
    assert train.texts[0][0] == "evidence" and names_of(train) == ["entailment", "neutral"]


# ---------------------------------------------------------------------------------------------------------------- export
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("regression", [False, True])
def test_exported_examples_are_the_examples(tmp_path, suffix, regression):
    labels = [i + 0.25 for i in range(12)] if regression else COLUMNS["label"]
    write_table(tmp_path / "a.jsonl", COLUMNS | {"label": labels, "genre": ["g"] * 12})
    train = opened(train_file=tmp_path / "a.jsonl").load("train")
    write_table(tmp_path / f"b.{suffix}", columns_of_examples(train, [3, 1, 2], weight=[1.0, 2.0, 0.5]))
    again = opened(train_file=tmp_path / f"b.{suffix}").load("train")
    assert [column[:] for column in again.texts] == [[column[i] for i in (3, 1, 2)] for column in train.texts]
    assert again.genres == ["g"] * 3
    if regression:
        assert again.labels.tolist() == train.labels[[3, 1, 2]].tolist()
    else:
        assert names_of(again) == [labels[i] for i in (3, 1, 2)]
    assert [float(value) for value in read_table(tmp_path / f"b.{suffix}").column("weight")] == [1, 2, 0.5]


def test_a_label_column_called_score_keeps_its_labels(tmp_path):
    train = opened(train_file=labelled(tmp_path / "a.csv", [1.5, 2.5], column="score"), label_column="score").load(
        "train"
    )
    exported = columns_of_examples(train, [1, 0], weight=[1.0, 1.0], score=[0.1, 0.9])
    assert exported["score"] == [2.5, 1.5] and exported["selection_score"] == [0.1, 0.9] and "weight" in exported


def test_a_tab_cannot_be_exported_as_tsv(tmp_path):
    with pytest.raises(InputError, match=r"b.tsv: line 2: 'a\\tb' holds a tab"):
        write_table(tmp_path / "b.tsv", {"text": ["a\tb"]})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------- bad input
def refused(pattern, **flags):
    with pytest.raises(InputError, match=pattern) as error:
        data = opened(**flags)
        for split in data.splits:
            data.load(split)
    assert "\n" not in str(error.value)


def test_columns_that_are_missing_or_not_clear(tmp_path):
    path = write_csv(
        tmp_path / "a.csv", ["text", "premise", "hypothesis", "label", "gold_label"], [list("abcde"), list("abcdf")]
    )
    refused("text could be in premise and hypothesis or text; say which with --text_columns", train_file=path)
    refused(
        "label could be in label or gold_label; say which with --label_column", train_file=path, text_columns=["text"]
    )
    refused("no column 'body'; its columns are 'text, premise", train_file=path, text_columns=["body"])
    refused("one text column or two, not 3", train_file=path, text_columns=["text", "premise", "hypothesis"])
    refused("one column cannot be two things", train_file=path, text_columns=["text"], label_column="text")
    odd = write_csv(tmp_path / "b.csv", ["body", "label"], [["a", "x"], ["b", "y"]])
    refused("which column holds the text\\? Say it with --text_columns; there are 'body, label'", train_file=odd)
    assert opened(train_file=odd, text_columns=["body"]).load("train").texts == (["a", "b"],)
    refused(r"b.csv: no column 'text'; it needs the columns of the training data", train_file=labelled(tmp_path / "c.csv", "ab"),
            validation_file=[str(odd)])  # fmt: skip


def test_labels_that_cannot_be_meant(tmp_path):
    refused("every label in the column 'label' is 'a'", train_file=labelled(tmp_path / "a.csv", "aaa"))
    for names in (["Yes", "yes", "no"], ["non-entailment", "not_entailment", "entailment"]):
        message = f"'{names[0]}' and '{names[1]}' are one class in two spellings"
        refused(message, train_file=labelled(tmp_path / "b.csv", names))
    refused("has 30 different values in 30 rows; is it the label", train_file=labelled(tmp_path / "c.csv", range(30)))
    for word in ("nan", "inf"):
        refused(f"holds '{word}' among numbers", train_file=labelled(tmp_path / "f.csv", [0, 1, word]))
    refused("no row has a gold label", train_file=labelled(tmp_path / "d.csv", ["-", "", "-1"]))
    refused("line 3: 'b' is not a number", train_file=labelled(tmp_path / "e.csv", ["1", "b"]), do_regression=True)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": list("ab"), "label": [0, 1]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    refused("give --train_file or --validation_file", test_file=tmp_path / "a.csv")


@pytest.mark.parametrize(
    "name, content, pattern",
    [
        ("a.csv", b"PAR1\xff\xfe\x00", "line 1 is not UTF-8"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"text,label\n", "holds no examples"),
        ("a.csv", b"text,label\na,b,c\n", "line 2 has 3 comma-separated columns where 2 are due"),
        ("a.csv", b'text,label\n"a,b\nc,d\n', "line 2 is not CSV .* double quote left open"),
        ("a.csv", b"text;label\na;b\n", "which column holds the text.* there are 'text;label'"),
        ("a.csv", b'{"text": "a", "label": "b"}\n', "holds no examples"),
        ("a.csv", b"text,text,label\na,b,c\n", "names 'text' more than once"),
        ("a.tsv", b"text,label\na,b\n", "there are 'text,label'"),
        ("a.tsv", b"text\tlabel\na\tb\tc\n", "line 2 has 3 tab-separated columns"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", b"text,label\na,b\n", "line 1: not JSON"),
        ("a.jsonl", b"1\n", "line 1 is 1, expected an object"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"label": "y"}\n', "line 2: nothing in the column 'text', where a text is"),
        ("a.jsonl", b'{"text": 3, "label": "x"}\n{"text": "a", "label": "y"}\n', "line 1: 3 in the column 'text'"),
        ("a.jsonl", b'{"text": "a", "label": ["x", "y"]}\n', r"line 1: \['x', 'y'\] in the column 'label', where a label is"),
        ("a.jsonl", b'{"text": "a\\ud83d", "label": "x"}\n', r"line 1 holds \\ud83d, half of a character"),
        ("a.parquet", b"text,label\na,b\n", "not a readable Parquet file"),
        ("a.xlsx", b"", "unknown format; give one of .csv"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, name, content, pattern):
    (tmp_path / name).write_bytes(content)
    refused(rf"{name}: .*{pattern}" if "which" not in pattern else pattern, train_file=tmp_path / name)


def test_metadata_of_parquet_that_does_not_fit(tmp_path):
    def write(column, feature):
        features = {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        }
        about = json.dumps({"info": {"features": features | {"more": feature}}})
        table = pyarrow.table({"text": ["a", "b"], "label": column, "more": [[1], [2]]})
        pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": about}), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    path = write([0, 1], [{"dtype": "int64", "_type": "Value"}])
    assert names_of(opened(train_file=path).load("train")) == ["no", "yes"]
    refused(
        "row 1: 'no' in the column 'label', where the data set says", train_file=write(["no", "yes"], {"_type": "List"})
    )


def test_places_that_are_not_there(tmp_path):
    refused("no.csv: no such file", train_file=tmp_path / "no.csv")
    (tmp_path / "folder").mkdir()
    refused("not a data set of save_to_disk", dataset_name=str(tmp_path / "folder"))
    (tmp_path / "folder.csv").mkdir()
    refused("a folder, not a file", train_file=tmp_path / "folder.csv")


@pytest.mark.parametrize(
    "given, pattern",
    [
        ({"task_name": "mnli", "train_file": "a.csv"}, "--task_name and --train_file name two data sets"),
        ({"dataset_name": "x", "validation_file": ["a.csv"]}, "--validation_file and --dataset_name name two"),
        ({"data_dir": "x", "train_file": "a.csv"}, "--data_dir is the folder of a --task_name"),
        ({}, "give the data: --task_name, --train_file"),
        ({"task_name": "rte", "label_column": "x"}, "--label_column does not go with --task_name rte"),
        ({"task_name": "rte", "do_regression": True}, "--do_regression does not go with --task_name rte"),
        (
            {"train_file": "a.csv", "dataset_config_name": "x"},
            "--dataset_config_name is for a --dataset_name of the hub",
        ),
        ({"dataset_name": ".", "dataset_config_name": "x"}, "--dataset_config_name is for a --dataset_name of the hub"),
    ],
)
def test_one_data_set_is_named(given, pattern):
    flags = dict.fromkeys(SourceSettings.__dataclass_fields__) | given
    with pytest.raises(InputError, match=pattern):
        name_data(argparse.Namespace(**flags))
    assert data_name(SourceSettings(dataset_name="Owner/My_Set", dataset_config_name="en")) == "owner-my-set-en"
