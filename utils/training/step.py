"""One optimizer step: forward and backward passes over one exact batch, and the update of the weights.

A step is one exact batch: per-example losses, `sum(w * loss) / batch size`, gradients added up over length-sorted
micro-batches and over processes. Everything random in step s is a function of (seed, s), so a run continued after a kill
equals one that was never interrupted.
"""

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from utils.data.tokens import Encoded
from utils.errors import RunFailed
from utils.flags import TrainingSettings
from utils.models.classifier import Classifier
from utils.models.collate import Batch, collate, micro_batches
from utils.models.distributed import Processes
from utils.models.dropout import use_cheap_dropout
from utils.models.forward import Precision, default_token_budget, forward, use_packing
from utils.models.frozen import FrozenOutputs
from utils.training.checkpoint import Checkpoints
from utils.training.optimizer import learning_rate_schedule, make_optimizer

logger = logging.getLogger(__name__)

# objective(logits (b, C), labels (b,), example_index int64 (b,) numpy) -> losses (b,), one per example, not reduced.
Objective = Callable[[torch.Tensor, torch.Tensor, np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """What one backward pass saw: example_index int64 (b,), logits (b, C) and losses (b,) without their graph, and the
    number of tokens it computed, padding included."""

    rows: np.ndarray
    logits: torch.Tensor
    losses: torch.Tensor
    computed_tokens: int


@dataclass(frozen=True)
class Step:
    """One optimizer step. rows: int64 (B,), the batch of all processes; loss: this process's part of its mean loss."""

    number: int
    rows: np.ndarray
    loss: torch.Tensor
    micro_batches: list[MicroBatch]
    learning_rate: float


def step_seed(*numbers: int) -> int:
    """One seed from several numbers (seed, step, rank, purpose), different for different numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Stepper:
    """A model with its optimizer, learning-rate schedule and gradient scaler; `take` makes one step.

    done: optimizer steps so far; probed: examples of further forward passes so far.
    """

    def __init__(
        self,
        classifier: Classifier,
        data: Encoded,
        batches,
        settings: TrainingSettings,
        *,
        processes: Processes,
        precision: Precision,
        objective: Objective,
        frozen: FrozenOutputs | None = None,
    ):
        self.classifier, self.data, self.batches, self.settings = classifier, data, batches, settings
        self.processes, self.precision, self.objective = processes, precision, objective
        self.frozen = frozen
        self.device = processes.device
        self.model = classifier.model.to(self.device)
        self.model.train()
        if self.device.type == "cpu" and not settings.torch_compile:
            use_cheap_dropout(self.model)
        self.optimizer = make_optimizer(self.model, settings)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.name == "fp16")
        self.nominal_steps = batches.num_steps  # an online scheme may end up taking fewer
        self.learning_rate = learning_rate_schedule(settings, self.nominal_steps)
        self.packed = use_packing(classifier, precision, compiled=settings.torch_compile)
        self.compiled = torch.compile(self.model, dynamic=True) if settings.torch_compile else self.model
        self.budget = settings.tokens_per_micro_batch or default_token_budget(classifier, self.device, training=True)
        self.labels = torch.from_numpy(np.ascontiguousarray(data.labels)).to(self.device)
        self.lengths = data.lengths
        self.done = self.probed = 0

    def take(self) -> Step:
        """Draw the next batch, update the weights, return what was seen.

        Raises RunFailed where memory does not suffice for one sequence, and, on one CPU process, on a non-finite loss
        before the weights are updated.
        """
        number = self.done
        rows, weights = self.batches.draw(number, self.probe)
        loss, parts = self._backward(rows, weights)
        self.processes.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        if self.settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        rate = self.learning_rate(self.batches.progress(number) * self.nominal_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # On a CPU reading the loss costs nothing, and stopping here keeps the weights unspoilt. On a GPU it would wait
        # for the device, so the loop reads it when it logs.
        if self.device.type == "cpu" and self.processes.size == 1:
            require_finite(float(loss), number, rows)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return Step(number, rows, loss, parts, rate)

    def _backward(self, rows: np.ndarray, weights: np.ndarray) -> tuple[torch.Tensor, list[MicroBatch]]:
        """Gradients of this process's share of the batch. Out of memory: the same again in smaller micro-batches."""
        mine = np.argsort(self.lengths[rows], kind="stable")[self.processes.rank :: self.processes.size]
        while True:
            try:
                # The outer context keeps the weights that the passes cast: once for each step, not for each micro-batch.
                with torch.autocast(self.device.type, enabled=False):
                    return self._micro_batch_gradients(rows[mine], weights[mine], len(rows))
            except torch.OutOfMemoryError:
                self.budget = smaller_budget(self.budget, int(self.lengths[rows].max()))
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()

    def _micro_batch_gradients(self, rows, weights, size: int) -> tuple[torch.Tensor, list[MicroBatch]]:
        torch.manual_seed(step_seed(self.settings.seed, self.done, self.processes.rank))
        total, seen = torch.zeros((), device=self.device), []
        for part in micro_batches(self.lengths[rows], self.budget, packed=self.packed):
            batch = collate(self.data, rows[part], self.device, packed=self.packed)
            with self.precision.autocast():
                logits = self._logits(batch)
            losses = self.objective(logits, self.labels[batch.rows], batch.rows)
            weight = torch.from_numpy(weights[part]).to(self.device, non_blocking=True)
            loss = (losses * weight).sum() / size
            self.scaler.scale(loss).backward()
            total += loss.detach()
            seen.append(MicroBatch(batch.rows, logits.detach(), losses.detach(), batch.input_ids.numel()))
        return total, seen

    def _logits(self, batch: Batch) -> torch.Tensor:
        with self.frozen.resume(batch) if self.frozen else contextlib.nullcontext():
            return forward(self.classifier, self.compiled, batch)

    def probe(self, rows: np.ndarray) -> np.ndarray:
        """Logits float32 (b, C) of candidates, forward only, dropout as in training: for online sampling."""
        rank, size = self.processes.rank, self.processes.size
        torch.manual_seed(step_seed(self.settings.seed, self.done, rank, 1))
        mine = rows[rank::size]
        out = torch.empty(len(mine), max(len(self.classifier.labels), 1), device=self.device)
        with torch.no_grad(), self.precision.autocast():
            for part in micro_batches(self.lengths[mine], 2 * self.budget, packed=self.packed):
                batch = collate(self.data, mine[part], self.device, packed=self.packed)
                out[part] = self._logits(batch).float()
        logits = np.empty((len(rows), out.shape[1]), dtype=np.float32)
        for other, shard in enumerate(self.processes.gather(out.cpu().numpy())):
            logits[other::size] = shard
        self.probed += len(rows)
        return logits

    # ------------------------------------------------------------------------------------------------- saved state
    def save(self, checkpoints: Checkpoints | None, facts: dict, *, best: int | None = None) -> None:
        """Write weights, optimizer, batches and `facts` (JSON, the counts among them); keep the checkpoint of step `best`.
        Every process must call it; the first one writes."""
        state = self.batches.state_dict()  # may ask the other processes
        if checkpoints and self.processes.main:
            arrays = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}
            extra = {**facts, "scaler": self.scaler.state_dict()}
            checkpoints.save(
                self.done, model=self.model, optimizer=self.optimizer, extra=extra, arrays=arrays, best=best
            )

    def restore(self, checkpoints: Checkpoints | None) -> dict | None:
        """Go back to the newest whole checkpoint; returns its facts, or None where there is none."""
        found = checkpoints.restore(model=self.model, optimizer=self.optimizer) if checkpoints else None
        if found is None:
            return None
        self.done, extra, arrays = found
        self.probed = extra["counts"]["probed"]
        self.scaler.load_state_dict(extra["scaler"])
        self.batches.load_state_dict({name: tensor.numpy() for name, tensor in arrays.items()})
        return extra


def smaller_budget(budget: int, longest: int) -> int:
    """Half as many tokens per micro-batch, at least one sequence. Raises RunFailed where it is one sequence already."""
    if budget <= longest:
        raise RunFailed(
            f"out of memory even with one sequence of {longest} tokens at a time; use a smaller model or --max_seq_length"
        )
    budget = max(budget // 2, longest)
    logger.warning("out of memory: going on with the same batch in micro-batches of at most %d tokens", budget)
    return budget


def require_finite(loss: float, step: int, rows: np.ndarray, since: int = 1) -> None:
    """Raise RunFailed that names the steps and some examples where the loss is NaN or infinite."""
    if not math.isfinite(loss):
        steps = f"step {step + 1}" if since == 1 else f"steps {step + 2 - since} to {step + 1}"
        more = ", ..." if len(rows) > 8 else ""
        raise RunFailed(
            f"the loss is {loss} at {steps} (example_index {', '.join(map(str, rows[:8]))}{more}); lower "
            "--learning_rate or add --warmup_ratio; checkpoints up to there are kept"
        )
