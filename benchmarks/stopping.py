#!/usr/bin/env python3
"""What `sweep.py --looks` costs and how often it errs: simulated sweeps, with the boundaries that the report uses.

  python -m benchmarks.stopping                       # docs/stopping.md quotes the table; draws docs/stopping.png
  python -m benchmarks.stopping --looks 5 10 20 --smallest 1.0 --sweeps 2000

A run's dev accuracy is normal; `spread` is its standard deviation over seeds, alike for every arm, in points. Two worlds: in
the first every arm is as good as random, in the second the arms differ from random by EFFECTS in turn (a single arm by 2
points). A verdict is false where it contradicts the true difference. The fixed design gives every arm all seeds and looks
once, at the same level (t intervals, Bonferroni). Fixed seeds of equal power: the fewest that call as many arms rightly, to half a
percentage point.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from utils import figure_style as style
from utils.command_line import ArgumentParser, parse_args, positive_float, positive_int
from utils.errors import run_script
from utils.files import write_json
from utils.report.looks import critical_values
from utils.report.results import LookPlan

SPREADS = (0.24, 0.5, 1.0, 2.0)  # dev accuracy of the study and of published runs, in points
ARMS = (1, 6, 30)
EFFECTS = (
    0.0,
    -10.0,
    1.0,
    2.0,
    -2.0,
    0.0,
)  # in points, arm after arm; 1.0 is the smallest difference of interest itself
OPEN, WITHIN, ABOVE, BELOW = range(4)
LITTLE = 0.05  # share of right verdicts below which two designs are not worth comparing
CHUNK = 500  # sweeps at a time: 500 x 30 arms x 20 seeds are 2.4 MB


def verdicts(differences, counts: tuple[int, ...], plan: LookPlan):
    """The verdict on each arm (..., arms) and the seeds that it took. differences: (..., arms, seeds)."""
    verdict = np.full(differences.shape[:-1], OPEN)
    seeds = np.full(verdict.shape, counts[-1])
    for n, critical in zip(counts, critical_values(counts, plan), strict=True):
        seen = differences[..., :n]
        mean, half = seen.mean(-1), critical * seen.std(-1, ddof=1) / np.sqrt(n)
        low, high = mean - half, mean + half
        within = (low > -plan.smallest) & (high < plan.smallest)
        said = np.select([within, low > 0, high < 0], [WITHIN, ABOVE, BELOW], OPEN)
        new = (verdict == OPEN) & (said != OPEN)
        verdict[new], seeds[new] = said[new], n
    return verdict, seeds


def judge(verdict, effects, smallest: float):
    """Which verdicts are right and which are false. A true difference at the very edge of `smallest` is not within."""
    true = np.where(np.abs(effects) < smallest, WITHIN, np.where(effects > 0, ABOVE, BELOW))
    false = ((verdict == ABOVE) & (effects <= 0)) | ((verdict == BELOW) & (effects >= 0))
    false |= (verdict == WITHIN) & (np.abs(effects) >= smallest)
    return verdict == true, false


def simulate(arms: int, spread: float, effects, plan: LookPlan, sweeps: int, seed: int) -> dict:
    """Per sweep: whether a verdict was false, the share of right ones, the runs made; and the share of right verdicts of
    fixed designs with 2, 3, ... seeds."""
    rng, most = np.random.default_rng([seed, arms, round(100 * spread)]), plan.seeds[-1]
    false, right, runs, fixed = [], [], [], np.zeros(most - 1)
    for _ in range(0, sweeps, CHUNK):
        baseline = rng.normal(0.0, spread, (CHUNK, 1, most))
        differences = effects[:, None] + rng.normal(0.0, spread, (CHUNK, arms, most)) - baseline
        verdict, seeds = verdicts(differences, plan.seeds, plan)
        correct, wrong = judge(verdict, effects, plan.smallest)
        false.append(wrong.any(-1))
        right.append(correct.mean(-1))
        runs.append(seeds.sum(-1) + seeds.max(-1))  # random has the seeds of the arm that takes most
        for n in range(2, most + 1):
            once, _ = verdicts(differences, (n,), LookPlan((n,), plan.smallest, arms))
            fixed[n - 2] += judge(once, effects, plan.smallest)[0].mean() * CHUNK / sweeps
    return {
        "false": np.concatenate(false),
        "right": np.concatenate(right),
        "runs": np.concatenate(runs),
        "fixed": fixed,
    }


def measure(arms: int, spread: float, plan: LookPlan, sweeps: int, seed: int) -> dict:
    """A row of the table."""
    null = simulate(arms, spread, np.zeros(arms), plan, sweeps, seed)
    mixed = simulate(arms, spread, np.resize(EFFECTS, arms) if arms > 1 else np.array([2.0]), plan, sweeps, seed + 1)
    row = {"arms": arms, "spread": spread, "false of the first 1000": int(null["false"][:1000].sum())}
    for name, found in (("null", null), ("mixed", mixed)):
        most = (arms + 1) * plan.seeds[-1]
        enough = np.flatnonzero(found["fixed"] >= found["right"].mean() - 0.005)
        row[name] = {
            "sweeps with a false verdict": float(found["false"].mean()),
            "right verdicts": float(found["right"].mean()),
            "right verdicts, fixed": float(found["fixed"][-1]),
            "runs": float(found["runs"].mean()),
            "runs, fixed": most,
            "saved": float(1 - found["runs"].mean() / most),
            "fixed seeds of equal power": int(enough[0]) + 2 if len(enough) else None,
        }
    return row


def table(rows: list[dict], world: str) -> str:
    header = [
        "arms",
        "spread",
        "sweeps with a false verdict",
        "right verdicts: looks / fixed",
        "runs: looks / fixed",
        "saved",
    ]
    lines = [[*header, "fixed seeds of equal power"], ["---"] * (len(header) + 1)]
    for row in rows:
        found = row[world]
        false = f"{100 * found['sweeps with a false verdict']:.1f} %"
        false += f" ({row['false of the first 1000']} of the first 1,000)" if world == "null" else ""
        right = f"{100 * found['right verdicts']:.0f} / {100 * found['right verdicts, fixed']:.0f} %"
        runs, saved = f"{found['runs']:.0f} / {found['runs, fixed']}", f"{100 * found['saved']:.0f} %"
        seeds = str(found["fixed seeds of equal power"]) if found["right verdicts"] >= LITTLE else "-"
        lines.append([str(row["arms"]), f"{row['spread']:g}", false, right, runs, saved, seeds])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(rows: list[dict], plan: LookPlan, path: Path) -> None:
    with style.new_figure(path, 2.6, formats=(".png",)) as figure:
        left, *right = figure.subplots(1, 3)
        left.axhline(5, color="black", lw=0.8, ls="--", label="promised: at most 5 %")
        for arms, marker, colour in zip(ARMS, "osD", (style.ACCENT, style.SECOND, style.GREY), strict=True):
            own = [row for row in rows if row["arms"] == arms]
            spreads = [row["spread"] for row in own]
            look = {"marker": marker, "color": colour, "label": f"{arms} arm{'s' * (arms > 1)}"}
            left.plot(spreads, [100 * row["null"]["sweeps with a false verdict"] for row in own], **look)
            for axes, world in zip(right, ("null", "mixed"), strict=True):
                axes.plot(spreads, [100 * row[world]["runs"] / row[world]["runs, fixed"] for row in own], **look)
        left.set(ylim=(0, 6), title="sweeps with a false verdict, %\nall arms equal random")
        for axes, title in zip(right, ("all arms equal random", "arms differ by 0 to 10 points"), strict=True):
            axes.set(ylim=(0, 105), title=f"runs, % of a fixed {plan.seeds[-1]} seeds\n{title}")
        figure.supxlabel("spread over seeds, points", fontsize=8)
        style.legend(figure)


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--looks", nargs="+", type=positive_int, default=[5, 10, 20])
    parser.add_argument("--smallest", type=positive_float, default=1.0, help="points")
    parser.add_argument("--sweeps", type=positive_int, default=10_000, help="simulated for each row and world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "stopping.json")
    parser.add_argument("--figure", type=Path, default=Path(__file__).parents[1] / "docs" / "stopping.png")
    args = parse_args(parser, argv)
    sweeps = -(-args.sweeps // CHUNK) * CHUNK
    rows = []
    for arms in ARMS:
        plan = LookPlan(tuple(args.looks), args.smallest, arms)
        rows += [measure(arms, spread, plan, sweeps, args.seed) for spread in SPREADS]
    critical = {str(arms): critical_values(plan.seeds, LookPlan(plan.seeds, plan.smallest, arms)) for arms in ARMS}
    settings = {"looks": args.looks, "smallest": args.smallest, "sweeps": sweeps, "seed": args.seed, "effects": EFFECTS}
    write_json(args.output, {**settings, "half-widths in standard errors": critical, "rows": rows})
    draw(rows, plan, args.figure)
    print(f"all arms equal to random\n\n{table(rows, 'null')}\n\narms that differ\n\n{table(rows, 'mixed')}")


if __name__ == "__main__":
    run_script(main)
