"""Experiment trackers: `--report_to`. Neither library is a requirement of this project."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.errors import InputError

OnLog = Callable[[dict], None]


def check_tracker(name: str) -> None:
    """Raise InputError where the tracker is not installed: before a model is loaded or a file is written."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise InputError(f"--report_to {name}: not installed; pip install {name}")


@contextlib.contextmanager
def tracker(name: str, folder: Path, config: dict) -> Iterator[list[OnLog]]:
    """Yield the functions that send a line of log.jsonl to the tracker `name`; none for "none"."""
    if name == "none":
        yield []
        return
    with {"tensorboard": _tensorboard, "wandb": _wandb}[name](folder, config) as on_log:
        yield [on_log]


@contextlib.contextmanager
def _tensorboard(folder: Path, config: dict) -> Iterator[OnLog]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / "tensorboard") as writer:

        def on_log(entry):
            for name, value in entry.items():
                if name != "step":
                    writer.add_scalar(f"train/{name}", value, entry["step"])

        yield on_log


@contextlib.contextmanager
def _wandb(folder: Path, config: dict) -> Iterator[OnLog]:
    import wandb

    run = wandb.init(project="transformers-importance-sampling", config=config, dir=str(folder), resume="allow")
    try:
        yield lambda entry: run.log(entry, step=entry["step"])
    finally:
        run.finish()
