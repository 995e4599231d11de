"""`test_hans.py` on a checkpoint that has learnt something: its answers follow the class names, never their positions,
and depend on nothing that should not matter.
"""

import functools
import importlib
import itertools
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from hans import evaluate_heur_output, report
from hans.challenge import hans_run
from hans.data import load_hans
from hans.generate import HEADER
from tests import tiny
from utils.errors import InputError

script = importlib.import_module("test_hans")  # by a name that pytest does not take for a test
LABELS = tiny.LABELS  # the order of the GLUE readers: contradiction, entailment, neutral
HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
N = 240


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def unchanged_logging():
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """mnli/, challenge/ (pairs of the same cue words, in HANS's layout, cells of 40), trained/, cache/."""
    folder = tmp_path_factory.mktemp("script")
    tiny.write_mnli(folder / "mnli", n_train=600, n_dev=240, seed=1)
    rows = []
    for i, (premise, hypothesis, label) in enumerate(tiny.pairs(N, 77)):
        gold = "entailment" if label == "entailment" else "non-entailment"
        heuristic = HEURISTICS[i % 3]
        subcase = f"{heuristic[0]}{gold[0]}_{i % 2}"
        rows.append([gold, "", "", "", "", premise, hypothesis, f"ex{i}", heuristic, subcase, f"{subcase}_t"])
    (folder / "challenge").mkdir()
    lines = ["\t".join(row) for row in [HEADER, *rows]]
    (folder / "challenge" / "heuristics_evaluation_set.txt").write_text("\n".join(lines) + "\n")
    config = tiny.write_config(folder / "config", "bert")
    tiny.run_script(
        "run_glue.py", "--config_name", config, "--tokenizer_name", config, "--task_name", "MNLI", "--data_dir",
        folder / "mnli", "--do_train", "--do_eval", "--per_gpu_train_batch_size", "32", "--learning_rate", "3e-3",
        "--warmup_ratio", "0.1", "--max_steps", "100", "--max_seq_length", "32", "--output_dir", folder / "trained",
        "--cache_dir", folder / "cache",
    )  # fmt: skip
    eval_ = json.loads((folder / "trained" / "results.json").read_text())["eval"]
    assert eval_["dev_matched"]["eval_acc"] > 0.6, "the fixture has learnt nothing; the tests below would show nothing"
    return folder


@pytest.fixture
def hans(folder, tmp_path, capsys):
    """hans(*flags, checkpoint=...) -> (output folder, what was printed), in this process."""
    numbers = itertools.count()

    def run(*flags, checkpoint=folder / "trained"):
        out = tmp_path / f"out{next(numbers)}"
        command = [
            "--model_name_or_path", checkpoint, "--do_eval", "--data_dir", folder / "challenge", "--max_seq_length",
            "32", "--task_name", "HANS", "--output_dir", out, "--cache_dir", folder / "cache", *flags,
        ]  # fmt: skip
        script.main([str(word) for word in command])
        return out, capsys.readouterr().out

    return run


def predictions(out: Path) -> bytes:
    return (out / "hans_predictions.txt").read_bytes()


def results(out: Path) -> dict:
    return json.loads((out / "hans_results.json").read_text())


def variant(source: Path, target: Path, *, rows=(0, 1, 2), names=LABELS, scale: float = 1.0) -> Path:
    """A copy of the checkpoint whose output k is output rows[k] of the source, called names[k]."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("hans*"))
    weights = load_file(source / "model.safetensors")
    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = np.ascontiguousarray(scale * weights[key][list(rows)])
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (target / "config.json").write_text(json.dumps(config))
    return target


def reference_logits(checkpoint: Path, challenge: Path, *, segments: bool = True) -> np.ndarray:
    """float64 (n, C) by model output, one pair at a time with nothing but transformers."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    data = load_hans(challenge)
    logits = []
    for premise, hypothesis in zip(data.premises, data.hypotheses, strict=True):
        batch = tokenizer(premise, hypothesis, return_tensors="pt", return_token_type_ids=True)
        if not segments:
            batch["token_type_ids"].zero_()
        with torch.inference_mode():
            logits.append(model(**batch).logits[0].double().numpy())
    return np.stack(logits)


def file_of(entailed: np.ndarray) -> bytes:
    answers = ["entailment" if e else "non-entailment" for e in entailed]
    return "".join(["pairID,gold_label\n", *(f"ex{i},{a}\n" for i, a in enumerate(answers))]).encode()


# ------------------------------------------------------------------------------------------------------- what it says
def test_predictions_are_the_argmax_of_a_plain_forward_pass(folder, hans):
    out, printed = hans()
    logits = reference_logits(folder / "trained", folder / "challenge")
    assert predictions(out) == file_of(logits.argmax(1) == LABELS.index("entailment"))
    assert results(out)["accuracy"] > 0.6 and 0.1 < results(out)["predicted_entailment"] < 0.9
    first, second = printed.splitlines()[:2]
    assert first == f"HANS non-entailed, mean over heuristics: {results(out)['mean_non_entailed']:.4f}"
    assert "a constant answer gets 0.5" in second
    assert results(out)["class_names"] == list(LABELS) and results(out)["label_order"] == "stated"


def test_everything_is_written_and_the_evaluator_agrees(folder, hans, capsys):
    out, printed = hans()
    found = results(out)
    assert {path.name for path in out.iterdir()} == {
        "hans_predictions.txt", "hans_results.json", "eval_results_hans.txt", "hans_report.txt", "hans.png",
        "hans.pdf",
    }  # fmt: skip
    assert (out / "hans.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    evaluate_heur_output.main([str(out), "--json"])  # it finds the set by the record
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated == {key: found[key] for key in evaluated}
    flat = dict(line.split(" = ") for line in (out / "eval_results_hans.txt").read_text().splitlines())
    assert float(flat["mean_non_entailed"]) == found["mean_non_entailed"]
    assert float(flat["constituent_non-entailment"]) == found["by_heuristic"]["constituent"]["non-entailment"]
    assert found["data"]["n"] == N and found["data"]["fingerprint"] == load_hans(folder / "challenge").fingerprint
    report = (out / "hans_report.txt").read_text()
    for subcase, value in found["by_subcase"].items():
        assert re.search(rf"^{subcase} +(non-)?entailment +{value:.4f}$", report, re.MULTILINE)
    assert printed.startswith(report.partition("\n\nsubcase")[0]) and "template" not in printed
    assert hans("--verbose")[1].startswith(report)


@pytest.mark.parametrize("collapse", ["argmax", "sum"])
def test_collapse_agrees_with_numpy(folder, hans, tmp_path, collapse):
    """On a copy that is as sure but for a constant factor, so that entailment wins often with less than half."""
    trained = reference_logits(folder / "trained", folder / "challenge")
    at = LABELS.index("entailment")

    def above_half(scale):
        p = np.exp(scale * trained)
        return p[:, at] / p.sum(1) - 0.5

    argmax = trained.argmax(1) == at
    scale = next(
        s
        for s in np.geomspace(1, 1e-2, 3000)
        if 5 < (above_half(s) > 0).sum() < argmax.sum() - 5 and abs(above_half(s)).min() > 1e-5
    )
    out, _ = hans("--collapse", collapse, checkpoint=variant(folder / "trained", tmp_path / "flat", scale=scale))
    assert predictions(out) == file_of(argmax if collapse == "argmax" else above_half(scale) > 0)
    assert results(out)["collapse"] == collapse


# -------------------------------------------------------------------------------------------------------- class names
@pytest.fixture(scope="module")
def right(folder):
    """What the trained checkpoint answers, by plain transformers."""
    return file_of(reference_logits(folder / "trained", folder / "challenge").argmax(1) == LABELS.index("entailment"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_answers_follow_the_class_names(folder, hans, tmp_path, right, order):
    """Outputs and id2label permuted together; named, unnamed with a stated order, unnamed with labelled data."""
    names = [LABELS[k] for k in order]
    named = variant(folder / "trained", tmp_path / "named", rows=order, names=names)
    out, _ = hans("--quiet", checkpoint=named)
    assert predictions(out) == right and results(out)["class_names"] == names

    unnamed = variant(named, tmp_path / "unnamed", names=[f"LABEL_{k}" for k in range(3)])
    with pytest.raises(InputError, match=r"only says LABEL_0, .*--label_order contradiction,entailment,neutral"):
        hans(checkpoint=unnamed)
    out, _ = hans("--quiet", "--label_order", ",".join(names), checkpoint=unnamed)
    assert predictions(out) == right and results(out)["class_names"] == names

    out, printed = hans("--label_order", "auto", "--calibration_data_dir", folder / "mnli", checkpoint=unnamed)
    assert predictions(out) == right and results(out)["class_names"] == names and results(out)["label_order"] == "auto"
    scores = re.search("accuracy on dev_matched by class order: (.*)", printed)[1].split("; ")
    assert len(scores) == 6 and scores[0].startswith(",".join(names))
    assert {score.split()[0] for score in scores} == {",".join(p) for p in itertools.permutations(LABELS)}
    accuracies = [float(score.split()[1]) for score in scores]
    assert accuracies == sorted(accuracies, reverse=True) and sum(accuracies) == pytest.approx(200, abs=0.5)


def test_synonyms_in_capitals_are_names(folder, hans, tmp_path, right):
    spelt = variant(folder / "trained", tmp_path / "spelt", names=("CONTRADICTORY", "Entailed", "NEUTRAL"))
    assert predictions(hans("--quiet", checkpoint=spelt)[0]) == right


def test_unnamed_outputs_are_one_line_and_status_2_from_the_shell(folder, tmp_path):
    unnamed = variant(folder / "trained", tmp_path / "unnamed", names=("LABEL_0", "LABEL_1", "LABEL_2"))
    done = tiny.run_script(
        "test_hans.py", "--model_name_or_path", unnamed, "--data_dir", folder / "challenge", "--output_dir",
        tmp_path / "out", check=2,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert line.startswith("test_hans.py: error: ") and "--label_order" in line and "--calibration_data_dir" in line
    assert not (tmp_path / "out").exists()


def test_a_two_class_checkpoint_in_both_orders(folder, hans, tmp_path):
    """Outputs for entailment and neutral of the trained one, the latter now called not_entailment."""
    logits = reference_logits(folder / "trained", folder / "challenge")
    right = file_of(logits[:, 1] > logits[:, 2])
    for k, (rows, names) in enumerate(
        (((1, 2), ("entailment", "not_entailment")), ((2, 1), ("Not-Entailment", "ENTAIL")))
    ):
        two = variant(folder / "trained", tmp_path / f"two{k}", rows=rows, names=names)
        assert predictions(hans("--quiet", checkpoint=two)[0]) == right
        assert predictions(hans("--quiet", "--collapse", "sum", checkpoint=two)[0]) == right
    unnamed = variant(two, tmp_path / "unnamed", rows=(0, 1), names=("LABEL_0", "LABEL_1"))
    with pytest.raises(InputError, match="only says LABEL_0"):
        hans(checkpoint=unnamed)
    assert predictions(hans("--quiet", "--label_order", "not_entailment,entailment", checkpoint=unnamed)[0]) == right
    out, printed = hans("--diagnose", checkpoint=two)
    swapped = results(out)["diagnosis"]["the two classes swapped"]
    assert swapped["accuracy"] == pytest.approx(1 - results(out)["accuracy"]) and "the two classes swapped" in printed


def test_a_mix_up_of_names_draws_a_warning(folder, hans, tmp_path):
    wrong = variant(folder / "trained", tmp_path / "wrong", names=("entailment", "contradiction", "neutral"))
    out, printed = hans(checkpoint=wrong)
    assert results(out)["warnings"] and "WARNING: " in printed and "id2label" in printed
    assert results(hans()[0])["warnings"] == []


# ------------------------------------------------------------------------------------------------- what must not matter
def test_predictions_do_not_depend_on_the_batch(hans, right):
    for flags in (
        ("--tokens_per_micro_batch", "1"),
        ("--tokens_per_micro_batch", "100"),
        ("--tokens_per_micro_batch", "100000"),
        ("--per_gpu_eval_batch_size", "4096"),
        ("--per_device_eval_batch_size", "1"),
        ("--overwrite_cache",),
    ):
        assert predictions(hans("--quiet", *flags)[0]) == right, flags


# --------------------------------------------------------------------------------------------------------- segment ids
@pytest.fixture
def segments_seen(monkeypatch):
    """The set of segment ids of each forward pass, in order."""
    seen = []
    for family in (transformers.BertModel, transformers.AlbertModel):  # padded or packed, all goes through these
        monkeypatch.setattr(family, "forward", spy(family.forward, seen))
    return seen


def spy(forward, seen):
    @functools.wraps(forward)
    def spied(self, *args, token_type_ids=None, **options):
        seen.append(frozenset(token_type_ids.unique().tolist()))
        return forward(self, *args, token_type_ids=token_type_ids, **options)

    return spied


def test_both_segments_reach_the_model(folder, hans, segments_seen):
    hans("--tokens_per_micro_batch", "500", "--label_order", "auto", "--calibration_data_dir", folder / "mnli")
    assert len(segments_seen) > 4 and set(segments_seen) == {frozenset({0, 1})}


@tiny.needs_shared
def test_both_segments_reach_an_albert_of_2020(hans, segments_seen, tmp_path):
    """A folder with spiece.model and no tokenizer.json, whose own tokenizer class returns no segment ids unasked."""
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    config = tiny.config("albert", **names)
    config.vocab_size = 30_000
    transformers.AlbertForSequenceClassification(config).save_pretrained(tmp_path / "albert")
    shutil.copy(tiny.SHARED / "albert" / "spiece.model", tmp_path / "albert")
    assert "token_type_ids" not in transformers.AutoTokenizer.from_pretrained(tmp_path / "albert")("a", "b")
    hans("--max_seq_length", "64", checkpoint=tmp_path / "albert")
    assert segments_seen and set(segments_seen) == {frozenset({0, 1})}


def test_diagnose_evaluates_with_each_of_the_usual_mistakes(folder, hans, segments_seen, tmp_path):
    out, printed = hans("--diagnose", "--tokens_per_micro_batch", "500")
    diagnosis = results(out)["diagnosis"]
    half = len(segments_seen) // 2
    assert set(segments_seen[:half]) == {frozenset({0, 1})} and set(segments_seen[half:]) == {frozenset({0})}
    assert list(diagnosis) == [
        "right", "without segment ids", "class order of the hub data set", "class order of the old RoBERTa heads",
    ]  # fmt: skip
    data, keys = load_hans(folder / "challenge"), ("mean_non_entailed", "mean_entailed", "accuracy", "by_heuristic")
    assert diagnosis["right"] == {key: results(out)[key] for key in keys}
    # Each way is what that mistake gives: no segments by plain transformers, the orders by stating them.
    without = reference_logits(folder / "trained", folder / "challenge", segments=False)
    answers = ["entailment" if k == 1 else "non-entailment" for k in without.argmax(1)]
    expected = report.score(data, answers)
    assert diagnosis["without segment ids"] == {key: expected[key] for key in keys}
    orders = {
        "class order of the hub data set": "entailment,neutral,contradiction",
        "class order of the old RoBERTa heads": "contradiction,neutral,entailment",
    }
    for k, (way, order) in enumerate(orders.items()):
        unnamed = variant(folder / "trained", tmp_path / f"unnamed{k}", names=("LABEL_0", "LABEL_1", "LABEL_2"))
        stated, _ = hans("--quiet", "--label_order", order, checkpoint=unnamed)
        assert diagnosis[way] == {key: results(stated)[key] for key in keys}
        assert diagnosis[way] != diagnosis["right"]
    for way, found in diagnosis.items():
        row = next(line for line in printed.splitlines() if line.startswith(f"{way}  "))
        cells = [f"{cell['entailment']:.4f} / {cell['non-entailment']:.4f}" for cell in found["by_heuristic"].values()]
        assert re.split(" {2,}", row)[1:] == cells


def test_diagnose_marks_the_order_that_is_the_checkpoints_own(folder, hans, tmp_path):
    hub = variant(
        folder / "trained", tmp_path / "hub", rows=(1, 2, 0), names=("entailment", "neutral", "contradiction")
    )
    diagnosis = results(hans("--diagnose", checkpoint=hub)[0])["diagnosis"]
    assert diagnosis["class order of the hub data set (its own)"] == diagnosis["right"]


# ------------------------------------------------------------------------------------------------------------ refusals
def test_a_finished_folder_is_refused_and_kept(folder, hans, tmp_path):
    out, _ = hans()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = ["--model_name_or_path", folder / "trained", "--data_dir", folder / "challenge", "--output_dir", out]
    again = [str(word) for word in (*again, "--max_seq_length", "32", "--cache_dir", folder / "cache")]
    with pytest.raises(InputError, match=r"holds finished results.*--overwrite_output_dir"):
        script.main(again)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    script.main([*again, "--overwrite_output_dir", "--collapse", "sum"])
    assert results(out)["collapse"] == "sum"


def test_bad_input_is_refused_before_anything_is_written(folder, hans, tmp_path):
    headless = tiny.write_config(tmp_path / "headless", "albert")
    model = transformers.AlbertModel(transformers.AutoConfig.from_pretrained(headless))
    model.save_pretrained(headless)
    sentiment = variant(folder / "trained", tmp_path / "sentiment", names=("negative", "neutral", "positive"))
    cases = {
        "holds no classifier": ((), headless),
        "HANS needs entailment, neutral and contradiction": ((), sentiment),
        "must name each of": (("--label_order", "entailment,neutral,neutral"), folder / "trained"),
        "no heuristics_evaluation_set.txt": (("--data_dir", tmp_path), folder / "trained"),
    }
    for expected, (flags, checkpoint) in cases.items():
        with pytest.raises(InputError, match=expected):
            hans(*flags, checkpoint=checkpoint)
    assert not list(tmp_path.glob("out*"))


def test_flags_that_cannot_work_are_one_line(folder, hans, capsys):
    for expected, flags in {
        "run_glue.py evaluates GLUE tasks": ("--task_name", "MNLI"),
        "needs labelled NLI data": ("--label_order", "auto"),
    }.items():
        with pytest.raises(SystemExit) as stopped:
            hans(*flags)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line


def test_run_glue_says_loudly_that_names_disagree_with_the_data(folder, tmp_path):
    """The same checkpoint with its names in another order than its outputs."""
    wrong = variant(folder / "trained", tmp_path / "wrong", names=("entailment", "neutral", "contradiction"))
    done = tiny.run_script(
        "run_glue.py", "--model_name_or_path", wrong, "--task_name", "MNLI", "--do_eval", "--data_dir",
        folder / "mnli", "--max_seq_length", "32", "--output_dir", tmp_path / "out", "--cache_dir", folder / "cache",
    )  # fmt: skip
    assert "THE CLASS NAMES LOOK WRONG" in done.stderr


def test_a_stated_order_names_the_outputs_of_a_checkpoint_with_other_names(folder, hans, tmp_path):
    other = variant(folder / "trained", tmp_path / "other", names=("no", "yes", "maybe"))
    with pytest.raises(InputError, match=r"the checkpoint has no, yes, maybe; .* say it with --label_order"):
        hans(checkpoint=other)
    expected, _ = hans()
    found, _ = hans("--label_order", ",".join(LABELS), checkpoint=other)
    assert predictions(found) == predictions(expected)


def test_a_sweep_hands_its_trust_on(folder):
    for trust in (False, True):
        run = hans_run(
            str(folder / "challenge"), per_subcase=None, max_seq_length=32, cache_dir=None, trust_remote_code=trust,
            device_flags=[],
        )  # fmt: skip
        assert ("--trust_remote_code" in run.flags(folder)) == trust


def test_help_imports_nothing_heavy():
    code = (
        "import sys, test_hans\ntry: test_hans.main(['--help'])\nexcept SystemExit: pass\n"
        "print('HEAVY', [m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny.ROOT)
    assert "HEAVY []" in done.stdout
