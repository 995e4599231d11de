"""The runs of a sweep: every strategy, share and seed once."""

from dataclasses import dataclass

from utils.errors import InputError
from utils.flags import OBJECTIVES
from utils.selection.strategies import STRATEGIES, get_strategy
from utils.training.schemes import SCHEMES

ALL = "all"  # the run on everything
ARMS = (*OBJECTIVES[1:], "dfr")  # what changes the training, not the data


@dataclass(frozen=True, order=True)
class Run:
    """One training run.

    strategy: a strategy, an online scheme, an objective of ARMS (on a random share) or strategy+objective. data_pct: share
    of the data. budget: what all shares have alike, "epochs" or "steps".
    """

    strategy: str
    data_pct: float
    budget: str
    seed: int

    @property
    def chosen_by(self) -> str:
        """The strategy or scheme, `all` for everything."""
        strategy = split_arm(self.strategy)[0]
        return ALL if self.data_pct == 1 and not _weighted(strategy) else strategy

    @property
    def objective(self) -> str:
        return split_arm(self.strategy)[1]

    @property
    def name(self) -> str:
        steps = "-steps" if self.budget == "steps" else ""
        return f"{self.strategy}-{100 * self.data_pct:g}pct{steps}-seed{self.seed}"


def split_arm(name: str) -> tuple[str, str]:
    """(strategy, objective) of an arm's name: poe is ("random", "poe"), hard+poe is ("hard", "poe"), hard ("hard", "erm")."""
    if name in ARMS:
        return "random", name
    strategy, _, objective = name.partition("+")
    return strategy, objective or "erm"


def grid(strategies: list[str], data_pcts: list[float], seeds: list[int], budget_kind: str) -> list[Run]:
    """The runs of a sweep, every one once, `all` first.

    At 100 % a strategy is the run `all`, unless it weights the examples. A scheme that decides its own share, and dfr, run
    at 100 % only. Raises InputError for an unknown strategy, a scheme that has no share to be compared at, and two shares that
    would have one name.
    """
    for strategy in strategies:
        _check_arm(strategy, data_pcts, budget_kind)
    runs: dict[Run, None] = {}
    for seed in seeds:
        everything = Run(ALL, 1.0, "epochs", seed)
        for pct in sorted(set(data_pcts)):
            for strategy in strategies:
                chosen_by, objective = split_arm(strategy)
                if pct < 1 and _runs_on_everything_only(strategy):
                    continue
                if pct < 1 or _weighted(chosen_by):
                    runs[Run(strategy, pct, budget_kind, seed)] = None
                else:  # at 100 % every strategy chooses everything
                    runs[everything if objective == "erm" else Run(objective, pct, "epochs", seed)] = None
        if any(needs_everything(strategy) for strategy in strategies):
            runs[everything] = None
    names: dict[str, Run] = {}
    for run in runs:
        other = names.setdefault(run.name, run)
        if other != run:
            raise InputError(
                f"--data_pcts {other.data_pct!r} and {run.data_pct!r} are so close that both runs would be called {run.name}"
            )
    return sorted(runs, key=lambda run: (run.strategy != ALL, run.seed))


def needs_everything(arm: str) -> bool:
    """Whether the arm goes on from the checkpoint of the run on everything."""
    return arm == "dfr" or (split_arm(arm)[0] in STRATEGIES and STRATEGIES[split_arm(arm)[0]].second_pass)


def _runs_on_everything_only(arm: str) -> bool:
    strategy = split_arm(arm)[0]
    return arm == "dfr" or (strategy in SCHEMES and SCHEMES[strategy].plans_steps)


def _weighted(strategy: str) -> bool:
    if strategy == ALL:
        return False
    return SCHEMES[strategy].weighted if strategy in SCHEMES else STRATEGIES[strategy].weighted


def _check_arm(arm: str, data_pcts: list[float], budget_kind: str) -> None:
    name, objective = split_arm(arm)
    if "+" in arm and objective not in OBJECTIVES[1:]:
        raise InputError(
            f"--strategies {arm}: no objective called {objective!r}; there are {', '.join(OBJECTIVES[1:])}"
        )
    if _runs_on_everything_only(arm) and 1.0 not in data_pcts:
        why = "goes on from the run on everything" if arm == "dfr" else "decides itself what it leaves out"
        raise InputError(f"{arm} {why} and runs at 100 % only; add 1.0 to --data_pcts")
    if name not in SCHEMES:
        get_strategy(name)
    elif SCHEMES[name].weighted and budget_kind == "steps":
        raise InputError(
            f"--budget steps: {name} draws from all of the data at every step, so a share of the data means nothing to "
            f"it at a given number of steps; leave {name} out"
        )
