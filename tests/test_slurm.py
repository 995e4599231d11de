"""The Slurm executor against stand-ins for Slurm's programs: what is submitted, and what repeating the command does.
tests/test_real_slurm.py runs a sweep through a real one."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny
from utils.errors import InputError, Interrupted, RunFailed
from utils.files import folder_lock
from utils.sweep import slurm
from utils.sweep.jobs import Command, Job, locked
from utils.sweep.slurm import SlurmSettings, SlurmSweep

# Each program notes its words in `calls`. squeue prints the files queue.0, queue.1, ... one after another, then nothing;
# sbatch fails for the script whose name is in `refuse`.
FAKE = """#!/bin/sh
cd "$(dirname "$0")"
echo "$(basename "$0") $*" >> calls
case $(basename "$0") in
squeue) n=$(grep -c ^squeue calls); cat queue.$((n - 1)) 2>/dev/null; true ;;
sbatch) grep -qs "$(basename -- "$*")" refuse && { echo 'sbatch: error: no such partition' >&2; exit 1; }
  expr 100 + $(grep -c ^sbatch calls) ;;
esac
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of the stand-ins."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL", 0.1)
    return folder


def calls(cluster, program: str) -> list[str]:
    lines = (cluster / "calls").read_text().splitlines()
    return [line.removeprefix(f"{program} ") for line in lines if line.startswith(program)]


def job(out, name: str, *first: Job) -> Job:
    folder = out / "runs" / name
    return Job(name, folder, (Command("run_glue", ("--seed", "0 1"), folder / "results.json"),), 1.0, first)


def finish(one: Job) -> None:
    one.folder.mkdir(parents=True, exist_ok=True)
    (one.folder / "results.json").write_text("{}")


def sweep(out, **settings) -> SlurmSweep:
    return SlurmSweep(out, SlurmSettings("slurm", **settings), ["--output_dir", str(out)])


def test_stages_depend_on_one_another_and_options_stand_in_the_scripts(cluster, tmp_path, capsys):
    out, planned = tmp_path / "out", []
    a, b = job(out, "a"), job(out, "b")
    cluster_options = {"slurm_partition": "gpu", "slurm_time": "4:00:00", "slurm_gres": "gpu:1", "slurm_array_max": 3}
    runs = sweep(out, **cluster_options, slurm_options="--account=nlp --mem=16G")
    failed = runs.run([a, b, job(out, "c", a)], lambda: planned.append(1))
    folder = out / "slurm" / "1"
    assert calls(cluster, "sbatch") == [
        f"--parsable {folder}/inputs.sh",
        f"--parsable --dependency=afterok:101 --kill-on-invalid-dep=yes {folder}/runs.sh",
        f"--parsable --dependency=afterok:101,afterany:102 --kill-on-invalid-dep=yes {folder}/second_runs.sh",
        f"--parsable --dependency=afterany:102:103 --kill-on-invalid-dep=yes {folder}/report.sh",
    ]
    lines = (folder / "runs.sh").read_text().splitlines()
    for option in (
        "--array=0-1%3", "--partition=gpu", "--time=4:00:00", "--gres=gpu:1", "--account=nlp", "--mem=16G", "--requeue",
        "--signal=B:TERM@120", f"--job-name={runs.prefix}-1-runs",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in lines
    assert not any("--array" in line for line in (folder / "inputs.sh").read_text().splitlines())
    assert json.loads((folder / "submitted.json").read_text())["report"] == "104" and planned == [1]
    assert set(failed) == {"a", "b", "c"} and "3 runs: 3 not submitted" in capsys.readouterr().out


def test_what_a_run_leaves_of_no_more_use_is_removed_where_it_lies(cluster, tmp_path):
    out = tmp_path / "out"
    one = job(out, "a")
    files = (one.folder / "model.safetensors", one.folder / "selector" / "teacher" / "model.safetensors")
    sweep(out).run([dataclasses.replace(one, remove=files)], lambda: None)
    lines = (out / "slurm" / "1" / "runs.sh").read_text().splitlines()
    removed = [line.strip() for line in lines if "rm -f" in line]
    assert removed == ['rm -f "$run"/model.safetensors', 'rm -f "$run"/selector/teacher/model.safetensors']


def test_only_what_is_missing_is_submitted_and_nothing_twice(cluster, tmp_path, capsys):
    out = tmp_path / "out"
    jobs = [job(out, name) for name in "abcde"]
    runs = sweep(out)
    runs.run(jobs, lambda: None)
    finish(jobs[0])
    jobs[3].folder.mkdir(parents=True)
    (jobs[3].folder / "run.log").write_text("started\nrun_glue.py: failed: no space\n")
    name = f"{runs.prefix}-1-runs"
    (cluster / "calls").unlink()
    (cluster / "queue.0").write_text(f"{name}|52|1|RUNNING\n{name}|52|2|PENDING\nsweep-of-another|7|0|RUNNING\n")
    failed = runs.run(jobs, lambda: None)
    printed = capsys.readouterr().out
    assert "5 runs: 1 finished, 1 running, 1 queued, 1 failed, 1 not submitted" in printed
    assert "failed before: d: run_glue.py: failed: no space" in printed
    assert (out / "slurm" / "2" / "runs.txt").read_text() == "d\ne\n"
    assert "--dependency=afterany:52:102 " in calls(cluster, "sbatch")[2]  # the report waits for the earlier array too
    assert set(failed) == set("bcde") and "no space" in failed["d"]


def test_nothing_is_submitted_where_all_is_done_or_under_way(cluster, tmp_path):
    out = tmp_path / "out"
    a, b = job(out, "a"), job(out, "b")
    runs = sweep(out)
    runs.run([a, b], lambda: None)
    finish(a)
    (cluster / "calls").unlink()
    (cluster / "queue.0").write_text(f"{runs.prefix}-1-runs|102|1|RUNNING\n")
    assert set(runs.run([a, b], pytest.fail)) == {"b"}
    assert calls(cluster, "sbatch") == [] and not (out / "slurm" / "2").exists()


def test_two_commands_at_one_time_do_not_both_submit(cluster, tmp_path):
    out = tmp_path / "out"
    runs = sweep(out)
    (out / "slurm" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match="another command is making it, or was killed"):
        runs.run([job(out, "a")], pytest.fail)
    old = time.time() - 2 * slurm.LONGEST
    os.utime(out / "slurm" / "1", (old, old))
    runs.run([job(out, "a")], (out / "slurm" / "3").mkdir)  # the killed one is passed over
    with pytest.raises(InputError, match="another command is submitting"):
        (out / "slurm" / "3" / "submitted.json").write_text("{}")
        runs.run([job(out, "a")], (out / "slurm" / "4").mkdir)


def test_a_refused_stage_takes_the_others_back(cluster, tmp_path):
    out = tmp_path / "out"
    (cluster / "refuse").write_text("runs.sh\n")
    with pytest.raises(RunFailed, match="sbatch says: sbatch: error: no such partition"):
        sweep(out).run([job(out, "a")], lambda: None)
    assert calls(cluster, "scancel") == ["101"]
    (cluster / "refuse").unlink()
    sweep(out).run([job(out, "a")], lambda: None)
    assert (out / "slurm" / "2" / "submitted.json").exists()


def test_ctrl_c_leaves_the_jobs_and_says_how_to_cancel_them(cluster, tmp_path):
    out = tmp_path / "out"
    runs = sweep(out)
    for i in range(1, 200):
        (cluster / f"queue.{i}").write_text(
            f"{runs.prefix}-1-runs|102|0|RUNNING\n{runs.prefix}-1-report|103|N/A|PENDING\n"
        )
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(Interrupted, match=r"SIGINT; the jobs stay in Slurm.*scancel 102 103$"):
        runs.run([job(out, "a")], lambda: None)
    assert calls(cluster, "scancel") == []


def test_a_failure_of_the_inputs_is_the_reason_of_every_run(cluster, tmp_path):
    out = tmp_path / "out"
    runs = sweep(out)
    runs._submit([job(out, "a")], [], 1)
    (out / "slurm" / "1" / "inputs.log").write_text("sweep.py: error: two steps failed\n")
    (cluster / "queue.0").write_text(f"{runs.prefix}-1-runs|102|0|RUNNING\n")  # so it is not submitted again
    assert "the inputs ended with: sweep.py: error: two steps failed" in runs.run([job(out, "a")], pytest.fail)["a"]


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with folder_lock(tmp_path / "out"), locked(tmp_path / "run"):
        pass
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken disk")))
    with pytest.raises(OSError, match="broken disk"), locked(tmp_path / "run"):
        pass


def test_without_slurm_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs sbatch, which is not on PATH"):
        sweep(tmp_path)


# ----------------------------------------------------------------------------------------------------------- the script
STEP = """import signal, sys, time
from pathlib import Path
def stop(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("at work", flush=True)
time.sleep(30 if "--slow" in sys.argv else 0)
sys.exit(int(sys.argv[-1]))
"""


@pytest.fixture
def task(cluster, tmp_path, monkeypatch):
    """task(flags): starts the script of an array with one run; its step is STEP."""
    from utils.sweep import slurm_scripts

    (tmp_path / "run_glue.py").write_text(STEP)
    monkeypatch.setattr(
        slurm_scripts, "_HEAD", slurm_scripts._HEAD.replace(f"code={slurm_scripts.ROOT}", f"code={tmp_path}")
    )
    folder = tmp_path / "a b"

    def start(*flags):
        one = Job("a", folder, (Command("run_glue", flags, folder / "done"),), 1.0)
        script = slurm_scripts.array_script("x", [], tmp_path, "runs", [one], None)
        words = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "9", "SLURM_CPUS_ON_NODE": "1"}
        return subprocess.Popen(["bash", "-c", script], env=os.environ | words), folder

    return start


def test_a_step_is_done_once_and_its_status_is_that_of_the_task(task):
    process, folder = task("--text", "it's $HOME", "3")
    assert process.wait(timeout=30) == 3 and (folder / "run.log").read_text() == "at work\n"
    (folder / "done").write_text("")
    process, folder = task("0")
    assert process.wait(timeout=30) == 0 and (folder / "run.log").read_text() == "at work\n"


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
def test_a_signal_before_the_time_limit_saves_and_queues_again(task, cluster, state):
    (cluster / "queue.0").write_text(f"{state}\n")
    process, folder = task("--slow", "0")
    for _ in range(300):
        if (folder / "run.log").exists() and (folder / "run.log").read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75 and (folder / "run.log").read_text().startswith("at work\nsaved\n")
    assert calls(cluster, "scontrol") == (["requeue 9"] if state == "RUNNING" else [])


def documented_scripts() -> list[str]:
    """The scripts that docs/cluster.md prints, as they are made for its example, with its folders."""
    from utils.sweep import slurm_scripts

    out = slurm.Path("/scratch/me/sweep")
    folder, settings = out / "slurm" / "1", SlurmSettings("slurm", "gpu", "4:00:00", "gpu:1", 4)
    shared = ("--do_train", "--do_eval", "--model_name_or_path", "albert-base-v1", "--task_name", "MNLI", "--fp16")
    jobs = []
    for name, script, more in (
        ("all-100pct-seed0", "run_glue", ()),
        ("random-10pct-seed0", "importance_sampling_mnli", ("--strategy", "random", "--data_pct", "0.1")),
    ):
        run = out / "runs" / name
        words = (*shared, "--seed", "0", "--output_dir", str(run), "--data_dir", "/data/MNLI", *more)
        hans = (
            "--model_name_or_path",
            str(run),
            "--output_dir",
            str(run / "hans"),
            "--data_dir",
            "/data/hans",
            "--quiet",
        )
        commands = (
            Command(script, words, run / "results.json"),
            Command("test_hans", hans, run / "hans" / "hans_results.json"),
        )
        jobs.append(Job(name, run, commands, 1.0, remove=(run / "model.safetensors",) if more else ()))
    options = settings.options()
    name, words = "sweep-3f2a91c0-1", ["--strategies", "random", "...", "--inputs_only"]
    scripts = [
        slurm_scripts.array_script(f"{name}-runs", options, folder, "runs", jobs, settings.slurm_array_max),
        slurm_scripts.single_script(f"{name}-inputs", options, folder / "inputs.log", "sweep", words),
    ]
    here = {sys.executable: "/home/me/project/.venv/bin/python", str(slurm_scripts.ROOT): "/home/me/project"}
    here[f'--chdir="{os.getcwd()}"'] = '--chdir="/home/me"'
    for found, shown in sorted(here.items(), key=lambda pair: -len(pair[0])):
        scripts = [script.replace(found, shown) for script in scripts]
    return scripts


def test_the_page_prints_the_scripts_as_they_are_made():
    page = (tiny.ROOT / "docs" / "cluster.md").read_text()
    array, single = documented_scripts()
    assert f"```bash\n{array}```" in page
    assert single.splitlines()[-2].strip() in page


def test_scripts_are_valid_shell(cluster, tmp_path):
    out = tmp_path / "with 'quotes' and spaces"
    sweep(out).run([job(out, "a"), job(out, "b", job(out, "a"))], lambda: None)
    scripts = sorted((out / "slurm" / "1").glob("*.sh"))
    assert len(scripts) == 4
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert sys.executable in scripts[0].read_text()
