"""A Slurm of one node, for as long as a test needs it: munged, slurmctld and slurmd on this machine, in a folder of their own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "runuser")
# Two partitions: a job of `urgent` takes the place of one of `main`, which is queued again.
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={munge}/socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """Why there can be no cluster here; empty where there can."""
    if os.geteuid():
        return "slurmd needs root"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    return f"{', '.join(missing)} not installed (Debian: slurm-wlm, munge)" if missing else ""


@contextlib.contextmanager
def one_node(folder: Path):
    """The environment for commands of a running cluster; ends its programs afterwards. `folder` is absolute."""
    munge, config = folder / "munge", folder / "slurm.conf"
    for path in (munge, folder / "state", folder / "spool"):
        path.mkdir(parents=True)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o600)
    shutil.chown(munge, "munge", "munge")
    shutil.chown(munge / "key", "munge", "munge")
    config.write_text(CONFIG.format(host=socket.gethostname(), munge=munge, folder=folder, ports=_free_ports(2)))
    environment = os.environ | {"SLURM_CONF": str(config)}
    files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
    started = ["munge/pid", "slurmctld.pid", "slurmd.pid"]
    try:
        _check(["runuser", "-u", "munge", "--", "munged", "--force", f"--socket={munge}/socket", *files])
        _check(["slurmctld", "-f", str(config)])
        _check(["slurmd", "-f", str(config)])
        for _ in range(60):
            listed = subprocess.run(
                ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, env=environment
            )
            if "idle" in listed.stdout:
                break
            time.sleep(1)
        else:
            raise RuntimeError(f"no idle node after 60 s: {listed.stdout}{listed.stderr}; see {folder}/slurmctld.log")
        yield environment
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # its jobs first
            subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True, timeout=10)
            time.sleep(2)
        for name in reversed(started):
            with contextlib.suppress(OSError, ValueError):
                pid = int((folder / name).read_text())
                os.kill(pid, signal.SIGTERM)
                for _ in range(100):  # until it is gone
                    os.kill(pid, 0)
                    time.sleep(0.1)


def _check(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
