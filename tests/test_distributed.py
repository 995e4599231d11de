"""Two processes (gloo, on the CPU) against one with the same global batch: the same losses, weights, files.

torchrun and accelerate start the processes once each; the other groups are forked with the environment that they set.
"""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from hans.generate import main as generate_hans
from tests import forked, tiny

TRAIN, DEV = 57, 23  # neither divides by two; the last batch of 8 holds one example, so one process has none


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    tiny.write_mnli(root / "data", n_train=TRAIN, n_dev=DEV)
    tiny.write_config(root / "model", "bert")
    generate_hans(["--output_dir", str(root / "hans"), "--per_subcase", "1"])
    return root


def launch(launcher, script, *words):
    """Run a script under a launcher, as a user would."""
    command = [sys.executable, "-m", *launcher, str(tiny.ROOT / script), *map(str, words)]
    environment = os.environ | forked.ENVIRONMENT
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
    forked.run("run_glue.py", *training(world, world / "one", 8), printed=world / "one.printed")
    return world / "one"


@pytest.fixture(scope="module")
def two(world):
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return world / "two", launch(torchrun, "run_glue.py", *training(world, world / "two", 4))


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


def test_padding_is_that_of_both_processes(one, two):
    """The first process gets the shorter half of each batch: twice its own count is less than both computed."""
    alone, together = (json.loads((folder / "results.json").read_text())["train"] for folder in (one, two[0]))
    assert together["tokens"] == alone["tokens"]
    assert 0 <= together["padded_share"] <= alone["padded_share"]
    assert float(re.search(r"(\S+) % padding", two[1].stdout)[1]) >= 0


def test_only_one_process_writes_and_speaks(two):
    folder, done = two
    assert done.stdout.count("mnli/mnli-mm eval_acc") == 1 and done.stdout.count("everything is in") == 1
    rows = [line.split("\t")[0] for line in (folder / "predictions_dev_matched.tsv").read_text().splitlines()[1:]]
    assert rows == [str(i) for i in range(DEV)]


def test_dynamics_agree(one, two):
    a, b = (np.load(folder / "dynamics.npz", allow_pickle=False)["logits"] for folder in (one, two[0]))
    assert a.shape == (3, TRAIN, 3) and np.abs(a.astype(float) - b).max() < 2e-3  # float16


def test_a_group_that_ended_leaves_no_thread(tmp_path):
    """A thread that outlives its group now and then aborts Python at its end, although everything is written."""
    script = tmp_path / "ends.py"
    script.write_text(
        "import importlib, pathlib\n"
        "from utils.models import distributed\n"
        "processes = distributed.start(use_cpu=True)\n"
        "importlib.import_module('transformers.models.bert.modeling_bert')  # imports what keeps groups alive\n"
        "importlib.import_module('torch.distributed.nn')\n"
        "processes.barrier()\n"
        "def gloo():\n"
        "    return [name for name in map(read, pathlib.Path('/proc/self/task').iterdir()) if 'gloo' in name]\n"
        "def read(task):\n"
        "    return (task / 'comm').read_text()\n"
        "assert gloo(), 'no thread to look for'\n"
        "distributed.stop()\n"
        "assert not gloo(), gloo()\n"
    )
    launch(["torch.distributed.run", "--standalone", "--nproc_per_node=2"], script)


def test_accelerate_launch_is_another_way_to_start_it(world, one):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    # Its launcher of several processes without MPI is called --multi_gpu; without a GPU they find gloo and the CPU.
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    out = world / "accelerated"
    launch(launcher, "run_glue.py", *training(world, out, 4))
    assert json.loads((out / "results.json").read_text())["processes"] == 2
    assert_agree(one, out)


def test_extraction_writes_the_same_file(world, one):
    for name, processes in (("alone", 1), ("together", 2)):
        forked.run_group(
            processes, "get_embeddings.py", "--model_name_or_path", one, "--task_name", "MNLI", "--data_dir", world / "data",
            "--max_seq_length", "32", "--pooling", "pooler", "--logits", "--output_dir", world / name,
            printed=world / f"{name}.printed",
        )  # fmt: skip
    for kind, width in (("pooler_embeddings", 32), ("logits", 3)):
        a, b = (np.load(world / name / f"{kind}_mnli_train.npy", allow_pickle=False) for name in ("alone", "together"))
        assert a.shape == b.shape == (TRAIN, width) and np.abs(a - b).max() < 1e-6


def test_hans_answers_are_the_same(world, one):
    for name, processes in (("hans_alone", 1), ("hans_together", 2)):
        done = forked.run_group(
            processes, "test_hans.py", "--model_name_or_path", one, "--data_dir", world / "hans", "--output_dir",
            world / name, printed=world / f"{name}.printed",
        )  # fmt: skip
        assert ["everything is in" in process.stdout for process in done] == [True, False][:processes]
    a, b = ((world / name / "hans_predictions.txt").read_text() for name in ("hans_alone", "hans_together"))
    assert a == b and a.count("\n") == 31


# The script, but every process keeps the weights that its training left it with, and grad_norm samples from the second
# step on: so small a model never says that it pays.
EVERY_PROCESS_SAVES = """
import os, runpy, sys
from safetensors.torch import save_file
from utils.training import finetune, online
begin = online.GradNorm.__init__
def begin_early(self, *args, **options):
    begin(self, *args, **options)
    self.threshold = 0.5
online.GradNorm.__init__ = begin_early
train = finetune.train
def train_and_save(classifier, *args, **options):
    summary = train(classifier, *args, **options)
    weights = {{name: p.detach().clone() for name, p in classifier.model.named_parameters()}}
    save_file(weights, f"{folder}/rank_{{os.environ['RANK']}}.safetensors")
    return summary
finetune.train = train_and_save
sys.argv[0] = "importance_sampling_mnli.py"
runpy.run_path("importance_sampling_mnli.py", run_name="__main__")
"""


@pytest.mark.parametrize("scheme", ["infobatch", "grad_norm"])
def test_online_sampling_agrees(world, tmp_path, scheme):
    script = tmp_path / "script.py"
    for name, processes, batch in ((f"{scheme}_one", 1, 8), (f"{scheme}_two", 2, 4)):
        words = [word for word in training(world, world / name, batch) if word != "--record_dynamics"]
        script.write_text(EVERY_PROCESS_SAVES.format(folder=world / name))
        done = forked.run_group(processes, script, "--online", scheme, *words, printed=world / f"{name}.printed")
        assert [f"{scheme}: " in process.stdout for process in done] == [True, False][:processes]
    assert_agree(world / f"{scheme}_one", world / f"{scheme}_two")
    ranks = [load_file(world / f"{scheme}_two" / f"rank_{rank}.safetensors") for rank in range(2)]
    assert all(np.array_equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    last = log(world / f"{scheme}_two")[-1]
    assert last["pruned_share"] > 0 if scheme == "infobatch" else last["sampled_steps"] > 0, "nothing was sampled"


@pytest.mark.parametrize("objective", ["group_dro", "learned_mixin"])
def test_objectives_with_a_state_agree(world, objective):
    for processes, batch in ((1, 8), (2, 4)):
        words = [
            word for word in training(world, world / f"{objective}_{processes}", batch) if word != "--record_dynamics"
        ]
        words += ["--objective", objective]
        forked.run_group(processes, "run_glue.py", *words, printed=world / f"{objective}.printed")
    assert_agree(world / f"{objective}_1", world / f"{objective}_2")
    if objective == "group_dro":
        shares = [[v for k, v in log(world / f"group_dro_{n}")[-1].items() if k.startswith("q(")] for n in (1, 2)]
        assert len(shares[0]) > 3 and max(shares[0]) > min(shares[0])
        np.testing.assert_allclose(shares[0], shares[1], atol=1e-4)


# The script, but each checkpoint takes its time.
SLOW_SAVING = """
import runpy, sys, time
from utils.training.checkpoint import Checkpoints
save = Checkpoints.save
def save_slowly(*args, **options):
    time.sleep(0.5)
    return save(*args, **options)
Checkpoints.save = save_slowly
sys.argv[0] = "run_glue.py"
runpy.run_path("run_glue.py", run_name="__main__")
"""


def test_the_best_checkpoint_is_whole_before_anyone_reads_it(world, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SLOW_SAVING)
    words = [word for word in training(world, tmp_path / "out", 4) if word != "--record_dynamics"]
    more = ("--max_steps", "2", "--eval_steps", "2", "--load_best_model_at_end")
    done = forked.run_group(2, script, *words, *more, printed=tmp_path / "printed")
    assert "the best evaluation was after step 2" in done[0].stderr


def test_processes_stop_together_and_go_on_as_if_nothing_had_been(world, two):
    """SIGTERM reaches the second process only; both stop at the same step, and no snapshot of the dynamics is lost."""
    out, words = world / "stopped", training(world, world / "stopped", 4)
    processes = forked.start_group(2, "run_glue.py", *words, printed=world / "stopped.printed")
    while not (out / "log.jsonl").exists():
        assert processes[0].wait(0.002) is None
    processes[1].send(signal.SIGTERM)
    done = [process.finish() for process in processes]
    steps = {re.search(r"stopped: .* at step (\d+) of 24; the state is saved", process.stderr)[1] for process in done}
    assert [process.status for process in done] == [75, 75] and len(steps) == 1
    assert (out / "checkpoints" / f"step_{int(steps.pop()):08d}").is_dir()
    forked.run_group(2, "run_glue.py", *words, printed=world / "stopped.printed")
    for name in ("model.safetensors", "dynamics.npz"):
        assert (out / name).read_bytes() == (two[0] / name).read_bytes(), name
    assert [entry["step"] for entry in log(out)] == list(range(1, 25))
