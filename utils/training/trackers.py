"""Experiment trackers: `--report_to`. Neither library is a requirement of this project."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.errors import InputError

OnLog = Callable[[dict], None]


@contextlib.contextmanager
def tracker(name: str, folder: Path, config: dict) -> Iterator[list[OnLog]]:
    """Yield the functions that send a line of log.jsonl to the tracker `name`; none for "none".

    Raises InputError where the tracker is not installed.
    """
    if name == "none":
        yield []
        return
    with {"tensorboard": _tensorboard, "wandb": _wandb}[name](folder, config) as on_log:
        yield [on_log]


@contextlib.contextmanager
def _tensorboard(folder: Path, config: dict) -> Iterator[OnLog]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None
    with SummaryWriter(folder / "tensorboard") as writer:

        def on_log(entry):
            for name, value in entry.items():
                if name != "step":
                    writer.add_scalar(f"train/{name}", value, entry["step"])

        yield on_log


@contextlib.contextmanager
def _wandb(folder: Path, config: dict) -> Iterator[OnLog]:
    try:
        import wandb
    except ImportError:
        raise _missing("wandb") from None
    run = wandb.init(project="transformers-importance-sampling", config=config, dir=str(folder), resume="allow")
    try:
        yield lambda entry: run.log(entry, step=entry["step"])
    finally:
        run.finish()


def _missing(name: str) -> InputError:
    return InputError(f"--report_to {name}: not installed; pip install {name}")
