"""The command line: a parser with one-line errors, types of flag values, logging."""

import argparse
import logging
import sys

from utils.errors import EXIT_BAD_INPUT, InputError
from utils.files import read_json


def setup_logging(*, main_process: bool = True) -> None:
    """Log to stderr; only warnings from processes other than the first, and from noisy libraries."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if main_process else logging.ERROR,
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("transformers", "datasets", "accelerate", "matplotlib", "fsspec", "urllib3", "filelock", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def parse_args(parser: argparse.ArgumentParser, argv=None) -> argparse.Namespace:
    """Parse the command line, or the one JSON file that stands in for it, as in the Hugging Face scripts."""
    return parser.parse_args(command_line(parser, argv))


def command_line(parser: argparse.ArgumentParser, argv=None) -> list[str]:
    """The words of the command line; of the JSON file, where one is all there is.

    In the file `true` sets a flag, `false` and `null` leave it alone, a list gives several values.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if len(argv) != 1 or not argv[0].endswith(".json"):
        return argv
    try:
        options = read_json(argv[0])
    except InputError as error:
        parser.error(str(error))
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.extend(str(item) for item in (value if isinstance(value, list) else [value]))
    return words


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations (a mistyped flag is an error, not a guess) and with errors on one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """The arguments. An empty value, as of a shell variable that is not set, is an error: never the current folder."""
        parsed = super().parse_args(args, namespace)
        for name, value in vars(parsed).items():
            given = value if isinstance(value, list) else [value]
            if value != self.get_default(name) and (not given or "" in given):  # --name=-- gives an empty list
                self.error(f"--{name} is empty; is a variable of the shell not set?")
        return parsed

    def error(self, message):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Docstrings as written, defaults where there is one to show."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False) else super()._get_help_string(action)


# Larger numbers are typing errors, and overflow somewhere deep inside a library.
MOST = 10**15
MOST_SEED = 2**32 - 1  # what numpy's and scikit-learn's generators take


def positive_int(text: str) -> int:
    return _within(text, int, 1, MOST)


def non_negative_int(text: str) -> int:
    return _within(text, int, 0, MOST)


def seed_number(text: str) -> int:
    return _within(text, int, 0, MOST_SEED)


def positive_float(text: str) -> float:
    value = non_negative_float(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def non_negative_float(text: str) -> float:
    return _within(text, float, 0, MOST)


def _within(text: str, kind: type, low: int, high: int):
    value = _number(text, kind)
    if not low <= value <= high:
        whole = "whole " if kind is int else ""
        raise argparse.ArgumentTypeError(f"{text} is not a {whole}number from {low} to {high:g}")
    return value


def shard(text: str) -> tuple[int, int]:
    """I/K: the I-th of K parts."""
    i, _, k = text.partition("/")
    if not (i.isdigit() and k.isdigit() and 1 <= int(i) <= int(k)):
        raise ValueError
    return int(i), int(k)


def data_fraction(text: str) -> float:
    """A share of the data in (0, 1]. 10 is refused rather than guessed at."""
    value = _number(text, float)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than everything; it is a fraction: 0.1 means 10 %")
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} selects nothing; it is a fraction above 0: 0.1 means 10 %")
    return value


def _number(text, kind):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
