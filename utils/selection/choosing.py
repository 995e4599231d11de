"""The flags that say how training examples are chosen, and the one recipe behind them: read the inputs, check them,
choose. `select_examples.py` saves the result, `importance_sampling_mnli.py` trains on it.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass
from typing import ClassVar

from utils.command_line import ArgumentParser, command_line, data_fraction, positive_int, recorded_words
from utils.errors import InputError
from utils.run_directory import code_version
from utils.selection.strategies import get_strategy, load_plugin
from utils.selection.strategies.registry import Parameter, all_parameters
from utils.settings import add_flags, flag, settings_from


@dataclass(frozen=True)
class ChoiceSettings:
    """Which strategy, and how many examples."""

    title: ClassVar[str] = "strategy"
    strategy: str | None = flag(None, "how to choose; select_examples.py --list names them all", metavar="NAME")
    data_pct: float | None = flag(None, "share to choose; 0.1 means 10 %%", type=data_fraction, metavar="FRACTION")
    num_examples: int | None = flag(None, "number to choose, instead of --data_pct", type=positive_int, metavar="M")
    class_balanced: bool = flag(False, "give every gold label its share of the budget")
    start_from: str | None = flag(None, "a selection.npz whose rows come first and count", metavar="SELECTION")


@dataclass(frozen=True)
class KnownFiles:
    """What is known of the examples. Each file is made by another script of this project, but for the user's own scores."""

    title: ClassVar[str] = "what is known of the examples"
    embedding_path: str | None = flag(None, "cls_embeddings_*.npy, or the folder that holds it", metavar="FILE")
    cluster_path: str | None = flag(None, "clusters.npz", metavar="FILE")
    dynamics_path: list[str] | None = flag(
        None, "dynamics.npz; measures are averaged over several runs", metavar="FILE", nargs="+"
    )
    logits_path: str | None = flag(None, "logits_*.npy", metavar="FILE")
    score_path: str | None = flag(
        None,
        "scores of your own (.npy, or .csv or .tsv with a header), one a row, higher = harder; they stand where a score "
        "would be taken from dynamics or logits",
        metavar="FILE",
    )

    def paths(self) -> dict:
        """Flag -> path, or None where the flag was not given."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class InputFiles(KnownFiles):
    """The files that strategies read."""

    title: ClassVar[str] = "further inputs of strategies"
    held_out_path: str | None = flag(
        None, "logits (.npy) of each example by a model that was not trained on it", metavar="FILE"
    )
    target_path: list[str] | None = flag(
        None, "get_embeddings.py folders of the examples that the choice should resemble", metavar="DIR", nargs="+"
    )
    gradient_path: list[str] | None = flag(
        None,
        "tracin: get_embeddings.py --pooling pooler --logits folders of the training examples, one a checkpoint",
        metavar="DIR",
        nargs="+",
    )
    ranking: str | None = flag(
        None, "for --strategy ranking: one row number or pair id a line, best first", metavar="FILE"
    )


@dataclass(frozen=True)
class ChoiceRequest:
    """Everything that the command line says about a choice. parameters: those of the strategy that were given."""

    settings: ChoiceSettings
    files: InputFiles
    parameters: dict[str, object]


def add_choice_flags(parser: ArgumentParser, argv: list[str] | None) -> None:
    """Add the flags of choosing. A --plugin in `argv` (default: the command line) is loaded first, since its strategies
    bring flags of their own. Raises InputError for a plugin that cannot be used."""
    load_plugins(parser, argv)
    add_flags(parser, ChoiceSettings)
    add_plugin_flag(parser)
    add_flags(parser, InputFiles)
    group = parser.add_argument_group("parameters of single strategies (their defaults in brackets)")
    for parameter, readers in all_parameters().values():
        group.add_argument(f"--{parameter.name}", **_options(parameter, readers))


def add_plugin_flag(parser) -> None:
    parser.add_argument("--plugin", metavar="FILE.py", help="a Python file whose @strategy functions become strategies")


def load_plugins(parser: ArgumentParser, argv: list[str] | None) -> None:
    """Load the file that --plugin names, on the command line (default) or in the JSON file of flags that stands in for it."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_plugin_flag(early)
    found, _ = early.parse_known_args(command_line(parser, argv))
    if found.plugin:
        load_plugin(found.plugin)


def _options(parameter: Parameter, readers: list[str]) -> dict:
    text = f"{', '.join(readers)}: {parameter.help}".replace("%", "%%")
    if parameter.kind is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": f"{text} ({parameter.default})"}
    shown = "" if parameter.default is None else f" ({parameter.default})"
    return {"type": parameter.kind, "default": None, "help": f"{text}{shown}"}


def choice_request(args: argparse.Namespace) -> ChoiceRequest:
    """What the flags of `add_choice_flags` ask for."""
    given = {name: getattr(args, name) for name in all_parameters()}
    parameters = {name: value for name, value in given.items() if value is not None}
    return ChoiceRequest(settings_from(ChoiceSettings, args), settings_from(InputFiles, args), parameters)


def choose(request: ChoiceRequest, examples, seed: int):
    """The Selection that the request asks for, from these Examples.

    Raises InputError for anything missing, of other data, or out of range.
    """
    from utils.selection.selection import Selection, budget
    from utils.selection.strategies import load_inputs, select

    settings = request.settings
    get_strategy(settings.strategy)
    if request.files.score_path and (clash := request.parameters.keys() & {"score", "score_epoch"}):
        raise InputError(f"--{min(clash)} and --score_path are two ways to score; give one of them")
    m = None
    if settings.data_pct is not None or settings.num_examples is not None:
        m = budget(len(examples), data_pct=settings.data_pct, num_examples=settings.num_examples)
    start_from = Selection.load(settings.start_from) if settings.start_from else None
    if start_from is not None:
        start_from.check(examples, path=settings.start_from)
    inputs = load_inputs(examples, **request.files.paths(), argv=recorded_words(sys.argv[1:]), code=code_version())
    return select(
        settings.strategy,
        inputs,
        m,
        seed,
        class_balanced=settings.class_balanced,
        start_from=start_from,
        **request.parameters,
    )
