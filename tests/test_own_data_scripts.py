"""The commands of docs/own_data.md on five small data sets; challenge sets; the Trainer of transformers."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import transformers

import cluster_embeddings
import explore
import get_embeddings
import report
import run_glue
import select_examples
import sweep
from tests import documents, tiny
from tests.test_explore import read as read_page
from tests.test_own_data import nli_row, write_lines
from utils.data.tables import read_table, write_table
from utils.errors import InputError
from utils.selection.selection import Selection, random_ranking
from utils.sweep import jobs, plan
from utils.training.huggingface import WeightedTrainer, chosen_examples

PAGE = "docs/own_data.md"
SCRIPTS = {
    f"{module.__name__}.py": module for module in (get_embeddings, cluster_embeddings, select_examples, sweep, run_glue)
}
SMALL = ["--max_seq_length", "16", "--use_cpu"]


def columns(n, seed):
    rows = tiny.pairs(n, seed)
    return dict(zip(("premise", "hypothesis", "label"), map(list, zip(*rows, strict=True)), strict=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The files that the page names, and a model, in a folder."""
    root = tmp_path_factory.mktemp("world")
    parts = {"train": columns(36, 0), "dev": columns(12, 1)}
    for suffix in ("csv", "jsonl", "parquet"):
        for split, part in parts.items():
            write_table(root / "reviews" / f"{split}.{suffix}", part)
    saved = {
        "train": datasets.Dataset.from_dict(parts["train"]),
        "validation": datasets.Dataset.from_dict(parts["dev"]),
    }
    datasets.DatasetDict(saved).save_to_disk(root / "reviews" / "saved")
    for split, part in parts.items():
        rows = [nli_row(*row) for row in zip(*part.values(), strict=True)]
        write_lines(root / "snli_1.0" / f"snli_1.0_{split}.jsonl", [nli_row("a dog", "a cat", "-"), *rows])
    two = ["entailment" if label == "entailment" else "not-entailment" for label in parts["dev"]["label"]]
    write_table(
        root / "reviews" / "negation.csv", parts["dev"] | {"label": two, "group": ["with", "without", "without"] * 4}
    )
    write_table(root / "reviews" / "length.jsonl", parts["dev"] | {"group": ["long"] * 12})
    tiny.write_tokenizer(root / "model")
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(
        tiny.config("bert", num_labels=3, initializer_range=0.3)
    ).save_pretrained(root / "model")
    return root


def in_this_process(monkeypatch):
    """A sweep's runs, its explorer and its report, without processes of their own."""

    def run_jobs(todo, *, on_end, **options):
        for job in todo:
            monkeypatch.setattr(sys, "argv", [])
            jobs.run_job(job)
            on_end(job, False)
        return {}

    def start_script(command):
        {"report.py": report, "explore.py": explore}[Path(command[1]).name].main(list(map(str, command[2:])))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(plan, "run_jobs", run_jobs)
    monkeypatch.setattr(plan.Sweep, "_trial_speed", lambda self: 1.0)
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=start_script))


def without_figures(monkeypatch):
    """Drawing takes most of the time of small runs."""
    monkeypatch.setattr("utils.report.write.draw", lambda *args, **options: {})
    monkeypatch.setattr("utils.selection.cluster_report.draw", lambda *args, **options: [])


def run(line, data, out, more=()):
    python, script, *words = shlex.split(
        line.replace("$DATA", data).replace("$OUT", str(out)).replace("$MODEL", "model")
    )
    assert python == "python"
    smaller = {"--num_clusters": "3", "--data_pct": "0.25", "--data_pcts": "0.25"}
    words = [smaller.get(before, word) for before, word in zip([script, *words], words, strict=False)]
    SCRIPTS[script].main([*words, *more])


def blocks():
    sources, commands = documents.code(documents.section(PAGE, "## Five data sets, one way"), "bash")
    return [line.removeprefix("DATA=").strip('"') for line in documents.commands(sources)], documents.commands(commands)


@pytest.mark.parametrize("data", blocks()[0])
def test_five_data_sets_go_from_text_to_a_report(world, tmp_path, monkeypatch, data):
    monkeypatch.chdir(world)
    monkeypatch.setenv("TIS_CACHE", str(world / "cache"))
    in_this_process(monkeypatch)
    if "csv" not in data:
        without_figures(monkeypatch)
    embed, cluster, select, sweeping = blocks()[1]
    run(embed, data, tmp_path, SMALL)
    run(cluster, data, tmp_path, ["--num_seeds", "1"])
    assert "contradiction" in (tmp_path / "clusters" / "cluster_report.md").read_text()  # labels and texts were found
    run(select, data, tmp_path)
    chosen = Selection.load(tmp_path / "diverse_10" / "selection.npz")
    exported = read_table(tmp_path / "diverse_10.jsonl")
    texts = columns(36, 0)["hypothesis"]
    assert exported.column("example_index") == chosen.indices.tolist()
    assert exported.column(exported.names[1]) == [texts[i] for i in chosen.indices]
    shorter = ["--seeds", "0", "--num_train_epochs", "1", "--jobs", "1"]
    run(sweeping.replace("--seeds 0 1 2", ""), data, tmp_path, [*SMALL, *shorter])
    table = (tmp_path / "sweep" / "report" / "results.md").read_text()
    assert "| 25 | diverse |" in table and "negation (worst group, mean over groups)" in table
    results = json.loads((tmp_path / "sweep" / "runs" / "diverse-25pct-seed0" / "results.json").read_text())
    assert set(results["eval"]) == {"dev"} and results["selection"]["m"] == 9
    assert set(results["challenge"]["negation"]["groups"]) == {"with", "without"}


# -------------------------------------------------------------------------------------------------------- challenge sets
@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A checkpoint that knows the three classes of the reviews."""
    out = tmp_path_factory.mktemp("trained") / "out"
    flags = ["--train_file", world / "reviews" / "train.csv", "--model_name_or_path", world / "model", "--do_train",
             "--num_train_epochs", "1", "--cache_dir", world / "cache", "--output_dir", out]  # fmt: skip
    run_glue.main([str(word) for word in [*flags, *SMALL]])
    return out


def evaluated(world, trained, out, challenge, *flags):
    words = flags or ("--validation_file", world / "reviews" / "dev.csv")
    words = [*words, "--model_name_or_path", trained, "--do_eval", "--challenge", f"c={challenge}", "--output_dir", out]
    run_glue.main([str(word) for word in [*words, "--cache_dir", world / "cache", *SMALL]])
    return json.loads((out / "results.json").read_text())


def test_accuracy_by_group(world, trained, tmp_path):
    part = columns(12, 1)
    groups = ["a", "b", "b"] * 4
    write_table(tmp_path / "c.jsonl", part | {"group": groups})
    results = evaluated(world, trained, tmp_path / "out", tmp_path / "c.jsonl")
    rows = [line.split("\t") for line in (tmp_path / "out" / "predictions_dev.tsv").read_text().splitlines()[1:]]
    right = np.array([gold == answer for _, gold, answer, *_ in rows])
    found = results["challenge"]["c"]
    by_group = {name: right[[group == name for group in groups]].mean() for name in ("a", "b")}
    assert found["groups"] == pytest.approx(by_group) and found["group_sizes"] == {"a": 4, "b": 8}
    assert found["worst_group"] == pytest.approx(min(by_group.values()))
    assert found["mean_over_groups"] == pytest.approx(np.mean(list(by_group.values())))
    assert found["accuracy"] == pytest.approx(results["eval"]["dev"]["eval_acc"]) and 0 < right.mean() < 1


def test_a_checkpoint_that_numbers_the_classes_otherwise_answers_the_same(world, trained, tmp_path):
    order = [2, 0, 1]
    model = transformers.BertForSequenceClassification.from_pretrained(trained)
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order].clone())
        model.classifier.bias.copy_(model.classifier.bias[order].clone())
    model.config.id2label = {i: tiny.LABELS[k].upper() for i, k in enumerate(order)}
    model.save_pretrained(tmp_path / "turned")
    tiny.write_tokenizer(tmp_path / "turned")
    challenge = world / "reviews" / "length.jsonl"
    for name, checkpoint in (("a", trained), ("b", tmp_path / "turned")):
        evaluated(world, checkpoint, tmp_path / name, challenge)
    for file, width in (("predictions_dev.tsv", 3), ("predictions_challenge_c.tsv", 4)):
        texts = [(tmp_path / name / file).read_text().splitlines() for name in "ab"]
        a, b = ([line.split("\t")[:width] for line in lines] for lines in texts)
        assert a == b and len({row[-1] for row in a[1:]}) > 1


def test_two_classes_and_three_are_merged_by_name(world, trained, tmp_path):
    """The best of three classes first, then everything but entailment is not_entailment."""
    results = evaluated(world, trained, tmp_path / "two", world / "reviews" / "negation.csv")
    rows = [line.split("\t") for line in (tmp_path / "two" / "predictions_dev.tsv").read_text().splitlines()[1:]]
    right = [(gold == "entailment") == (answer == "entailment") for _, gold, answer, *_ in rows]
    assert results["challenge"]["c"]["accuracy"] == pytest.approx(np.mean(right))
    answers = (tmp_path / "two" / "predictions_challenge_c.tsv").read_text()
    assert "not_entailment" in answers and "contradiction" not in answers
    # A model of two classes on a set of three.
    part = columns(36, 0)
    names = ["not_entailment" if label != "entailment" else label for label in part["label"]]
    write_table(tmp_path / "train.csv", part | {"label": names})
    flags = ["--train_file", tmp_path / "train.csv", "--validation_file", world / "reviews" / "negation.csv"]
    with pytest.raises(InputError, match="unknown label 'not-entailment'"):  # another spelling is another class here
        evaluated(world, trained, tmp_path / "no", world / "reviews" / "length.jsonl", *flags)
    flags[-1] = tmp_path / "train.csv"
    model = tmp_path / "model"
    words = [
        "--train_file",
        tmp_path / "train.csv",
        "--config_name",
        world / "model",
        "--do_train",
        "--num_train_epochs",
        "1",
    ]
    run_glue.main([str(word) for word in [*words, *SMALL, "--cache_dir", world / "cache", "--output_dir", model]])
    found = evaluated(world, model, tmp_path / "three", world / "reviews" / "length.jsonl", *flags)["challenge"]["c"]
    assert set(found["groups"]) == {"long"}
    assert "contradiction" not in (tmp_path / "three" / "predictions_challenge_c.tsv").read_text()


@pytest.mark.parametrize(
    "change, pattern",
    [
        ({"group": None}, "c.csv has no column 'group'"),
        ({"label": ["0", "1", "2"] * 4}, "has the classes 0, 1, 2, but custom has .*Numbers say nothing without names"),
        (
            {"label": ["yes", "no", "no"] * 4},
            "has the classes no, yes, but custom has contradiction, entailment, neutral",
        ),
        ({"hypothesis": None, "premise": None, "text": ["a"] * 12}, "has the texts text, but custom has 2"),
        ({"group": ["a"] * 11 + ["worst group"]}, "reports use the name 'worst group' otherwise"),
        ({"group": ["a"] * 11 + [""]}, "line 13 has an empty 'group'"),
        ({"group": ["a"] * 11 + ["b\tc"]}, r"line 13: the 'group' 'b\\tc' holds a tab or a line break; rename it"),
    ],
)
def test_challenge_sets_that_do_not_fit(world, trained, tmp_path, change, pattern):
    part = {name: values for name, values in (columns(12, 1) | {"group": ["g"] * 12} | change).items() if values}
    write_table(tmp_path / "c.csv", part)
    with pytest.raises(InputError, match=pattern):
        evaluated(world, trained, tmp_path / "out", tmp_path / "c.csv")
    assert not (tmp_path / "out" / "run.json").exists()


# --------------------------------------------------------------------------------------- training, predicting, sampling
def test_numbered_classes_and_predictions(world, tmp_path):
    """A checkpoint of classes 0, 1, 2 is used again under these names, and a test file needs no labels."""
    part = columns(36, 0)
    write_table(tmp_path / "train.csv", part | {"label": [tiny.LABELS.index(label) for label in part["label"]]})
    write_table(tmp_path / "test.csv", {"hypothesis": part["hypothesis"][:5], "premise": part["premise"][:5]})
    flags = ["--train_file", tmp_path / "train.csv", "--test_file", tmp_path / "test.csv", "--model_name_or_path"]
    more = [*SMALL, "--cache_dir", world / "cache", "--num_train_epochs", "1", "--output_dir"]
    run_glue.main([str(word) for word in [*flags, world / "model", "--do_train", *more, tmp_path / "out"]])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "0", "1": "1", "2": "2"}
    run_glue.main([str(word) for word in [*flags, tmp_path / "out", "--do_predict", *more, tmp_path / "predicted"]])
    lines = (tmp_path / "predicted" / "test_predictions.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 6 and lines[1].split("\t")[1] in "012"
    with pytest.raises(InputError, match="--do_eval needs --validation_file: the data set custom has train, test"):
        run_glue.main([str(word) for word in [*flags, tmp_path / "out", "--do_eval", *more, tmp_path / "evaluated"]])
    with pytest.raises(InputError, match=r"the checkpoint does not name its classes"):
        words = [
            "--validation_file",
            world / "reviews" / "dev.csv",
            "--model_name_or_path",
            tmp_path / "out",
            "--do_eval",
        ]
        run_glue.main([str(word) for word in [*words, *more, tmp_path / "other"]])


def test_a_pool_of_scores_stays_one(world, tmp_path, capsys):
    """Its rows have whole numbers only, which would be classes."""
    kept = random_ranking(12, 0)[:4]
    write_table(tmp_path / "a.csv", columns(12, 0) | {"label": [i if i in kept else i + 0.5 for i in range(12)]})
    words = [
        "--train_file",
        tmp_path / "a.csv",
        "--validation_file",
        tmp_path / "a.csv",
        "--pool_size",
        "4",
        "--data_pcts",
        "1",
    ]
    words += [
        "--strategies",
        "random",
        "--seeds",
        "0",
        "--model_name_or_path",
        world / "model",
        "--list",
        "--output_dir",
    ]
    sweep.main([str(word) for word in [*words, tmp_path / "out"]])
    command = capsys.readouterr().out
    assert "--do_regression" in command and f"--train_file {tmp_path / 'out' / 'pool' / 'train.jsonl'}" in command


@pytest.mark.parametrize("data", ["--dataset_name reviews/saved", "--task_name snli --data_dir snli_1.0"])
def test_a_pool_of_any_data_set(world, tmp_path, monkeypatch, data):
    monkeypatch.chdir(world)
    in_this_process(monkeypatch)
    without_figures(monkeypatch)
    words = [
        "--strategies",
        "random",
        "--data_pcts",
        "0.5",
        "--seeds",
        "0",
        "--model_name_or_path",
        "model",
        "--pool_size",
        "20",
    ]
    more = [*SMALL, "--num_train_epochs", "1", "--cache_dir", str(world / "cache"), "--output_dir", str(tmp_path)]
    sweep.main([*data.split(), *words, *more])
    results = json.loads((tmp_path / "runs" / "random-50pct-seed0" / "results.json").read_text())
    assert results["selection"]["n"] == 20 and results["selection"]["m"] == 10 and results["eval"]["dev"]["n"] == 12
    (train,) = (tmp_path / "pool").glob("*train.jsonl")
    pool, everything = read_table(train), columns(36, 0)
    names = pool.names[:3] if "saved" in data else ["sentence1", "sentence2", "gold_label"]
    rows = list(zip(*map(pool.column, names), strict=True))
    assert len(rows) == 20 and set(rows) <= set(zip(*everything.values(), strict=True))


def test_the_explorer_calls_the_texts_of_own_data_by_their_columns(world, tmp_path):
    explore.main([str(w) for w in ["--train_file", world / "reviews" / "train.csv", "--output_dir", tmp_path]])
    about, texts, _ = read_page(tmp_path / "explorer.html")
    assert about["texts"] == ["premise", "hypothesis"] and len(texts[0]) == 2


def test_an_export_is_not_overwritten(world, tmp_path):
    words = [
        "--train_file",
        world / "reviews" / "train.csv",
        "--strategy",
        "random",
        "--num_examples",
        "5",
        "--output_dir",
    ]
    write = lambda out, *more: select_examples.main([str(word) for word in [*words, tmp_path / out, *more]])  # noqa: E731
    write("a", "--export", tmp_path / "chosen.parquet")
    with pytest.raises(InputError, match=r"chosen.parquet exists"):
        write("b", "--export", tmp_path / "chosen.parquet")
    with pytest.raises(InputError, match=r"--export .*chosen.xlsx: give a file that ends in .jsonl"):
        write("b", "--export", tmp_path / "chosen.xlsx")
    shutil.copy(world / "reviews" / "train.csv", tmp_path)
    for name in ("--train_file", "--score_path"):
        with pytest.raises(InputError, match=r"--export .*train.csv is a file that this command reads"):
            write("b", name, tmp_path / "train.csv", "--export", tmp_path / "train.csv", "--overwrite_output_dir")
    assert not (tmp_path / "b").exists() and len(read_table(tmp_path / "chosen.parquet")) == 5


# -------------------------------------------------------------------------------------------------- transformers' Trainer
def trainer_of(world, folder, dataset, batch, accumulate, kind=WeightedTrainer, **more):
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(world / "model")
    arguments = transformers.TrainingArguments(
        folder, max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, use_cpu=True,
        report_to="none", optim="sgd", learning_rate=1.0, max_grad_norm=0, lr_scheduler_type="constant", save_strategy="no", **more,
    )  # fmt: skip
    return kind(model, arguments, train_dataset=dataset, eval_dataset=dataset)


def trained_by_trainer(*args, **options):
    trainer = trainer_of(*args, **options)
    trainer.train()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_weights_count_in_the_trainer_also_over_accumulated_steps(world, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "model")
    part = columns(12, 0)
    tokens = tokenizer(part["premise"], part["hypothesis"], padding="max_length", max_length=16, truncation=True)
    labels = [tiny.LABELS.index(label) for label in part["label"]]
    dataset = datasets.Dataset.from_dict({**tokens, "labels": labels, "note": ["a text"] * 12})
    for name, rows, weights in (("weighted", [1, 5, 5, 7], [2, 1, 1, 0]), ("repeated", [1, 1, 5, 5], [1] * 4)):
        Selection(np.array(rows), np.array(weights), 12, "print").save(tmp_path / f"{name}.npz")
    weighted, repeated = (chosen_examples(dataset, tmp_path / f"{name}.npz") for name in ("weighted", "repeated"))
    once = trained_by_trainer(world, tmp_path / "t", weighted, 4, 1)
    torch.testing.assert_close(once, trained_by_trainer(world, tmp_path / "t", repeated, 4, 1), rtol=0, atol=1e-5)
    torch.testing.assert_close(once, trained_by_trainer(world, tmp_path / "t", weighted, 2, 2), rtol=0, atol=1e-5)
    plain, smooth = ({"kind": transformers.Trainer}, {"label_smoothing_factor": 0.3})
    smoothed = trained_by_trainer(world, tmp_path / "t", repeated, 4, 1, **smooth)
    theirs = trained_by_trainer(world, tmp_path / "t", repeated, 4, 1, **plain, **smooth)
    torch.testing.assert_close(smoothed, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(smoothed, once, rtol=0, atol=1e-3)
    losses = [trainer_of(world, tmp_path / "t", weighted, 4, 1, **kind).evaluate()["eval_loss"] for kind in ({}, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    with pytest.raises(InputError, match="no column 'weight'"):
        trained_by_trainer(world, tmp_path / "t", dataset, 4, 1)
    with pytest.raises(InputError, match="chosen from 12 rows, but the data set has 11"):
        chosen_examples(dataset.select(range(11)), tmp_path / "weighted.npz")
    shutil.rmtree(tmp_path / "t", ignore_errors=True)
