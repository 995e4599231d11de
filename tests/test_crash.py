"""Nothing is lost in a crash: kills at any moment, damaged checkpoints, full disks and Ctrl-C cost the steps since the
last good checkpoint and never change the result. Dropout is on throughout: the random numbers must come back too.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess

import pytest
import torch

from tests import forked, tiny
from tests.test_training import classifier
from utils.errors import InputError
from utils.flags import TrainingSettings
from utils.training.checkpoint import Checkpoints
from utils.training.optimizer import make_optimizer

STEPS = 36  # 6 epochs of 6
SAVE_STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """mnli/, config/, and whole/: the run that nothing happened to."""
    folder = tmp_path_factory.mktemp("crash")
    tiny.write_mnli(folder / "mnli", n_train=95, n_dev=13)
    path = tiny.write_config(folder / "config", "bert") / "config.json"
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    path.write_text(json.dumps(json.loads(path.read_text()) | dropout))
    forked.run("run_glue.py", *flags(folder, folder / "whole"), printed=folder / "whole_printed")
    return folder


def flags(folder, out, *more):
    return [
        "--config_name", folder / "config", "--tokenizer_name", folder / "config", "--task_name", "MNLI",
        "--data_dir", folder / "mnli", "--do_train", "--do_eval", "--per_gpu_train_batch_size", "16",
        "--learning_rate", "1e-3", "--num_train_epochs", "6", "--max_seq_length", "32", "--record_dynamics",
        "--save_steps", SAVE_STEPS, "--logging_steps", "1", "--output_dir", out, "--cache_dir", folder / "cache", *more,
    ]  # fmt: skip


def log_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def checkpoints_of(out):
    return sorted((out / "checkpoints").glob("step_*"))


def assert_same_result(out, whole):
    for name in ("model.safetensors", "dynamics.npz", "predictions_dev_matched.tsv", "eval_results_mnli-mm.txt"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())
    ours, theirs = ([(e["step"], e["loss"], e["lr"]) for e in log_of(folder)] for folder in (out, whole))
    assert ours == theirs and [step for step, _, _ in ours] == list(range(1, STEPS + 1))
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (out, whole))
    assert ours["eval"] == theirs["eval"]
    assert all(ours["train"][key] == theirs["train"][key] for key in ("steps", "examples", "tokens", "padded_share"))


def run_until(folder, out, steps) -> forked.Running:
    """A run that has logged at least so many steps and has not finished."""
    running = forked.start("run_glue.py", *flags(folder, out), printed=out.with_suffix(".printed"))
    log = out / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= steps):
        assert running.wait(0.002) is None, f"finished before step {steps}"
    return running


@pytest.fixture(scope="module")
def killed(folder):
    """A folder to copy: two checkpoints and some steps more, then kill -9."""
    out = folder / "killed"
    running = run_until(folder, out, 2 * SAVE_STEPS + 2)
    running.send(signal.SIGKILL)
    assert running.finish().status == -signal.SIGKILL and len(checkpoints_of(out)) == 2
    return out


# --------------------------------------------------------------------------------------------------------------- kill -9
def test_kill_9_at_ten_random_moments_changes_no_bit(folder, tmp_path):
    seconds = json.loads((folder / "whole" / "results.json").read_text())["seconds"]
    moments, kills, runs, continued, out = random.Random(0), 0, 1, 0, tmp_path / "run_1"
    while kills < 10 or not (out / "results.json").exists():
        if (out / "results.json").exists():  # finished before the tenth kill: another one
            runs += 1
            out = tmp_path / f"run_{runs}"
        running = forked.start("run_glue.py", *flags(folder, out), printed=tmp_path / "printed")
        if kills < 10 and running.wait(moments.uniform(0, 1.3 * seconds)) is None:
            running.send(signal.SIGKILL)
            kills += 1
        done = running.finish()
        assert done.status in (0, -signal.SIGKILL), done.stderr
        continued += "continuing from" in done.stderr
        if done.status == 0:
            assert_same_result(out, folder / "whole")
    assert continued >= 3, "the kills came too early or too late to show anything"


# run_glue.py, but killed just before its k-th change of a file's name or removal of a file.
DEADLY = """
import os, runpy, signal, sys
last, seen = int(sys.argv.pop(1)), 0
def deadly(change):
    def call(*args, **kwargs):
        global seen
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **kwargs)
    return call
for name in ("replace", "rename", "unlink", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
sys.argv[0] = "run_glue.py"
runpy.run_path("run_glue.py", run_name="__main__")
"""


def test_kill_9_before_any_change_of_names(folder, tmp_path):
    """Each run dies a little later than the one before it, in the same folder, until one comes through."""
    script, out = tmp_path / "deadly.py", tmp_path / "out"
    script.write_text(DEADLY)
    kills = 0
    while not (out / "results.json").exists():
        done = forked.run(script, 1 + 3 * kills, *flags(folder, out), printed=tmp_path / "printed", check=None)
        kills += done.status == -signal.SIGKILL
        assert done.status in (0, -signal.SIGKILL), done.stderr
    assert kills >= 6, "too few such moments to show anything"
    shutil.rmtree(out / "checkpoints", ignore_errors=True)  # all that a kill after results.json leaves behind
    (out / ".lock").unlink(missing_ok=True)  # likewise; it holds no lock once its process is gone
    assert_same_result(out, folder / "whole")


# ---------------------------------------------------------------------------------------------------- damaged snapshots
def flip_a_bit(path):
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


DAMAGE = {
    "flipped": lambda folder: flip_a_bit(min(folder.glob("snapshot_0_*"))),
    "cut": lambda folder: min(folder.glob("snapshot_0_*")).write_bytes(b"cut"),
    "lost": lambda folder: min(folder.glob("snapshot_0_*")).unlink(),
    "all lost": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_does_not_go_on_with_damaged_dynamics(folder, killed, tmp_path, damage):
    out = shutil.copytree(killed, tmp_path / "out")
    DAMAGE[damage](out / "dynamics")
    done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed", check=None)
    assert done.status == 2 and "training dynamics of the first" in done.stderr and "Traceback" not in done.stderr
    assert not (out / "results.json").exists() and checkpoints_of(out)
    forked.run("run_glue.py", *flags(folder, out, "--overwrite_output_dir"), printed=tmp_path / "printed")
    assert_same_result(out, folder / "whole")


# ------------------------------------------------------------------------------------------------- damaged checkpoints
def test_any_flipped_bit_of_a_checkpoint_is_recognised(tmp_path):
    model = classifier().model
    optimizer = make_optimizer(model, TrainingSettings())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    checkpoints, arrays = Checkpoints(tmp_path), {"losses": torch.arange(5.0)}
    for step in (3, 6):
        checkpoints.save(step, model=model, optimizer=optimizer, extra={"counts": {"tokens": step}}, arrays=arrays)
    newest = checkpoints_of_folder(tmp_path)[-1]
    rng = random.Random(0)
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        places = range(len(whole)) if path.suffix == ".json" else rng.sample(range(len(whole)), 20)
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            step, extra, _ = checkpoints.restore(model=model, optimizer=optimizer)
            assert (step, extra["counts"]["tokens"]) == (3, 3) or json.loads(damaged) == json.loads(whole)
        path.write_bytes(whole)
    assert checkpoints.restore(model=model, optimizer=optimizer)[0] == 6


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    small, large = classifier().model, classifier(type_vocab_size=3).model
    optimizers = [make_optimizer(model, TrainingSettings()) for model in (small, large)]
    Checkpoints(tmp_path).save(3, model=small, optimizer=optimizers[0], extra={}, arrays={"a": torch.zeros(1)})
    with pytest.raises(InputError, match="of another model"):
        Checkpoints(tmp_path).restore(model=large, optimizer=optimizers[1])


def checkpoints_of_folder(folder):
    return sorted(folder.glob("step_*"))


def test_a_damaged_newest_checkpoint_does_not_outlive_the_new_ones(tmp_path):
    """With one checkpoint kept, the one kept must be the good one, not the damaged one of a later step."""
    model = classifier().model
    optimizer = make_optimizer(model, TrainingSettings())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    state = {"model": model, "optimizer": optimizer, "extra": {}, "arrays": {"a": torch.zeros(1)}}
    two = Checkpoints(tmp_path, keep=2)
    two.save(3, **state)
    (two.save(6, **state) / "model.safetensors").write_bytes(b"")
    one = Checkpoints(tmp_path, keep=1)
    assert one.restore(model=model, optimizer=optimizer)[0] == 3
    one.save(4, **state)
    assert one.restore(model=model, optimizer=optimizer)[0] == 4 and len(checkpoints_of_folder(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(folder, killed, tmp_path, damage):
    out = shutil.copytree(killed, tmp_path / "out")
    before, last = checkpoints_of(out)
    path = last / {"flip": "optimizer.safetensors", "truncate": "model.safetensors", "remove": "state.json"}[damage]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink()
    if damage != "remove":
        path.write_bytes(content if damage == "flip" else content[: len(content) // 3])
    done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed")
    assert re.search(rf"{last.name} is damaged .*{path.name}", done.stderr)
    assert re.search(rf"continuing from .*{before.name}\n", done.stderr)
    first = int(re.search(r"step (\d+)/", done.stderr)[1])
    assert first == int(before.name.removeprefix("step_")) + 1
    (out / ".lock").unlink(missing_ok=True)  # likewise; it holds no lock once its process is gone
    assert_same_result(out, folder / "whole")


def test_with_every_checkpoint_damaged_the_run_begins_again(folder, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "out")
    for checkpoint in checkpoints_of(out):
        (checkpoint / "model.safetensors").write_bytes(b"")
    done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed")
    assert done.stderr.count("is damaged") == 2 and "continuing" not in done.stderr
    (out / ".lock").unlink(missing_ok=True)  # likewise; it holds no lock once its process is gone
    assert_same_result(out, folder / "whole")


# ------------------------------------------------------------------------------------------------------------ full disk
def failure_line(done) -> str:
    """What a run said when it gave up: one line, no traceback, exit status 1."""
    lines = done.stderr.strip().splitlines()
    assert done.status == 1 and "Traceback" not in done.stderr, done.stderr
    assert [line for line in lines if line.startswith("run_glue.py: ")] == lines[-1:], done.stderr
    assert "run the same command again" in lines[-1]
    return lines[-1]


@pytest.fixture
def disk(tmp_path):
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small disk without the right to mount one ({made.stderr.strip()})")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_line_and_costs_nothing_but_time(folder, disk, tmp_path):
    """The run fails at ever later places as there is ever more room, and goes on from what it has each time."""
    out, filler, failures, steps = disk / "out", disk / "filler", 0, []
    filler.write_bytes(bytes(disk_free(disk)))
    while not (out / "results.json").exists():
        os.truncate(filler, max(0, filler.stat().st_size - (120 << 10)))
        done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed", check=None)
        if done.status:
            assert "No space left on device" in failure_line(done)
            failures += 1
        good = checkpoints_of(out)
        steps.append(int(good[-1].name.removeprefix("step_")) if good else 0)
    assert failures >= 3 and any(steps), (failures, steps)
    (out / ".lock").unlink(missing_ok=True)  # likewise; it holds no lock once its process is gone
    assert_same_result(out, folder / "whole")


def disk_free(place) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def test_the_last_good_checkpoint_survives_a_failed_write(folder, killed, tmp_path):
    """Files limited to the size of the weights stand in for a full disk: the optimizer's state no longer fits."""
    out = shutil.copytree(killed, tmp_path / "out")
    good = {path: path.read_bytes() for place in checkpoints_of(out) for path in place.iterdir()}
    limit = (checkpoints_of(out)[-1] / "model.safetensors").stat().st_size + 1000
    script = tmp_path / "limited.py"
    script.write_text(
        f"import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "sys.argv[0] = 'run_glue.py'\nrunpy.run_path('run_glue.py', run_name='__main__')\n"
    )
    done = forked.run(script, *flags(folder, out), printed=tmp_path / "printed", check=1)
    assert "File too large" in failure_line(done)
    assert good == {path: path.read_bytes() for path in (out / "checkpoints").rglob("*") if path.is_file()}
    done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed")
    assert f"continuing from {checkpoints_of(killed)[-1]}".replace(str(killed), str(out)) in done.stderr
    (out / ".lock").unlink(missing_ok=True)  # likewise; it holds no lock once its process is gone
    assert_same_result(out, folder / "whole")


# --------------------------------------------------------------------------------------------------------------- Ctrl-C
def test_ctrl_c_saves_and_says_how_to_go_on(folder, tmp_path):
    out = tmp_path / "out"
    running = run_until(folder, out, 2)
    running.send(signal.SIGINT)
    done = running.finish()
    assert done.status == 75 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    step = int(re.fullmatch(rf"run_glue.py: stopped: SIGINT at step (\d+) of {STEPS}; the state is saved. .*", line)[1])
    assert line.endswith("Run the same command again to continue") and step == log_of(out)[-1]["step"]
    assert checkpoints_of(out)[-1].name == f"step_{step:08d}"
    done = forked.run("run_glue.py", *flags(folder, out), printed=tmp_path / "printed")
    assert re.search(r"step (\d+)/", done.stderr)[1] == str(step + 1)
    assert_same_result(out, folder / "whole")
