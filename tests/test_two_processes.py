"""Two processes (gloo, on the CPU) against one with the same global batch: the same losses, weights, files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from hans.generate import main as generate_hans
from tests import tiny

TRAIN, DEV = 53, 23  # neither divides by two


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    tiny.write_mnli(root / "data", n_train=TRAIN, n_dev=DEV)
    tiny.write_config(root / "model", "bert")
    generate_hans(["--output_dir", str(root / "hans"), "--per_subcase", "1"])
    return root


def launch(processes, script, *words, launcher=None):
    """Run a script alone or under a launcher, offline, one thread each."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(tiny.ROOT / script), *map(str, words)]
    if launcher:
        command = [sys.executable, "-m", *launcher, *command[1:]]
    elif processes > 1:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            *command[1:],
        ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tiny.ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def training(world, out, batch, *more):
    return [
        "--config_name", world / "model", "--tokenizer_name", world / "model", "--task_name", "MNLI", "--data_dir",
        world / "data", "--do_train", "--do_eval", "--per_device_train_batch_size", batch, "--num_train_epochs", "3",
        "--learning_rate", "1e-3", "--max_seq_length", "32", "--logging_steps", "1", "--record_dynamics",
        "--cache_dir", world / "cache", "--output_dir", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def one(world):
    launch(1, "run_glue.py", *training(world, world / "one", 8))
    return world / "one"


@pytest.fixture(scope="module")
def two(world):
    return world / "two", launch(2, "run_glue.py", *training(world, world / "two", 4))


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_agree(a, b):
    """Losses and final weights to 1e-5, and the same answers."""
    assert [entry["step"] for entry in log(a)] == [entry["step"] for entry in log(b)]
    assert np.allclose([entry["loss"] for entry in log(a)], [entry["loss"] for entry in log(b)], atol=1e-5)
    weights = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert max(np.abs(weights[0][name] - weights[1][name]).max() for name in weights[0]) < 1e-5
    results = [json.loads((folder / "results.json").read_text()) for folder in (a, b)]
    for split in ("dev_matched", "dev_mismatched"):
        assert results[0]["eval"][split] == pytest.approx(results[1]["eval"][split], abs=1e-5)
        assert results[1]["eval"][split]["n"] == DEV


def test_training_agrees(one, two):
    assert_agree(one, two[0])
    assert json.loads((two[0] / "results.json").read_text())["processes"] == 2


def test_only_one_process_writes_and_speaks(two):
    folder, done = two
    assert done.stdout.count("mnli/mnli-mm eval_acc") == 1 and done.stdout.count("everything is in") == 1
    rows = [line.split("\t")[0] for line in (folder / "predictions_dev_matched.tsv").read_text().splitlines()[1:]]
    assert rows == [str(i) for i in range(DEV)]


def test_dynamics_agree(one, two):
    a, b = (np.load(folder / "dynamics.npz", allow_pickle=False)["logits"] for folder in (one, two[0]))
    assert a.shape == (3, TRAIN, 3) and np.abs(a.astype(float) - b).max() < 2e-3  # float16


def test_accelerate_launch_is_another_way_to_start_it(world, one):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    # Its launcher of several processes without MPI is called --multi_gpu; without a GPU they find gloo and the CPU.
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    out = world / "accelerated"
    launch(2, "run_glue.py", *training(world, out, 4), launcher=launcher)
    assert json.loads((out / "results.json").read_text())["processes"] == 2
    assert_agree(one, out)


def test_extraction_writes_the_same_file(world, one):
    for name, processes in (("alone", 1), ("together", 2)):
        launch(
            processes, "get_embeddings.py", "--model_name_or_path", one, "--task_name", "MNLI", "--data_dir", world / "data",
            "--max_seq_length", "32", "--pooling", "pooler", "--logits", "--output_dir", world / name,
        )  # fmt: skip
    for kind, width in (("pooler_embeddings", 32), ("logits", 3)):
        a, b = (np.load(world / name / f"{kind}_mnli_train.npy", allow_pickle=False) for name in ("alone", "together"))
        assert a.shape == b.shape == (TRAIN, width) and np.abs(a - b).max() < 1e-6


def test_hans_answers_are_the_same(world, one):
    for name, processes in (("hans_alone", 1), ("hans_together", 2)):
        launch(
            processes,
            "test_hans.py",
            "--model_name_or_path",
            one,
            "--data_dir",
            world / "hans",
            "--output_dir",
            world / name,
        )
    a, b = ((world / name / "hans_predictions.txt").read_text() for name in ("hans_alone", "hans_together"))
    assert a == b and a.count("\n") == 31


@pytest.mark.parametrize("scheme", ["infobatch", "grad_norm"])
def test_online_sampling_agrees(world, scheme):
    for name, processes, batch in ((f"{scheme}_one", 1, 8), (f"{scheme}_two", 2, 4)):
        words = [word for word in training(world, world / name, batch) if word != "--record_dynamics"]
        launch(processes, "importance_sampling_mnli.py", "--online", scheme, *words)
    assert_agree(world / f"{scheme}_one", world / f"{scheme}_two")
