"""Settings classes: dataclasses whose fields are flags. A field holds the default and the help of its flag, once.

`add_flags` puts the fields of a settings class on a parser, `settings_from` reads them back. Libraries are handed the
settings, never the parsed arguments. The classes themselves stand in `flags.py` and beside the code that reads them.
"""

import argparse
import dataclasses
import inspect
import os
import sys

from utils.command_line import ArgumentParser


def flag(default, text: str, *other_names: str, **options):
    """A dataclass field that is a flag. text: its help; other_names: further spellings; options: of add_argument."""
    return dataclasses.field(default=default, metadata={"help": text, "names": other_names, "options": options})


def add_flags(
    parser: ArgumentParser, settings: type, *, required: tuple[str, ...] = (), fold: bool = False, **defaults
) -> None:
    """Put every field of `settings` and of the settings classes it is made of on the parser, one titled group a class.

    required: names of flags that must be given; fold: `--help` names the flags of all these groups without explaining
    them (those of a class with `folded = True` anyway); defaults: other defaults than the fields have, by name.
    """
    for part in reversed(settings.__mro__):
        own = [field for field in dataclasses.fields(settings) if field.name in inspect.get_annotations(part)]
        if not own:
            continue
        group = parser.add_argument_group(part.title)
        if fold or getattr(part, "folded", False):
            parser.fold(group)
        for field in own:
            names = [f"--{name}" for name in (field.name, *field.metadata["names"])]
            default = defaults.get(field.name, field.default)
            options = {"help": field.metadata["help"], "default": default, **field.metadata["options"]}
            if field.default is False:
                options.setdefault("action", "store_true")
            group.add_argument(*names, required=field.name in required, **options)


def settings_from(settings: type, args: argparse.Namespace):
    """The settings that these parsed arguments ask for."""
    return settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(settings)})


def words_of(settings, *parts: type, leave_out: tuple[str, ...] = (), only: tuple[str, ...] | None = None) -> list[str]:
    """The command-line words that give another script the same settings: of the fields that the settings classes `parts`
    declare themselves, those that differ from their defaults. leave_out, only: names of fields."""
    words = []
    for part in parts:
        for field in dataclasses.fields(part):
            value = getattr(settings, field.name)
            own = field.name in inspect.get_annotations(part) and field.name not in leave_out
            own = own and (only is None or field.name in only)
            if own and value is not None and value != field.default:
                several = value if isinstance(value, list | tuple) else [] if value is True else [value]
                words += [f"--{field.name}", *map(str, several)]
    return words


# Flags of the Hugging Face scripts on which nothing depends here, by the reason.
NO_OPS = {
    "batches are made in memory, without loader processes": (
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    ),
    "sequences are sorted by length or packed, and results do not depend on padding": (
        "pad_to_max_length", "group_by_length", "length_column_name", "train_sampling_strategy",
    ),
    "evaluation passes are sized by memory": ("eval_accumulation_steps", "auto_find_batch_size"),
    "evaluation runs in the precision of the training": ("fp16_full_eval", "bf16_full_eval"),
    "there is one mixed precision, torch's": ("fp16_backend", "half_precision_backend", "fp16_opt_level"),
    "the tokenizer is fast where it can be, and uses all cores": ("use_fast_tokenizer", "preprocessing_num_workers"),
    "the letter case is the tokenizer's own": ("do_lower_case",),
    "columns are found by their names": ("remove_unused_columns",),
    "the launcher decides": ("local_rank", "ddp_find_unused_parameters", "ddp_timeout"),
    "weights are always safetensors": ("save_safetensors",),
    "every run depends on its seeds alone": ("full_determinism",),
    "a NaN loss always stops the run": ("logging_nan_inf_filter",),
    "the log has one level": ("log_level", "log_level_replica"),
    "time is measured, memory is not": ("skip_memory_metrics",),
    "an unfinished run in --output_dir is always continued": ("resume_from_checkpoint",),
    "a classifier of another number of classes is always replaced, with a warning; other weights must fit": (
        "ignore_mismatched_sizes",
    ),
}  # fmt: skip


def add_no_ops(parser: ArgumentParser) -> None:
    """Accept NO_OPS, each with one line on stderr that says why it does nothing. They leave no trace in the arguments."""
    names = [f"--{name}" for group in NO_OPS.values() for name in group]
    group = parser.add_argument_group("accepted, but nothing depends on them", " ".join(names))
    parser.fold(group)
    for reason, own in NO_OPS.items():
        for name in own:
            group.add_argument(
                f"--{name}", nargs="?", action=_NoOp, reason=reason, default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )


class _NoOp(argparse.Action):
    def __init__(self, *args, reason: str, **options):
        super().__init__(*args, **options)
        self.reason = reason

    def __call__(self, parser, namespace, values, option_string=None):
        if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks
            print(f"{parser.prog}: note: {option_string} does nothing here: {self.reason}", file=sys.stderr)


class InEnvironment(argparse.Action):
    """A flag that sets an environment variable and leaves no trace in the arguments: child processes inherit it, and no
    file records it."""

    def __init__(self, *args, variable: str, **options):
        super().__init__(*args, **options)
        self.variable = variable

    def __call__(self, parser, namespace, values, option_string=None):
        if values is not False:
            os.environ[self.variable] = "1" if values is True else values
