"""Experiment trackers: `--report_to`. None of the libraries is a requirement of this project."""

import contextlib
import importlib.util
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from utils.data.metrics import SPELLINGS
from utils.errors import InputError
from utils.flags import TRACKERS, TrackerSettings


def chosen_trackers(settings: TrackerSettings) -> list[str]:
    """The trackers that --report_to names; `all` are those that are installed. Raises InputError where one is missing: call
    it before a model is loaded or a file is written."""
    if "all" in settings.report_to:
        return [name for name in TRACKERS if importlib.util.find_spec(name)]
    names = [name for name in TRACKERS if name in settings.report_to]
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--report_to {name}: not installed; pip install {name}, or leave it out")
    return names


class Trackers:
    """The trackers of a run, told the same things; nothing happens where there are none."""

    def __init__(self, open_ones=()):
        self._open = list(open_ones)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Numbers by tag (train/loss, eval/accuracy), as they are after `step` steps."""
        for one in self._open:
            one.log(step, values)

    def log_training(self, entry: dict) -> None:
        """A line of log.jsonl."""
        self.log(entry["step"], {f"train/{name}": value for name, value in entry.items() if name != "step"})

    def log_evaluation(self, step: int, metrics: dict, *, split: str | None = None) -> None:
        """The metrics of one dev split, by the names of the Hugging Face scripts; split: not given for the first one."""
        prefix = f"eval/{split}_" if split else "eval/"
        names = {key: key.removeprefix("eval_") for key in metrics if key != "n"}
        self.log(step, {prefix + SPELLINGS.get(name, name): metrics[key] for key, name in names.items()})

    def finish(self, step: int, results: dict) -> None:
        """The results of the run, every number in them by its path."""
        for one in self._open:
            one.finish(step, dict(_numbers(results)))


@contextlib.contextmanager
def open_trackers(names: list[str], settings: TrackerSettings, folder: Path, config: dict) -> Iterator[Trackers]:
    """The trackers `names` for the run in `folder`, told its configuration; closed after the block."""
    run_name = settings.run_name or "/".join(Path(folder).resolve().parts[-2:])
    kinds = {"tensorboard": _TensorBoard, "wandb": _WandB}
    opened = [
        kinds[name](settings, Path(folder), run_name, json.loads(json.dumps(config, default=str))) for name in names
    ]
    try:
        yield Trackers(opened)
    finally:
        for one in opened:
            one.close()


class _TensorBoard:
    def __init__(self, settings, folder, run_name, config):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(settings.logging_dir or folder / "tensorboard")
        self.writer.add_text("run", run_name)
        self.writer.add_text("configuration", _table(config))

    def log(self, step, values):
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def finish(self, step, numbers):
        self.writer.add_text("summary", _table(numbers), step)
        self.log(step, {f"summary/{name}": value for name, value in numbers.items()})

    def close(self):
        self.writer.close()


class _WandB:
    def __init__(self, settings, folder, run_name, config):
        import wandb

        project = settings.project or os.environ.get("WANDB_PROJECT", "transformers-importance-sampling")
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "wandb" / "run_id"  # a continued run goes on in the same curves
        if not known.exists():
            known.parent.mkdir(exist_ok=True)
            known.write_text(uuid.uuid4().hex)
        self.run = wandb.init(
            project=project, name=run_name, config=config, dir=str(folder), id=known.read_text(), resume="allow"
        )

    def log(self, step, values):
        self.run.log(values, step=step)

    def finish(self, step, numbers):
        self.run.summary.update(numbers)

    def close(self):
        self.run.finish()


def _numbers(results, path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in results.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{name}", value


def _table(values: dict) -> str:
    """Markdown."""
    rows = [f"| {name} | {value} |" for name, value in values.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *rows])
