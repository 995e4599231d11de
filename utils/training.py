"""The one training loop. Weighted and plain training, subsets and online sampling are the same path: the batches object
says which examples and how much each counts; hooks see what happened. Owns no data reading, no evaluation, no files but
the checkpoints it is handed.

One optimizer step is one exact batch: per-example losses, `sum(w * loss) / batch size`, gradients added up over
length-sorted micro-batches and over processes. Everything random in step s is a function of (seed, s), so a run
continued after a kill equals one that was never interrupted.
"""

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
import torch.nn.functional as F
from tqdm import tqdm

from utils.batching import Batch, collate, micro_batches
from utils.checkpoint import Checkpoints
from utils.distributed import Processes
from utils.encoding import Encoded
from utils.modeling import Classifier
from utils.packing import packed_logits, supports_packing
from utils.runs import InputError, Interrupted, RunFailed, StopSignal, write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSettings:
    """Defaults are those of the Hugging Face scripts."""

    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0  # 0 turns clipping off
    warmup_steps: int = 0
    warmup_ratio: float = 0.0  # of all steps; used where warmup_steps is 0
    lr_scheduler_type: str = "linear"  # one of arguments.SCHEDULES
    logging_steps: int = 50
    save_steps: int = 500
    seed: int = 42
    tokens_per_micro_batch: int | None = None  # padding included; None: from the memory at hand
    torch_compile: bool = False


@dataclass
class Hooks:
    """Called by the loop. on_batch(step, example_index (b,), logits (b, C), losses (b,)) after each micro-batch's
    backward pass, detached; on_step(steps done) after each optimizer step; on_log(entry) with each line of log.jsonl;
    on_save() before each checkpoint, on every process."""

    on_batch: list = field(default_factory=list)
    on_step: list = field(default_factory=list)
    on_log: list = field(default_factory=list)
    on_save: list = field(default_factory=list)


@dataclass(frozen=True)
class Precision:
    """`autocast()` for the forward pass and whether gradients need a scaler (fp16 only)."""

    name: str  # "float32", "bf16", "fp16"
    device: str

    @property
    def dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def autocast(self):
        if self.name == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)


def choose_precision(device: torch.device, *, fp16: bool = False, bf16: bool = False) -> Precision:
    """The asked-for precision where the machine has it, else float32 with one warning; the run goes on."""
    if fp16 and bf16:
        raise InputError("--fp16 and --bf16 exclude each other; give one")
    asked = "fp16" if fp16 else "bf16" if bf16 else "float32"
    if asked != "float32" and device.type != "cuda":
        logger.warning("--%s needs a CUDA GPU and this run is on %s: going on in float32", asked, device.type)
        asked = "float32"
    elif asked == "bf16" and not torch.cuda.is_bf16_supported():
        logger.warning("--bf16 is not supported by this GPU: going on in float32; --fp16 would be faster")
        asked = "float32"
    return Precision(asked, device.type)


def per_example_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(b,) losses: cross-entropy for class numbers, squared error for regression. In float32 always."""
    if labels.is_floating_point():
        return (logits.float().squeeze(1) - labels).square()
    return F.cross_entropy(logits.float(), labels, reduction="none")


def default_token_budget(classifier: Classifier, device: torch.device, *, training: bool) -> int:
    """Tokens per micro-batch that fit the memory at hand.

    CPU: small micro-batches lose nothing and stay near the cache. CUDA: activations of about 40 hidden widths a token
    and layer (10 without a backward pass), in half the free memory; out of memory halves it anyway.
    """
    if device.type != "cuda":
        return 2048
    config = classifier.model.config
    free, _ = torch.cuda.mem_get_info(device)
    width = getattr(config, "hidden_size", None) or config.dim
    layers = getattr(config, "num_hidden_layers", None) or config.n_layers
    per_token = width * 4 * (40 * layers if training else 40)
    return int(min(max(free * 0.5 / per_token, 1024), 262_144))


def forward(classifier: Classifier, model, batch: Batch) -> torch.Tensor:
    """(b, C) logits in label order. `model` is the classifier's model or its compiled twin."""
    if batch.cu_seqlens is not None:
        logits = packed_logits(model, batch.input_ids, batch.token_type_ids, batch.cu_seqlens, batch.max_length)
    else:
        segments = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **segments).logits
    return classifier.in_label_order(logits)


def use_packing(classifier: Classifier, precision: Precision, *, compiled: bool = False) -> bool:
    """Whether to lay sequences end to end instead of padding: on CUDA in half precision, where variable-length
    attention has kernels, and on the CPU, unless compiled (its attention reads the lengths), for the known families."""
    if precision.device == "cuda":
        return precision.name != "float32" and supports_packing(classifier.model)
    return not compiled and supports_packing(classifier.model)


def make_optimizer(model, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW without weight decay on biases and normalisation layers, as BERT and ALBERT were trained."""
    norms = (torch.nn.LayerNorm,)
    exempt = {id(p) for module in model.modules() if isinstance(module, norms) for p in module.parameters()}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith("bias") or id(parameter) in exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,  # one pass over memory: on a CPU a tenth of a small batch's step otherwise
    )


def learning_rate_schedule(settings: TrainingSettings, num_steps: int):
    """step -> learning rate: the library's schedule as a function, so that nothing needs replaying after a kill."""
    from transformers import get_scheduler

    warmup = settings.warmup_steps or math.ceil(settings.warmup_ratio * num_steps)
    dummy = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = get_scheduler(settings.lr_scheduler_type, dummy, warmup, num_steps)
    return lambda step: settings.learning_rate * schedule.lr_lambdas[0](step)


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
