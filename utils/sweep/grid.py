"""The runs of a sweep: every strategy, share and seed once."""

from dataclasses import dataclass

from utils.errors import InputError
from utils.selection.strategies import STRATEGIES, get_strategy
from utils.training.schemes import SCHEMES

ALL = "all"  # the run on everything


@dataclass(frozen=True, order=True)
class Run:
    """One training: how its examples are chosen, what share of them, what is alike between shares, which seed."""

    strategy: str
    data_pct: float
    budget: str
    seed: int

    @property
    def name(self) -> str:
        steps = "-steps" if self.budget == "steps" else ""
        return f"{self.strategy}-{100 * self.data_pct:g}pct{steps}-seed{self.seed}"


def grid(strategies: list[str], data_pcts: list[float], seeds: list[int], budget_kind: str) -> list[Run]:
    """The runs of a sweep, every one once, `all` first.

    At 100 % a strategy is the run `all`, unless it weights the examples. A scheme that decides its own share runs at 100 %
    only. Raises InputError for an unknown strategy, a scheme that has no share to be compared at, and two shares that
    would have one name.
    """
    for strategy in strategies:
        _check_share(strategy, data_pcts, budget_kind)
    runs: dict[Run, None] = {}
    for seed in seeds:
        everything = Run(ALL, 1.0, "epochs", seed)
        for pct in sorted(set(data_pcts)):
            for strategy in strategies:
                if pct < 1 and strategy in SCHEMES and SCHEMES[strategy].plans_steps:
                    continue
                runs[Run(strategy, pct, budget_kind, seed) if pct < 1 or _weighted(strategy) else everything] = None
        if any(strategy in STRATEGIES and STRATEGIES[strategy].second_pass for strategy in strategies):
            runs[everything] = None
    names: dict[str, Run] = {}
    for run in runs:
        other = names.setdefault(run.name, run)
        if other != run:
            raise InputError(
                f"--data_pcts {other.data_pct!r} and {run.data_pct!r} are so close that both runs would be called {run.name}"
            )
    return sorted(runs, key=lambda run: (run.strategy != ALL, run.seed))


def _weighted(strategy: str) -> bool:
    return SCHEMES[strategy].weighted if strategy in SCHEMES else STRATEGIES[strategy].weighted


def _check_share(name: str, data_pcts: list[float], budget_kind: str) -> None:
    if name not in SCHEMES:
        get_strategy(name)
    elif SCHEMES[name].weighted and budget_kind == "steps":
        raise InputError(
            f"--budget steps: {name} draws from all of the data at every step, so a share of the data means nothing to "
            f"it at a given number of steps; leave {name} out"
        )
    elif SCHEMES[name].plans_steps and 1.0 not in data_pcts:
        raise InputError(f"{name} decides itself what it leaves out and runs at 100 % only; add 1.0 to --data_pcts")
