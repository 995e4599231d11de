"""Flags that several scripts share. A field of a settings class is a flag: its default and its help stand here only.

`add_flags` puts the fields of a settings class on a parser, `settings_from` reads them back. Libraries are handed the
settings, never the parsed arguments. The spellings are those of the Hugging Face scripts, the old ones included. This
module needs the standard library only, so that `--help` answers at once.
"""

import argparse
import dataclasses
import inspect
from dataclasses import dataclass
from typing import ClassVar

from utils.command_line import (
    data_fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    seed_number,
)
from utils.errors import InputError

SCHEDULES = "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt".split()


def flag(default, text: str, *other_names: str, **options):
    """A dataclass field that is a flag. text: its help; other_names: further spellings; options: of add_argument."""
    return dataclasses.field(default=default, metadata={"help": text, "names": other_names, "options": options})


def add_flags(parser: argparse.ArgumentParser, settings: type, *, required: tuple[str, ...] = (), **defaults) -> None:
    """Put every field of `settings` and of the settings classes it is made of on the parser, one titled group a class.

    required: names of flags that must be given; defaults: other defaults than the fields have, by name.
    """
    for part in reversed(settings.__mro__):
        own = [field for field in dataclasses.fields(settings) if field.name in inspect.get_annotations(part)]
        if not own:
            continue
        group = parser.add_argument_group(part.title)
        for field in own:
            names = [f"--{name}" for name in (field.name, *field.metadata["names"])]
            default = defaults.get(field.name, field.default)
            options = {"help": field.metadata["help"], "default": default, **field.metadata["options"]}
            if field.default is False:
                options["action"] = "store_true"
            group.add_argument(*names, required=field.name in required, **options)


def settings_from(settings: type, args: argparse.Namespace):
    """The settings that these parsed arguments ask for."""
    return settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(settings)})


def words_of(settings, *parts: type, leave_out: tuple[str, ...] = ()) -> list[str]:
    """The command-line words that give another script the same settings: of the fields that the settings classes `parts`
    declare themselves, those that differ from their defaults."""
    words = []
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(settings, field.name)
            own = field.name in inspect.get_annotations(part) and field.name not in leave_out
            if own and value is not None and value != field.default:
                words += [f"--{field.name}"] if value is True else [f"--{field.name}", str(value)]
    return words


@dataclass(frozen=True)
class ModelSettings:
    """Which checkpoint, which tokenizer, and what its outputs mean."""

    title: ClassVar[str] = "model"
    model_name_or_path: str | None = flag(None, "checkpoint folder or hub name, for example albert-base-v1")
    config_name: str | None = flag(
        None, "folder or hub name of a config: without --model_name_or_path, train a model with random weights"
    )
    tokenizer_name: str | None = flag(None, "folder or hub name of the tokenizer, where it is not the model's")
    cache_dir: str | None = flag(
        None,
        "where hub files and tokenised data are cached (default: the libraries' own, and "
        "~/.cache/transformers-importance-sampling)",
    )
    model_revision: str = flag("main", "branch, tag or commit on the hub")
    label_order: str | None = flag(
        None,
        "what the outputs mean of a checkpoint that only says LABEL_0, LABEL_1, ...: names by output number, for example "
        "contradiction,entailment,neutral; auto: the order that labelled dev data shows",
        metavar="NAMES|auto",
    )


@dataclass(frozen=True)
class DeviceSettings:
    """Where and in which precision a model runs."""

    title: ClassVar[str] = "precision and device"
    fp16: bool = flag(False, "mixed precision with float16 (CUDA; elsewhere a warning and float32)")
    bf16: bool = flag(
        False, "mixed precision with bfloat16 (CUDA, CPUs with AVX512-BF16 or AMX; elsewhere a warning and float32)"
    )
    use_cpu: bool = flag(False, "stay on the CPU though there is a GPU", "no_cuda")
    tokens_per_micro_batch: int | None = flag(
        None, "tokens, padding included, in one forward pass (default: from the memory at hand)", type=positive_int
    )
    per_device_eval_batch_size: int = flag(
        8,
        "accepted for compatibility: evaluation batches are sized by tokens, and results do not depend on them",
        "per_gpu_eval_batch_size",
        type=positive_int,
    )


@dataclass(frozen=True)
class DataSettings:
    """Which data, and how it becomes tokens."""

    title: ClassVar[str] = "data"
    task_name: str | None = flag(None, "a GLUE task in any letter case: cola sst-2 mrpc sts-b qqp mnli qnli rte wnli")
    data_dir: str | None = flag(None, "folder with the task's TSV files (default: nyu-mll/glue from the hub)")
    max_seq_length: int = flag(128, "tokens per pair; longer ones are truncated", "max_seq_len", type=positive_int)
    overwrite_cache: bool = flag(False, "tokenise again although the cache has it")


@dataclass(frozen=True)
class InferenceSettings(DeviceSettings, DataSettings, ModelSettings):
    """What every script needs that runs a model over text."""

    title: ClassVar[str] = ""


@dataclass(frozen=True)
class StageSettings:
    """What a training script is to do, and on which rows."""

    title: ClassVar[str] = "what to do"
    do_train: bool = flag(False, "fine-tune on the train split")
    do_eval: bool = flag(False, "evaluate on every dev split")
    do_predict: bool = flag(False, "write the test predictions that the GLUE server takes")
    dry_run: bool = flag(False, "run two batches of everything in a scratch folder, then stop")
    max_train_samples: int | None = flag(
        None, "train on a seeded random sample of this many examples", type=positive_int
    )
    max_eval_samples: int | None = flag(
        None, "evaluate on a seeded random sample of this many examples of each dev split", type=positive_int
    )
    selection: str | None = flag(None, "train on the rows and weights of this selection.npz", metavar="FILE")


@dataclass(frozen=True)
class TrainingSettings(DeviceSettings):
    """How a model is trained. The defaults are those of the Hugging Face scripts."""

    title: ClassVar[str] = "training"
    per_device_train_batch_size: int = flag(
        8,
        "examples per process and step (memory decides the size of micro-batches, not this)",
        "per_gpu_train_batch_size",
        type=positive_int,
    )
    gradient_accumulation_steps: int = flag(1, "multiplies the batch size", type=positive_int)
    learning_rate: float = flag(5e-5, "peak learning rate of AdamW", type=non_negative_float)
    num_train_epochs: float = flag(3.0, "passes over the training examples", type=positive_float)
    max_steps: int | None = flag(None, "optimizer steps, instead of --num_train_epochs", type=positive_int)
    weight_decay: float = flag(0.0, "AdamW; not applied to biases and normalisation layers", type=non_negative_float)
    adam_beta1: float = flag(0.9, "AdamW", type=non_negative_float)
    adam_beta2: float = flag(0.999, "AdamW", type=non_negative_float)
    adam_epsilon: float = flag(1e-8, "AdamW", type=positive_float)
    max_grad_norm: float = flag(1.0, "largest norm of the gradient; 0 turns clipping off", type=non_negative_float)
    lr_scheduler_type: str = flag("linear", "learning rate after the warm-up", choices=SCHEDULES)
    warmup_steps: int = flag(0, "steps of linear warm-up", type=non_negative_int)
    warmup_ratio: float = flag(
        0.0, "warm-up as a share of all steps, where --warmup_steps is 0", type=non_negative_float
    )
    gradient_checkpointing: bool = flag(False, "less memory, a third more time")
    freeze_layers: int = flag(
        0, "keep the embeddings and the lowest N layers as they are", type=non_negative_int, metavar="N"
    )
    cache_frozen: bool = flag(
        False, "with --freeze_layers: compute the frozen layers once, without dropout, and keep their outputs on disk"
    )
    torch_compile: bool = flag(False, "compile the model (pays on GPUs and in long runs)")
    seed: int = flag(42, "initial weights, dropout and batch order", type=seed_number)
    selection_seed: int | None = flag(None, "which examples are drawn (default: --seed)", type=seed_number)
    logging_steps: int = flag(50, "steps between lines of log.jsonl", type=positive_int)
    save_steps: int = flag(
        500, "steps between checkpoints (one is written at the end of each epoch as well)", type=positive_int
    )
    save_total_limit: int = flag(2, "checkpoints kept while running", type=positive_int)

    @property
    def drawing_seed(self) -> int:
        """The seed that decides which examples are drawn: --selection_seed, or else --seed."""
        return self.seed if self.selection_seed is None else self.selection_seed

    @property
    def examples_per_step(self) -> int:
        """Examples that one process contributes to an optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True)
class DynamicsSettings:
    """Whether and when training dynamics are recorded."""

    title: ClassVar[str] = "training dynamics"
    record_dynamics: bool = flag(False, "write each example's logits over training to dynamics.npz")
    dynamics_per_epoch: int = flag(
        1, "snapshots per epoch; above 1 each costs a forward pass over the training examples", type=positive_int
    )
    dynamics_eval_mode: bool = flag(False, "record a pass without dropout instead of the training logits")
    dynamics_all_rows: bool = flag(
        False, "record the examples outside the chosen ones too: a forward pass over all of them for each snapshot"
    )


@dataclass(frozen=True)
class OutputSettings:
    """Where results go."""

    title: ClassVar[str] = "output"
    output_dir: str | None = flag(None, "checkpoint, metrics and logs; an unfinished run there is continued")
    overwrite_output_dir: bool = flag(False, "replace a finished or different run")
    eval_steps: int | None = flag(
        None, "evaluate every so many steps, beside the evaluation at the end", type=positive_int
    )
    report_to: str = flag("none", "also log there", choices=("none", "tensorboard", "wandb"))


@dataclass(frozen=True)
class RunSettings(OutputSettings, DynamicsSettings, TrainingSettings, StageSettings, InferenceSettings):
    """Everything that a training script can be told."""

    def check(self) -> None:
        """Raise InputError for combinations of flags that cannot work. Nothing needs to be loaded for that."""
        if self.fp16 and self.bf16:
            raise InputError("--fp16 and --bf16 exclude each other; give one")
        if not (self.do_train or self.do_eval or self.do_predict):
            raise InputError("nothing to do: give at least one of --do_train, --do_eval, --do_predict")
        if not (self.model_name_or_path or self.config_name):
            raise InputError("give --model_name_or_path, or --config_name to start from random weights")
        if self.warmup_ratio > 1:
            raise InputError(
                f"--warmup_ratio {self.warmup_ratio:g} is more than all steps; it is a fraction: 0.1 means 10 %"
            )
        if self.cache_frozen and (not self.freeze_layers or self.gradient_checkpointing or self.torch_compile):
            raise InputError(
                "--cache_frozen needs --freeze_layers 1 or more, without --gradient_checkpointing and --torch_compile"
            )
        for beta in ("adam_beta1", "adam_beta2"):
            if getattr(self, beta) >= 1:
                raise InputError(f"--{beta} {getattr(self, beta):g}: must be below 1")
        for name in ("selection", "max_train_samples", "record_dynamics"):
            if getattr(self, name) and not self.do_train:
                raise InputError(f"--{name} needs --do_train")


def add_run_flags(parser: argparse.ArgumentParser, *, default_task: str | None = None) -> None:
    """All flags of a training script; the task must be named where it has no default."""
    required = ("output_dir",) if default_task else ("output_dir", "task_name")
    add_flags(parser, RunSettings, required=required, task_name=default_task)


def add_data_pct(group) -> None:
    """`--data_pct`, the share of the training set that is used."""
    group.add_argument(
        "--data_pct",
        type=data_fraction,
        required=True,
        metavar="FRACTION",
        help="share of the training set to use; 0.1 means 10 %%",
    )
