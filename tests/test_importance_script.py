"""subsampling_mnli.py and importance_sampling_mnli.py: choose and train in one command; what is missing is made and kept.

The stages that make it are processes of their own. Here their command lines run in this process, which saves the
seconds that a start costs; one test at the end starts them for real.
"""

import collections
import contextlib
import importlib
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests import forked, tiny
from utils.costs import FORWARD
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import run_script
from utils.files import write_npz
from utils.selection import ingredients as selector
from utils.selection.bias_models import shallow_probability
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection
from utils.training import online
from utils.training.checkpoint import Checkpoints

N = 90
CHOOSE, SUBSAMPLE = "importance_sampling_mnli.py", "subsampling_mnli.py"
Done = collections.namedtuple("Done", "stdout stderr selection train")


class Killed(BaseException):
    """Nothing in the scripts may catch it."""


class Stage:
    """Stands in for subprocess.Popen: the same command line, in this process."""

    started: ClassVar[list[str]] = []

    def __init__(self, command, preexec_fn=None):
        python, script, *flags = command
        assert python == sys.executable
        name = Path(script).name
        happened(f"start {name}")
        self.started.append(name)
        self.status = call(name, flags)

    def wait(self, timeout=None):
        return self.status


kills: list[str] = []  # what is to be the end of a run, once each, in this order


def happened(event: str) -> None:
    if kills and kills[0] == event:
        kills.pop(0)
        raise Killed


def call(script: str, flags) -> int:
    """The exit status of `python script flags`, printing where this process prints."""
    with mock.patch.object(sys, "argv", [script, *map(str, flags)]):
        try:
            run_script(importlib.import_module(script.removesuffix(".py")).main)
        except SystemExit as stop:
            return stop.code
    return 0


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(Stage, "started", [])
    stand_in = SimpleNamespace(Popen=Stage, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(selector, "subprocess", stand_in)
    save = Checkpoints.save

    def saved(self, *args, **more):
        save(self, *args, **more)
        happened(f"checkpoint {self.folder.parent.name}")

    monkeypatch.setattr(Checkpoints, "save", saved)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other
    yield
    torch.set_num_threads(threads)
    kills.clear()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=N, n_dev=24)
    tiny.write_config(root / "model", "bert")
    return root


@pytest.fixture(scope="module")
def examples(world):
    return load_split(get_task("mnli"), "train", data_dir=world / "data")


def words(world, out, *flags) -> list[str]:
    return [str(word) for word in (
        "--config_name", world / "model", "--tokenizer_name", world / "model", "--task_name", "MNLI", "--data_dir",
        world / "data", "--do_train", "--do_eval", "--max_seq_length", 32, "--per_gpu_train_batch_size", 8,
        "--learning_rate", 1e-3, "--num_train_epochs", 2, "--cache_dir", world / "cache", "--output_dir", out, *flags,
    )]  # fmt: skip


def run(world, out, *flags, script=CHOOSE, check=0) -> Done:
    making = ("--proxy_epochs", 1, "--num_clusters", 4) if script == CHOOSE and "--strategy" in flags else ()
    argv = words(world, out, *making, *flags)
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
        status = call(script, argv)
    assert status == check, stderr.getvalue()
    chosen, results = out / "selection.npz", out / "results.json"
    return Done(
        stdout.getvalue(),
        stderr.getvalue(),
        Selection.load(chosen) if chosen.exists() else None,
        json.loads(results.read_text())["train"] if results.exists() else None,
    )


def kept(out) -> dict[str, int]:
    """The files under <out>/selector, and when each was written."""
    folder = out / "selector"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------------- subsampling
def subset(world, out, *flags) -> list[int]:
    return run(world, out, *flags, script=SUBSAMPLE).selection.indices.tolist()


@pytest.mark.parametrize("strategy", ["random", "stratified"])
def test_a_subset_depends_on_data_and_selection_seed_alone(world, tmp_path, strategy):
    fifth = ("--strategy", strategy, "--data_pct", 0.2)
    one = subset(world, tmp_path / "a", *fifth, "--seed", 1, "--selection_seed", 7)
    assert subset(world, tmp_path / "b", *fifth, "--seed", 2, "--selection_seed", 7) == one
    assert len(set(one)) == len(one) == round(0.2 * N)
    assert subset(world, tmp_path / "c", *fifth, "--selection_seed", 8) != one
    tenth = subset(world, tmp_path / "d", "--strategy", strategy, "--data_pct", 0.1, "--selection_seed", 7)
    assert len(tenth) == round(0.1 * N) and set(tenth) < set(one)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in "ab"]
    assert any(not np.array_equal(weights[0][key], weights[1][key]) for key in weights[0]), "--seed does nothing"


def test_random_is_the_default_and_seeded_by_the_seed(world, tmp_path):
    one = subset(world, tmp_path / "a", "--data_pct", 0.2, "--seed", 5)
    assert subset(world, tmp_path / "b", "--strategy", "random", "--data_pct", 0.2, "--selection_seed", 5) == one
    assert subset(world, tmp_path / "c", "--data_pct", 0.2, "--seed", 6) != one


def test_stratified_keeps_the_share_of_labels(world, examples, tmp_path):
    chosen = subset(world, tmp_path / "a", "--data_pct", 0.2, "--strategy", "stratified")
    assert np.bincount(examples.labels[chosen]).tolist() == [6, 6, 6]


def test_a_subset_is_what_is_trained_on(world, tmp_path):
    done = run(world, tmp_path / "out", "--data_pct", 0.2, script=SUBSAMPLE)
    assert done.train["examples"] == 2 * 18 and done.train["steps"] == 2 * 3  # epochs; batches of 8, 8 and 2
    again = run(world, tmp_path / "out", "--data_pct", 0.2, script=SUBSAMPLE, check=2)
    assert "holds a finished run" in again.stderr.splitlines()[-1]
    fewer = run(world, tmp_path / "fewer", "--data_pct", 0.2, "--max_train_samples", 9, script=SUBSAMPLE)
    recorded = json.loads((tmp_path / "fewer" / "results.json").read_text())["selection"]
    assert recorded["m"] == len(fewer.selection) == 9 and recorded["n"] == N


# ------------------------------------------------------------------------------------------------------------- choosing
def test_what_a_strategy_needs_is_made_once_and_kept(world, tmp_path):
    out, more = tmp_path / "out", ("--strategy", "cluster_ccs", "--data_pct", 0.3)
    done = run(world, out, *more)
    assert Stage.started == ["run_glue.py", "get_embeddings.py", "cluster_embeddings.py"]
    assert len(done.selection) == 27 and done.selection.provenance["method"] == "cluster_ccs"
    results = json.loads((out / "results.json").read_text())
    assert results["selection"]["m"] == 27 and results["selection"]["method"] == "cluster_ccs"
    assert results["selection"]["making_epochs"] == pytest.approx(
        1 + 2 * FORWARD + FORWARD
    )  # a run, snapshots, embeddings
    assert "cluster_ccs: 27 of 90 examples" in done.stdout and done.train["examples"] == 2 * 27
    made = kept(out)
    assert {
        "proxy_run/dynamics.npz",
        "cls_embeddings/cls_embeddings_mnli_train.npy",
        "clusters/clusters.npz",
    } <= made.keys()
    run(world, out, *more, "--overwrite_output_dir")
    assert kept(out) == made and len(Stage.started) == 3  # reused
    # Given by flag, nothing is made.
    paths = ("--dynamics_path", out / "selector/proxy_run/dynamics.npz")
    paths += ("--cluster_path", out / "selector/clusters/clusters.npz")
    again = run(world, tmp_path / "given", *more, *paths)
    assert not (tmp_path / "given" / "selector").exists() and len(Stage.started) == 3
    assert again.selection.indices.tolist() == done.selection.indices.tolist()


def test_several_proxy_runs_with_seeds_of_their_own(world, tmp_path):
    out, more = tmp_path / "out", ("--strategy", "el2n", "--data_pct", 0.2, "--score_epoch", 1, "--selection_seed", 5)
    done = run(world, out, *more, "--proxy_seeds", 2)
    assert Stage.started == ["run_glue.py"] * 2
    runs = [out / "selector" / name for name in ("proxy_run", "proxy_run_1")]
    commands = [json.loads((folder / "results.made_from.json").read_text())["command"] for folder in runs]
    assert [command[command.index("--seed") + 1] for command in commands] == ["5", "6"]
    dynamics = [Dynamics.load(folder / "dynamics.npz") for folder in runs]
    mean = np.mean([found.at_epoch(1).el2n() for found in dynamics], axis=0)
    np.testing.assert_allclose(done.selection.scores, mean, rtol=1e-6)
    assert not np.array_equal(dynamics[0].logits, dynamics[1].logits)
    # One run more uses those that are there.
    run(world, out, *more, "--proxy_seeds", 3, "--overwrite_output_dir")
    assert len(Stage.started) == 3


def test_what_only_the_user_has_is_asked_for(world, tmp_path):
    for strategy, flag in (("ranking", "--ranking FILE"), ("tracin", "--gradient_path DIR")):
        done = run(world, tmp_path / "out", "--strategy", strategy, "--data_pct", 0.2, check=2)
        assert flag in done.stderr.splitlines()[-1] and not Stage.started


def test_a_score_of_ones_own_makes_no_proxy_run(world, tmp_path):
    scores = np.random.default_rng(0).normal(size=N)
    np.save(tmp_path / "scores.npy", scores)
    flags = ("--strategy", "el2n", "--data_pct", 0.2, "--score_path", tmp_path / "scores.npy")
    done = run(world, tmp_path / "out", *flags)
    assert not Stage.started and done.selection.indices.tolist() == np.argsort(-scores)[:18].tolist()


def test_the_selection_depends_on_its_own_seed_not_the_models(world, tmp_path):
    chosen = []
    for k, (seed, own) in enumerate(((1, 3), (2, 3), (1, 4))):
        flags = ("--strategy", "easy", "--data_pct", 0.2, "--seed", seed, "--selection_seed", own)
        chosen.append(run(world, tmp_path / f"{k}", *flags).selection.indices.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


def test_grand_gets_the_classifiers_own_input_and_logits(world, examples, tmp_path):
    out, more = tmp_path / "out", ("--strategy", "grand", "--data_pct", 0.1)
    done = run(world, out, *more)
    pooled = out / "selector" / "pooler_embeddings" / "pooler_embeddings_mnli_train.npy"
    logits = out / "selector" / "logits" / "logits_mnli_train.npy"
    h, z = (np.load(path).astype(np.float64) for path in (pooled, logits))
    p = np.exp(z - z.max(1, keepdims=True))
    error = p / p.sum(1, keepdims=True) - np.eye(3)[examples.labels]
    norm = np.linalg.norm(error, axis=1) * np.sqrt((h**2).sum(1) + 1)  # of the classifier layer's weight and bias
    assert set(done.selection.indices.tolist()) == set(np.argsort(-norm)[:9].tolist())
    # A given checkpoint takes the place of the proxy run, given files that of everything.
    Stage.started.clear()
    run(world, tmp_path / "model", *more, "--selector_model", out / "selector" / "proxy_run")
    assert set(Stage.started) == {"get_embeddings.py"} and "proxy_run" not in str(kept(tmp_path / "model"))
    Stage.started.clear()
    paths = ("--embedding_path", pooled, "--logits_path", logits)
    given = run(world, tmp_path / "given", *more, *paths)
    assert not Stage.started and given.selection.indices.tolist() == done.selection.indices.tolist()


@pytest.mark.parametrize(
    ("flags", "made"),
    [((), "proxy_run/dynamics.npz"), (("--score", "embedding"), "cls_embeddings/cls_embeddings_mnli_train.npy")],
)
def test_importance_scores_by_what_is_asked(world, tmp_path, flags, made):
    done = run(world, tmp_path / "out", "--strategy", "importance", "--data_pct", 0.2, *flags)
    assert made in kept(tmp_path / "out") and ("get_embeddings.py" in Stage.started) == bool(flags)
    assert len(done.selection) == 18 and len(set(done.selection.weights.tolist())) > 3


def test_random_needs_nothing(world, tmp_path):
    """And is the very subset of subsampling_mnli.py, so that the two scripts compare."""
    done = run(world, tmp_path / "a", "--strategy", "random", "--data_pct", 0.2)
    assert not Stage.started and not (tmp_path / "a" / "selector").exists()
    assert done.selection.indices.tolist() == subset(world, tmp_path / "b", "--data_pct", 0.2)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(np.array_equal(a[key], b[key]) for key in a)


# --------------------------------------------------------------------------------------------------------------- online
def test_grad_norm_counts_its_forward_passes(world, tmp_path, monkeypatch):
    class Eager(online.GradNorm):
        """Samples from the second step on, whatever it gains."""

        def __init__(self, *args, **plan):
            super().__init__(*args, **plan)
            self.threshold = 0.0

    lazy = run(world, tmp_path / "lazy", "--online", "grad_norm")
    monkeypatch.setattr(online, "GradNorm", Eager)
    eager = run(world, tmp_path / "eager", "--online", "grad_norm")
    steps = 2 * 12  # of 8 examples; the last uniform one of an epoch has 2, a sampled one never
    assert lazy.train["steps"] == eager.train["steps"] == steps and lazy.train["epochs"] == 2
    assert lazy.train["probed"] == 0 and lazy.train["examples"] == 2 * N
    assert eager.train["probed"] == (steps - 1) * 3 * 8 and eager.train["examples"] == steps * 8
    last = json.loads((tmp_path / "eager" / "log.jsonl").read_text().splitlines()[-1])
    assert last["sampled_steps"] == steps - 1 and 1 <= last["effective_batch"] <= 8 and last["tau"] >= 1
    assert last["variance_reduction"] == pytest.approx(1 - 1 / last["tau"] ** 2, abs=1e-3)
    said = f"{eager.train['probed']} more forward passes for choosing"
    assert said in eager.stdout and "0 more forward passes" in lazy.stdout


def test_infobatch_leaves_out_backward_passes(world, tmp_path):
    train = run(world, tmp_path / "out", "--online", "infobatch", "--num_train_epochs", 4).train
    # Epochs 2 and 3 and half of the last may leave out half of what lies below the mean loss.
    assert N * (1 + 2 * 0.5) < train["examples"] < 4 * N - 20 and train["epochs"] == 4
    assert train["steps"] < train["full_steps"] == 4 * 12 and train["probed"] == 0
    rates = [json.loads(line)["lr"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert rates[-1] < 1e-3 * 2 / 48  # the schedule ends with the training, short as it is


def test_rs2_trains_for_as_long_as_a_subset(world, tmp_path):
    done = run(world, tmp_path / "out", "--online", "rs2", "--data_pct", 0.3, "--num_train_epochs", 3)
    assert done.train["examples"] == 3 * 27 and done.train["steps"] == 3 * 4 and done.train["probed"] == 0
    assert "rs2: 81 examples through the backward pass where 3 full epochs take 270 (70.0 % saved)" in done.stdout
    fewer = run(world, tmp_path / "fewer", "--online", "rs2", "--data_pct", 0.3, "--max_train_samples", 40)
    assert fewer.train["examples"] == 2 * 12 and "where 2 full epochs take 80 (70.0 % saved)" in fewer.stdout


def making_epochs(folder) -> float:
    return json.loads((folder / "results.json").read_text())["selection"]["making_epochs"]


def test_rho_makes_its_irreducible_losses_from_two_halves(world, examples, tmp_path):
    out = tmp_path / "out"
    done = run(world, out, "--online", "rho", "--proxy_epochs", 1)
    assert Stage.started == ["run_glue.py", "get_embeddings.py"] * 2 and done.selection is None
    halves = [Selection.load(out / "selector" / f"half_{k}.npz").indices for k in (0, 1)]
    assert sorted(np.concatenate(halves).tolist()) == list(range(N)) and len(halves[0]) == N // 2
    expected = np.empty(N)
    for k, other in enumerate(reversed(halves)):  # the model of one half says what the other's losses are
        z = np.load(out / "selector" / f"half_{k}_features" / "logits_mnli_train.npy").astype(np.float64)[other]
        expected[other] = np.log(np.exp(z).sum(1)) - z[np.arange(len(other)), examples.labels[other]]
    path = out / "selector" / "irreducible_loss.npz"
    with np.load(path, allow_pickle=False) as saved:
        np.testing.assert_allclose(saved["irreducible_loss"], expected, rtol=1e-5, atol=1e-6)
    assert done.train["probed"] == done.train["steps"] * 10 * 8 and done.train["examples"] == done.train["steps"] * 8
    epochs = 2 * (1 / 2 + FORWARD)  # each half is trained on once; its model looks at everything
    assert making_epochs(out) == pytest.approx(epochs)
    given = run(world, tmp_path / "given", "--online", "rho", "--irreducible_loss", path)
    assert making_epochs(tmp_path / "given") == 0
    assert len(Stage.started) == 4 and not (tmp_path / "given" / "selector").exists()
    assert {**given.train, "seconds": 0} == {**done.train, "seconds": 0}
    write_npz(tmp_path / "short.npz", irreducible_loss=np.zeros(N - 1, dtype=np.float32))
    refused = run(world, tmp_path / "o", "--online", "rho", "--irreducible_loss", tmp_path / "short.npz", check=2)
    assert "irreducible losses of (89,) rows, but the data has 90" in refused.stderr.splitlines()[-1]


def test_rare_makes_held_out_logits_and_ssft_two_splits(world, examples, tmp_path):
    out = tmp_path / "rare"
    done = run(world, out, "--strategy", "rare", "--cross_fitted", "--data_pct", 0.2)
    assert Stage.started == ["run_glue.py", "get_embeddings.py"] * 2 and len(done.selection) == N // 5
    halves = [Selection.load(out / "selector" / f"crossfit_{k}.npz") for k in (0, 1)]
    held_out = np.load(out / "selector" / "held_out_logits.npy", allow_pickle=False)
    shallow = shallow_probability(examples.texts, examples.labels, done.selection.provenance["selection_seed"])
    for k, other in enumerate(reversed(halves)):
        judged = np.load(out / "selector" / f"crossfit_{k}_features" / "logits_mnli_train.npy")
        np.testing.assert_array_equal(held_out[other.indices], judged[other.indices])
        weights = 1 + 49 * (1 - shallow[halves[k].indices])
        np.testing.assert_allclose(halves[k].weights, weights / weights.mean(), rtol=1e-5)
    Stage.started.clear()
    splits = run(world, tmp_path / "ssft", "--strategy", "ssft", "--data_pct", 0.2)
    first, second = (Dynamics.load(tmp_path / "ssft" / "selector" / f"split_{k}" / "dynamics.npz") for k in (0, 1))
    assert Stage.started == ["run_glue.py"] * 2 and len(splits.selection) == N // 5
    assert np.isnan(first.logits).any(axis=(0, 2)).sum() == N // 2 and not np.isnan(second.logits).any()
    trained = Selection.load(tmp_path / "ssft" / "selector" / "half_0.npz").indices
    assert not np.isnan(first.logits[:, trained]).any()


# ---------------------------------------------------------------------------------------------------------------- kills
@pytest.mark.parametrize(
    ("flags", "ends"),
    [
        (
            ("--strategy", "cluster_ccs", "--data_pct", 0.5),
            ["checkpoint proxy_run", "start get_embeddings.py", "start cluster_embeddings.py", "checkpoint killed"],
        ),
        (("--online", "rho"), ["checkpoint half_1", "start get_embeddings.py", "checkpoint killed"]),
        (("--online", "infobatch"), ["checkpoint killed"]),
    ],
)
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(world, tmp_path, flags, ends):
    flags = flags if "infobatch" in flags else (*flags, "--proxy_epochs", 2)
    whole = run(world, tmp_path / "whole", *flags)
    stages = len(Stage.started)
    kills.extend(ends)
    for _ in ends:
        with pytest.raises(Killed):
            run(world, tmp_path / "killed", *flags)
        assert not (tmp_path / "killed" / "results.json").exists()
    again = run(world, tmp_path / "killed", *flags)
    assert not kills
    # Only a stage that was killed after its start is started again; its checkpoint is gone on from.
    assert len(Stage.started) == 2 * stages + sum(end.startswith("checkpoint") and "killed" not in end for end in ends)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
    assert {**again.train, "seconds": 0} == {**whole.train, "seconds": 0}
    if whole.selection:
        assert again.selection.indices.tolist() == whole.selection.indices.tolist()


def test_a_stage_that_fails_is_the_end_and_says_so(world, tmp_path):
    """With a learning rate that ruins the proxy run; then with a selector model that is none."""
    done = run(world, tmp_path / "a", "--strategy", "easy", "--data_pct", 0.2, "--learning_rate", 1e15,
               "--max_grad_norm", 0, check=1)  # fmt: skip
    assert "run_glue.py ended with status 1" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    more = ("--strategy", "kcenter", "--data_pct", 0.2, "--selector_model", tmp_path / "nowhere")
    done = run(world, tmp_path / "b", *more, check=2)
    assert "nowhere: no such folder" in done.stderr.splitlines()[-1]


def test_sigterm_reaches_the_stage_and_the_same_command_continues_it(world, tmp_path, monkeypatch):
    """In processes of their own."""
    monkeypatch.undo()
    out, printed = tmp_path / "out", tmp_path / "printed"
    argv = words(world, out, "--strategy", "easy", "--data_pct", 0.2, "--proxy_epochs", 15)
    running = forked.start(CHOOSE, *argv, printed=printed)
    log = out / "selector" / "proxy_run" / "log.jsonl"
    while running.wait(0.01) is None and not log.exists():
        time.sleep(0.01)
    running.send(signal.SIGTERM)
    stopped = running.finish()
    assert stopped.status == 75 and "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1] == f"{CHOOSE}: stopped: SIGTERM; run the same command again to continue"
    assert list((out / "selector" / "proxy_run" / "checkpoints").glob("step_*")) and not (out / "results.json").exists()
    done = forked.run(CHOOSE, *argv, printed=printed)
    assert "continuing from" in done.stderr and "easy: 18 of 90 examples" in done.stdout
    assert json.loads((out / "selector" / "proxy_run" / "results.json").read_text())["train"]["steps"] == 15 * 12


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "exactly one of --strategy and --online"),
        (["--strategy", "random", "--online", "rs2"], "exactly one of --strategy and --online"),
        (["--online", "rs2"], "--online rs2 needs --data_pct"),
        (["--online", "infobatch", "--data_pct", "0.1"], "draws from all of the data"),
        (["--online", "grad_norm", "--num_examples", "9"], "draws from all of the data"),
        (["--online", "infobatch", "--num_train_epochs", "1.5"], "takes a whole --num_train_epochs"),
        (["--online", "infobatch", "--max_steps", "5"], "not --max_steps"),
        (["--online", "infobatch", "--record_dynamics"], "no epoch shows the logits of all"),
        (["--online", "rs2", "--data_pct", "0.1", "--dfr"], "--dfr trains nothing but the last layer"),
        (["--online", "rs2", "--data_pct", "0.1", "--num_examples", "9"], "--num_examples is read by --strategy only"),
        (["--online", "grad_norm", "--class_balanced"], "--class_balanced is read by --strategy only"),
        (["--online", "grad_norm", "--embedding_path", "none"], "--embedding_path is read by --strategy only"),
        (["--online", "grad_norm", "--neighbors", "3"], "--neighbors is read by --strategy only"),
        (["--online", "grad_norm", "--proxy_epochs", "9"], "and --online rho without --irreducible_loss only"),
        (["--online", "rho", "--irreducible_loss", "x.npz", "--num_clusters", "9"], "without --irreducible_loss only"),
        (["--strategy", "random", "--data_pct", "0.1", "--irreducible_loss", "x.npz"], "is read by --online rho only"),
        (["--strategy", "random", "--data_pct", "0.1", "--replacement"], "is read by --online rs2 only"),
        (["--online", "magic"], "invalid choice"),
        (["--strategy", "magic", "--data_pct", "0.1"], "--strategy magic is unknown"),
        (["--strategy", "random", "--data_pct", "10"], "0.1 means 10 %"),
        (["--strategy", "random", "--data_pct", "0"], "selects nothing"),
        (["--strategy", "random"], "give --data_pct"),
        (["--strategy", "random", "--data_pct", "0.1", "--num_examples", "9"], "exactly one"),
        (["--strategy", "random", "--num_examples", "91"], "at most 90"),
        (["--strategy", "random", "--data_pct", "0.1", "--eps", "0.1"], "does not read --eps"),
        (["--strategy", "random", "--data_pct", "0.1", "--dry_run"], "try run_glue.py --dry_run"),
        (["--strategy", "random", "--data_pct", "0.1", "--selection", "s.npz"], "already a choice"),
        (["--strategy", "easy", "--data_pct", "0.1", "--dynamics_path", "nowhere.npz"], "nowhere.npz: no such file"),
        (["--strategy", "grand", "--data_pct", "0.1", "--proxy_epochs", "0"], "0 is not a positive number"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(world, tmp_path, flags, said):
    done = run(world, tmp_path / "o", *flags, check=2)
    assert said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists() and not Stage.started


def test_without_training_there_is_nothing_to_choose_for(world, tmp_path):
    argv = [
        word for word in words(world, tmp_path / "o", "--strategy", "random", "--data_pct", 0.1) if word != "--do_train"
    ]
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert call(CHOOSE, argv) == 2
    assert "give --do_train" in stderr.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_stage_ends_with_the_script_that_started_it(tmp_path):
    stage, number = tmp_path / "stage.py", tmp_path / "number"
    stage.write_text(
        f"import os, pathlib, time\n"
        f"path = pathlib.Path({str(number)!r})\n"
        f"path.with_suffix('.new').write_text(str(os.getpid()))\n"
        f"path.with_suffix('.new').rename(path)\n"
        f"time.sleep(60)\n"
    )
    code = f"from utils.selection.ingredients import InputMaker; InputMaker._execute(None, [{str(stage)!r}])"
    script = subprocess.Popen([sys.executable, "-c", code], cwd=tiny.ROOT)
    until = time.monotonic() + 60
    while not number.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process = Path("/proc", number.read_text())
    assert process.exists() and script.poll() is None
    script.kill()
    script.wait()
    while process.exists() and "zombie" not in (process / "status").read_text() and time.monotonic() < until:
        time.sleep(0.02)
    assert time.monotonic() < until
