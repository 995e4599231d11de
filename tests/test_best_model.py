"""The best step, early stopping, trackers: checked against the log, after kills, with the plainest rule beside them."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.test_training import ALONE, FLOAT32, everything, ragged, same, weights_of
from tests.tiny import run_script
from utils.errors import InputError, RunFailed
from utils.flags import OPTIMIZERS, RunSettings, TrainingSettings
from utils.models.classifier import Classifier
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.evaluations import Evaluations, deciding_metric
from utils.training.loop import Hooks, train
from utils.training.objectives import erm, smoothed


def with_dropout(seed=0):
    torch.manual_seed(seed)
    config = tiny.config("bert", num_labels=3)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.2
    return Classifier(AutoModelForSequenceClassification.from_config(config), None, tiny.LABELS)


class Killed(Exception):
    pass


def fit(values, folder=None, *, kill_at=None, steps=20, **settings):
    """Train; evaluation number i gives values[i - 1]. Returns the model and the evaluations; Killed after step `kill_at`."""
    data, model = ragged(), with_dropout()
    settings = TrainingSettings(**{"learning_rate": 1e-3, "eval_steps": 2, "save_steps": 3, **settings})
    evaluations = Evaluations(settings, lambda done: values[done // 2 - 1])
    checkpoints = Checkpoints(folder, keep=settings.save_total_limit) if folder else None

    def kill(done):
        if done == kill_at:
            raise Killed

    batches = UniformBatches(everything(data), batch_size=8, seed=3, epochs=1, max_steps=steps)
    summary = train(
        model, data, batches, settings, processes=ALONE, precision=FLOAT32, checkpoints=checkpoints,
        hooks=Hooks(on_step=[kill]), evaluations=evaluations,
    )  # fmt: skip
    if folder:
        evaluations.load_best(checkpoints, model.model)
    return model, evaluations, summary


RISING_THEN_FLAT = [0.3, 0.5, 0.4, 0.7, 0.7, 0.6, 0.65, 0.7, 0.1, 0.9]  # a tie at 8 and 10; the last one is the best


@pytest.mark.parametrize(
    ("patience", "threshold", "best", "steps"),
    [(None, 0.0, 20, 20), (1, 0.0, 4, 6), (3, 0.0, 8, 14), (2, 0.25, 4, 6)],
)
def test_the_best_step_and_the_stop_survive_a_kill_anywhere(tmp_path, patience, threshold, best, steps):
    options = {
        "load_best_model_at_end": True, "save_total_limit": 1, "early_stopping_patience": patience,
        "early_stopping_threshold": threshold, "logging_steps": 4,
    }  # fmt: skip
    until_best, _, _ = fit(RISING_THEN_FLAT, tmp_path / "short", steps=20, **options)
    for kill_at in sorted({2, 5, steps - 1, steps}):
        folder = tmp_path / f"killed_{kill_at}"
        with pytest.raises(Killed):
            fit(RISING_THEN_FLAT, folder, kill_at=kill_at, **options)
        model, evaluations, summary = fit(RISING_THEN_FLAT, folder, **options)
        assert (evaluations.best_step, summary["steps"]) == (best, steps), kill_at
        assert summary["examples"] == 8 * steps
        assert evaluations.summary() == {
            "best_step": best, "best_value": RISING_THEN_FLAT[best // 2 - 1],
            "stopped_early": patience is not None,
        }  # fmt: skip
        assert same(weights_of(model), weights_of(until_best))
    # The weights are those after the best step, and no others.
    fit(RISING_THEN_FLAT, tmp_path / "plain", save_steps=1, save_total_limit=99, logging_steps=4)
    saved = load_file(tmp_path / "plain" / f"step_{best:08d}" / "model.safetensors")
    assert all(np.array_equal(saved[name], tensor.numpy()) for name, tensor in weights_of(until_best).items())


def test_the_best_checkpoint_outlives_save_total_limit(tmp_path):
    fit([0.9] + 9 * [0.1], tmp_path, save_steps=1, save_total_limit=1, load_best_model_at_end=True)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00000002", "step_00000020"]
    fit([0.1, 0.9] + 8 * [0.5], tmp_path / "no", save_strategy="no", save_total_limit=1, load_best_model_at_end=True)
    assert sorted(path.name for path in (tmp_path / "no").glob("step_*")) == ["step_00000004"]


def test_a_damaged_best_checkpoint_is_one_clear_line(tmp_path):
    _, evaluations, _ = fit([0.9] + 9 * [0.1], tmp_path, load_best_model_at_end=True)
    (tmp_path / "step_00000002" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(RunFailed, match="checkpoint of the best step is damaged"):
        evaluations.load_best(Checkpoints(tmp_path), with_dropout().model)


def test_less_is_better_for_a_loss_and_a_tie_goes_to_the_first():
    settings = TrainingSettings(eval_steps=1, load_best_model_at_end=True)
    for sign, best in ((1, 3), (-1, 2)):
        evaluations = Evaluations(settings, None, sign, [[1, 0.5], [2, 0.1], [3, 0.9], [4, 0.9], [5, 0.1]])
        assert evaluations.best_step == best
    assert Evaluations(settings, None, 1, [[1, 0.5], [2, math.nan]]).best_step == 1


@pytest.mark.parametrize(
    ("name", "greater", "expected"),
    [
        (None, None, ("dev_matched", "eval_loss", -1)),
        ("eval_accuracy", None, ("dev_matched", "eval_acc", 1)),
        ("acc", None, ("dev_matched", "eval_acc", 1)),
        ("loss", True, ("dev_matched", "eval_loss", 1)),
        ("eval_mnli-mm_accuracy", None, ("dev_mismatched", "eval_acc", 1)),
        ("dev_mismatched_loss", None, ("dev_mismatched", "eval_loss", -1)),
    ],
)
def test_names_of_the_deciding_metric(name, greater, expected):
    from utils.data.tasks import get_task

    settings = RunSettings(metric_for_best_model=name, greater_is_better=greater)
    assert deciding_metric(settings, get_task("mnli")) == expected
    assert deciding_metric(RunSettings(metric_for_best_model="matthews_correlation"), get_task("cola"))[1] == "eval_mcc"
    with pytest.raises(InputError, match=r"--metric_for_best_model f1: mnli has eval_acc, eval_loss"):
        deciding_metric(RunSettings(metric_for_best_model="f1"), get_task("mnli"))


def test_smoothed_labels_are_the_mean_over_the_target():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    log_p = torch.log_softmax(logits, 1)
    expected = -(0.9 * log_p[range(5), labels] + 0.1 * log_p.mean(1))  # the Trainer's LabelSmoother
    torch.testing.assert_close(smoothed(0.1)(logits, labels, None), expected)
    assert smoothed(0.0) is erm


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_every_optimizer_learns_and_continues_to_the_same_bits(tmp_path, optim):
    options = {"optim": optim, "eval_steps": None, "steps": 7, "weight_decay": 0.01}
    whole, _, _ = fit([], **options)
    assert not same(weights_of(whole), weights_of(with_dropout()))
    with pytest.raises(Killed):
        fit([], tmp_path, kill_at=5, **options)
    assert same(weights_of(whole), weights_of(fit([], tmp_path, **options)[0]))


# ------------------------------------------------------------------------------------------------------- from the shell
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    tiny.write_mnli(folder / "mnli", n_train=96, n_dev=60)
    config = tiny.config("bert")
    config.hidden_dropout_prob = 0.1
    tiny.write_tokenizer(folder / "config")
    config.save_pretrained(folder / "config")
    return folder


def flags(world, out, *more):
    return [
        "--config_name", world / "config", "--tokenizer_name", world / "config", "--task_name", "MNLI", "--data_dir",
        world / "mnli", "--do_train", "--per_gpu_train_batch_size", "8", "--learning_rate", "2e-3",
        "--num_train_epochs", "5", "--max_seq_length", "32", "--logging_steps", "2", "--cache_dir", world / "cache", "--seed", "1",
        "--output_dir", out, *more,
    ]  # fmt: skip


BEST = (
    "--eval_strategy", "steps", "--eval_steps", "2", "--load_best_model_at_end", "--metric_for_best_model", "accuracy",
    "--early_stopping_patience", "4", "--save_total_limit", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped(world):
    """A run that picked its best step, with TensorBoard."""
    run_script("run_glue.py", *flags(world, world / "best", *BEST, "--report_to", "tensorboard", "--run_name", "r"))
    return world / "best"


def read(out, name="results.json"):
    return json.loads((out / name).read_text())


def test_the_best_step_is_that_of_the_log(stopped):
    results = read(stopped)
    log = [entry for entry in read(stopped, "eval_log.json") if entry["split"] == "dev_matched"]
    accuracies = [entry["eval_acc"] for entry in log]
    best = int(np.argmax(accuracies))  # the first of equal ones
    train = results["train"]
    assert train["best_step"] == log[best]["step"] and train["best_value"] == accuracies[best]
    assert train["stopped_early"] and train["steps"] == log[-1]["step"] < 60 and len(log) == best + 1 + 4
    shown = {key: value for key, value in log[best].items() if key.startswith("eval_")}
    assert {key: results["eval"]["dev_matched"][key] for key in shown} == shown
    assert accuracies[-1] != accuracies[best], "the last step would do as well: the test shows nothing"


def test_kills_change_nothing_of_it(world, stopped):
    out = world / "killed"
    command = [sys.executable, str(tiny.ROOT / "run_glue.py"), *map(str, flags(world, out, *BEST, "--save_steps", "5"))]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    last = read(stopped)["train"]["steps"]
    for steps in (last // 2, last - 2):
        process = subprocess.Popen(command, cwd=tiny.ROOT, env=env, stderr=subprocess.DEVNULL)
        log = out / "eval_log.json"
        while process.poll() is None and not (log.exists() and json.loads(log.read_text())[-1]["step"] >= steps):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run_script("run_glue.py", *command[2:])
    ours, other = read(out), read(stopped)
    assert ours["eval"] == other["eval"]
    for key in ("steps", "examples", "best_step", "best_value", "stopped_early"):
        assert ours["train"][key] == other["train"][key], key
    a, b = (load_file(folder / "model.safetensors") for folder in (out, stopped))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_evaluating_while_training_does_not_change_the_weights(world):
    run_script("run_glue.py", *flags(world, world / "without", "--num_train_epochs", "2"))
    more = ("--num_train_epochs", "2", "--do_eval", "True", "--evaluation_strategy", "epoch", "--eval_steps", "3")
    run_script("run_glue.py", *flags(world, world / "with", *more))
    a, b = (load_file(world / name / "model.safetensors") for name in ("without", "with"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert [entry["step"] for entry in read(world / "with", "eval_log.json")] == [12, 12]


def test_tensorboard_files_hold_training_evaluations_configuration_and_summary(stopped):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    scalars = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    log = [json.loads(line) for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert scalars["train/loss"] == pytest.approx({entry["step"]: entry["loss"] for entry in log})
    for split, prefix in (("dev_matched", "eval/"), ("dev_mismatched", "eval/mnli-mm_")):
        entries = [entry for entry in read(stopped, "eval_log.json") if entry["split"] == split]
        for metric, key in (("accuracy", "eval_acc"), ("loss", "eval_loss")):
            assert scalars[prefix + metric] == pytest.approx({entry["step"]: entry[key] for entry in entries})
    results = read(stopped)
    accuracy = results["eval"]["dev_matched"]["eval_acc"]
    assert scalars["summary/eval/dev_matched/eval_acc"] == pytest.approx({results["train"]["steps"]: accuracy})
    texts = {
        tag: b"".join(events.Tensors(tag)[0].tensor_proto.string_val).decode()
        for tag in ("configuration/text_summary", "summary/text_summary", "run/text_summary")
    }
    assert "| learning_rate | 0.002 |" in texts["configuration/text_summary"] and texts["run/text_summary"] == "r"
    assert f"| train/best_step | {results['train']['best_step']} |" in texts["summary/text_summary"]


def test_wandb_hears_the_same_and_a_continued_run_has_the_same_id(world, tmp_path):
    """A stand-in for the library, which writes down what it is told."""
    (tmp_path / "wandb.py").write_text(
        "import json\n"
        "class Run:\n"
        "    def __init__(self, **options):\n"
        "        self.summary, self.said = {}, [options]\n"
        "    def log(self, values, step):\n"
        "        self.said.append({'step': step, **values})\n"
        "    def finish(self):\n"
        f"        open({str(tmp_path / 'said.json')!r}, 'w').write(json.dumps([*self.said, self.summary]))\n"
        "def init(**options):\n"
        "    return Run(**options)\n"
    )
    out = world / "wandb_run"
    more = (
        "--max_steps",
        "4",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "2",
        "--report_to",
        "wandb",
        "--project",
        "p",
    )
    run_script("run_glue.py", *flags(world, out, *more), env={"PYTHONPATH": str(tmp_path)})
    options, *said, summary = read(tmp_path, "said.json")
    assert (options["project"], options["name"], options["resume"]) == ("p", "/".join(out.parts[-2:]), "allow")
    assert options["config"]["learning_rate"] == 2e-3 and options["id"] == (out / "wandb" / "run_id").read_text()
    assert [entry["step"] for entry in said if "eval/accuracy" in entry] == [2, 4]
    assert summary["train/steps"] == 4


def test_a_missing_tracker_is_reported_before_anything_is_loaded(world, tmp_path):
    for script, more in (("run_glue.py", flags(world, tmp_path / "out")), ("test_hans.py", None)):
        more = more or ["--model_name_or_path", "nowhere", "--output_dir", tmp_path / "out"]
        code = f"import sys; sys.modules['wandb'] = None; import {script[:-3]} as s, utils.errors as e; e.run_script(s.main)"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, more), "--report_to", "wandb"],
            capture_output=True, text=True, cwd=tiny.ROOT,
        )  # fmt: skip
        assert done.returncode == 2 and "--report_to wandb: not installed; pip install wandb" in done.stderr
        assert not (tmp_path / "out" / "run.json").exists()
