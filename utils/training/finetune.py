"""The one recipe: read, choose, encode, train, evaluate every dev split, predict, save. `run_glue.py` and every script
that re-trains are this recipe with another way of choosing examples.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.command_line import setup_logging
from utils.data.examples import Examples, load_split
from utils.data.tasks import Task, get_task
from utils.data.tokens import Encoded
from utils.errors import InputError
from utils.files import folder_lock, scratch_directory, write_json
from utils.flags import RunSettings
from utils.models import distributed
from utils.models.class_names import detect_order, unresolved_message
from utils.models.classifier import save_classifier
from utils.models.distributed import Processes
from utils.models.families import freeze_lower_layers
from utils.models.frozen import FrozenOutputs
from utils.models.session import Session, open_session
from utils.run_directory import CARD_FILE, RunDirectory
from utils.selection.data_map import plot_data_map
from utils.selection.dynamics import Dynamics
from utils.selection.selection import Selection, random_ranking
from utils.training.batches import UniformBatches
from utils.training.checkpoint import Checkpoints
from utils.training.evaluate import add_to_eval_log, evaluate, write_server_file
from utils.training.loop import Hooks, train
from utils.training.recorder import DYNAMICS_FILE, DynamicsHooks
from utils.training.trackers import check_tracker, tracker

logger = logging.getLogger(__name__)

NAMING_ROWS = 2000  # labelled examples that show what unnamed outputs mean


@dataclass(frozen=True)
class Choice:
    """How a script departs from training on everything, in uniform batches.

    choose(examples) -> Selection: the training rows. describe(selection, examples) -> dict: the subset card, for
    selection.json. make_batches(selection, labels=, processes=, **plan) -> an object with UniformBatches' methods.
    version: of the way of making batches, for results.json.
    """

    choose: Callable[[Examples], Selection] | None = None
    describe: Callable[[Selection, Examples], dict] | None = None
    make_batches: Callable[..., UniformBatches] | None = None
    version: int | None = None


@dataclass(frozen=True)
class Run:
    """What every stage of one run needs. examples and data: the splits by name, as text and as tokens."""

    settings: RunSettings
    task: Task
    session: Session
    directory: RunDirectory
    examples: dict[str, Examples]
    data: dict[str, Encoded]

    @property
    def folder(self) -> Path:
        return self.directory.path

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.session.processes.main


def run(settings: RunSettings, *, script: str, arguments: dict, choice: Choice | None = None) -> dict:
    """Do what the settings ask for and return the contents of `results.json`. Raises InputError for unusable input.

    script and arguments identify the run: an unfinished one is continued by the same script with the same arguments.
    """
    settings.check()
    choice = choice or Choice()
    processes = distributed.start(use_cpu=settings.use_cpu)
    setup_logging(main_process=processes.main)
    try:
        if settings.dry_run:
            with scratch_directory(settings.output_dir) as scratch:
                folder = Path(scratch) / "run"
                results = _run(_two_batches(settings), folder, script, arguments, choice, processes)
            if processes.main:
                print(f"dry run: everything works; nothing was written to {settings.output_dir}")
            return results
        with folder_lock(settings.output_dir, enabled=processes.main):
            return _run(settings, Path(settings.output_dir), script, arguments, choice, processes)
    finally:
        distributed.stop()


def _two_batches(settings: RunSettings) -> RunSettings:
    """The settings of a dry run: two steps and a small evaluation."""
    return dataclasses.replace(
        settings,
        max_steps=2,
        eval_steps=None,
        dynamics_per_epoch=1,
        max_eval_samples=min(settings.max_eval_samples or 64, 64),
        overwrite_output_dir=True,
    )


def _run(settings: RunSettings, folder: Path, script: str, arguments: dict, choice: Choice, processes) -> dict:
    started = time.perf_counter()
    directory = RunDirectory(
        folder,
        script=script,
        arguments=arguments,
        overwrite=settings.overwrite_output_dir,
        main_process=processes.main,
        model=settings.model_name_or_path,
        writes_model=settings.do_train,
    )
    # Everything that can be wrong with the input is looked at before a model is loaded or a file is written.
    check_tracker(settings.report_to)
    task = get_task(settings.task_name)
    if settings.record_dynamics and task.regression:
        raise InputError(f"--record_dynamics: {task.name} has no classes to be right or wrong about")
    examples = _read(settings, task)
    selection = _choose(settings, examples["train"], choice) if settings.do_train else None
    session = _open(settings, task, processes)
    run = Run(
        settings, task, session, directory, examples, {name: session.encode(split) for name, split in examples.items()}
    )
    if not session.classifier.named:
        _settle_names(run)
    facts = {"data": {name: {"n": len(split), "fingerprint": split.fingerprint} for name, split in examples.items()}}
    if selection:
        facts["selection"] = {"m": len(selection), "rows_and_weights": selection.digest}
    directory.begin(**facts)

    results = {"task": task.name, "script": script, "eval": {}}
    if selection:
        results |= _train_and_save(run, selection, choice)
    for name in task.dev if settings.do_eval else ():
        results["eval"][name] = _evaluate(run, name, folder=run.folder)
    for name in task.test if settings.do_predict else ():
        write_server_file(session, examples[name], run.data[name], run.folder)
    results["seconds"] = round(time.perf_counter() - started, 2)
    results["device"] = str(processes.device)
    results["processes"] = processes.size
    results["precision"] = session.precision.name
    directory.finish(results)
    if run.main:
        Checkpoints(run.folder / "checkpoints").remove()
        _print_summary(run, results)
    return results


# ------------------------------------------------------------------------------------------------- before the training
def _read(settings: RunSettings, task: Task) -> dict[str, Examples]:
    """The splits that the run needs, by name."""
    names = ["train"] if settings.do_train else []
    names += [*task.dev] if settings.do_eval else []
    names += [*task.test] if settings.do_predict else []
    return {name: load_split(task, name, data_dir=settings.data_dir, cache_dir=settings.cache_dir) for name in names}


def _choose(settings: RunSettings, examples: Examples, choice: Choice) -> Selection:
    """The training rows: what the script chooses, or --selection, or everything; then --max_train_samples of them."""
    if settings.selection and choice.choose:
        raise InputError("--selection is already a choice of examples; use run_glue.py to train on it")
    if choice.choose:
        selection = choice.choose(examples)
    elif settings.selection:
        selection = Selection.load(settings.selection)
        selection.check(examples, path=settings.selection)
    else:
        selection = Selection.everything(len(examples), examples.fingerprint)
    if settings.max_train_samples and settings.max_train_samples < len(selection):
        kept = random_ranking(len(selection), settings.drawing_seed)[: settings.max_train_samples]
        method = selection.provenance.get("method", "all")
        selection = selection.take(
            np.sort(kept),
            method="random" if method == "all" else method,
            max_train_samples=settings.max_train_samples,
            max_train_samples_seed=settings.drawing_seed,
        )
    return selection


def _open(settings: RunSettings, task: Task, processes: Processes) -> Session:
    session = open_session(task.labels, settings, processes, seed=settings.seed, need_head=not settings.do_train)
    model = session.classifier.model
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.freeze_layers:
        freeze_lower_layers(model, settings.freeze_layers)
    return session


def _settle_names(run: Run) -> None:
    """Name the outputs of a checkpoint that only says LABEL_k: training gives the names a meaning, evaluation alone must
    find the meaning they have, from labelled dev data. Raises InputError where that data does not show it."""
    labels, classifier = run.task.labels, run.session.classifier
    dev = next((name for name in run.task.dev if name in run.examples), None)
    if dev is None:
        if not run.settings.do_train:
            raise InputError(unresolved_message(labels))
        logger.warning(
            "the checkpoint only says LABEL_0, LABEL_1, ...; taking its outputs as %s and training on. State them with "
            "--label_order if it was fine-tuned with another order", ", ".join(labels),
        )  # fmt: skip
        classifier.name_outputs(labels)
        return
    sample = random_ranking(len(run.data[dev]), 0)[:NAMING_ROWS]
    outputs = run.session.predict(run.data[dev], sample, description="checking class names").argmax(1)
    try:
        order = detect_order(outputs, run.examples[dev].labels[sample], labels, where=run.examples[dev].source)
        logger.warning(
            "the checkpoint only says LABEL_0, LABEL_1, ...; %s shows that its outputs mean %s", dev, ", ".join(order)
        )
    except InputError:
        if not run.settings.do_train:
            raise
        order = labels  # an untrained or unrelated head: any order will do, training starts here
    classifier.name_outputs(order)


# ------------------------------------------------------------------------------------------------------------- training
def _train_and_save(run: Run, selection: Selection, choice: Choice) -> dict:
    """Train, then save the checkpoint; returns the parts `train` and `selection` of results.json."""
    if run.main and selection.provenance.get("method") != "all":
        selection.save(run.folder / "selection.npz")
        if choice.describe:
            card = choice.describe(selection, run.examples["train"])
            write_json(run.folder / CARD_FILE, {**card, "provenance": selection.provenance})
    trained = _train(run, selection, choice.make_batches)
    if run.main:
        save_classifier(run.session.classifier, run.folder)
    about = {
        "m": len(selection),
        "n": selection.n_total,
        "effective_sample_size": selection.effective_sample_size,
        "fingerprint": selection.fingerprint,
        **selection.provenance,
        **({"version": choice.version} if choice.version else {}),
    }
    return {"train": trained, "selection": about}


def _train(run: Run, selection: Selection, make_batches) -> dict:
    settings, processes, data = run.settings, run.session.processes, run.data["train"]
    plan = {
        "batch_size": settings.examples_per_step * processes.size,
        "seed": settings.seed,
        "epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
    }
    if make_batches:
        batches = make_batches(selection, labels=data.labels, processes=processes, **plan)
    else:
        batches = UniformBatches(selection, **plan)
    logger.info(
        "training on %d of %d examples, batches of %d, %d steps, %s, %d process(es)",
        len(selection), selection.n_total, batches.batch_size, batches.num_steps, run.session.precision.name,
        processes.size,
    )  # fmt: skip
    frozen = None
    if settings.cache_frozen:
        logger.warning("--cache_frozen: the %d frozen layers run without dropout", settings.freeze_layers)
        frozen = FrozenOutputs(run.session, data, selection.indices, settings.freeze_layers)
    hooks = Hooks()
    if settings.eval_steps and settings.do_eval:
        hooks.on_step.append(lambda done: _evaluate_while_training(run, done, batches.num_steps))
    recorder = None
    # dynamics.npz is there already where a run was killed after its last step.
    if settings.record_dynamics and not (run.folder / DYNAMICS_FILE).exists():
        recorder = DynamicsHooks(
            run.session, run.examples["train"], data, selection.indices, batches, settings, run.folder
        )
        recorder.attach(hooks)
    with tracker(settings.report_to if run.main else "none", run.folder, dataclasses.asdict(settings)) as on_log:
        hooks.on_log.extend(on_log)
        summary = train(
            run.session.classifier,
            data,
            batches,
            settings,
            processes=processes,
            precision=run.session.precision,
            frozen=frozen,
            checkpoints=Checkpoints(run.folder / "checkpoints", keep=settings.save_total_limit),
            log_path=run.folder / "log.jsonl",
            hooks=hooks,
        )
    if recorder:
        recorder.finish()
    if settings.record_dynamics and run.main:
        _draw_data_map(run.folder)
    return {"batch_size": batches.batch_size, "epochs": batches.epochs_done(summary["steps"]), **summary}


def _draw_data_map(folder: Path) -> None:
    """Draw the data map, and remove what a run leaves that was killed while it wrote dynamics.npz."""
    shutil.rmtree(folder / "dynamics", ignore_errors=True)
    recorded = Dynamics.load(folder / DYNAMICS_FILE)
    if recorded.num_snapshots > 1:
        plot_data_map(recorded, folder / "data_map.png")


# ----------------------------------------------------------------------------------------------------------- evaluation
def _evaluate(run: Run, split: str, *, folder: Path | None = None) -> dict:
    return evaluate(
        run.session,
        run.examples[split],
        run.data[split],
        max_samples=run.settings.max_eval_samples,
        folder=folder,
    )


def _evaluate_while_training(run: Run, done: int, last: int) -> None:
    if done % run.settings.eval_steps or done == last:
        return
    for name in run.task.dev:
        metrics = _evaluate(run, name)
        shown = " ".join(f"{key} {value:.4f}" for key, value in metrics.items() if key != "n")
        logger.info("step %d %s %s", done, name, shown)
        if run.main:
            add_to_eval_log(run.folder / "eval_log.json", done, name, metrics)


def _print_summary(run: Run, results: dict) -> None:
    task = run.task
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
    if run.settings.do_predict:
        print("for the GLUE server: " + ", ".join(task.test[name].server for name in task.test))
    print(f"everything is in {run.folder}")
