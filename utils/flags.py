"""Flags that several scripts share, spelled once, in the Hugging Face spellings (old ones included). Standard library
only, so that `--help` answers at once.
"""

import argparse
from dataclasses import dataclass

from utils.command_line import data_fraction, non_negative_float, non_negative_int, positive_float, positive_int
from utils.errors import InputError

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)


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


def add_model_args(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model_name_or_path", help="checkpoint folder or hub name, for example albert-base-v1")
    group.add_argument(
        "--config_name",
        help="folder or hub name of a config: without --model_name_or_path, train a model with random weights",
    )
    group.add_argument("--tokenizer_name", help="folder or hub name of the tokenizer, where it is not the model's")
    group.add_argument(
        "--cache_dir",
        help="where hub files and tokenised data are cached (default: the libraries' own, and ~/.cache/transformers-importance-sampling)",
    )
    group.add_argument("--model_revision", default="main", help="branch, tag or commit on the hub")
    group.add_argument(
        "--label_order",
        metavar="NAMES|auto",
        help="what the outputs of a checkpoint mean that only says LABEL_0, LABEL_1, ...: names by output number, for "
        "example contradiction,entailment,neutral; auto: the order that labelled dev data shows",
    )
    add_precision_args(group)


def add_precision_args(group) -> None:
    group.add_argument(
        "--fp16", action="store_true", help="mixed precision with float16 (CUDA; elsewhere a warning and float32)"
    )
    group.add_argument(
        "--bf16", action="store_true", help="mixed precision with bfloat16 (CUDA; elsewhere a warning and float32)"
    )
    group.add_argument("--use_cpu", "--no_cuda", action="store_true", help="stay on the CPU though there is a GPU")


def add_data_args(parser: argparse.ArgumentParser, *, default_task: str | None = None) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--task_name",
        required=default_task is None,
        default=default_task,
        help="a GLUE task in any letter case: cola sst-2 mrpc sts-b qqp mnli qnli rte wnli",
    )
    group.add_argument("--data_dir", help="folder with the task's TSV files (default: nyu-mll/glue from the hub)")
    group.add_argument(
        "--max_seq_length",
        "--max_seq_len",
        type=positive_int,
        default=128,
        help="tokens per pair; longer ones are truncated",
    )
    group.add_argument("--overwrite_cache", action="store_true", help="tokenise again although the cache has it")


def add_eval_batch_args(group) -> None:
    group.add_argument(
        "--per_device_eval_batch_size", "--per_gpu_eval_batch_size", type=positive_int, default=8,
        help="accepted for compatibility; batches for evaluation are sized by tokens, results do not depend on them",
    )  # fmt: skip
    group.add_argument(
        "--tokens_per_micro_batch",
        type=positive_int,
        help="tokens, padding included, in one forward pass (default: from the memory at hand)",
    )


def add_training_args(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument("--do_train", action="store_true", help="fine-tune on the train split")
    group.add_argument("--do_eval", action="store_true", help="evaluate on every dev split")
    group.add_argument(
        "--do_predict", action="store_true", help="write the test predictions that the GLUE server takes"
    )
    group.add_argument(
        "--dry_run", action="store_true", help="two batches of everything in a scratch folder, then stop"
    )
    group.add_argument(
        "--max_train_samples", type=positive_int, help="train on a seeded random sample of this many examples"
    )
    group.add_argument(
        "--max_eval_samples",
        type=positive_int,
        help="evaluate on a seeded random sample of this many examples of each dev split",
    )
    group.add_argument("--selection", metavar="FILE", help="train on the rows and weights of this selection.npz")

    group = parser.add_argument_group("training")
    group.add_argument(
        "--per_device_train_batch_size",
        "--per_gpu_train_batch_size",
        type=positive_int,
        default=8,
        help="examples per process and step (memory decides micro-batches, not this)",
    )
    group.add_argument("--gradient_accumulation_steps", type=positive_int, default=1, help="multiplies the batch size")
    group.add_argument("--learning_rate", type=non_negative_float, default=5e-5, help="peak learning rate of AdamW")
    group.add_argument("--num_train_epochs", type=positive_float, default=3.0, help="passes over the training examples")
    group.add_argument("--max_steps", type=positive_int, help="optimizer steps, instead of --num_train_epochs")
    group.add_argument("--weight_decay", type=non_negative_float, default=0.0, help="not applied to biases and norms")
    group.add_argument("--adam_beta1", type=non_negative_float, default=0.9, help="AdamW")
    group.add_argument("--adam_beta2", type=non_negative_float, default=0.999, help="AdamW")
    group.add_argument("--adam_epsilon", type=positive_float, default=1e-8, help="AdamW")
    group.add_argument(
        "--max_grad_norm", type=non_negative_float, default=1.0, help="gradient clipping; 0 turns it off"
    )
    group.add_argument(
        "--lr_scheduler_type", choices=SCHEDULES, default="linear", help="learning rate after the warm-up"
    )
    group.add_argument("--warmup_steps", type=non_negative_int, default=0, help="steps of linear warm-up")
    group.add_argument("--warmup_ratio", type=non_negative_float, default=0.0, help="warm-up as a share of all steps")
    group.add_argument("--gradient_checkpointing", action="store_true", help="less memory, a third more time")
    group.add_argument(
        "--freeze_layers",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="keep the embeddings and the lowest N layers as they are",
    )
    group.add_argument("--torch_compile", action="store_true", help="compile the model (pays on GPUs and long runs)")
    group.add_argument("--seed", type=non_negative_int, default=42, help="initial weights, dropout and batch order")
    group.add_argument("--selection_seed", type=non_negative_int, help="which examples are drawn (default: --seed)")
    add_eval_batch_args(group)

    group = parser.add_argument_group("training dynamics")
    group.add_argument(
        "--record_dynamics", action="store_true", help="write each example's logits over training to dynamics.npz"
    )
    group.add_argument(
        "--dynamics_per_epoch",
        type=positive_int,
        default=1,
        help="snapshots per epoch; above 1 each costs a forward pass over the training examples",
    )
    group.add_argument(
        "--dynamics_eval_mode", action="store_true", help="record a pass without dropout instead of the training logits"
    )

    group = parser.add_argument_group("output")
    group.add_argument(
        "--output_dir", required=True, help="checkpoint, metrics and logs; an unfinished run there is continued"
    )
    group.add_argument("--overwrite_output_dir", action="store_true", help="replace a finished or different run")
    group.add_argument("--logging_steps", type=positive_int, default=50, help="steps between lines of log.jsonl")
    group.add_argument(
        "--eval_steps", type=positive_int, help="evaluate every so many steps, beside the evaluation at the end"
    )
    group.add_argument(
        "--save_steps",
        type=positive_int,
        default=500,
        help="steps between checkpoints (one is written at each epoch as well)",
    )
    group.add_argument("--save_total_limit", type=positive_int, default=2, help="checkpoints kept while running")
    group.add_argument("--report_to", choices=("none", "tensorboard", "wandb"), default="none", help="also log there")


def add_data_pct(group) -> None:
    group.add_argument(
        "--data_pct",
        type=data_fraction,
        required=True,
        metavar="FRACTION",
        help="share of the training set to use; 0.1 means 10 %%",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse combinations of flags that cannot work, before anything is loaded."""
    if args.fp16 and args.bf16:
        raise InputError("--fp16 and --bf16 exclude each other; give one")
    if not (args.do_train or args.do_eval or args.do_predict):
        raise InputError("nothing to do: give at least one of --do_train, --do_eval, --do_predict")
    if not (args.model_name_or_path or args.config_name):
        raise InputError("give --model_name_or_path, or --config_name to start from random weights")
    if args.warmup_ratio > 1:
        raise InputError(
            f"--warmup_ratio {args.warmup_ratio:g} is more than all steps; it is a fraction: 0.1 means 10 %"
        )
    for beta in ("adam_beta1", "adam_beta2"):
        if getattr(args, beta) >= 1:
            raise InputError(f"--{beta} {getattr(args, beta):g}: must be below 1")
    for flag in ("selection", "max_train_samples", "record_dynamics"):
        if getattr(args, flag) and not args.do_train:
            raise InputError(f"--{flag} needs --do_train")
