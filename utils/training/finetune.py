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
from utils.data.class_names import detect_order, unresolved_message
from utils.data.examples import Examples
from utils.data.sources import Data, open_data
from utils.data.tasks import Task
from utils.errors import InputError
from utils.files import folder_lock, scratch_directory, write_json
from utils.flags import RunSettings
from utils.models import distributed
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
from utils.training.challenges import evaluate_challenge, read_challenges
from utils.training.checkpoint import Checkpoints
from utils.training.evaluate import write_server_file
from utils.training.evaluations import deciding_metric
from utils.training.group_dro import GroupDro
from utils.training.last_layer import retrain_last_layer
from utils.training.loop import Hooks, train
from utils.training.objectives import objective_of
from utils.training.recorder import DYNAMICS_FILE, DynamicsHooks
from utils.training.run import Run
from utils.training.shortcut import BIAS_FILE, Shortcut, find_shortcut, save_bias
from utils.training.trackers import chosen_trackers, open_trackers

logger = logging.getLogger(__name__)

NAMING_ROWS = 2000  # labelled examples that show what unnamed outputs mean


@dataclass(frozen=True)
class Choice:
    """What a script changes in training on all examples in uniform batches; None where it changes nothing.

    choose(examples) -> Selection: the training rows. describe(selection, examples) -> dict: the subset card, for
    selection.json. prepare(selection, examples): makes what make_batches reads, before a model is loaded.
    make_batches(selection, labels=, processes=, **plan) -> an object with UniformBatches' methods. version: of the way of
    making batches, for results.json. costs: filled, when the choice is made or prepared, with what making each of its inputs
    took here, in training epochs on all of the data.
    """

    choose: Callable[[Examples], Selection] | None = None
    describe: Callable[[Selection, Examples], dict] | None = None
    prepare: Callable[[Selection, Examples], None] | None = None
    make_batches: Callable[..., UniformBatches] | None = None
    version: int | None = None
    costs: dict[Path, float] | None = None


def run(settings: RunSettings, *, script: str, arguments: dict, choice: Choice | None = None) -> dict:
    """Do what the settings ask for and return the contents of `results.json`. Raises InputError for unusable input.

    script and arguments identify the run: an unfinished one is continued by the same script with the same arguments.
    """
    settings.check()
    if settings.evaluates != "no":  # as in the Hugging Face scripts
        settings = dataclasses.replace(settings, do_eval=True)
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
        report_to=("none",),
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
    trackers = chosen_trackers(settings)
    data = open_data(settings, cache_dir=settings.cache_dir)
    task = data.task
    deciding_metric(settings, task)
    if settings.record_dynamics and task.regression:
        raise InputError(f"--record_dynamics: {task.name} has no classes to be right or wrong about")
    if settings.label_smoothing_factor and task.regression:
        raise InputError(f"--label_smoothing_factor: {task.name} has no classes to spread a target over; leave it out")
    examples = _read(settings, data)
    challenges = read_challenges(settings, task)
    selection = _training_rows(settings, examples["train"], choice) if settings.do_train else None
    if selection and choice.prepare:
        choice.prepare(selection, examples["train"])
    shortcut = find_shortcut(settings, examples["train"], selection, folder) if selection else Shortcut()
    session = _open(settings, task, processes)
    run = Run(
        settings, task, session, directory, examples, {name: session.encode(split) for name, split in examples.items()}
    )
    if not session.classifier.named:
        _settle_names(run)
    facts = {"data": {name: {"n": len(split), "fingerprint": split.fingerprint} for name, split in examples.items()}}
    if challenges:
        facts["challenge sets"] = {challenge.name: challenge.fingerprint for challenge in challenges}
    if selection:
        facts["selection"] = {"m": len(selection), "rows_and_weights": selection.digest}
    if shortcut.facts:
        facts["shortcut"] = shortcut.digest
    if settings.do_train:
        facts["number of processes"], facts["precision"] = processes.size, session.precision.name
    directory.begin(predictions=[split.server for split in task.test.values() if split.server], **facts)

    configuration = dataclasses.asdict(settings)
    with open_trackers(trackers if run.main else [], settings, run.folder, configuration) as opened:
        results = {"task": task.name, "script": script, "eval": {}}
        results |= _do(dataclasses.replace(run, trackers=opened), selection, choice, shortcut, challenges)
        results["seconds"] = round(time.perf_counter() - started, 2)
        results["device"] = str(processes.device)
        results["processes"] = processes.size
        results["precision"] = session.precision.name
        opened.finish(_steps(results), results)
    directory.finish(results)
    if run.main:
        Checkpoints(run.folder / "checkpoints").remove()
        _print_summary(run, results)
    return results


def _do(run: Run, selection: Selection | None, choice: Choice, shortcut: Shortcut, challenges) -> dict:
    """Train, evaluate and predict, as far as the settings ask for it. Returns these parts of results.json."""
    settings = run.settings
    results = _train_and_save(run, selection, choice, shortcut) if selection else {}
    results["eval"] = {
        name: run.evaluate(name, folder=run.folder) for name in (run.task.dev if settings.do_eval else ())
    }
    # With the best model loaded, the metrics may be those of an earlier step; the trackers have those of the last one.
    if not settings.load_best_model_at_end:
        run.track(_steps(results), results["eval"])
    if challenges:
        found = {c.name: evaluate_challenge(run.session, run.task, c, run.folder) for c in challenges}
        results["challenge"] = found
    for name in run.task.test if settings.do_predict else ():
        most = settings.max_predict_samples
        write_server_file(run.session, run.examples[name], run.data[name], run.folder, max_samples=most)
    return results


def _steps(results: dict) -> int:
    return results.get("train", {}).get("steps", 0)


# ------------------------------------------------------------------------------------------------- before the training
def _read(settings: RunSettings, data: Data) -> dict[str, Examples]:
    """The splits that the run needs, by name. Raises InputError where the data set has none of a kind."""
    names = ["train"] if settings.do_train else []
    for wanted, flag, of_kind in (
        (settings.do_eval, "--do_eval needs --validation_file", data.task.dev),
        (settings.do_predict, "--do_predict needs --test_file", data.task.test),
    ):
        if wanted and not of_kind:
            raise InputError(f"{flag}: the data set {data.task.name} has {', '.join(data.splits)}")
        names += [*of_kind] if wanted else []
    return {name: data.load(name) for name in names}


def _training_rows(settings: RunSettings, examples: Examples, choice: Choice) -> Selection:
    """The rows to train on: what the script chooses, or --selection, or everything; then --max_train_samples of them."""
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
    session = open_session(
        task.labels, settings, processes, seed=settings.seed, need_head=settings.dfr or not settings.do_train
    )
    model = session.classifier.model
    if settings.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError(
                f"--gradient_checkpointing: transformers has none for {type(model).__name__}; leave it out"
            )
        # transformers 5.23 renamed it, and warns at the old name.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
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
def _train_and_save(run: Run, selection: Selection, choice: Choice, shortcut: Shortcut) -> dict:
    """Train, then save the checkpoint; returns the parts `train`, `selection` and `objective` of results.json."""
    if run.main and selection.provenance.get("method") != "all":
        selection.save(run.folder / "selection.npz")
        if choice.describe:
            card = choice.describe(selection, run.examples["train"])
            write_json(run.folder / CARD_FILE, {**card, "provenance": selection.provenance})
    if run.main and shortcut.p_bias is not None:
        save_bias(run.folder / BIAS_FILE, shortcut.p_bias, run.examples["train"])
    if run.settings.dfr:
        seed = run.settings.drawing_seed
        trained = retrain_last_layer(run.session, run.data["train"], selection, shortcut.groups, seed)
    else:
        trained = _train(run, selection, choice.make_batches, shortcut)
    if run.main:
        save_classifier(run.session.classifier, run.folder)
    about = {
        **selection.provenance,
        "m": len(selection),
        "n": selection.n_total,
        "effective_sample_size": selection.effective_sample_size,
        "fingerprint": selection.fingerprint,
        **({"version": choice.version} if choice.version else {}),
        **({} if choice.costs is None else {"making_epochs": sum(choice.costs.values())}),
    }
    return {"train": trained, "selection": about, **({"objective": shortcut.facts} if shortcut.facts else {})}


def _train(run: Run, selection: Selection, make_batches, shortcut: Shortcut) -> dict:
    settings, processes, data = run.settings, run.session.processes, run.data["train"]
    plan = {
        "batch_size": settings.examples_per_step * processes.size,
        "seed": settings.batch_seed,
        "epochs": settings.num_train_epochs,
        "max_steps": settings.max_steps,
    }
    if make_batches:
        batches = make_batches(selection, labels=data.labels, processes=processes, **plan)
    else:
        batches = UniformBatches(selection, **plan)
    if shortcut.groups:
        batches = GroupDro(batches, shortcut.groups, step_size=settings.dro_step_size, processes=processes)
    logger.info(
        "training on %d of %d examples, batches of %d, %d steps, %s, %d process(es)",
        len(selection), selection.n_total, batches.batch_size, batches.num_steps, run.session.precision.name,
        processes.size,
    )  # fmt: skip
    frozen = None
    if settings.cache_frozen:
        logger.warning("--cache_frozen: the %d frozen layers run without dropout", settings.freeze_layers)
        frozen = FrozenOutputs(run.session, data, selection.indices, settings.freeze_layers)
    hooks, evaluations = Hooks(on_log=[run.trackers.log_training]), run.evaluations()
    checkpoints = Checkpoints(run.folder / "checkpoints", keep=settings.save_total_limit)
    recorder = None
    # dynamics.npz is there already where a run was killed after its last step.
    if settings.record_dynamics and not (run.folder / DYNAMICS_FILE).exists():
        recorder = DynamicsHooks(
            run.session, run.examples["train"], data, selection.indices, batches, settings, run.folder
        )
        recorder.attach(hooks)
    model, device = run.session.classifier.model, processes.device
    with objective_of(settings, shortcut, model, data.labels, device) as objective:
        summary = train(
            run.session.classifier,
            data,
            batches,
            settings,
            processes=processes,
            precision=run.session.precision,
            objective=objective,
            frozen=frozen,
            checkpoints=checkpoints,
            log_path=run.folder / "log.jsonl",
            hooks=hooks,
            evaluations=evaluations,
        )
        processes.barrier()  # the first process may still be writing the checkpoint of the best step
        evaluations.load_best(checkpoints, model)
    if recorder:
        recorder.finish()
    if settings.record_dynamics and run.main:
        _draw_data_map(run.folder)
    return {
        "batch_size": batches.batch_size,
        "epochs": batches.epochs_done(summary["steps"]),
        **summary,
        **evaluations.summary(),
    }


def _draw_data_map(folder: Path) -> None:
    """Draw the data map, and remove what a run leaves that was killed while it wrote dynamics.npz."""
    shutil.rmtree(folder / "dynamics", ignore_errors=True)
    recorded = Dynamics.load(folder / DYNAMICS_FILE)
    if recorded.num_snapshots > 1:
        plot_data_map(recorded, folder / "data_map.png")


# -------------------------------------------------------------------------------------------------------------- summary
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
    for name, found in results.get("challenge", {}).items():
        print(
            f"{name} by group: worst {100 * found['worst_group']:.2f}, mean {100 * found['mean_over_groups']:.2f}, accuracy "
            f"{100 * found['accuracy']:.2f}"
        )
    if run.settings.do_predict:
        print("test predictions: " + ", ".join(task.test[name].server for name in task.test))
    print(f"everything is in {run.folder}")
