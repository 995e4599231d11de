"""The registry of strategies. A strategy is one decorated function in one file.

Its flags follow from the function: every parameter after `inputs` and `pool` is a flag of that name, its type follows from
the annotation, its default from the signature, and its help from a line `parameter: help` in the docstring. Strategies
that share a parameter share its meaning: the help stands in the docstring of the first of them.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import InputError

if TYPE_CHECKING:
    from utils.selection.strategies.inputs import Inputs

STRATEGIES: dict[str, "Strategy"] = {}
_PARAMETER_HELP: dict[str, str] = {}  # of every parameter of any strategy


@dataclass(frozen=True)
class Pool:
    """What one call of a strategy chooses from: `m` of `rows` int64 (r,) (rows of the full split, ascending).

    start: int64 (s,), rows that are chosen already and not among `rows`; seed: --selection_seed; rng: the call's own
    generator, drawn from that seed.
    """

    rows: np.ndarray
    m: int
    seed: int
    rng: np.random.Generator
    start: np.ndarray

    def shuffled(self) -> np.ndarray:
        """The rows in a random order that does not depend on m."""
        return self.rng.permutation(self.rows)

    def by_score(self, scores) -> np.ndarray:
        """The rows by scores (n,) of the full split, highest first, ties in random order, NaN last."""
        rows = self.shuffled()
        return rows[np.argsort(-scores[rows], kind="stable")]


@dataclass(frozen=True)
class Picks:
    """What a strategy returns: rows int64, in order, at least m of them (those past m are not taken).

    weights: float (same length) or None for ones; relative: the weights are divided by their mean over the whole choice;
    scores: (n,), as in Selection; ordered: training should visit them in this order; natural: how many of `rows` the method
    itself would keep when no budget is given; notes: facts for the provenance; counts: numbers for the provenance. With
    --class_balanced a strategy is called once for each gold label. Then counts are added up, and notes that differ become a
    list.
    """

    rows: np.ndarray
    weights: np.ndarray | None = None
    scores: np.ndarray | None = None
    ordered: bool = False
    natural: int | None = None
    notes: dict = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    relative: bool = False


@dataclass(frozen=True)
class Cost:
    """What a costly strategy will take. flops: operations of matrix products that take as long; bytes: held in memory beside
    the inputs; variant: which form of the method will run, for the log."""

    flops: float
    bytes: float
    variant: str


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy: a flag of the same name. kind: int, float, str or bool."""

    name: str
    kind: type
    default: object
    help: str


@dataclass(frozen=True)
class Strategy:
    """One way of choosing.

    needs: keys of NEEDS. description: one line. weighted: it returns weights of its own. cost(n, d, k, m): predicts what
    a costly strategy takes. version: raised when the same input gives another result than before; it stands in the
    provenance, so that old results keep their meaning. fidelity: what is held against the source ("equal to ...",
    "at least 90 % of ...", "differs in ..., because ..."). second_pass: made for a second fine-tuning on the chosen
    examples, after a first one on everything. holds_all: it holds all embeddings in memory at once.
    """

    name: str
    function: Callable[..., Picks]
    needs: tuple[str, ...]
    description: str
    source: str
    weighted: bool = False
    cost: Callable[[int, int, int, int], Cost] | None = None
    version: int = 1
    fidelity: str = ""
    second_pass: bool = False
    holds_all: bool = False

    @property
    def reads(self) -> str:
        """What grows in memory with the number of examples."""
        if self.holds_all:
            return "all embeddings in memory (4 n d bytes)"
        if {"embeddings", "pooler", "gradients"} & set(self.needs):
            by = "cluster by cluster" if "clusters" in self.needs else "in blocks"
            return f"the embeddings from disk, {by}; in memory a few numbers for each example"
        return "the texts" if "pairs" in self.needs else "a few numbers for each example"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The flags of this strategy alone, by name."""
        signature = inspect.signature(self.function, eval_str=True)
        return {
            p.name: Parameter(p.name, _kind(p.annotation), p.default, _PARAMETER_HELP[p.name])
            for p in list(signature.parameters.values())[2:]
        }


def strategy(name: str, *, needs: tuple[str, ...] = (), source: str, **facts):
    """Register the decorated function under `name`; the first line of its docstring is the description.

    The function takes (inputs: Inputs, pool: Pool, *, parameters with defaults) and returns Picks. facts: further fields
    of `Strategy`. Raises ValueError where no docstring holds the help of a parameter, or the name is taken.
    """

    def register(function: Callable[["Inputs", Pool], Picks]):
        if name in STRATEGIES:
            raise ValueError(f"a strategy called {name} is registered already")
        description = inspect.getdoc(function).partition("\n")[0].rstrip(".")
        made = Strategy(name, function, needs, description, source, **facts)
        for parameter, text in _parameter_texts(function.__doc__).items():
            _PARAMETER_HELP.setdefault(parameter, text)
        missing = inspect.signature(function).parameters.keys() - {"inputs", "pool", *_PARAMETER_HELP}
        if missing:
            raise ValueError(f"strategy {name}: its docstring says nothing of {', '.join(sorted(missing))}")
        STRATEGIES[name] = made
        return function

    return register


def get_strategy(name: str) -> Strategy:
    if name not in STRATEGIES:
        raise InputError(f"--strategy {name} is unknown; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def load_plugin(path) -> None:
    """Run a Python file that registers strategies of the user's own. Raises InputError where it cannot be run."""
    import importlib.util
    import sys

    path = Path(path)
    module_name = f"strategy_plugin_{path.stem}"
    if module_name in sys.modules:  # a sweep loads it in every process, and a process may run several scripts
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    if not path.is_file() or spec is None:
        raise InputError(f"--plugin {path}: no such file, or not a .py file")
    module = importlib.util.module_from_spec(spec)
    before = set(STRATEGIES)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises, the file and the reason are what helps
        raise InputError(f"--plugin {path}: {type(error).__name__}: {error}") from error
    if set(STRATEGIES) == before:
        raise InputError(f"--plugin {path}: registers no strategy; decorate a function with @strategy")
    sys.modules[module_name] = module


def all_parameters() -> dict[str, tuple[Parameter, list[str]]]:
    """Every parameter of any strategy, by name, with the names of the strategies that read it.

    Raises ValueError where two strategies mean different kinds of values by one name.
    """
    found: dict[str, tuple[Parameter, list[str]]] = {}
    for chosen in STRATEGIES.values():
        for name, parameter in chosen.parameters.items():
            first, readers = found.setdefault(name, (parameter, []))
            if first.kind is not parameter.kind:
                raise ValueError(f"strategies {readers[0]} and {chosen.name} disagree about what --{name} is")
            readers.append(chosen.name)
    return found


def _parameter_texts(doc: str | None) -> dict[str, str]:
    """{parameter: help} from the lines `parameter: help` of a docstring; deeper lines continue the one before."""
    texts: dict[str, str] = {}
    name = None
    for line in inspect.cleandoc(doc or "").splitlines()[1:]:
        begun = re.match(r"(\w+): (.+)", line)
        if begun:
            name = begun[1]
            texts[name] = begun[2]
        elif name and line.startswith(" "):
            texts[name] += f" {line.strip()}"
        else:
            name = None
    return texts


def _kind(annotation) -> type:
    """int, float, str or bool of an annotation such as `float | None`."""
    for kind in (bool, int, float, str):
        if annotation is kind or kind in getattr(annotation, "__args__", ()):
            return kind
    raise ValueError(f"a strategy's parameter must be an int, float, str or bool, not {annotation}")
