"""A sweep through a real Slurm of one node, with a pre-empted, a cancelled and a failing run. `make test-slurm` runs it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hans.generate import main as generate_hans
from tests import slurm_cluster, tiny
from utils.errors import EXIT_INTERRUPTED

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_SLURM"), reason="minutes long; make test-slurm runs it")
PLANNED = {f"{way}-{pct}pct-seed{k}" for way in ("random", "hard") for pct in (20, 50) for k in (0, 1)}
BROKEN = "hard-50pct-seed1"  # the last of the array


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=120, n_dev=24)
    tiny.write_config(root / "model", "bert")
    generate_hans(["--output_dir", str(root / "challenge"), "--per_subcase", "2"])
    return root


@pytest.fixture(scope="module")
def cluster():
    if why := slurm_cluster.why_not():
        pytest.skip(f"no Slurm here: {why}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # munged runs as another user
        with slurm_cluster.one_node(Path(folder) / "slurm") as environment:
            yield environment


def start(world, out, *more, environment=os.environ):
    words = [
        sys.executable, tiny.ROOT / "sweep.py", "--strategies", "random", "hard", "--data_pcts", "0.2", "0.5", "--seeds",
        "0", "1", "--hans_dir", "challenge", "--config_name", "model", "--tokenizer_name", "model", "--task_name", "MNLI",
        "--data_dir", "data", "--max_seq_length", "32", "--per_device_train_batch_size", "8", "--num_train_epochs", "25",
        "--learning_rate", "1e-3", "--proxy_epochs", "1", "--save_steps", "20", "--use_cpu", "--output_dir", out, *more,
    ]  # fmt: skip
    environment = {**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=world
    )


def finish(process, status: int) -> str:
    printed, _ = process.communicate(timeout=1800)
    assert process.returncode == status, printed
    print(printed)
    return printed


def finished(out) -> dict[str, int]:
    """{run: when it was finished}."""
    return {path.parents[1].name: path.stat().st_mtime_ns for path in (out / "runs").glob("*/hans/hans_results.json")}


def until(condition, seconds: float = 900):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)
    return found


def test_a_sweep_with_every_mishap_ends_as_one_without(world, cluster):
    def slurm(*words) -> list[str]:
        return subprocess.run(words, env=cluster, capture_output=True, text=True, check=True).stdout.split()

    def tasks(state: str) -> list[str]:
        listed = slurm("squeue", "--noheader", "--array", "--partition=main", "--format=%T|%j|%F_%K|%r")
        return [line.partition("|")[2] for line in listed if line.startswith(f"{state}|") and "runs|" in line]

    def training(line: str) -> bool:
        names = (world / "slurm" / "slurm" / line.split("-")[2] / "runs.txt").read_text().split()
        return (world / "slurm" / "runs" / names[int(line.split("|")[1].split("_")[1])] / "checkpoints").exists()

    out, reference = world / "slurm", world / "processes"
    plain = start(world, reference)
    (out / "runs" / BROKEN).mkdir(parents=True)
    (out / "runs" / BROKEN / "run.json").write_text("{")  # as a full disk may leave it

    command = start(world, "slurm", "--executor", "slurm", environment=cluster)
    until(lambda: len([line for line in tasks("RUNNING") if training(line)]) == 2)
    urgent = slurm("sbatch", "--parsable", "--partition=urgent", "--output=/dev/null", "--wrap=sleep 1")[0]
    preempted = until(lambda: [line for line in tasks("PENDING") if line.endswith("BeginTime")])[0].split("|")[1]
    until(lambda: urgent not in slurm("squeue", "--noheader", "--format=%A"))
    slurm("scontrol", "update", f"JobId={preempted}", "StartTime=now")  # otherwise it waits for two minutes
    limited = until(lambda: [line for line in tasks("RUNNING") if training(line)])[0].split("|")[1]
    # What --signal=B:TERM sends before the time limit. For a task of an array scancel goes on trying after it has succeeded.
    sending = subprocess.Popen(["scancel", "--batch", "--signal=TERM", limited], env=cluster, stderr=subprocess.DEVNULL)
    until(lambda: [line for line in tasks("PENDING") if line.endswith("BeginTime") and f"|{limited}|" in line])
    sending.kill()
    slurm("scontrol", "update", f"JobId={limited}", "StartTime=now")
    cancelled = until(lambda: [line for line in tasks("RUNNING") if training(line)])[0].split("|")[1]
    slurm("scancel", cancelled)
    command.send_signal(signal.SIGINT)
    printed = finish(command, EXIT_INTERRUPTED)
    assert "8 runs: 8 not submitted" in printed and "the jobs stay in Slurm" in printed and "scancel " in printed

    until(lambda: not tasks("COMPLETING"))  # a job that is ending still counts as running
    done = finished(out)
    printed = finish(start(world, "slurm", "--executor", "slurm", environment=cluster), 1)
    assert (
        "submitted 1 runs" in printed or "submitted 2 runs" in printed
    )  # the cancelled one; the broken one if it had begun
    assert f"failed: {BROKEN}: " in printed and "not readable as JSON" in printed
    assert set(finished(out)) == PLANNED - {BROKEN} and done.items() <= finished(out).items()

    done = finished(out)
    (out / "runs" / BROKEN / "run.json").unlink()
    printed = finish(start(world, "slurm", "--executor", "slurm", environment=cluster), 0)
    assert "8 runs: 7 finished, 1 failed" in printed and "submitted 1 runs" in printed
    assert set(finished(out)) == PLANNED and done.items() <= finished(out).items()
    finish(start(world, "slurm", "--executor", "slurm", environment=cluster), 0)
    assert not (out / "slurm" / "4").exists()

    finish(plain, 0)
    logs = {name: (out / "runs" / name / "run.log").read_text() for name in PLANNED}
    assert any("continuing" in log or "resum" in log for log in logs.values())
    for path in (reference / "report").iterdir():
        if path.name != "timings.csv":
            assert path.read_bytes() == (out / "report" / path.name).read_bytes(), path.name
