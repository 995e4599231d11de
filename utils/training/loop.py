"""The one training loop. Plain and weighted training, subsets and online sampling take the same path: the batches object
says which examples make a step and how much each counts, the objective turns logits into per-example losses, and hooks
see what happened. Reads no data, evaluates nothing, and writes no files but the log and the checkpoints handed to it.
"""

from dataclasses import dataclass, field

from utils.data.tokens import Encoded
from utils.errors import Interrupted, StopSignal, same_command
from utils.flags import TrainingSettings
from utils.models.classifier import Classifier
from utils.models.distributed import Processes
from utils.models.forward import Precision
from utils.models.frozen import FrozenOutputs
from utils.training.checkpoint import Checkpoints
from utils.training.evaluations import Evaluations
from utils.training.objectives import erm
from utils.training.progress import Meter, TrainLog, advance, progress_bar, show
from utils.training.step import Objective, Step, Stepper, require_finite


@dataclass
class Hooks:
    """Functions that the loop calls. on_batch(step, example_index (b,), logits (b, C), losses (b,)) for each micro-batch of
    a step, once the weights are updated, without gradients; on_step(steps done) after each optimizer step; on_log(entry)
    with each line of log.jsonl; on_save() before each checkpoint, on every process."""

    on_batch: list = field(default_factory=list)
    on_step: list = field(default_factory=list)
    on_log: list = field(default_factory=list)
    on_save: list = field(default_factory=list)


def train(
    classifier: Classifier,
    data: Encoded,
    batches,
    settings: TrainingSettings,
    *,
    processes: Processes,
    precision: Precision,
    objective: Objective = erm,
    frozen: FrozenOutputs | None = None,
    checkpoints: Checkpoints | None = None,
    log_path=None,
    hooks: Hooks | None = None,
    evaluations: Evaluations | None = None,
) -> dict:
    """Train in place; returns counts and times: steps, examples and tokens seen, padded share, seconds.

    batches: an object with the methods of UniformBatches; objective: logits, labels and example_index of a micro-batch
    to its per-example losses; frozen: what frozen layers give for all rows that are trained on; evaluations: done when
    `settings` say so; they may end the training early. Raises RunFailed on a non-finite loss, naming step and examples, or
    where memory does not suffice for one sequence; Interrupted after SIGTERM or Ctrl-C, with the state saved.
    """
    hooks, evaluations = hooks or Hooks(), evaluations or Evaluations(settings)
    stepper = Stepper(
        classifier,
        data,
        batches,
        settings,
        processes=processes,
        precision=precision,
        objective=objective,
        frozen=frozen,
    )
    restored = stepper.restore(checkpoints)
    meter = Meter(stepper.device, restored and restored["counts"])
    evaluations.history = restored.get("evaluated", []) if restored else []
    log = TrainLog(log_path, stepper.done, enabled=bool(log_path) and processes.main)

    def read() -> dict:
        """What the meter saw since the last time. Raises RunFailed before a loss that is not finite is logged or saved."""
        since = meter.steps
        seen = meter.read(processes)
        require_finite(seen["loss"], step.number, step.rows, since=since)
        return seen

    def save() -> None:
        if meter.steps:  # the saved counts must include the last steps
            read()
        for hook in hooks.on_save:
            hook()
        facts = {"counts": meter.counts, "evaluated": evaluations.history}
        stepper.save(checkpoints, facts, best=evaluations.best_step)

    with progress_bar(stepper.nominal_steps, stepper.done, visible=processes.main) as bar, StopSignal() as stop:
        while stepper.done < batches.num_steps and not evaluations.enough:
            step = stepper.take()
            _tell(step, batches, hooks)
            _count(meter, step, stepper)
            advance(bar, step.loss * processes.size)

            due = settings.due(
                stepper.done,
                stepper.nominal_steps,
                epoch_ends=batches.epoch_ends(step.number),
                last=stepper.done == batches.num_steps,
            )
            if due.log or due.save:
                seen = read()
            if due.log:
                epoch = round(batches.epochs_done(stepper.done), 4)
                entry = {"step": stepper.done, "epoch": epoch, "lr": step.learning_rate, **seen, **batches.report()}
                log.write(entry)
                for hook in hooks.on_log:
                    hook(entry)
                show(bar, entry, batches.num_steps, meter.counts["seconds"], visible=processes.main)
            for hook in hooks.on_step:
                hook(stepper.done)
            improved = due.evaluate and evaluations.run(stepper.done)
            stepper.model.train()  # a hook or an evaluation may have left the model in its other mode
            # Several processes must agree to stop. That costs a message, so they ask when they log.
            stopping_now = (processes.size == 1 or due.log) and processes.any(bool(stop.requested))
            if due.save or improved or stopping_now:
                save()
            if stopping_now:
                raise Interrupted(
                    f"{stop.requested or 'a signal'} at step {stepper.done} of {batches.num_steps}; the state is saved. "
                    f"Run {same_command()} to continue"
                )
    if meter.steps:
        read()
    return {"steps": stepper.done, "full_steps": stepper.nominal_steps, **meter.summary()}


def _count(meter: Meter, step: Step, stepper: Stepper) -> None:
    """Tell the meter how much a step computed."""
    meter.add(
        step.loss,
        examples=len(step.rows),
        tokens=int(stepper.lengths[step.rows].sum()),
        computed_tokens=sum(part.computed_tokens for part in step.micro_batches),
    )
    meter.counts["probed"] = stepper.probed


def _tell(step: Step, batches, hooks: Hooks) -> None:
    """Tell the batches and the hooks what each micro-batch showed."""
    for part in step.micro_batches:
        batches.observe(part.rows, part.logits, part.losses)
        for hook in hooks.on_batch:
            hook(step.number, part.rows, part.logits, part.losses)
