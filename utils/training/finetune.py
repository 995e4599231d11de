"""The one recipe: read, choose, encode, train, evaluate every dev split, predict, save. `run_glue.py` and every script
that re-trains are this recipe with another way of choosing examples. The one module below the scripts that sees their
arguments.
"""

import argparse
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils import flags as arguments
from utils.command_line import setup_logging
from utils.data.examples import Examples, load_split
from utils.data.metrics import compute_metrics
from utils.data.tasks import Task, get_task
from utils.data.tokens import Encoded, encode
from utils.errors import InputError
from utils.files import read_json, scratch_directory, write_json, write_text
from utils.flags import TrainingSettings
from utils.models import distributed
from utils.models.class_names import detect_order, evaluation_warnings, unresolved_message
from utils.models.classifier import Classifier, load_classifier, save_classifier
from utils.models.forward import Precision, choose_precision
from utils.models.inference import infer, predict
from utils.run_directory import RunDirectory
from utils.selection.data_map import plot_data_map
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection, random_ranking
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.loop import Hooks, train
from utils.training.objectives import per_example_loss
from utils.training.recorder import DynamicsRecorder

logger = logging.getLogger(__name__)

# choose(examples) -> Selection: how a script picks the training rows.
Choose = Callable[[Examples], Selection]
# make_batches(selection, labels=, processes=, **plan) -> a batches object: how they are drawn (default: uniformly).
MakeBatches = Callable[..., UniformBatches]


@dataclass(frozen=True)
class Context:
    """What every stage of one run needs."""

    args: argparse.Namespace
    task: Task
    classifier: Classifier
    processes: distributed.Processes
    precision: Precision
    folder: Path

    @property
    def inference(self) -> dict:
        return {
            "processes": self.processes,
            "precision": self.precision,
            "tokens_per_micro_batch": self.args.tokens_per_micro_batch,
        }


def run(
    args: argparse.Namespace,
    *,
    script: str,
    choose: Choose | None = None,
    make_batches: MakeBatches | None = None,
    arguments_given: dict | None = None,
) -> dict:
    """Do what the flags ask for and return the contents of `results.json`. Raises InputError for unusable input.

    arguments_given: the flags that identify the run, where the caller fills in `args` later."""
    arguments.check(args)
    processes = distributed.start(use_cpu=args.use_cpu)
    setup_logging(main_process=processes.main)
    try:
        if args.dry_run:
            with scratch_directory(args.output_dir) as folder:
                _cut_to_two_batches(args, processes.size)
                directory = _directory(args, Path(folder) / "run", script, arguments_given, processes)
                results = _run(args, directory, choose, make_batches, processes)
            if processes.main:
                print(f"dry run: everything works; nothing was written to {args.output_dir}")
            return results
        directory = _directory(args, Path(args.output_dir), script, arguments_given, processes)
        return _run(args, directory, choose, make_batches, processes)
    finally:
        distributed.stop()


def _cut_to_two_batches(args, processes: int) -> None:
    args.max_steps = 2
    args.eval_steps = None
    args.dynamics_per_epoch = 1
    args.max_eval_samples = min(args.max_eval_samples or 64, 64)
    args.overwrite_output_dir = True


def _directory(args, folder: Path, script, arguments_given, processes) -> RunDirectory:
    return RunDirectory(
        folder,
        script=script,
        arguments=arguments_given or vars(args).copy(),
        overwrite=args.overwrite_output_dir,
        main_process=processes.main,
    )


def _run(args, directory: RunDirectory, choose, make_batches, processes) -> dict:
    task = get_task(args.task_name)
    if args.record_dynamics and task.regression:
        raise InputError(f"--record_dynamics: {task.name} has no classes to be right or wrong about")
    started = time.perf_counter()
    # Everything that can be wrong with the input is looked at before a model is loaded or a file written.
    names = (["train"] if args.do_train else []) + (list(task.dev) if args.do_eval else [])
    names += list(task.test) if args.do_predict else []
    examples = {name: load_split(task, name, data_dir=args.data_dir, cache_dir=args.cache_dir) for name in names}
    selection = _choose_rows(args, examples["train"], choose) if args.do_train else None
    classifier = load_classifier(
        task.labels,
        model_name_or_path=args.model_name_or_path,
        config_name=args.config_name,
        tokenizer_name=args.tokenizer_name,
        cache_dir=args.cache_dir,
        revision=args.model_revision,
        seed=args.seed,
        label_order=args.label_order,
        need_head=not args.do_train,
    )
    precision = choose_precision(processes.device, fp16=args.fp16, bf16=args.bf16)
    context = Context(args, task, classifier, processes, precision, directory.path)
    _prepare_model(context)
    data = {name: _encode(context, split) for name, split in examples.items()}
    if not classifier.named:
        _settle_names(context, examples, data)
    facts = {"data": {name: {"n": len(e), "fingerprint": e.fingerprint} for name, e in examples.items()}}
    if selection:
        facts["selection"] = {"m": len(selection), "rows_and_weights": selection.digest}
    directory.begin(**facts)

    results = {"task": task.name, "script": directory.script, "eval": {}}
    if args.do_train:
        if processes.main and selection.provenance.get("method") != "all":
            selection.save(directory.path / "selection.npz")
        results["train"] = _train(context, examples, data, selection, make_batches or UniformBatches)
        results["selection"] = {
            "m": len(selection),
            "n": selection.n_total,
            "effective_sample_size": selection.effective_sample_size,
            "fingerprint": selection.fingerprint,
            **selection.provenance,
        }
        if processes.main:
            save_classifier(classifier, directory.path)
    for name in task.dev if args.do_eval else ():
        results["eval"][name] = _evaluate(context, examples[name], data[name], write=True)
    for name in task.test if args.do_predict else ():
        _write_server_file(context, examples[name], data[name])
    results["seconds"] = round(time.perf_counter() - started, 2)
    results["device"] = str(processes.device)
    results["processes"] = processes.size
    results["precision"] = precision.name
    directory.finish(results)
    if processes.main:
        Checkpoints(directory.path / "checkpoints").remove()
        _print_summary(context, results)
    return results


# ---------------------------------------------------------------------------------------------------------- before it
def _choose_rows(args, examples: Examples, choose: Choose | None) -> Selection:
    if args.selection and choose:
        raise InputError("--selection is already a choice of examples; use run_glue.py to train on it")
    if choose:
        selection = choose(examples)
    elif args.selection:
        selection = Selection.load(args.selection)
        selection.check(examples, path=args.selection)
    else:
        selection = Selection.everything(len(examples), examples.fingerprint)
    if args.max_train_samples and args.max_train_samples < len(selection):
        seed = _selection_seed(args)
        kept = random_ranking(len(selection), seed)[: args.max_train_samples]
        method = selection.provenance.get("method", "all")
        selection = selection.take(
            np.sort(kept),
            method="random" if method == "all" else method,
            max_train_samples=args.max_train_samples,
            max_train_samples_seed=seed,
        )
    return selection


def _selection_seed(args) -> int:
    return args.seed if args.selection_seed is None else args.selection_seed


def _prepare_model(context: Context) -> None:
    args, model = context.args, context.classifier.model
    args.max_seq_length = context.classifier.fitting_length(args.max_seq_length)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if args.freeze_layers:
        _freeze(model, args.freeze_layers)


def _freeze(model, layers: int) -> None:
    encoder = getattr(model.base_model, "encoder", None) or getattr(model.base_model, "transformer", None)
    stack = getattr(encoder, "layer", None)
    if stack is None:
        raise InputError(
            f"--freeze_layers: {type(model).__name__} shares or hides its layers; it can only be trained whole"
        )
    if layers > len(stack):
        raise InputError(f"--freeze_layers {layers}: the model has {len(stack)} layers")
    for module in (model.base_model.embeddings, *stack[:layers]):
        module.requires_grad_(False)


def _encode(context: Context, examples: Examples) -> Encoded:
    args = context.args
    with context.processes.main_first():
        return encode(
            examples.texts,
            context.classifier.tokenizer,
            fingerprint=examples.fingerprint,
            max_length=args.max_seq_length,
            segments=context.classifier.segments,
            labels=examples.labels,
            cache_dir=args.cache_dir,
            overwrite_cache=args.overwrite_cache and context.processes.main,
            description=f"tokenising {examples.split}",
        )


def _settle_names(context: Context, examples, data) -> None:
    """A checkpoint that says only LABEL_k: training gives the names a meaning; evaluation must find theirs."""
    labels = context.task.labels
    dev = next((name for name in context.task.dev if name in examples), None)
    if dev is None:
        if not context.args.do_train:
            raise InputError(unresolved_message(labels))
        logger.warning(
            "the checkpoint only says LABEL_0, LABEL_1, ...; taking its outputs as %s and training on. State them with "
            "--label_order if it was fine-tuned with another order", ", ".join(labels),
        )  # fmt: skip
        context.classifier.name_outputs(labels)
        return
    sample = random_ranking(len(data[dev]), 0)[:2000]
    outputs = predict(
        context.classifier, data[dev], sample, description="checking class names", **context.inference
    ).argmax(1)
    try:
        order = detect_order(outputs, examples[dev].labels[sample], labels, where=examples[dev].source)
        logger.warning(
            "the checkpoint only says LABEL_0, LABEL_1, ...; %s shows that its outputs mean %s", dev, ", ".join(order)
        )
    except InputError:
        if not context.args.do_train:
            raise
        order = labels  # an untrained or unrelated head: any order will do, training starts here
    context.classifier.name_outputs(order)


# -------------------------------------------------------------------------------------------------------------- train
def _train(context: Context, examples, data, selection: Selection, make_batches: MakeBatches) -> dict:
    args, processes = context.args, context.processes
    settings = TrainingSettings(
        **{name: getattr(args, name) for name in TrainingSettings.__dataclass_fields__ if hasattr(args, name)}
    )
    plan = {} if make_batches is UniformBatches else {"labels": data["train"].labels, "processes": processes}
    batches = make_batches(
        selection,
        **plan,
        batch_size=args.per_device_train_batch_size * args.gradient_accumulation_steps * processes.size,
        seed=args.seed,
        epochs=args.num_train_epochs,
        max_steps=args.max_steps,
    )
    logger.info(
        "training on %d of %d examples, batches of %d, %d steps, %s, %d process(es)",
        len(selection), selection.n_total, batches.batch_size, batches.num_steps, context.precision.name, processes.size,
    )  # fmt: skip
    hooks = Hooks()
    if args.eval_steps and args.do_eval:
        hooks.on_step.append(lambda done: _evaluate_now(context, examples, data, done, batches.num_steps))
    # dynamics.npz is there already where a run was killed after its last step.
    recording = args.record_dynamics and not (context.folder / "dynamics.npz").exists()
    dynamics = _Dynamics(context, data["train"], selection, batches) if recording else None
    if dynamics:
        dynamics.attach(hooks)
    with _trackers(args, context.folder, processes.main) as on_log:
        hooks.on_log.extend(on_log)
        summary = train(
            context.classifier,
            data["train"],
            batches,
            settings,
            processes=processes,
            precision=context.precision,
            checkpoints=Checkpoints(context.folder / "checkpoints", keep=args.save_total_limit),
            log_path=context.folder / "log.jsonl",
            hooks=hooks,
        )
    if dynamics:
        dynamics.finish(examples["train"])
    if args.record_dynamics and processes.main:
        # A run killed between these steps repeats them.
        shutil.rmtree(context.folder / "dynamics", ignore_errors=True)
        recorded = Dynamics.load(context.folder / "dynamics.npz")
        if recorded.num_snapshots > 1:
            plot_data_map(recorded, context.folder / "data_map.png")
    return {"batch_size": batches.batch_size, "epochs": batches.epochs_done(summary["steps"]), **summary}


def _evaluate_now(context: Context, examples, data, done: int, last: int) -> None:
    if done % context.args.eval_steps or done == last:
        return
    for name in context.task.dev:
        metrics = _evaluate(context, examples[name], data[name], write=False)
        logger.info(
            "step %d %s %s", done, name, " ".join(f"{key} {value:.4f}" for key, value in metrics.items() if key != "n")
        )
        if context.processes.main:
            path = context.folder / "eval_log.json"
            history = read_json(path, list) if path.exists() else []
            history = [
                entry for entry in history if entry["step"] < done or (entry["split"] != name and entry["step"] == done)
            ]
            write_json(path, [*history, {"step": done, "split": name, **metrics}])


class _Dynamics:
    """Feeds the recorder: the training logits as they come (one snapshot an epoch), or passes of their own."""

    def __init__(self, context: Context, data: Encoded, selection: Selection, batches):
        args = context.args
        self.context, self.data, self.batches = context, data, batches
        self.rows = np.unique(selection.indices)
        self._kept: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.own_passes = args.dynamics_eval_mode or args.dynamics_per_epoch > 1
        per_epoch = args.dynamics_per_epoch
        epochs = batches.num_steps / batches.steps_per_epoch
        count = (
            max(1, round(epochs * per_epoch)) if self.own_passes else -(-batches.num_steps // batches.steps_per_epoch)
        )
        # The step after which each snapshot is taken; free snapshots belong to whole epochs.
        ends = [round((i + 1) * batches.steps_per_epoch / per_epoch) for i in range(count)]
        self.steps = [min(max(step, 1), batches.num_steps) for step in ends]
        if context.processes.main:
            self.recorder = DynamicsRecorder(
                context.folder / "dynamics", len(data), max(len(context.task.labels), 1), len(self.steps)
            )

    def attach(self, hooks: Hooks) -> None:
        if self.own_passes:
            hooks.on_step.append(self._own_pass)
        else:
            hooks.on_batch.append(self._training_logits)
            hooks.on_save.append(self._hand_over)

    def _training_logits(self, step, rows, logits, losses) -> None:
        self._record(self.batches.epoch(step), rows, logits.float().cpu().numpy())

    def _own_pass(self, done: int) -> None:
        for snapshot in (i for i, step in enumerate(self.steps) if step == done):
            dropout = not self.context.args.dynamics_eval_mode
            passes = infer(
                self.context.classifier, self.data, self.rows, dropout=dropout, description="training dynamics",
                **self.context.inference,
            )  # fmt: skip
            for outputs in passes:
                if self.context.processes.main:
                    self.recorder.record(snapshot, outputs.rows, outputs.logits)

    def _record(self, snapshot, rows, logits) -> None:
        if self.context.processes.size == 1:
            self.recorder.record(snapshot, rows, logits)
            return
        # Micro-batches differ in number between processes: each keeps its own until the next checkpoint.
        self._kept.append((snapshot, rows, logits))

    def _hand_over(self) -> None:
        """Give the first process what was recorded since the last checkpoint: a continued run does not see it again."""
        for kept in self.context.processes.gather(self._kept):
            for snapshot, rows, logits in kept if self.context.processes.main else ():
                self.recorder.record(snapshot, rows, logits)
        self._kept = []

    def finish(self, examples: Examples) -> None:
        self._hand_over()
        if self.context.processes.main:
            self.recorder.finish(
                self.context.folder / "dynamics.npz",
                labels=examples.labels,
                epochs=np.asarray(self.steps) / self.batches.steps_per_epoch,
                class_names=self.context.task.labels,
                mode="eval" if self.context.args.dynamics_eval_mode else "train",
                fingerprint=examples.fingerprint,
            )


@contextlib.contextmanager
def _trackers(args, folder: Path, main: bool):
    """Yield the on_log hooks of --report_to. Neither library is a requirement of ours."""
    if args.report_to == "none" or not main:
        yield []
        return
    try:
        if args.report_to == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter
        else:
            import wandb
    except ImportError:
        raise InputError(f"--report_to {args.report_to}: not installed; pip install {args.report_to}") from None
    if args.report_to == "tensorboard":
        with SummaryWriter(folder / "tensorboard") as writer:
            yield [
                lambda entry: [
                    writer.add_scalar(f"train/{k}", v, entry["step"]) for k, v in entry.items() if k != "step"
                ]
            ]
    else:
        run_ = wandb.init(
            project="transformers-importance-sampling", config=vars(args), dir=str(folder), resume="allow"
        )
        try:
            yield [lambda entry: run_.log(entry, step=entry["step"])]
        finally:
            run_.finish()


# ----------------------------------------------------------------------------------------------------------- evaluate
def _evaluate(context: Context, examples: Examples, data: Encoded, *, write: bool) -> dict:
    """Metrics of one dev split, once over all its rows; with `write`, also its result and prediction files."""
    task, args = context.task, context.args
    rows = np.arange(len(examples))
    if args.max_eval_samples and args.max_eval_samples < len(rows):
        rows = np.sort(random_ranking(len(rows), 0)[: args.max_eval_samples])
    logits = predict(context.classifier, data, rows, description=f"evaluating {examples.split}", **context.inference)
    gold = examples.labels[rows]
    predictions = logits[:, 0] if task.regression else logits.argmax(1)
    metrics = {f"eval_{name}": value for name, value in compute_metrics(task.metrics, predictions, gold).items()}
    loss = per_example_loss(torch.from_numpy(logits), torch.from_numpy(np.ascontiguousarray(gold)))
    metrics["eval_loss"] = float(loss.double().mean())
    metrics["n"] = len(rows)
    warnings = [] if task.regression else evaluation_warnings(predictions, gold, task.labels)
    for warning in warnings:
        logger.warning("%s: %s", examples.split, warning)
    if write and context.processes.main:
        short = task.dev[examples.split].short
        write_text(context.folder / f"eval_results_{short}.txt", "".join(f"{k} = {v}\n" for k, v in metrics.items()))
        _write_predictions(context.folder / f"predictions_{examples.split}.tsv", task, rows, gold, predictions, logits)
    return metrics


def _write_predictions(path, task: Task, rows, gold, predictions, logits) -> None:
    if task.regression:
        header = ["index", "gold", "prediction"]
        lines = [f"{i}\t{g:g}\t{p:.6f}" for i, g, p in zip(rows, gold, predictions, strict=True)]
    else:
        header = ["index", "gold", "prediction", *(f"p_{name}" for name in task.labels)]
        p = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        lines = [
            "\t".join([str(i), task.labels[g], task.labels[k], *(f"{x:.6f}" for x in row)])
            for i, g, k, row in zip(rows, gold, predictions, p, strict=True)
        ]
    write_text(path, "\n".join(["\t".join(header), *lines]) + "\n")


def _write_server_file(context: Context, examples: Examples, data: Encoded) -> None:
    """The TSV that gluebenchmark.com takes: index and prediction, class names as the task spells them."""
    task = context.task
    logits = predict(context.classifier, data, description=f"predicting {examples.split}", **context.inference)
    if not context.processes.main:
        return
    if task.regression:
        answers = [f"{min(max(value, 0.0), 5.0):.3f}" for value in logits[:, 0]]  # STS-B scores lie in [0, 5]
    else:
        answers = [task.server_labels[i] for i in logits.argmax(1)]
    lines = ["index\tprediction", *(f"{i}\t{answer}" for i, answer in enumerate(answers))]
    write_text(context.folder / task.test[examples.split].server, "\n".join(lines) + "\n")


def _print_summary(context: Context, results: dict) -> None:
    task = context.task
    if "train" in results:
        t = results["train"]
        print(
            f"trained {t['steps']} steps, {t['examples']} examples in {t['seconds']:.0f} s "
            f"({t['examples'] / max(t['seconds'], 1e-9):.0f} examples/s, {100 * t['padded_share']:.1f} % padding)"
        )
    if results["eval"]:
        for metric in task.metrics:
            shorts = "/".join(task.dev[name].short for name in results["eval"])
            values = " / ".join(f"{100 * m[f'eval_{metric}']:.5f}" for m in results["eval"].values())
            print(f"{shorts} eval_{metric}: {values}")
    if context.args.do_predict:
        print("for the GLUE server: " + ", ".join(task.test[name].server for name in task.test))
    print(f"everything is in {context.folder}")
