"""What the user sees of a running training: counts, `log.jsonl`, the progress bar."""

import contextlib
import json
import logging
import time
from pathlib import Path

import torch
from tqdm import tqdm

from utils.command_line import bars_wanted
from utils.files import write_text
from utils.models.distributed import Processes

logger = logging.getLogger(__name__)


class TrainLog:
    """`log.jsonl`, one line per logging interval. A continued run drops the lines beyond its checkpoint."""

    def __init__(self, path, steps_done: int, *, enabled: bool = True):
        self.path = Path(path) if enabled else None
        if self.path and self.path.exists():
            kept = []
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # a line cut short by a kill
                    if json.loads(line)["step"] <= steps_done:
                        kept.append(line)
            write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, entry: dict) -> None:
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


class Meter:
    """Adds up what the steps did: the mean loss since the last reading, and the counts of the whole training.

    counts: examples and tokens that went through the backward pass and computed_tokens (padding included), of all
    processes together; probed: further forward passes; seconds. The loss stays on its device until it is read, because
    reading waits for a GPU.
    """

    def __init__(self, device: torch.device, counts: dict | None = None):
        zero = {"examples": 0, "tokens": 0, "computed_tokens": 0, "probed": 0, "seconds": 0.0}
        self.counts = counts or zero
        self._loss = torch.zeros((), device=device)
        self.steps = self._examples = self._tokens = self._computed = 0
        self._began = time.perf_counter() - self.counts["seconds"]
        self._last_reading = time.perf_counter()

    def add(self, loss: torch.Tensor, *, examples: int, tokens: int, computed_tokens: int) -> None:
        """Count one step. examples and tokens are those of all processes, loss and computed_tokens of this one."""
        self._loss += loss
        self.steps += 1
        self._examples += examples
        self._tokens += tokens
        self._computed += computed_tokens

    def read(self, processes: Processes) -> dict:
        """Mean loss and speeds since the last reading. Every process must call it at the same step."""
        now = time.perf_counter()
        seconds = max(now - self._last_reading, 1e-9)
        seen = {
            "loss": processes.sum(float(self._loss)) / self.steps,
            "examples_per_second": round(self._examples / seconds, 2),
            "tokens_per_second": round(self._tokens / seconds, 1),
        }
        self.counts["examples"] += self._examples
        self.counts["tokens"] += self._tokens
        self.counts["computed_tokens"] += round(processes.sum(self._computed))
        self.counts["seconds"] = now - self._began
        self._loss.zero_()
        self.steps = self._examples = self._tokens = self._computed = 0
        self._last_reading = now
        return seen

    def summary(self) -> dict:
        """The counts, and the share of the computed tokens that were padding."""
        return {**self.counts, "padded_share": 1 - self.counts["tokens"] / max(self.counts["computed_tokens"], 1)}


def progress_bar(total: int, done: int, *, visible: bool) -> tqdm:
    """The bar of a training, drawn on a terminal only."""
    return tqdm(total=total, initial=done, desc="training", unit="step", disable=not (visible and bars_wanted()))


def advance(bar: tqdm, loss: torch.Tensor) -> None:
    """One step further in the bar, with the loss of this step. It is read where the bar is drawn anew, since reading waits
    for a GPU."""
    if not bar.disable and (bar.n == bar.initial or time.time() - bar.last_print_t >= bar.mininterval):
        bar.set_postfix(loss=f"{float(loss):.4f}", refresh=False)
    bar.update()


def show(bar: tqdm, entry: dict, total: int, seconds: float, *, visible: bool) -> None:
    """Show loss and speed as a log line where there is no bar."""
    if bar.disable and visible:
        speed, done = entry["examples_per_second"], entry["step"]
        left = seconds / done * (total - done)
        template = "step %d/%d loss %.4f lr %.2e %.0f examples/s %.0f s left"
        logger.info(template, done, total, entry["loss"], entry["lr"], speed, left)
