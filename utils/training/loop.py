"""The training loop."""

import contextlib
import json
import logging
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.data.tokens import Encoded
from utils.errors import Interrupted, RunFailed, StopSignal
from utils.files import write_text
from utils.flags import TrainingSettings
from utils.models.classifier import Classifier
from utils.models.collate import collate, micro_batches
from utils.models.distributed import Processes
from utils.models.forward import Precision, default_token_budget, forward, use_packing
from utils.training.checkpoint import Checkpoints
from utils.training.objectives import per_example_loss
from utils.training.optimizer import learning_rate_schedule, make_optimizer

logger = logging.getLogger(__name__)


@dataclass
class Hooks:
    """Called by the loop. on_batch(step, example_index (b,), logits (b, C), losses (b,)) after each micro-batch's
    backward pass, detached; on_step(steps done) after each optimizer step; on_log(entry) with each line of log.jsonl;
    on_save() before each checkpoint, on every process."""

    on_batch: list = field(default_factory=list)
    on_step: list = field(default_factory=list)
    on_log: list = field(default_factory=list)
    on_save: list = field(default_factory=list)


def step_seed(*numbers: int) -> int:
    """One seed from several numbers (seed, step, rank, purpose), different for different numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class TrainLog:
    """`log.jsonl`, one line per logging interval; continuing drops what lies beyond the checkpoint."""

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


class _Meter:
    """What happened since the last look, and in all: mean loss, examples, tokens, seconds, speeds.

    The loss stays on its device until someone looks: looking waits for a GPU.
    """

    def __init__(self, device: torch.device, counts: dict):
        self.counts = counts
        self.loss = torch.zeros((), device=device)
        self.steps = self.examples = self.tokens = 0
        self._began = time.perf_counter() - counts["seconds"]
        self._looked = time.perf_counter()

    def add(self, loss: torch.Tensor, examples: int, tokens: int) -> None:
        self.loss += loss
        self.steps += 1
        self.examples += examples
        self.tokens += tokens

    def look(self, processes: Processes) -> dict:
        """Mean loss and speeds since the last look; moves the counts on and starts anew."""
        now = time.perf_counter()
        seconds = max(now - self._looked, 1e-9)
        seen = {
            "loss": processes.sum(float(self.loss)) / self.steps,
            "examples_per_second": round(self.examples / seconds, 2),
            "tokens_per_second": round(self.tokens / seconds, 1),
        }
        self.counts["examples"] += self.examples
        self.counts["tokens"] += self.tokens
        self.counts["seconds"] = now - self._began
        self.loss.zero_()
        self.steps = self.examples = self.tokens = 0
        self._looked = now
        return seen


def train(
    classifier: Classifier,
    data: Encoded,
    batches,
    settings: TrainingSettings,
    *,
    processes: Processes,
    precision: Precision,
    checkpoints: Checkpoints | None = None,
    log_path=None,
    hooks: Hooks | None = None,
) -> dict:
    """Train in place; returns counts and times: steps, examples and tokens seen, padded share, seconds.

    `batches` answers what UniformBatches does. Raises RunFailed on a non-finite loss, naming step and examples, or
    where memory does not suffice for one sequence; Interrupted after SIGTERM or Ctrl-C, with the state saved.
    """
    hooks = hooks or Hooks()
    model, device = classifier.model.to(processes.device), processes.device
    model.train()
    optimizer = make_optimizer(model, settings)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=precision.name == "fp16")
    nominal_steps = batches.num_steps
    learning_rate = learning_rate_schedule(settings, nominal_steps)
    packed = use_packing(classifier, precision, compiled=settings.torch_compile)
    compiled = torch.compile(model, dynamic=True) if settings.torch_compile else model
    budget = settings.tokens_per_micro_batch or default_token_budget(classifier, device, training=True)
    labels = torch.from_numpy(np.ascontiguousarray(data.labels)).to(device)
    lengths = data.lengths

    done, counts = 0, {"examples": 0, "tokens": 0, "computed_tokens": 0, "probed": 0, "seconds": 0.0}
    restored = checkpoints.restore(model=model, optimizer=optimizer) if checkpoints else None
    if restored:
        done, extra, arrays = restored
        counts = extra["counts"]
        scaler.load_state_dict(extra["scaler"])
        batches.load_state_dict({name: tensor.numpy() for name, tensor in arrays.items()})
    log = TrainLog(log_path, done, enabled=bool(log_path) and processes.main)

    def save() -> None:
        for hook in hooks.on_save:
            hook()
        state = batches.state_dict()  # may ask the other processes, so all of them call it
        if checkpoints and processes.main:
            arrays = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}
            extra = {"counts": counts, "scaler": scaler.state_dict()}
            checkpoints.save(done, model=model, optimizer=optimizer, extra=extra, arrays=arrays)

    def probe(rows: np.ndarray) -> np.ndarray:
        """Logits float32 (b, C) of candidates, forward only, dropout as in training: for online sampling."""
        torch.manual_seed(step_seed(settings.seed, done, processes.rank, 1))
        mine = rows[processes.rank :: processes.size]
        out = torch.empty(len(mine), max(len(classifier.labels), 1), device=device)
        with torch.no_grad(), precision.autocast():
            for part in micro_batches(lengths[mine], 2 * budget, packed=packed):
                out[part] = forward(classifier, compiled, collate(data, mine[part], device, packed=packed)).float()
        logits = np.empty((len(rows), out.shape[1]), dtype=np.float32)
        for rank, shard in enumerate(processes.gather(out.cpu().numpy())):
            logits[rank :: processes.size] = shard
        counts["probed"] += len(rows)
        return logits

    def backward(rows: np.ndarray, weights: np.ndarray, size: int) -> tuple[torch.Tensor, list]:
        """Gradients of this process's share of one batch of `size` examples: (its part of the mean loss, outcomes)."""
        torch.manual_seed(step_seed(settings.seed, done, processes.rank))
        total, outcomes = torch.zeros((), device=device), []
        for part in micro_batches(lengths[rows], budget, packed=packed):
            batch = collate(data, rows[part], device, packed=packed)
            with precision.autocast():
                logits = forward(classifier, compiled, batch)
            losses = per_example_loss(logits, labels[batch.rows])
            weight = torch.from_numpy(weights[part]).to(device, non_blocking=True)
            loss = (losses * weight).sum() / size
            scaler.scale(loss).backward()
            total += loss.detach()
            outcomes.append((batch.rows, logits.detach(), losses.detach(), batch.input_ids.numel()))
        return total, outcomes

    meter = _Meter(device, counts)
    silent = not (processes.main and sys.stderr.isatty())
    bar = tqdm(total=nominal_steps, initial=done, desc="training", unit="step", disable=silent)
    with bar, StopSignal() as stop:
        while done < batches.num_steps:
            rows, weights = batches.draw(done, probe)
            mine = np.argsort(lengths[rows], kind="stable")[processes.rank :: processes.size]
            while True:
                try:
                    loss, outcomes = backward(rows[mine], weights[mine], len(rows))
                    break
                except torch.OutOfMemoryError:
                    budget = _halve(budget, int(lengths[rows].max()))
                    optimizer.zero_grad(set_to_none=True)
                    torch.cuda.empty_cache()
            processes.sum_gradients(parameters)
            scaler.unscale_(optimizer)
            if settings.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            rate = learning_rate(batches.progress(done) * nominal_steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            # On a CPU looking is free, and stopping now keeps the weights unspoilt; a GPU is asked when logging.
            if device.type == "cpu" and processes.size == 1:
                _stop_if_not_finite(float(loss), done, rows)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            for rows_, logits, losses, computed in outcomes:
                counts["computed_tokens"] += computed
                batches.observe(rows_, logits, losses)
                for hook in hooks.on_batch:
                    hook(done, rows_, logits, losses)
            meter.add(loss, len(rows), int(lengths[rows].sum()))
            epoch_ends = batches.epoch_ends(done)
            done += 1
            bar.update()
            logging_now = done % settings.logging_steps == 0 or done == batches.num_steps
            saving_now = done % settings.save_steps == 0 or epoch_ends
            if logging_now or saving_now:
                since = meter.steps
                seen = meter.look(processes)
                _stop_if_not_finite(seen["loss"], done - 1, rows, since=since)
            if logging_now:
                epoch = round(batches.epochs_done(done), 4)
                entry = {"step": done, "epoch": epoch, "lr": rate, **seen, **batches.report()}
                log.write(entry)
                for hook in hooks.on_log:
                    hook(entry)
                _show(bar, entry, done, batches.num_steps, counts["seconds"], main=processes.main)
            for hook in hooks.on_step:
                hook(done)
                model.train()
            # Several processes must agree to stop, which costs a message: they ask when they log.
            if (processes.size == 1 or logging_now) and processes.any(bool(stop.requested)):
                if not (logging_now or saving_now):
                    meter.look(processes)
                save()
                raise Interrupted(
                    f"{stop.requested or 'a signal'} at step {done} of {batches.num_steps}; the state is saved. Run the "
                    "same command again to continue"
                )
            if saving_now:
                save()
    counts["padded_share"] = 1 - counts["tokens"] / max(counts["computed_tokens"] * processes.size, 1)
    return {"steps": done, "full_steps": nominal_steps, **counts}


def _show(bar: tqdm, entry: dict, done: int, total: int, seconds: float, *, main: bool) -> None:
    """On a terminal the bar shows loss and speed beside its own remaining time; elsewhere a log line does."""
    speed = entry["examples_per_second"]
    bar.set_postfix({"loss": f"{entry['loss']:.4f}", "ex/s": f"{speed:.0f}"})
    if bar.disable and main:
        left = seconds / done * (total - done)
        template = "step %d/%d loss %.4f lr %.2e %.0f examples/s %.0f s left"
        logger.info(template, done, total, entry["loss"], entry["lr"], speed, left)


def _halve(budget: int, longest: int) -> int:
    if budget <= longest:
        raise RunFailed(
            f"out of memory even with one sequence of {longest} tokens at a time; use a smaller model or --max_seq_length"
        )
    budget = max(budget // 2, longest)
    logger.warning("out of memory: going on with the same batch in micro-batches of at most %d tokens", budget)
    return budget


def _stop_if_not_finite(loss: float, step: int, rows: np.ndarray, since: int = 1) -> None:
    if not math.isfinite(loss):
        steps = f"step {step + 1}" if since == 1 else f"steps {step + 2 - since} to {step + 1}"
        more = ", ..." if len(rows) > 8 else ""
        raise RunFailed(
            f"the loss is {loss} at {steps} (example_index {', '.join(map(str, rows[:8]))}{more}); lower "
            "--learning_rate or add --warmup_ratio; checkpoints up to there are kept"
        )
