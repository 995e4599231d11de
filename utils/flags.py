"""Flags that several scripts share. The spellings are those of the Hugging Face scripts, the old ones included. This
module needs the standard library only, so that `--help` answers at once.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from utils.command_line import (
    ArgumentParser,
    data_fraction,
    is_true,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    seed_number,
    steps_or_all,
    steps_or_share,
)
from utils.errors import InputError
from utils.moments import MomentSettings
from utils.settings import InEnvironment, add_flags, add_no_ops, flag

OBJECTIVES = ("erm", "poe", "learned_mixin", "conf_reg", "group_dro")
# Which objectives read these flags of ObjectiveSettings.
OBJECTIVE_FLAGS = {
    "bias_path": ("poe", "learned_mixin", "conf_reg"),
    "bias": ("poe", "learned_mixin", "conf_reg"),
    "teacher_path": ("conf_reg",),
    "mixin_penalty": ("learned_mixin",),
    "group_column": ("group_dro", "dfr"),
    "dro_step_size": ("group_dro",),
}
SCHEDULES = "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt".split()
OPTIMIZERS = (
    "adamw adamw_torch adamw_torch_fused adam adamax nadam radam adagrad adadelta adafactor sgd rmsprop".split()
)
TRACKERS = ("tensorboard", "wandb")


def name_data(args: argparse.Namespace, default_task: str | None = None) -> None:
    """Set the default task where the flags of SourceSettings name no data set. Raises InputError where they name several,
    or none and there is no default, or where one of them would be ignored."""
    files = next((name for name in ("train_file", "validation_file", "test_file") if getattr(args, name)), None)
    named = [name for name in ("task_name", files, "dataset_name") if name and getattr(args, name)]
    if len(named) > 1:
        raise InputError(f"--{named[0]} and --{named[1]} name two data sets; give one of them")
    if args.data_dir and named not in ([], ["task_name"]):
        raise InputError(f"--data_dir is the folder of a --task_name; it does not go with --{named[0]}")
    if not named:
        if default_task is None:
            raise InputError("give the data: --task_name, --train_file and --validation_file, or --dataset_name")
        args.task_name = default_task
    of_record = [name for name in ("text_columns", "label_column", "do_regression") if getattr(args, name)]
    if args.task_name and of_record:
        raise InputError(
            f"--{of_record[0]} does not go with --task_name {args.task_name}, whose record says it; leave it out"
        )
    if args.dataset_config_name and (not args.dataset_name or Path(args.dataset_name).is_dir()):
        raise InputError("--dataset_config_name is for a --dataset_name of the hub; leave it out")


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
    trust_remote_code: bool = flag(False, "run the Python code that comes with a checkpoint")
    token: str | None = flag(
        None,
        "access token of the hub (or the variable HF_TOKEN, which no other user of the machine can see)",
        "use_auth_token",
        action=InEnvironment,
        variable="HF_TOKEN",
    )
    label_order: str | None = flag(
        None,
        "what the outputs mean of a checkpoint that only says LABEL_0, LABEL_1, ...: names by output number, for example "
        "contradiction,entailment,neutral; auto (run_glue.py, test_hans.py): the order that labelled dev data shows",
        metavar="NAMES|auto",
    )


@dataclass(frozen=True)
class DeviceSettings:
    """Where and in which precision a model runs."""

    title: ClassVar[str] = "precision and device"
    folded: ClassVar[bool] = True
    fp16: bool = flag(False, "mixed precision with float16 (CUDA; elsewhere a warning and float32)")
    bf16: bool = flag(
        False, "mixed precision with bfloat16 (CUDA, CPUs with AVX512-BF16 or AMX; elsewhere a warning and float32)"
    )
    tf32: bool | None = flag(
        None, "TF32 for float32 products on a GPU (default: as torch does)", nargs="?", const=True, type=is_true
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


# Where data lies: not what it is. Runs on the same rows are the same run, wherever those lie.
PLACES = ("data_dir", "train_file", "validation_file", "test_file", "dataset_name", "challenge")


@dataclass(frozen=True)
class SourceSettings:
    """Which data: a task with a record, files of one's own, or a data set of the hub or of `save_to_disk`."""

    title: ClassVar[str] = "data (docs/own_data.md)"
    task_name: str | None = flag(
        None,
        "in any letter case: cola sst-2 mrpc sts-b qqp mnli qnli rte wnli snli anli-r1 anli-r2 anli-r3 wanli fever-nli paws",
    )
    data_dir: str | None = flag(None, "folder with the task's files (default: from the hub)")
    train_file: str | None = flag(None, "training data of your own: .csv, .tsv, .jsonl or .parquet", metavar="FILE")
    validation_file: list[str] | None = flag(
        None, "data to evaluate on; of several, name=path each", nargs="+", metavar="FILE"
    )
    test_file: str | None = flag(None, "data to predict; its labels are not read", metavar="FILE")
    dataset_name: str | None = flag(None, "a data set of the hub, or a folder of save_to_disk", metavar="NAME")
    dataset_config_name: str | None = flag(None, "its configuration on the hub", metavar="NAME")
    text_columns: list[str] | None = flag(
        None,
        "columns of the text, or of premise and hypothesis (default: guessed where the names are usual ones)",
        "text_column",
        nargs="+",
        metavar="NAME",
    )
    label_column: str | None = flag(None, "column of the gold label (default: guessed)", metavar="NAME")
    do_regression: bool = flag(False, "labels are scores, whole numbers too")


@dataclass(frozen=True)
class DataSettings:
    """How text becomes tokens."""

    title: ClassVar[str] = "tokens"
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
    do_predict: bool = flag(False, "write the predictions of the test splits")
    dry_run: bool = flag(False, "run two batches of everything in a scratch folder, then stop")
    max_train_samples: int | None = flag(
        None,
        "train on a seeded random sample of this many examples (the Hugging Face scripts take the first ones)",
        type=positive_int,
    )
    max_eval_samples: int | None = flag(
        None, "evaluate on a seeded random sample of this many examples of each dev split", type=positive_int
    )
    max_predict_samples: int | None = flag(None, "predict the first so many test examples", type=positive_int)
    selection: str | None = flag(None, "train on the rows and weights of this selection.npz", metavar="FILE")
    challenge: list[str] | None = flag(
        None,
        "labelled files with a column `group` to evaluate on as well, name=path each: accuracy by group",
        nargs="+",
        metavar="FILE",
    )


@dataclass(frozen=True)
class TrainingSettings(MomentSettings, DeviceSettings):
    """How a model is trained. The defaults are those of the Hugging Face scripts."""

    title: ClassVar[str] = "training"
    folded: ClassVar[bool] = True
    per_device_train_batch_size: int = flag(
        8,
        "examples per process and step (memory decides the size of micro-batches, not this)",
        "per_gpu_train_batch_size",
        type=positive_int,
    )
    gradient_accumulation_steps: int = flag(1, "multiplies the batch size", type=positive_int)
    learning_rate: float = flag(5e-5, "peak learning rate", type=non_negative_float)
    num_train_epochs: float = flag(3.0, "passes over the training examples", type=positive_float)
    max_steps: int | None = flag(
        None, "optimizer steps, instead of --num_train_epochs; -1: not given", type=steps_or_all
    )
    optim: str = flag(
        "adamw",
        "adamw and adamw_torch_fused: AdamW in one pass over memory; the others are torch.optim's, with its defaults "
        "(adafactor scales its steps by the size of the weights, which transformers' own does not)",
        choices=OPTIMIZERS,
    )
    label_smoothing_factor: float = flag(
        0.0,
        "share of the target that is spread over all classes; eval_loss stays the plain one",
        type=non_negative_float,
    )
    weight_decay: float = flag(0.0, "not applied to biases and normalisation layers", type=non_negative_float)
    adam_beta1: float = flag(0.9, "Adam and its relatives", type=non_negative_float)
    adam_beta2: float = flag(0.999, "Adam and its relatives", type=non_negative_float)
    adam_epsilon: float = flag(1e-8, "Adam and its relatives", type=positive_float)
    max_grad_norm: float = flag(1.0, "largest norm of the gradient; 0 turns clipping off", type=non_negative_float)
    lr_scheduler_type: str = flag("linear", "learning rate after the warm-up", choices=SCHEDULES)
    warmup_steps: float = flag(0, "steps of linear warm-up; below 1, a share of all steps", type=steps_or_share)
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
    data_seed: int | None = flag(None, "batch order (default: --seed)", type=seed_number)
    selection_seed: int | None = flag(None, "which examples are drawn (default: --seed)", type=seed_number)

    @property
    def drawing_seed(self) -> int:
        """The seed that decides which examples are drawn: --selection_seed, or else --seed."""
        return self.seed if self.selection_seed is None else self.selection_seed

    @property
    def batch_seed(self) -> int:
        """The seed that decides the order of the batches: --data_seed, or else --seed."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def examples_per_step(self) -> int:
        """Examples that one process contributes to an optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


@dataclass(frozen=True)
class ObjectiveSettings:
    """What the training minimises, and what it is told of a shortcut."""

    title: ClassVar[str] = "objective (docs/objectives.md)"
    objective: str = flag(
        "erm",
        "erm: the plain loss; poe, learned_mixin, conf_reg: with a bias model; group_dro: the worst group counts most",
        choices=OBJECTIVES,
    )
    dfr: bool = flag(False, "instead of training, fit the checkpoint's last layer again, to groups of equal size")
    bias_path: str | None = flag(
        None, "p_bias of a bias model, an .npz (default: a bias model is made, cross-fitted)", metavar="FILE"
    )
    bias: str = flag(
        "overlap",
        "what the bias model sees that is made: the word overlap, or the words of the hypothesis",
        choices=("overlap", "hypothesis"),
    )
    teacher_path: str | None = flag(
        None, "conf_reg: logits of the teacher on the training examples (default: it is trained first)", metavar="FILE"
    )
    mixin_penalty: float = flag(0.03, "learned_mixin: weight of the entropy penalty", type=non_negative_float)
    group_column: str | None = flag(
        None,
        "group_dro, dfr: the column of the training file that names each example's group (default: the label and whether all words "
        "of the hypothesis are in the premise)",
        metavar="NAME",
    )
    dro_step_size: float = flag(0.01, "group_dro: step size of the groups' weights", type=non_negative_float)

    @property
    def objective_name(self) -> str:
        """The objective, or dfr."""
        return "dfr" if self.dfr else self.objective


@dataclass(frozen=True)
class DynamicsSettings:
    """Whether and when training dynamics are recorded."""

    title: ClassVar[str] = "training dynamics"
    folded: ClassVar[bool] = True
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


@dataclass(frozen=True)
class TrackerSettings:
    """Which experiment trackers hear of the run, and what the terminal shows."""

    title: ClassVar[str] = "trackers and terminal"
    folded: ClassVar[bool] = True
    report_to: tuple[str, ...] = flag(
        ("none",),
        "send configuration, training, evaluations and the results there: tensorboard, wandb, several, or all that are "
        "installed",
        nargs="+",
        choices=("none", "all", *TRACKERS),
        metavar="TRACKER",
    )
    run_name: str | None = flag(None, "name of the run there (default: the end of the path of --output_dir)")
    project: str | None = flag(None, "W&B project (default: WANDB_PROJECT, or transformers-importance-sampling)")
    logging_dir: str | None = flag(None, "folder of the TensorBoard files (default: <output_dir>/tensorboard)")
    disable_tqdm: bool = flag(
        False,
        "draw no progress bars",
        action=InEnvironment,
        variable="TQDM_DISABLE",
        nargs="?",
        const=True,
        type=is_true,
    )


@dataclass(frozen=True)
class RunSettings(
    TrackerSettings,
    OutputSettings,
    DynamicsSettings,
    ObjectiveSettings,
    TrainingSettings,
    StageSettings,
    SourceSettings,
    InferenceSettings,
):  # fmt: skip
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
        if self.label_smoothing_factor >= 1:
            raise InputError(f"--label_smoothing_factor {self.label_smoothing_factor:g}: must be below 1")
        self.check_moments()
        if self.early_stopping_patience and self.record_dynamics:
            raise InputError("--record_dynamics records all planned epochs: leave out --early_stopping_patience")
        if self.cache_frozen and (not self.freeze_layers or self.gradient_checkpointing or self.torch_compile):
            raise InputError(
                "--cache_frozen needs --freeze_layers 1 or more, without --gradient_checkpointing and --torch_compile"
            )
        for beta in ("adam_beta1", "adam_beta2"):
            if getattr(self, beta) >= 1:
                raise InputError(f"--{beta} {getattr(self, beta):g}: must be below 1")
        for name in ("selection", "max_train_samples", "record_dynamics", "dfr"):
            if getattr(self, name) and not self.do_train:
                raise InputError(f"--{name} needs --do_train")
        for name in ("dynamics_per_epoch", "dynamics_eval_mode", "dynamics_all_rows"):
            if getattr(self, name) != getattr(DynamicsSettings, name) and not self.record_dynamics:
                raise InputError(f"--{name} needs --record_dynamics")
        if self.challenge and not self.do_eval:
            raise InputError("--challenge needs --do_eval")
        self._check_objective()

    def _check_objective(self) -> None:
        if self.dfr and (self.objective != "erm" or self.record_dynamics):
            raise InputError("--dfr trains nothing but the last layer: leave out --objective and --record_dynamics")
        if self.label_smoothing_factor and self.objective not in ("erm", "group_dro"):
            raise InputError(f"--label_smoothing_factor does not go with --objective {self.objective}; leave one out")
        if self.dfr and not self.model_name_or_path:
            raise InputError("--dfr needs --model_name_or_path, a fine-tuned checkpoint")
        for name, objectives in OBJECTIVE_FLAGS.items():
            given = getattr(self, name) != getattr(ObjectiveSettings, name)
            if given and self.objective_name not in objectives:
                raise InputError(f"--{name} is for {', '.join(objectives)}, not for {self.objective_name}")
        if self.bias_path and self.bias != ObjectiveSettings.bias:
            raise InputError(f"--bias {self.bias} is for a bias model that is made; leave it out, or --bias_path")
        if self.dry_run and self.objective == "conf_reg" and not self.teacher_path:
            raise InputError("--dry_run: the teacher of conf_reg would have to be trained first; give --teacher_path")


def add_run_flags(parser: ArgumentParser, *, fold: bool = False) -> None:
    """All flags of a training script. fold: as for add_flags."""
    add_flags(parser, RunSettings, required=("output_dir",), fold=fold)
    add_no_ops(parser)


def add_data_pct(group) -> None:
    """`--data_pct`, the share of the training set that is used."""
    group.add_argument(
        "--data_pct",
        type=data_fraction,
        required=True,
        metavar="FRACTION",
        help="share of the training set to use; 0.1 means 10 %%",
    )
