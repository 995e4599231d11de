"""Which runs a sweep makes that stops when it has decided (`--looks`). What a look says is computed by `report.looks`."""

import dataclasses
from collections.abc import Callable

from utils.errors import InputError, RunFailed
from utils.sweep.grid import ALL, Run

BASELINES = (ALL, "random")
OPEN = "open"  # the verdict on an arm that gets more seeds

Verdicts = dict[str, list[str]]  # {name of a run: the verdict of each look so far at its arm}


def look_plan(runs: list[Run], looks: list[int] | None, smallest: float) -> dict | None:
    """What `--looks` fixes before the first run, since every verdict's level depends on it: {seeds, smallest, arms}, as
    sweep.json holds it; None without looks. Raises InputError where looks do not rise or an arm has no baseline."""
    if not looks:
        return None
    if looks != sorted(set(looks)) or looks[0] < 2:
        raise InputError(f"--looks {' '.join(map(str, looks))}: give rising numbers of seeds, each at least 2")
    arms = {_arm_of(run) for run in runs}
    compared = [arm for arm in arms if arm.strategy not in BASELINES]
    lonely = [arm for arm in compared if not any(_is_baseline(other, arm) for other in arms)]
    if lonely or not compared:
        raise InputError("--looks compares strategies with random: give random and at least one other to --strategies")
    return {"seeds": looks, "smallest": smallest, "arms": sorted(arm.name.rpartition("-seed")[0] for arm in compared)}


def runs_so_far(
    runs: list[Run], looks: list[int], *, finished: Callable[[Run], bool], verdicts: Callable[[], Verdicts]
) -> list[Run]:
    """The runs that the looks so far ask for. Every arm gets the seeds of the first look; an arm that a look leaves open gets
    those of the next one, and so does its baseline. A look is taken once its runs are finished.

    finished(run): whether a run is done; verdicts(): called once a look is complete. Raises RunFailed where an arm cannot be
    compared.
    """
    seeds = {_arm_of(run): looks[0] for run in runs}
    undecided = [arm for arm in seeds if arm.strategy not in BASELINES]
    for number, more in enumerate(looks[1:]):
        asked_for = [run for run in runs if run.seed < seeds[_arm_of(run)]]
        if not all(map(finished, asked_for)):
            return asked_for
        found = verdicts()
        for arm in undecided:
            said = found.get(arm.name)
            if not said or (said[-1] == OPEN and len(said) <= number):
                raise RunFailed(
                    f"{arm.name} and its later seeds cannot be compared with random; the notes of report.py say why"
                )
        undecided = [arm for arm in undecided if found[arm.name][-1] == OPEN or len(found[arm.name]) > number + 1]
        going_on = [arm for arm in seeds if arm in undecided or any(_is_baseline(arm, other) for other in undecided)]
        seeds |= dict.fromkeys(going_on, more)
    return [run for run in runs if run.seed < seeds[_arm_of(run)]]


def _arm_of(run: Run) -> Run:
    """What stands for all seeds of a run."""
    return dataclasses.replace(run, seed=0)


def _is_baseline(one: Run, arm: Run) -> bool:
    """Whether `arm` is compared with `one`."""
    if arm.data_pct == 1:
        return one.strategy == ALL
    return one.strategy == "random" and (one.data_pct, one.budget) == (arm.data_pct, arm.budget)
