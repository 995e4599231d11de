"""--looks: boundaries against published tables, verdicts, which runs a look asks for, the report of looks."""

import json
import math

import numpy as np
import pytest
from scipy import stats

import report
import sweep as script
from benchmarks.stopping import judge, verdicts
from tests import tiny
from tests.test_report import collapse, write_run
from utils.errors import InputError, RunFailed
from utils.report import write
from utils.report.looks import critical_values, looks_at, spent, verdict
from utils.report.recorded import read_csv
from utils.report.results import LookPlan, Result
from utils.report.run_folders import load_runs
from utils.sweep.grid import grid
from utils.sweep.looks import look_plan, runs_so_far


# ----------------------------------------------------------------------------------------------------------- boundaries
@pytest.mark.parametrize(
    ("looks", "published"),  # one-sided .025, equal information: as in Jennison & Turnbull 2000 and gsDesign's sfLDOF
    [(2, (2.963, 1.969)), (3, (3.710, 2.511, 1.993)), (4, (4.333, 2.963, 2.359, 2.014))],
)
def test_the_level_is_spent_as_published(looks, published):
    """Published boundaries for normal statistics, known spread, cross for the first time as often as we spend."""
    before = 0.0
    for k in range(1, looks + 1):
        corr = [[math.sqrt(min(a, b) / max(a, b)) for a in range(1, k + 1)] for b in range(1, k + 1)]
        crossed = 1 - stats.multivariate_normal(cov=corr, seed=0).cdf(published[:k])
        assert crossed == pytest.approx(spent(k / looks, 0.025), abs=4e-5) and crossed > before
        before = crossed


def test_looks_together_spend_the_level_and_small_samples_pay_for_their_spread():
    plan = LookPlan((5, 10, 20), 1.0, 6)
    critical = critical_values(plan.seeds, plan)
    levels = [stats.t.sf(c, n - 1) for c, n in zip(critical, plan.seeds, strict=True)]
    assert sum(levels) == pytest.approx(0.025 / 6) and levels[0] == pytest.approx(spent(0.25, 0.025 / 6))
    normal = [stats.norm.isf(level) for level in levels]
    assert all(np.array(critical) > normal) and critical[0] > 10 * normal[0]
    assert critical_values((5, 10), plan, last=False) == critical[:2]


def test_one_look_is_the_t_interval_of_the_family():
    (critical,) = critical_values((8,), LookPlan((8,), 1.0, 4))
    assert critical == pytest.approx(stats.t.isf(0.05 / 4 / 2, 7))


def test_false_verdicts_stay_below_the_level_though_the_spread_is_estimated():
    plan, rng = LookPlan((5, 10, 20), 1.0, 3), np.random.default_rng(0)
    arms = rng.normal(0, 1, (6000, 3, 20)) - rng.normal(0, 1, (6000, 1, 20))
    found, _ = verdicts(arms, plan.seeds, plan)
    _, false = judge(found, np.zeros(3), plan.smallest)
    assert 0.02 < false.any(-1).mean() < 0.05


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 2, "above"), (-2, -0.1, "below"), (-0.9, 0.9, "within"), (0.1, 0.9, "within"), (-0.1, 1.1, "open")],
)
def test_a_verdict_is_what_the_interval_says(low, high, said):
    assert verdict(low, high, 1.0) == said


# ---------------------------------------------------------------------------------------------------------------- looks
PLAN = LookPlan((3, 6), 1.0, 2)


def results(strategy, scores, collapsed=()):
    return [
        Result(f"{strategy}-10pct-seed{k}", strategy, 0.1, "epochs", k, 9, {"acc": s}, 1.0, collapsed=k in collapsed)
        for k, s in enumerate(scores)
    ]


def look(ours, baseline, **more):
    found = looks_at([*results("diverse", ours, **more), *results("random", baseline)], PLAN, ["acc"])
    return found["diverse", 0.1, "epochs"]


def test_a_look_waits_for_its_seeds_and_the_first_verdict_is_the_last():
    luck = np.array([0.0, 0.01, -0.01, 0.02, 0.0, 0.01])
    base = 0.6 + luck
    near = base + 0.05 + luck / 100
    assert look(near[:2], base) == []
    assert [one.verdict for one in look(near[:5], base)] == ["above"] == [one.verdict for one in look(near, base)]
    (first, second) = look(base + np.array([0.03, -0.02, 0.01, 0.0, 0.02, -0.01]), base)
    assert (first.n, first.verdict, second.n) == (3, "open", 6) and first.high - first.low > second.high - second.low
    assert second.mean == pytest.approx(0.5)


def test_failed_seeds_count_for_a_look_but_not_in_its_interval():
    base = [0.60, 0.61, 0.59, 0.60, 0.62, 0.60]
    first, second = look([0.2, 0.63, 0.58, 0.61, 0.61, 0.62], base, collapsed=(0,))
    assert (first.n, second.n) == (2, 5) and second.mean == pytest.approx(0.6)
    assert look(np.array(base) + 0.05, base)[0].verdict == "open"  # no spread tells nothing


# ----------------------------------------------------------------------------------------------------------------- runs
def asked_for(runs, looks, found, done=lambda run: True) -> dict[str, int]:
    counts: dict[str, int] = {}
    for run in runs_so_far(runs, looks, finished=done, verdicts=lambda: found):
        counts[f"{run.strategy} {run.data_pct:g}"] = counts.get(f"{run.strategy} {run.data_pct:g}", 0) + 1
    return counts


def test_only_open_arms_and_their_baselines_get_more_seeds():
    runs = grid(["random", "hard", "diverse"], [0.1, 0.5, 1.0], list(range(6)), "epochs")
    said = {f"{way}-{pct}pct-seed0": ["within"] for way in ("hard", "diverse") for pct in (10, 50)}
    said["hard-50pct-seed0"] = ["open"]
    expected = {
        "all 1": 2,
        "random 0.1": 2,
        "hard 0.1": 2,
        "diverse 0.1": 2,
        "random 0.5": 4,
        "hard 0.5": 4,
        "diverse 0.5": 2,
    }
    assert asked_for(runs, [2, 4, 6], said, done=lambda run: run.seed < 2) == expected
    said["hard-50pct-seed0"] = ["open", "above"]
    assert asked_for(runs, [2, 4, 6], said) == expected
    said["hard-50pct-seed0"] = ["open", "open"]
    assert asked_for(runs, [2, 4, 6], said) == expected | {"random 0.5": 6, "hard 0.5": 6}
    assert asked_for(runs, [2, 4, 6], {}, done=lambda run: run.seed < 1) == dict.fromkeys(expected, 2)


def test_an_arm_that_cannot_be_compared_stops_the_sweep_aloud():
    runs = grid(["random", "hard"], [0.1], list(range(4)), "epochs")
    with pytest.raises(RunFailed, match="hard-10pct-seed0 and its later seeds cannot be compared"):
        asked_for(runs, [2, 4], {})


def test_what_looks_cannot_do_is_refused():
    with pytest.raises(InputError, match="give random and at least one other"):
        look_plan(grid(["hard", "diverse"], [0.1], [0], "epochs"), [2], 1.0)
    with pytest.raises(InputError, match="give random and at least one other"):
        look_plan(grid(["random"], [0.1, 1.0], [0], "epochs"), [2], 1.0)
    with pytest.raises(InputError, match="--looks 5 3: give rising numbers"):
        look_plan(grid(["random", "hard"], [0.1], [0], "epochs"), [5, 3], 1.0)


# --------------------------------------------------------------------------------------------------------------- report
def test_the_report_shows_each_look_and_gives_hans_no_verdict(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for seed in range(6):
        base = 0.6 + rng.normal(0, 0.01)
        write_run(tmp_path / "runs" / f"r{seed}", "random", 0.1, seed, base, 0.1 + rng.normal(0, 0.001))
        write_run(tmp_path / "runs" / f"d{seed}", "diverse", 0.1, seed, base + rng.normal(0, 0.02), 0.4)
        if seed < 3:
            write_run(tmp_path / "runs" / f"h{seed}", "hard", 0.1, seed, base - 0.2 + rng.normal(0, 0.001), 0.1)
    collapse(tmp_path / "runs" / "d5")
    settings = {"looks": {"seeds": [3, 6], "smallest": 1.0, "arms": ["diverse-10pct", "hard-10pct"]}}
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings, "runs": [], "scoring_epochs": {}}))
    monkeypatch.setattr(write, "draw", lambda *_, **__: {})  # it takes most of the time
    report.main([str(tmp_path)])
    text = (tmp_path / "report" / "results.md").read_text()
    rows = [line for line in text.split("## Looks")[1].splitlines() if line.startswith("| 10 |")]
    assert rows[0].count("open") == 2 and rows[1].count("**below**") == 1 and rows[1].endswith("| - |")
    assert "within: it" not in text and "and excludes 0; open" in text
    difference = text.split("## Difference from random")[1].split("## Cost")[0]
    assert "**better** |" not in difference and "HANS non-entailed" in difference and "| mnli |" not in difference
    assert "missing" not in text.split("## Left out")[1].replace("Left out, or missing", "").split("\n", 1)[1]
    again = read_csv(tmp_path / "report" / "results.csv")
    assert again.looks == load_runs(tmp_path).looks == LookPlan((3, 6), 1.0, 2)
    report.main([str(tmp_path / "report" / "results.csv"), "--output_dir", str(tmp_path / "again")])
    kept = (tmp_path / "again" / "results.md").read_text()
    assert kept.split("## Cost")[0] == text.split("## Cost")[0]


def test_a_damaged_looks_column_is_named(tmp_path):
    write_run(tmp_path / "runs" / "a", "random", 0.1, 0, 0.6)
    settings = {"looks": {"seeds": [3], "smallest": 1.0, "arms": ["x"]}}
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings, "runs": [], "scoring_epochs": {}}))
    report.main([str(tmp_path)])
    path = tmp_path / "report" / "results.csv"
    path.write_text(path.read_text().replace("3; 1; 1", "soon"))
    with pytest.raises(InputError, match="line 2: looks is 'soon'"):
        read_csv(path)


def test_looks_hold_within_one_sweep_and_against_random_alone(tmp_path, capsys):
    settings = {"looks": {"seeds": [2, 3], "smallest": 1.0, "arms": ["x"]}}
    for sweep in "ab":
        for seed in range(2):
            write_run(tmp_path / sweep / "runs" / f"random{seed}", "random", 0.1, seed, 0.6)
        plan = {"settings": settings, "runs": [], "scoring_epochs": {}}
        (tmp_path / sweep / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match="holds 2 sweeps, and one at least stops early"):
        load_runs(tmp_path)
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / "a"), "--against", "all"])
    assert "--against all: a sweep that stops early" in capsys.readouterr().err
    rows = ["task,run,strategy,data_pct,budget,seed,examples,cost_epochs,scoring_epochs,failed,looks,mnli,mnli-mm"]
    rows += [
        f"MNLI,r{seed},random,0.1,epochs,{seed},10,1,0,no,{looks},0.6,0.6" for seed, looks in ((0, ""), (1, "3; 1; 1"))
    ]
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="line 3: looks is '3; 1; 1', above it is ''"):
        read_csv(tmp_path / "results.csv")


# ---------------------------------------------------------------------------------------------------------------- sweep
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=96, n_dev=24)
    tiny.write_config(root / "model", "bert")
    return root


def flags(world, out, *more):
    return [
        "--strategies", "random", "counter_heuristic", "--data_pcts", "0.5", "--looks", "2", "3", "--smallest", "2", "--config_name",
        world / "model", "--tokenizer_name", world / "model", "--task_name", "MNLI", "--data_dir", world / "data",
        "--max_seq_length", "16", "--num_train_epochs", "20", "--learning_rate", "2e-3", "--use_cpu",
        "--output_dir", out, *more,
    ]  # fmt: skip


def test_a_sweep_looks_goes_on_and_keeps_to_its_plan(world, tmp_path):
    out = tmp_path / "out"
    printed = tiny.run_script("sweep.py", *flags(world, out)).stdout
    assert printed.startswith("4 runs, 0 of them finished") and "6 runs, 4 of them finished" in printed
    assert len(list((out / "runs").glob("*/results.json"))) == 6
    assert "## Looks" in (out / "report" / "results.md").read_text()
    with pytest.raises(InputError, match="holds a sweep with other looks"):
        script.main([str(word) for word in flags(world, out, "--looks", "2", "4")])
    with pytest.raises(InputError, match="holds a sweep with other looks"):
        script.main([str(word) for word in flags(world, out, "--strategies", "random", "counter_heuristic", "hard")])


def test_seeds_and_looks_together_are_refused(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main([str(word) for word in flags(world, tmp_path, "--seeds", "0", "1")])
    assert "--looks 3 uses the seeds 0 to 2; leave out --seeds" in capsys.readouterr().err
