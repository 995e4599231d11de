"""The command line: a parser with one-line errors, types of flag values, logging."""

import argparse
import logging
import os
import sys
import textwrap

from utils.errors import EXIT_BAD_INPUT, InputError
from utils.files import read_json


def setup_logging(*, main_process: bool = True) -> None:
    """Log to stderr; only warnings from processes other than the first, and from noisy libraries."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO if main_process else logging.ERROR,
        handlers=[_BesideBars(sys.stderr)],
        force=True,
    )
    for noisy in ("transformers", "datasets", "accelerate", "matplotlib", "fsspec", "urllib3", "filelock", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class _BesideBars(logging.StreamHandler):
    """Log lines above the progress bars: the bars are cleared for a line and drawn again below it."""

    def emit(self, record):
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def bars_wanted() -> bool:
    """Whether to draw progress bars: on a terminal, unless --disable_tqdm (or TQDM_DISABLE) says otherwise."""
    return sys.stderr.isatty() and not is_true(os.environ.get("TQDM_DISABLE", "0"))


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


# Values of a boolean flag, as the Hugging Face scripts take them.
TRUE, FALSE = frozenset("true t yes y 1".split()), frozenset("false f no n 0".split())


def is_true(text: str) -> bool:
    """Type of a boolean flag's value. Raises ArgumentTypeError for other words."""
    if text.lower() not in TRUE | FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() in TRUE


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations (a mistyped flag is an error, not a guess), with errors on one line, with values for
    boolean flags (`--fp16 True`), and with groups of flags that `--help` only names and `--help_all` explains."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)
        self._folded = []

    def fold(self, group) -> None:
        """Let `--help` name the flags of this group at its end, without explaining them."""
        if not self._folded:
            self.add_argument("--help_all", action=_HelpAll, help="explain all flags")
        self._folded.append(group)

    def format_help(self) -> str:
        """The help; without --help_all a short usage line, and the folded groups last."""
        if not self._folded:
            return super().format_help()
        needed = [
            f"{action.option_strings[0]} {action.metavar or action.dest.upper()}"
            for action in self._actions
            if action.required
        ]
        shared = ["shared with other scripts; --help_all explains them:"]
        for group in self._folded:
            names = " ".join(action.option_strings[0] for action in group._group_actions)
            shared.append(
                textwrap.fill(
                    f"{group.title}: {group.description or names}",
                    100,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_on_hyphens=False,
                )
            )
        before = self._action_groups, self.usage, self.epilog
        self._action_groups = [group for group in self._action_groups if group not in self._folded]
        self.usage, self.epilog = " ".join(["%(prog)s", *needed, "[flags]"]), "\n".join(shared)
        try:
            return super().format_help()
        finally:
            self._action_groups, self.usage, self.epilog = before

    def parse_args(self, args=None, namespace=None):
        """The arguments. An empty value, as of a shell variable that is not set, is an error: never the current folder."""
        parsed = super().parse_args(self._switched(sys.argv[1:] if args is None else args), namespace)
        for name, value in vars(parsed).items():
            given = value if isinstance(value, list) else [value]
            if value != self.get_default(name) and (not given or "" in given):  # --name=-- gives an empty list
                self.error(f"--{name} is empty; is a variable of the shell not set?")
        return parsed

    def _switched(self, words) -> list[str]:
        """The words with `--flag True` as `--flag` and without `--flag False`, for flags that take no value."""
        kept: list[str] = []
        for word in words:
            name, equals, value = word.partition("=")
            if not equals and kept:
                name, value = kept[-1], word
            action = self._option_string_actions.get(name)
            if not (isinstance(action, argparse._StoreTrueAction) and value.lower() in TRUE | FALSE):
                kept.append(word)
                continue
            kept = [
                other for other in kept if self._option_string_actions.get(other) is not action
            ]  # the last one counts
            if is_true(value):
                kept.append(name)
        return kept

    def error(self, message):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")


class _HelpAll(argparse.Action):
    def __init__(self, *args, **options):
        super().__init__(*args, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser, *_):
        parser._folded = []
        parser.print_help()
        parser.exit()


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


def steps_or_all(text: str) -> int | None:
    """A number of steps; -1, as in the Hugging Face scripts, for none given."""
    return None if text.strip() == "-1" else positive_int(text)


def steps_or_share(text: str) -> float:
    """A whole number of steps, or a share of all steps below 1."""
    value = non_negative_float(text)
    if value >= 1 and value % 1:
        raise argparse.ArgumentTypeError(f"{text} is neither a whole number of steps nor a share of them below 1")
    return int(value) if value >= 1 or value == 0 else value


def interval(text: str) -> float:
    """Steps between two of a kind: a whole number, or a share of all steps below 1."""
    return steps_or_share(text) or positive_int(text)


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


def recorded_words(words: list[str]) -> list[str]:
    """A command line as files may keep it: without access tokens."""
    return [
        "***" if i and words[i - 1] == "--token" else "--token=***" if word.startswith("--token=") else word
        for i, word in enumerate(words)
    ]
