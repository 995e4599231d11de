"""report.py on run folders written by the test: layout, verdicts, what is left out and named, one page without a network."""

import copy
import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
from matplotlib.text import Text

import report
from docs import make_study
from hans.challenge import HANS, HEURISTICS
from tests import tiny
from utils import figure_style
from utils.data.challenge import Cell, ChallengeScores
from utils.errors import InputError
from utils.report import latex, write
from utils.report.claims import CLAIM_COLUMNS, Claim
from utils.report.comparison import Difference, differences_from_random
from utils.report.figures import curve, draw
from utils.report.published import PUBLISHED
from utils.report.random_curve import RandomCurve
from utils.report.recorded import read_csv
from utils.report.run_folders import load_runs
from utils.report.tables import tables_of
from utils.report.verdict import sentences

N = 1000


@pytest.fixture
def figures():
    """Asked for by the tests that look at figures; the others do without, since figures take most of the time."""


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    if "figures" not in request.fixturenames:
        for module in (write, latex):
            monkeypatch.setattr(module, "draw", lambda *_, **__: {})


def write_run(
    folder, strategy, pct, seed, accuracy, non_entailed=0.1, *, steps=None, data="abc", lr=2e-5, online=None, hans=True,
    model="albert-base-v1", probed=0, version=None, objective=None,
):  # fmt: skip
    """A finished run as run_glue.py and test_hans.py leave it."""
    folder.mkdir(parents=True)
    m = round(pct * N)
    arguments = {"task_name": "MNLI", "seed": seed, "max_steps": steps, "learning_rate": lr, "num_train_epochs": 2.0}
    arguments |= {
        "strategy": None if strategy == "all" or online else strategy,
        "data_pct": None if strategy == "all" else pct,
    }
    arguments |= {"online": online, "model_name_or_path": model}
    run = {"script": "x.py", "arguments": arguments, "data": {"train": {"n": N, "fingerprint": data}}}
    results = {
        "task": "mnli",
        "eval": {
            name: {"eval_acc": accuracy + d, "n": 10} for name, d in (("dev_matched", 0), ("dev_mismatched", 0.01))
        },
        "train": {"examples": 2 * m, "probed": probed, "seconds": 1.5},
        "selection": {"m": m, "n": N, "method": strategy},
    }
    if version:
        results["selection"]["version"] = version
    if objective:
        results["objective"] = objective
    cells = {
        h: {"entailment": 0.9 + k / 100, "non-entailment": non_entailed + k / 100} for k, h in enumerate(HEURISTICS)
    }
    (folder / "run.json").write_text(json.dumps(run))
    if hans:
        (folder / "hans").mkdir()
        (folder / "hans" / "hans_results.json").write_text(json.dumps({"by_heuristic": cells}))
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def collapse(folder):
    """Make it a failed seed: one answer to everything."""
    (folder / "predictions_dev_matched.tsv").write_text("index\tgold\tprediction\n0\ta\tneutral\n1\tb\tneutral\n")


@pytest.fixture
def sweep(tmp_path):
    """Two ways and everything, three seeds: `better` wins by 5 points every time, `noisy` by 1 on average."""
    root = tmp_path / "sweep"
    for seed in range(3):
        write_run(root / "runs" / f"all-{seed}", "all", 1.0, seed, 0.80 + seed / 100)
        write_run(root / "runs" / f"random-{seed}", "random", 0.1, seed, 0.60 + seed / 100, 0.10 + seed / 50)
        write_run(
            root / "runs" / f"better-{seed}", "diverse", 0.1, seed, 0.65 + seed / 100 + seed / 10_000, 0.11 + seed / 50
        )
        write_run(root / "runs" / f"noisy-{seed}", "hard", 0.1, seed, 0.60 + (0.05, -0.06, 0.07)[seed], 0.2)
    plan = [{"name": f"{name}-{seed}"} for name in ("all", "random", "better", "noisy") for seed in range(3)]
    (root / "sweep.json").write_text(
        json.dumps({"settings": {}, "runs": plan, "scoring_epochs": {"diverse": 0.5, "hard": 4.0}})
    )
    return root


def tables(text: str) -> dict[str, list[list[str]]]:
    """{heading: rows of cells, the header first}."""
    found = {}
    for part in text.split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        found[part.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return found


def run(folder, *flags, capsys=None) -> str:
    report.main([str(folder), *flags])
    return capsys.readouterr().out if capsys else ""


def test_the_main_table_is_laid_out_as_the_published_one(sweep):
    run(sweep)
    header, *rows = tables((sweep / "report" / "results.md").read_text())["Accuracy by share of the data"]
    assert header[0] == "data %" and header[4] == "eval_acc (mnli / mnli-mm)"
    assert header[5] == "HANS entailed (lexical overlap, subsequence, constituent)"
    assert [row[:4] for row in rows] == [
        ["10", "random", "epochs", "3"], ["10", "diverse", "epochs", "3"], ["10", "hard", "epochs", "3"],
        ["100", "all", "epochs", "3"],
    ]  # fmt: skip
    assert rows[0][4] == "61.00 ± 1.00 / 62.00 ± 1.00"
    assert rows[0][5] == "0.900 ± 0.000, 0.910 ± 0.000, 0.920 ± 0.000"
    assert rows[0][6] == "0.120 ± 0.020, 0.130 ± 0.020, 0.140 ± 0.020"


def test_the_summary_sets_accuracy_difference_challenge_and_cost_beside_each_other(sweep):
    run(sweep)
    found = tables((sweep / "report" / "results.md").read_text())
    header, *rows = found["Summary"]
    assert header[4:] == [
        "mean of mnli and mnli-mm", "difference from random", "HANS non-entailed", "HANS entailed", "HANS overall", "cost",
    ]  # fmt: skip
    rows = {row[1]: row for row in rows}
    assert rows["random"][4:6] == ["61.5 ± 1.0", "-"] and rows["random"][6].startswith("13.0 ± 2.0")
    assert rows["diverse"][5] == {row[1]: row for row in found["Difference from random"]}["diverse"][4]
    assert rows["diverse"][-1] == {row[1]: row for row in found["Cost"]}["diverse"][5] == "0.70"


def test_at_a_glance_has_a_row_per_way_and_a_column_per_share(sweep):
    run(sweep)
    header, *rows = tables((sweep / "report" / "results.md").read_text())["At a glance"]
    assert header == ["chosen by", "10 %", "100 %"]
    assert rows[0] == ["random", "61.5 ± 1.0 ; 13.0 ± 2.0", "-"] and rows[-1][:2] == ["all", "-"]


def test_a_win_is_called_only_where_it_is_one(sweep):
    run(sweep)
    header, *rows = tables((sweep / "report" / "results.md").read_text())["Difference from random"]
    by_way = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert set(by_way) == {"diverse", "hard"}
    assert by_way["diverse"]["mnli"].startswith("+5.0 [") and "**better**" in by_way["diverse"]["mnli"]
    assert "**" not in by_way["hard"]["mnli"] and by_way["hard"]["mnli"].startswith("+1.0 [")
    found = differences_from_random(load_runs(sweep).arms, {"mnli": ("mnli",)})["hard", 0.1, "epochs"]["mnli"]
    assert found.low < 0 < found.high and found.detectable > 20 and found.n == 3
    assert by_way["hard"]["mnli"] == f"+1.0 [{found.low:+.1f}, {found.high:+.1f}] > {found.detectable:.1f}"
    assert by_way["diverse"]["HANS non-entailed"] == "+1.0 (no spread)"


def test_objectives_stand_beside_strategies_with_the_cost_of_their_teachers(sweep):
    poe, taught = {"name": "poe", "version": 1}, {"name": "conf_reg", "version": 1, "teacher_epochs": 2.5}
    for seed in range(3):
        write_run(sweep / "runs" / f"poe-{seed}", "all", 1.0, seed, 0.85 + seed / 90, objective=poe)
        write_run(sweep / "runs" / f"conf-{seed}", "random", 0.1, seed, 0.7 + seed / 90, objective=taught)
        write_run(sweep / "runs" / f"both-{seed}", "hard", 0.1, seed, 0.7 + seed / 90, objective=poe)
    run(sweep, "--against", "all")
    found = tables((sweep / "report" / "results.md").read_text())
    compared = {(row[0], row[1]): row[4] for row in found["Difference from all"][1:]}
    assert {("100", "poe"), ("10", "conf_reg"), ("10", "hard+poe"), ("10", "random")} <= compared.keys()
    assert compared["100", "poe"].startswith("+5.1 [") and "**better**" in compared["100", "poe"]
    training = {(row[0], row[1]): row[3] for row in found["Cost"][1:]}
    assert training["10", "conf_reg"] == "2.70" and training["10", "hard+poe"] == "0.20"


def test_cost_holds_scoring_and_says_when_it_pays(sweep):
    run(sweep)
    rows = {row[1]: row for row in tables((sweep / "report" / "results.md").read_text())["Cost"]}
    # Everything takes 2 epochs, a tenth 0.2: 1.8 saved by each training.
    assert rows["random"][3:] == ["0.20", "0.00", "0.20", "1 training"]
    assert rows["diverse"][3:] == ["0.20", "0.50", "0.70", "1 training"]
    assert rows["hard"][3:] == ["0.20", "4.00", "4.20", "3 trainings"]
    assert rows["all"][6] == "-"


def in_random_data(folder) -> dict[str, list[str]]:
    """By strategy, the cells behind the number of seeds."""
    run(folder)
    return {row[1]: row[3:] for row in tables((folder / "report" / "results.md").read_text())["In random data"][1:]}


def test_a_gain_is_said_in_random_data(sweep):
    """Random reaches 61.5 % at 10 %, everything 81.5 %: +5.01 points is a quarter of the way, in the logarithm of the share."""
    write_run(sweep / "runs" / "low", "el2n", 0.1, 0, 0.3)
    for seed in range(3):
        write_run(sweep / "runs" / f"poe-{seed}", "all", 1.0, seed, 0.85 + seed / 90, objective={"name": "poe"})
    found, share = in_random_data(sweep), 0.1 * 10 ** (5.01 / 20)
    assert found["diverse"][1].startswith("17.8 % [17.7 %, ") and round(100 * share, 1) == 17.8
    assert found["diverse"][2:] == ["0.70", f"{2 * share:.2f}", f"{math.ceil(0.5 / (2 * share - 0.2))} trainings"]
    assert found["hard"][1].startswith("11.") and "[below 10 %, " in found["hard"][1]
    assert found["el2n"] == ["1", "below 10 % (one seed)", "0.20", "-", "-"] and found["poe"][1].startswith("none is [")
    assert set(found) == {"diverse", "hard", "el2n", "poe"}


def test_between_three_shares_of_random_the_curve_bends():
    """60 at 10 %, 70 at 40 %, 73 at 100 %: what a line would put at 20 % lies earlier, and a measured score is its own share."""
    curve = RandomCurve((0.1, 0.4, 1.0), (60.0, 70.0, 73.0), (0.2, 0.8, 2.0))
    assert curve.share(70.0) == pytest.approx(0.4) and 0.15 < curve.share(65.0) < 0.2
    assert curve.share(59.9) == 0 and curve.share(73.1) == math.inf and curve.cost(0.5) == pytest.approx(1.0)
    shares = [curve.share(score) for score in np.linspace(60, 73, 50)]
    assert all(np.diff(shares) > 0)


def test_where_more_random_data_is_not_better_nothing_is_said_in_random_data(sweep):
    for seed in range(3):
        write_run(sweep / "runs" / f"fifth-{seed}", "random", 0.2, seed, 0.5)
    run(sweep)
    text = (sweep / "report" / "results.md").read_text()
    assert "more random data is not better throughout" in text and not tables(text)["In random data"]


def test_a_random_choice_of_everything_is_everything(sweep):
    for seed in range(3):
        shutil.rmtree(sweep / "runs" / f"all-{seed}")
        write_run(sweep / "runs" / f"all-{seed}", "random", 1.0, seed, 0.80 + seed / 100)
    assert in_random_data(sweep)["diverse"][1].startswith("17.8 % [")


def test_runs_of_other_numbers_of_steps_are_not_averaged(sweep):
    for seed, steps in enumerate((50, 50, 5000)):
        write_run(sweep / "runs" / f"steps-{seed}", "hard", 0.1, seed, 0.7, steps=steps)
    run(sweep)
    text = (sweep / "report" / "results.md").read_text()
    assert "steps-2: other number of steps at 10 % than most runs (max_steps 5000 instead of 50); left out" in text


def test_shares_of_a_csv_are_rounded_and_bests_may_be_negative(sweep, tmp_path):
    run(sweep)
    with open(sweep / "report" / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        seed = int(row["seed"]) / 1000
        if row["strategy"] == "hard":
            row |= {"data_pct": 0.10004, "mnli": -0.099 - seed}
        elif row["strategy"] in ("diverse", "random"):
            row["mnli"] = (-0.05 if row["strategy"] == "random" else -0.2) - seed
    with open(tmp_path / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    runs = read_csv(tmp_path / "results.csv", challenges=(HANS,))
    assert ("hard", 0.1, "epochs") in runs.arms
    table = latex.accuracy(runs, "mnli")
    assert r"random & \textbf{-5.1}" in table and r"hard & -10.0" in table and r"\textbf{-10.0}" not in table


def test_of_several_costs_of_scoring_the_largest_counts(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "both" / "one")
    (tmp_path / "both" / "two").mkdir()
    plan = {"settings": {}, "runs": [], "scoring_epochs": {"diverse": 0.0}}
    (tmp_path / "both" / "two" / "sweep.json").write_text(json.dumps(plan))
    run(tmp_path / "both")
    text = (tmp_path / "both" / "report" / "results.md").read_text()
    assert {row[1]: row for row in tables(text)["Cost"]}["diverse"][4] == "0.50"
    assert "diverse: scoring cost 0 and 0.5 epochs in different runs; the largest counts" in text


def test_what_was_chosen_is_told_from_the_cards(sweep, capsys):
    """Label shares and counter-examples of each way's subsets, failed runs among them; nothing without cards."""
    assert "What was chosen" not in run(sweep, capsys=capsys)
    for seed, share in enumerate((0.2, 0.3, 0.7)):
        card = {
            "labels": {"entailment": {"subset": share, "full": 0.33}, "neutral": {"subset": 1 - share, "full": 0.67}}
        }
        card["contradicts"] = {"subsequence": {"subset": seed, "full": 9}}
        (sweep / "runs" / f"noisy-{seed}" / "selection.json").write_text(json.dumps(card))
    collapse(sweep / "runs" / "noisy-2")
    header, *rows = tables(run(sweep, capsys=capsys))["What was chosen"]
    assert header == ["data %", "chosen by", "entailment", "neutral", "against subsequence"]
    assert rows == [["10", "hard", "40.0 %", "60.0 %", "1.0"]]


def test_csv_has_a_row_per_run(sweep):
    run(sweep)
    with open(sweep / "report" / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert float(next(r for r in rows if r["run"] == "random-2")["non-entailed subsequence"]) == pytest.approx(0.15)


def test_the_page_holds_everything_and_needs_no_network(sweep, figures):
    run(sweep)
    page = (sweep / "report" / "report.html").read_text()
    names = [
        "accuracy_epochs", "cost_epochs", "difference_10pct_epochs", "hans_against_accuracy", "hans_epochs",
        "hans_groups_100pct_epochs", "hans_groups_10pct_epochs",
    ]  # fmt: skip
    for kind in ("png", "pdf"):
        assert sorted(path.stem for path in (sweep / "report").glob(f"*.{kind}")) == names
    assert page.count('src="data:image/png;base64,') == len(names) and "61.00 ± 1.00" in page
    assert not re.search(r'src="(?!data:)|url\(|@import|<link|https?:', page)
    links = re.findall(r'href="([^"]*)"', page)
    assert {link[1:] for link in links if link[0] == "#"} == set(re.findall(r'<section id="([^"]*)"', page))
    folders = [sweep / "report" / link for link in links if link[0] != "#"]
    assert len(folders) == 12 and all((folder / "results.json").exists() for folder in folders)


def test_curves_hold_what_was_measured_and_a_gap_elsewhere(sweep):
    """The run on everything is a line of its own: nobody measured a strategy there."""
    write_run(sweep / "runs" / "again", "diverse", 0.5, 0, 0.7)
    collapse(write_run(sweep / "runs" / "failed", "diverse", 0.7, 0, 0.3))
    points = curve(load_runs(sweep), "diverse", ("mnli", "mnli-mm"), "epochs")
    assert [share for share, _, _ in points] == [0.1, 0.5, 0.7, 1.0]
    assert points[0][1:] == (pytest.approx(66.51), pytest.approx(1.01))
    assert points[1][1] == pytest.approx(70.5) and np.isnan([points[1][2], *points[2][1:], *points[3][1:]]).all()


def test_a_figure_is_a_png_and_a_pdf_and_the_same_bytes_each_time(tmp_path):
    """No name covers another or the point of another, and no colour of a label is one of a cluster."""
    points = {f"strategy {i}": (i % 3 / 50, i / 100) for i in range(12)} | {"far": (1.0, 1.0)}
    for name in ("one", "two"):
        with figure_style.new_figure(tmp_path / f"{name}.png", 2.5, width=3) as figure:
            axes = figure.subplots()
            axes.scatter(*zip(*points.values(), strict=True), rasterized=True)
            figure_style.direct_labels(axes, points)
            figure.draw_without_rendering()
            boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to the points
        assert len(boxes) == 13 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two and one.startswith(magic)
    assert not set(figure_style.LABELS) & {*figure_style.CLUSTERS, figure_style.REST}


def test_failed_shares_and_verdicts_are_drawn(sweep, tmp_path, monkeypatch):
    """Texts and marks of the figures, read from matplotlib's own objects."""
    for seed in range(3):
        collapse(write_run(sweep / "runs" / f"lost-{seed}", "kcenter", 0.1, seed, 0.3))
    drawn, save = {}, figure_style.fix_layout

    def keep(figure):
        save(figure)
        drawn[len(drawn)] = figure

    monkeypatch.setattr(figure_style, "fix_layout", keep)
    captions = draw(load_runs(sweep, challenges=(HANS,)), tmp_path, formats=())
    texts = [[text.get_text() for text in figure.findobj(Text)] for figure in drawn.values()]
    assert any("×3" in found and "kcenter" in found for found in texts)
    (forest,) = (found for found in texts if "difference from random, points" in found)
    assert {"better", "not shown to differ", "spread not known", "MNLI mismatched"} <= set(forest)
    assert forest.count("× 3 failed") == 6 and not [*tmp_path.glob("*.p*")]
    assert all("3 seeds an arm" in caption and "1,000 examples" in caption for caption in captions.values())


def test_the_verdict_says_what_beats_what_loses_and_what_is_undecided(sweep):
    for seed in range(3):
        write_run(sweep / "runs" / f"bad-{seed}", "kcenter", 0.1, seed, 0.4 + seed / 95, 0.5 + seed / 40)
    collapse(write_run(sweep / "runs" / "lost", "ccs", 0.1, 0, 0.3))
    better, worse, both, undecided, lost = sentences(load_runs(sweep, challenges=(HANS,)))
    assert (
        "on mean of mnli and mnli-mm: diverse (10 %); on mnli: diverse (10 %); on mnli-mm: diverse (10 %); on HANS non-entailed: kcenter (10 %); "
        in better
    )
    assert worse.endswith("on mnli: kcenter (10 %); on mnli-mm: kcenter (10 %).")
    assert (
        both.endswith(": kcenter (10 %).")
        and "10 of 18 comparisons, among them all of hard." in undecided
        and lost.endswith(": ccs (10 %).")
    )
    run(sweep)
    assert (
        (sweep / "report" / "results.md").read_text().split("\n## ")[1].startswith("Verdict\n\n- **Better than random")
    )


def test_latex_tables_have_one_best_a_column_and_as_many_cells_in_every_row(sweep, tmp_path, monkeypatch):
    forms = []
    monkeypatch.setattr(latex, "draw", lambda *_, **form: forms.append(form))
    run(sweep, "--latex", "--output_dir", str(tmp_path))
    assert [(form["width"], form["formats"]) for form in forms] == [(figure_style.COLUMN, (".pdf",))]
    tables = {path.stem: path.read_text() for path in (tmp_path / "latex").glob("*.tex")}
    assert {"accuracy_mnli", "accuracy_hans_non-entailed", "difference_mnli-mm"} <= set(tables)
    for text in tables.values():
        body = text.partition("\\toprule")[2].partition("\\bottomrule")[0]
        rows = [row for row in re.split(r"\\\\|\\midrule", body) if row.strip()]
        assert len({row.count("&") for row in rows}) == 1 and text.count("{") == text.count("}")
        assert not re.search(r"(?<!\\)[%_#]", text.partition("tabular")[2])
    assert re.findall(r"textbf\{([^}]*)\}", tables["accuracy_mnli"]) == ["66.0", "81.0"]
    assert r"diverse & \textbf{66.0}\,{\scriptsize$\pm$\,1.0} & --" in latex.accuracy(load_runs(sweep), "mnli")
    (row,) = (line for line in tables["difference_mnli"].splitlines() if line.startswith("diverse"))
    assert re.search(r"\\textbf\{\+5\.0\\,\{\\scriptsize\[\+5\.0, \+5\.0\]\}\}", row)


def test_the_same_runs_give_the_same_files(sweep, tmp_path):
    run(sweep, "--output_dir", str(tmp_path / "one"))
    run(sweep, "--output_dir", str(tmp_path / "two"))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_results_csv_stands_for_its_runs(sweep, tmp_path):
    """Tables and page can be made again from the recorded rows alone, byte for byte."""
    card = {"labels": {"neutral": {"subset": 1 / 3}}, "contradicts": {"subsequence": {"subset": 7}}}
    (sweep / "runs" / "noisy-0" / "selection.json").write_text(json.dumps(card))
    collapse(sweep / "runs" / "noisy-1")
    run(sweep)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "results.csv").write_bytes((sweep / "report" / "results.csv").read_bytes())
    run(tmp_path / "kept" / "results.csv")
    names = sorted(path.name for path in (sweep / "report").iterdir() if path.name != "timings.csv")
    assert names == sorted(path.name for path in (tmp_path / "kept").iterdir())
    for name in names:
        one, other = ((folder / name).read_bytes() for folder in (sweep / "report", tmp_path / "kept"))
        links = (
            rb'<a href="\.\./[^"]*">(.*?)</a>' if name == "report.html" else rb"(no such text)"
        )  # to folders, which are not kept
        assert re.sub(links, rb"\1", one) == other, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("cost_epochs", "price"), "no column 'cost_epochs'"),
        (lambda text: text.replace("0.12", "twelve", 1), "line 2: .* is 'twelve.*', expected a number"),
        (lambda text: text.replace(",0.12", ",nan", 1), "line 2: .* is 'nan.*', expected a number"),
        (
            lambda text: text.replace("epochs,0,", "epochs,first,", 1),
            "line 2: seed is 'first', expected a whole number",
        ),
        (
            lambda text: text.replace("epochs,0,", "minutes,0,", 1),
            "line 2: budget is 'minutes', expected epochs or steps",
        ),
        (lambda text: text.replace("MNLI,random-1", "QQP,random-1"), "line 3: task is 'QQP', above it is 'MNLI'"),
        (lambda text: text.replace("MNLI,", "QQP,"), "no column 'qqp' for the task 'QQP'"),
        (lambda text: text.replace("seed,", "budget,", 1), "no column 'seed'"),
        (lambda text: text.replace("mnli-mm", "mnli", 1), "the column 'mnli' more than once"),
        (lambda text: text.splitlines()[0] + "\n", "no finished run"),
        (lambda text: text.splitlines()[0] + "\nMNLI,short\n", "line 2: 2 values"),
        (lambda text: text + "\ud800", "not readable as CSV"),
        (lambda text: "", "no column 'task'"),
    ],
)
def test_a_damaged_results_csv_is_one_line(sweep, tmp_path, change, message):
    run(sweep)
    path = tmp_path / "results.csv"
    path.write_text(change((sweep / "report" / "results.csv").read_text()), errors="surrogatepass")
    with pytest.raises(InputError, match=message):
        report.main([str(path)])


def test_unusable_runs_are_named_and_the_rest_reported(sweep, capsys):
    runs = sweep / "runs"
    (runs / "better-1" / "results.json").write_text('{"task": "mnli", "ev')  # cut short
    (runs / "better-2" / "results.json").unlink()  # failed
    (runs / "better-2" / "run.log").write_text("...\nrun_glue.py: failed: the loss is nan at step 7\n")
    write_run(runs / "foreign", "random", 0.1, 3, 0.99, data="another")
    write_run(runs / "hot", "random", 0.1, 4, 0.99, lr=1.0)
    write_run(runs / "other", "random", 0.1, 4, 0.99, model="bert-base-uncased")
    write_run(runs / "twice", "random", 0.1, 2, 0.99)
    collapse(write_run(runs / "constant", "random", 0.1, 5, 0.33))
    for path in sorted((runs / "noisy-0").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (runs / "noisy-0").rmdir()
    printed = run(sweep, capsys=capsys)
    for expected in (
        "better-1/results.json: not readable as JSON",
        "better-2: unfinished or failed (run_glue.py: failed: the loss is nan at step 7)",
        "foreign: other data than most runs (train another instead of abc)",
        "hot: other settings at 10 % (equal epochs) than most runs (learning_rate 1.0 instead of 2e-05)",
        "other: other settings than most runs (model_name_or_path bert-base-uncased instead of albert-base-v1)",
        "twice: the same strategy, share, budget and seed as random-2; left out",
        "failed seeds, the same answer to every dev example, counted, not averaged in: constant",
        "planned, not begun: noisy-0",
        "hard at 10 % (equal epochs): seed 0, 5 missing",
    ):
        assert expected in printed and expected in (sweep / "report" / "results.md").read_text(), expected
    rows = {row[1]: row for row in tables(printed)["Accuracy by share of the data"]}
    assert rows["random"][3:5] == ["3 (1 failed)", "61.00 ± 1.00 / 62.00 ± 1.00"] and rows["diverse"][3] == "1"
    differences = {row[1]: row for row in tables(printed)["Difference from random"]}
    assert "one seed" in differences["diverse"][4] and differences["hard"][3] == "2"


def test_an_emptied_predictions_file_is_named(sweep, capsys):
    run_of_one_answer = sweep / "runs" / "better-0"
    collapse(run_of_one_answer)  # without its predictions it would look like any other run
    (path,) = run_of_one_answer.glob("predictions_*.tsv")
    for left in ("", path.read_text().splitlines(keepends=True)[0]):
        path.write_text(left)
        assert f"{path.name}: expected index, gold label and prediction" in run(sweep, capsys=capsys)


def test_failed_seeds_are_counted_but_not_averaged_in(sweep, capsys):
    for name in ("better-0", "noisy-1", "noisy-2"):  # one of `diverse`, two of `hard`
        collapse(sweep / "runs" / name)
    collapse(write_run(sweep / "runs" / "hopeless", "easy", 0.1, 0, 0.33))
    found = tables(run(sweep, capsys=capsys))
    rows = {row[1]: row for row in found["Accuracy by share of the data"]}
    assert rows["hard"][3:5] == ["1 (2 failed)", "65.00 / 66.00"] and rows["diverse"][3] == "2 (1 failed)"
    assert rows["easy"][3:5] == ["0 (1 failed)", "- / -"] and rows["random"][3] == "3"
    glance = {row[0]: row[1] for row in found["At a glance"]}
    assert glance["easy"] == "- (1 failed)" and glance["hard"].endswith("(2 failed)")
    assert "easy" not in {row[1] for row in found["Cost"] + found["Difference from random"]}
    with open(sweep / "report" / "results.csv", encoding="utf-8") as file:
        assert sum(row["failed"] == "yes" for row in csv.DictReader(file)) == 4
    problems = load_runs(sweep).problems
    (named,) = [line for line in problems if line.startswith("failed seeds")]
    assert named.endswith(": better-0, hopeless, noisy-1, noisy-2")
    assert not any(
        line.startswith(("hard at", "diverse at")) for line in problems
    )  # a failed seed is not a missing one


def test_equal_steps_and_online_runs_have_rows_of_their_own(sweep):
    runs = sweep / "runs"
    for seed in range(3):
        write_run(runs / f"random-steps-{seed}", "random", 0.1, seed, 0.7, steps=100)
        write_run(runs / f"rs2-{seed}", "all", 0.1, seed, 0.7, online="rs2")
    arms = {result.arm for result in load_runs(sweep).results}
    assert ("random", 0.1, "steps") in arms and ("rs2", 0.1, "epochs") in arms


def test_a_share_of_the_steps_is_the_one_that_the_sweep_planned(sweep):
    """34 of 100 steps are not a third of them, and a small share stays one."""
    plan = json.loads((sweep / "sweep.json").read_text())
    plan["runs"] += [{"name": "online-0", "data_pct": 1 / 3}, {"name": "tiny-0", "data_pct": 0.0004}]
    (sweep / "sweep.json").write_text(json.dumps(plan))
    write_run(sweep / "runs" / "online-0", "all", 0.34, 0, 0.7, steps=34, online="grad_norm")
    write_run(sweep / "runs" / "tiny-0", "random", 0.001, 0, 0.7)
    arms = {result.name: result.arm for result in load_runs(sweep).results}
    assert arms["online-0"] == ("grad_norm", 0.333, "epochs") and arms["tiny-0"] == ("random", 0.0004, "epochs")


HEADER = (
    "task,run,strategy,data_pct,budget,seed,examples,cost_epochs,scoring_epochs,failed,model,data,pool,learning_rate,precision,"
    "version,mnli,mnli-mm,entailed lexical_overlap,entailed subsequence,entailed constituent,HANS entailed,non-entailed "
    "lexical_overlap,non-entailed subsequence,non-entailed constituent,HANS non-entailed,HANS overall"
)


def test_results_csv_is_the_recorded_text(tmp_path):
    """Other tools read this file: its columns, their order and the spelling of numbers stay as they are."""
    write_run(tmp_path / "a", "diverse", 0.25, 3, 0.5, 0.25, probed=300, version=2)
    run(tmp_path)
    assert (tmp_path / "report" / "results.csv").read_text().splitlines() == [
        HEADER,
        "MNLI,a,diverse,0.25,epochs,3,250,0.6,0.0,no,albert-base-v1,abc,1000,2e-05,,2,0.5,0.51,0.9,0.91,0.92,0.91,0.25,0.26,"
        "0.27,0.26,0.585",
    ]


def test_what_a_run_made_for_itself_is_part_of_its_cost(tmp_path):
    folder = write_run(tmp_path / "rho", "all", 1.0, 0, 0.6, online="rho", probed=3 * N)
    assert load_runs(tmp_path).results[0].cost == pytest.approx(2 + 1)
    results = json.loads((folder / "results.json").read_text())
    results["selection"]["making_epochs"] = 0.7
    (folder / "results.json").write_text(json.dumps(results))
    assert load_runs(tmp_path).results[0].cost == pytest.approx(2 + 1 + 0.7)


def test_runs_in_folders_of_one_name_keep_their_own_seconds_and_links(tmp_path):
    for strategy, seconds in (("random", 10.0), ("hard", 99.0)):
        folder = write_run(tmp_path / "runs" / strategy / "seed0", strategy, 0.1, 0, 0.6)
        results = json.loads((folder / "results.json").read_text())
        results["train"]["seconds"] = seconds
        (folder / "results.json").write_text(json.dumps(results))
    run(tmp_path / "runs")
    again = read_csv(tmp_path / "runs" / "report" / "results.csv").results
    assert {result.strategy: result.seconds for result in again} == {"random": 10.0, "hard": 99.0}
    page = (tmp_path / "runs" / "report" / "report.html").read_text()
    assert 'href="../random/seed0' in page and 'href="../hard/seed0' in page


def test_probing_costs_a_third_of_training(tmp_path):
    """200 examples trained on and 300 probed, of 1,000: a fifth of an epoch and a third of 0.3."""
    for seed in range(2):
        write_run(tmp_path / f"p{seed}", "hard", 0.1, seed, 0.6, probed=300 * (1 + seed))
        write_run(tmp_path / f"all{seed}", "all", 1.0, seed, 0.8)
    runs = load_runs(tmp_path)
    assert [result.cost for result in runs.results] == pytest.approx([0.3, 0.4, 2.0, 2.0])
    run(tmp_path)
    rows = {row[1]: row for row in tables((tmp_path / "report" / "results.md").read_text())["Cost"]}
    assert rows["hard"][3] == "0.35" and rows["all"][3] == "2.00"


def test_a_results_csv_without_the_newer_columns_loads_and_stays_as_it_is(sweep, tmp_path):
    run(sweep)
    with open(sweep / "report" / "results.csv", encoding="utf-8", newline="") as file:
        rows = [row[:10] + row[16:] for row in csv.reader(file)]
    old = tmp_path / "results.csv"
    with open(old, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    before = old.read_bytes()
    run(old)
    assert old.read_bytes() == before
    assert (tmp_path / "results.md").read_text() == (sweep / "report" / "results.md").read_text()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "learning_rate",
            "0.1",
            "noisy-0: other settings at 10 % (equal epochs) than most runs (learning_rate 0.1 instead of 2e-05); left out",
        ),
        ("model", "", "noisy-0: other settings than most runs (model not known instead of albert-base-v1); left out"),
        ("data", "xyz", "noisy-0: other settings than most runs (data xyz instead of abc); left out"),
        ("pool", "9", "noisy-0: other settings than most runs (pool 9 instead of 1000); left out"),
        (
            "precision",
            "bf16",
            "noisy-0: other precision of seed 0 at 10 % (equal epochs) than most runs (precision bf16 instead of not known); "
            "left out",
        ),
        ("version", "2", "noisy-0: other version of hard than most runs (version 2 instead of 1); left out"),
    ],
)
def test_rows_of_unlike_runs_are_not_averaged(sweep, tmp_path, column, value, message):
    run(sweep)
    with open(sweep / "report" / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    next(row for row in rows if row["run"] == "noisy-0")[column] = value
    with open(tmp_path / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    runs = read_csv(tmp_path / "results.csv", challenges=(HANS,))
    assert message in runs.problems and "noisy-0" not in [result.name for result in runs.results]
    assert len(runs.results) == len(rows) - 1


def test_recorded_seconds_stand_in_the_table_of_costs(sweep, tmp_path):
    """Where timings.csv lies beside results.csv; the report of run folders has no seconds, so that it is always the same."""
    run(sweep)
    for name in ("results.csv", "timings.csv"):
        shutil.copy(sweep / "report" / name, tmp_path)
    timings = (tmp_path / "timings.csv").read_text().replace("noisy-0,1.5", "noisy-0,7.5")
    (tmp_path / "timings.csv").write_text(timings)
    run(tmp_path / "results.csv", "--output_dir", str(tmp_path / "again"))
    rows = {row[1]: row for row in tables((tmp_path / "again" / "results.md").read_text())["Cost"]}
    assert (rows["chosen by"][7:], rows["hard"][7:], rows["random"][7:]) == (["seconds"], ["4"], ["2"])
    assert (tmp_path / "again" / "timings.csv").read_text() == timings
    assert len(tables((sweep / "report" / "results.md").read_text())["Cost"][0]) == 7
    (tmp_path / "timings.csv").write_text("run,seconds_training\nnoisy-0,soon\n")
    with pytest.raises(InputError, match="line 2: seconds_training is 'soon', expected a number"):
        read_csv(tmp_path / "results.csv")


def test_published_claims_stand_beside_what_was_measured(sweep, tmp_path):
    """Where claims.csv lies beside results.csv. It is the user's file: it is read, never written."""
    collapse(sweep / "runs" / "better-0")
    run(sweep)
    shutil.copy(sweep / "report" / "results.csv", tmp_path)
    claims = tmp_path / "claims.csv"
    claims.write_text(
        "\ufeff" + ",".join(CLAIM_COLUMNS) + "\nhard,0.1,mnli,better,7.50,more | random,A et al. 2020\n"
        "ccs,0.1,mnli,within,1,no less,B 2021\nrandom,0.1,mnli,worse,,less,C\n",
        encoding="utf-8",
    )
    before = claims.read_bytes()
    run(tmp_path / "results.csv")
    assert claims.read_bytes() == before
    text = (tmp_path / "results.md").read_text()
    first, second, third = tables(text.replace("\\|", "or"))["Replication"][1:]
    assert first[:6] == ["10", "hard", "more or random", "A et al. 2020", "mnli", "better by 7.5"]
    measured = {row[1]: row for row in tables(text)["Difference from random"]}["hard"][5]
    assert first[6].split("]")[0] == measured.split("]")[0] and first[7] == "3"
    assert second[5:] == ["within 1", "-", "0", "not run"]
    assert third[6:] == ["-", "0", "not compared"]
    run(tmp_path / "results.csv", "--against", "all")
    assert "Replication" not in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("hard,0.1,mnli,more,7,c,s", "line 2: expected is 'more'; one of better, worse, within, not better"),
        ("hard,0.1,mnli,worse,-7,c,s", "line 2: points is -7, expected a number above 0"),
        ("hard,0.1,mnli,within,,c,s", "line 2: points is .*, expected a number"),
        ("hard,0.1,mnli,not better,2,c,s", "line 2: points is 2, expected nothing where expected is 'not better'"),
        (
            "hard,0.1,mnlii,worse,,c,s",
            "line 2: metric is 'mnlii'; one of mean of mnli and mnli-mm, mnli, mnli-mm, HANS",
        ),
        ("hard,10,mnli,worse,,c,s", "line 2: data_pct is 10, expected a fraction of the data"),
    ],
)
def test_a_claim_that_cannot_be_meant_is_named(sweep, tmp_path, row, message):
    run(sweep)
    shutil.copy(sweep / "report" / "results.csv", tmp_path)
    (tmp_path / "claims.csv").write_text(",".join(CLAIM_COLUMNS) + f"\n{row}\n")
    with pytest.raises(InputError, match=message):
        run(tmp_path / "results.csv")


@pytest.mark.parametrize(
    ("expected", "points", "interval", "verdict"),
    [
        ("better", None, (0.1, 4), "replicated"),
        ("better", 7, (0.1, 8), "replicated"),
        ("better", 7, (0.1, 4), "smaller than published"),
        ("better", 7, (-0.1, 4), "smaller than published"),
        ("better", 7, (7.1, 9), "larger than published"),
        ("better", 7, (-4, -1), "not replicated"),
        ("better", 3, (-1, 4), "undecided"),
        ("better", None, (-1, 4), "undecided"),
        ("better", None, (-4, -1), "not replicated"),
        ("worse", None, (-4, -1), "replicated"),
        ("worse", 5, (-4, 1), "smaller than published"),
        ("worse", 5, (-20, -9), "larger than published"),
        ("not better", None, (-4, -1), "replicated"),
        ("not better", None, (0.1, 4), "not replicated"),
        ("not better", None, (-4, 1), "undecided"),
        ("worse", 3, (-4, 1), "undecided"),
        ("within", 1, (-0.9, 0.9), "replicated"),
        ("within", 1, (-0.9, 1.1), "undecided"),
        ("within", 1, (1.1, 3), "not replicated"),
        ("within", 1, (-3, -1.1), "not replicated"),
        ("better", None, (float("nan"), float("nan")), "undecided"),
    ],
)
def test_a_claim_is_replicated_only_where_the_whole_interval_says_so(expected, points, interval, verdict):
    claim = Claim("x", 0.1, "mnli", expected, points, "text", "source")
    assert claim.verdict(Difference(sum(interval) / 2, *interval, 1.0, 5)) == verdict


def test_strategies_have_versions_of_their_own(sweep):
    """Versions are compared among the runs of one strategy: another strategy may be at another version."""
    for seed in range(3):
        write_run(sweep / "runs" / f"new-{seed}", "moderate", 0.1, seed, 0.6, version=3)
    write_run(sweep / "runs" / "old", "moderate", 0.1, 7, 0.6)
    runs = load_runs(sweep)
    assert "old: other version of moderate than most runs (version 1 instead of 3); left out" in runs.problems
    assert len(runs.results) == 15


def test_a_run_that_continues_another_has_the_model_of_the_other(sweep, tmp_path):
    """Also where the sweep was moved: the recorded path is that of another machine."""
    write_run(sweep / "runs" / "second", "forgettable", 0.1, 0, 0.6, model="/elsewhere/sweep/runs/all-0")
    write_run(sweep / "runs" / "third", "forgettable", 0.3, 0, 0.6, model=str(sweep / "runs" / "second"))
    write_run(sweep / "runs" / "itself", "forgettable", 0.5, 0, 0.6, model="/models/runs/itself")
    runs = load_runs(sweep)
    assert {result.identity["model"] for result in runs.results} == {"albert-base-v1"}
    assert {"second", "third"} < {result.name for result in runs.results}
    assert any(line.startswith("runs/itself: other settings") for line in runs.problems)
    # 2.0 epochs on everything, and 0.2 or 0.6 on the chosen examples; the third goes on from the second.
    cost = {result.name: result.cost for result in runs.results}
    assert [cost[name] for name in ("all-0", "second", "third")] == pytest.approx([2.0, 2.2, 2.8])


def test_a_training_that_goes_on_from_one_on_everything_never_pays(sweep):
    write_run(sweep / "runs" / "second", "forgettable", 0.1, 0, 0.6, model=str(sweep / "runs" / "all-0"))
    run(sweep)
    rows = {row[1]: row for row in tables((sweep / "report" / "results.md").read_text())["Cost"]}
    assert rows["forgettable"][3:] == ["2.20", "0.00", "2.20", "-"] and rows["diverse"][-1] == "1 training"


def add_groups(folder, accuracies: dict):
    """What run_glue.py --challenge leaves in results.json."""
    results = json.loads((folder / "results.json").read_text())
    worst, mean = min(accuracies.values()), sum(accuracies.values()) / len(accuracies)
    facts = {"groups": accuracies, "worst_group": worst, "mean_over_groups": mean, "accuracy": mean}
    results["challenge"] = {"negation": facts}
    (folder / "results.json").write_text(json.dumps(results))


def test_challenge_sets_evaluated_inside_a_run_have_their_table_and_are_compared(sweep, tmp_path):
    for seed in range(3):
        add_groups(sweep / "runs" / f"random-{seed}", {"with not": 0.25 + seed / 8, "without": 0.75})
        add_groups(sweep / "runs" / f"better-{seed}", {"with not": 0.50 + seed / 4, "without": 0.75})
    run(sweep)
    found = tables((sweep / "report" / "results.md").read_text())
    header, *rows = found["Challenge sets"]
    assert header[3:] == ["seeds", "negation (worst group, mean over groups)", "negation by group (with not, without)"]
    cells = {row[1]: row[4:] for row in rows}
    assert cells["random"] == ["0.375 ± 0.125, 0.562 ± 0.062", "0.375 ± 0.125, 0.750 ± 0.000"]
    assert cells["diverse"][0].startswith("0.667 ± 0.144, ") and cells["hard"] == ["-, -", "-, -"]
    header, *rows = found["Difference from random"]
    assert header[-2:] == ["negation: worst group", "negation: mean over groups"]
    by_way = {row[1]: row for row in rows}
    assert by_way["diverse"][-2].startswith("+29.2 [") and by_way["hard"][-1] == "-"
    assert header[4:7] == [
        "mean of mnli and mnli-mm",
        "mnli",
        "mnli-mm",
    ]  # the dev columns, and no column of a challenge set among them
    names = set(draw(load_runs(sweep), tmp_path, formats=()))
    assert {"challenge_negation_epochs.png", "challenge_negation_against_accuracy.png"} < names
    (tmp_path / "results.csv").write_bytes((sweep / "report" / "results.csv").read_bytes())
    run(tmp_path / "results.csv")
    assert (tmp_path / "results.md").read_bytes() == (sweep / "report" / "results.md").read_bytes()


def test_a_challenge_set_is_what_its_record_says(tmp_path):
    """The report knows no challenge set by name: a made-up one gets columns, cells and comparisons."""
    dogs = ChallengeScores(
        name="DOGS", results_file="dogs.json", read=lambda found: {"old dogs": found["old"], "DOGS": found["all"]},
        cells=(Cell("dogs", {"old": "old dogs"}),), headline="DOGS", compared=("DOGS",),
    )  # fmt: skip
    for name in ("random", "hard"):
        for seed in range(2):
            folder = write_run(tmp_path / f"{name}{seed}", name, 0.1, seed, 0.6, hans=False)
            (folder / "dogs.json").write_text(json.dumps({"old": 0.5, "all": 0.25 + seed / 4}))
    runs = load_runs(tmp_path, challenges=(HANS, dogs))
    found = {table.title: table for table in tables_of(runs)}
    text = "\n".join(table.markdown() for table in found.values())
    assert runs.dev == ("mnli", "mnli-mm") and "HANS" not in text
    assert found["Accuracy by share of the data"].rows[0][5:] == ["dogs (old)"]
    assert found["Accuracy by share of the data"].rows[1][5:] == ["0.500 ± 0.000"]
    assert found["Difference from random"].rows[0][5:] == ["mnli", "mnli-mm", "DOGS"]
    assert found["At a glance"].rows[1] == ["random", "60.5 ± 0.0 ; 37.5 ± 17.7"]


def test_dev_columns_of_an_unknown_task_are_all_but_those_of_challenge_sets(sweep, tmp_path):
    add_groups(sweep / "runs" / "random-0", {"a": 0.5})
    run(sweep)
    text = (sweep / "report" / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(text.replace("MNLI,", "my-data,").replace(",mnli,mnli-mm,", ",dev,other,"))
    assert read_csv(tmp_path / "results.csv", challenges=(HANS,)).dev == ("dev", "other")


def damaged(document):
    """(where, the document with one value null, missing or of another kind) for every value in it."""
    places = [[]]
    while places:
        place = places.pop()
        value = document
        for key in place:
            value = value[key]
        if isinstance(value, (dict, list)):
            places += [[*place, key] for key in (value if isinstance(value, dict) else range(len(value)))]
        if not place:
            continue
        for other in (None, "text", [], {}, -1, float("nan"), 10**400, "missing"):
            changed = copy.deepcopy(document)
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            if other == "missing":
                del parent[place[-1]]
            else:
                parent[place[-1]] = other
            yield f"{'.'.join(map(str, place))} = {str(other)[:9]}", changed


@pytest.mark.parametrize(
    "file", ["run.json", "results.json", "selection.json", "hans/hans_results.json", "../sweep.json"]
)  # fmt: skip
def test_a_null_missing_or_odd_value_in_any_file_is_one_line(tmp_path, file):
    """Whatever stands under whichever key: the run is read, or it is named, or the report ends in one line."""
    good = write_run(tmp_path / "good", "random", 0.1, 0, 0.6)
    bad = write_run(tmp_path / "bad", "hard", 0.1, 0, 0.7, steps=100, online="rs2")
    for folder in (good, bad):
        add_groups(folder, {"a": 0.5, "b": 0.25})
        card = {"labels": {"neutral": {"subset": 0.5}}, "contradicts": {"subsequence": {"subset": 7}}}
        (folder / "selection.json").write_text(json.dumps(card))
    plan = {"runs": [{"name": "bad"}], "scoring_epochs": {"rs2": 0.5}}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    path = bad / file
    refused = read = 0
    for where, changed in damaged(json.loads(path.read_text())):
        path.write_text(json.dumps(changed))
        try:
            runs = load_runs(tmp_path, challenges=(HANS,))
            text = "\n".join(table.markdown() for table in tables_of(runs))
        except InputError as error:
            text, runs = str(error), None
        except Exception as error:
            raise AssertionError(f"{file}: {where}") from error
        named = runs is None or any("bad" in line for line in runs.problems)
        refused, read = refused + named, read + (not named)
        assert not named or len(text) < 10_000, where
    assert refused > 5 * (file != "selection.json") and refused + read > 20, (refused, read)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "results.json",
            lambda d: d["train"].pop("probed"),
            "bad/results.json: train.probed is missing, expected a whole",
        ),
        ("results.json", lambda d: d.update(selection=None), "bad/results.json: selection is null, expected an object"),
        ("results.json", lambda d: d.update(eval={}), "bad/results.json: eval is empty; it is not a training run with"),
        ("results.json", lambda d: d["eval"].pop("dev_mismatched"), "bad/results.json: eval.dev_mismatched is missing"),
        (
            "run.json",
            lambda d: d["arguments"].update(seed="one"),
            "bad/run.json: arguments.seed is 'one', expected a whole",
        ),
        ("run.json", lambda d: d["data"]["train"].clear(), "bad/run.json: data.train.fingerprint is missing"),
        (
            "hans/hans_results.json",
            lambda d: d["by_heuristic"].pop("subsequence"),
            "not the results of HANS: 'subsequence'",
        ),
        (
            "hans/hans_results.json",
            lambda d: d["by_heuristic"]["subsequence"].update(entailment=7),
            "is 7, expected a frac",
        ),
    ],
)
def test_the_line_names_file_and_key(tmp_path, file, change, message):
    write_run(tmp_path / "good", "random", 0.1, 0, 0.6)
    path = write_run(tmp_path / "bad", "hard", 0.1, 0, 0.7) / file
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    (line,) = load_runs(tmp_path, challenges=(HANS,)).problems
    assert message in line and "\n" not in line


def test_results_without_the_record_of_their_run_are_named(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"run-{seed}", "random", 0.5, seed, 0.8)
    (tmp_path / "run-1" / "run.json").unlink()
    runs = load_runs(tmp_path)
    assert "run-1: results.json without run.json; left out" in runs.problems and len(runs.results) == 1


def test_predictions_that_were_cut_short_are_named(tmp_path):
    write_run(tmp_path / "good", "random", 0.1, 0, 0.6)
    bad = write_run(tmp_path / "bad", "hard", 0.1, 0, 0.7)
    (bad / "predictions_dev_matched.tsv").write_text("index\tgold\tprediction\n0\ta\n")
    assert any("predictions_dev_matched.tsv: line 2: expected index" in line for line in load_runs(tmp_path).problems)


@pytest.mark.parametrize("name", ["chosen", "a: b"])
def test_a_challenge_set_needs_a_name_of_its_own(tmp_path, name):
    write_run(tmp_path / "good", "random", 0.1, 0, 0.6)
    bad = write_run(tmp_path / "bad", "hard", 0.1, 0, 0.7)
    results = json.loads((bad / "results.json").read_text())
    results["challenge"] = {name: {"groups": {"a": 0.5}, "worst_group": 0.5, "mean_over_groups": 0.5}}
    (bad / "results.json").write_text(json.dumps(results))
    assert any(f"challenge.{name}: a challenge set needs another name" in line for line in load_runs(tmp_path).problems)


def test_published_numbers_stand_beside_ours_marked_as_theirs(sweep):
    run(sweep, "--published")
    header, *rows = tables((sweep / "report" / "results.md").read_text())["Beside the published numbers"]
    assert len(rows) == len(PUBLISHED) and [name.rpartition(", ")[2] for name in header[1:]] == ["ours", "theirs"] * 3
    assert rows[0][1:3] == ["61.00 ± 1.00 / 62.00 ± 1.00", "70.99 / 72.96"] and rows[1][1] == "-"


def test_runs_without_hans_have_no_hans_columns(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"r{seed}", "random", 0.1, seed, 0.6, hans=False)
    run(tmp_path)
    assert "HANS" not in (tmp_path / "report" / "results.md").read_text()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_nothing_to_report_is_one_line(tmp_path, make):
    make(tmp_path / "runs")
    with pytest.raises(InputError, match=r"no such folder|no finished run"):
        report.main([str(tmp_path / "runs")])


def test_the_readmes_published_table_is_the_one_reports_use():
    for page in ("README.md", "docs/published.md"):
        text = (tiny.ROOT / page).read_text()
        rows = re.findall(r"^\| (\d+) \| ([\d. /]+) \| ([\d., ]+) \| ([\d., ]+) \|$", text, flags=re.M)
        found = {
            int(pct) / 100: tuple(tuple(map(float, re.split(" / |, ", cell))) for cell in cells) for pct, *cells in rows
        }
        assert found == PUBLISHED and len(rows) == len(PUBLISHED), page


def edit(path, change):
    """Change the JSON of a file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_arms_that_were_made_differently_are_not_averaged(tmp_path):
    for seed in range(3):
        for name in ("random", "el2n"):
            write_run(tmp_path / f"{name}{seed}", name, 0.1, seed, 0.6)
    odd = tmp_path / "el2n2"
    edit(odd / "results.json", lambda d: d["selection"].update(parameters={"drop_hardest": 0.3}, class_balanced=True))
    edit(tmp_path / "random2" / "results.json", lambda d: d["train"].update(batch_size=256))
    runs = load_runs(tmp_path, challenges=(HANS,))
    assert {result.name for result in runs.results} == {"random0", "random1", "el2n0", "el2n1"}
    assert any("random2: other settings" in line and "batch 256" in line for line in runs.problems)
    assert any("el2n2: other parameters of el2n" in line and "class_balanced True" in line for line in runs.problems)


def test_runs_that_were_tested_on_other_pairs_are_not_compared(tmp_path):
    for seed in range(3):
        for name in ("random", "hard"):
            write_run(tmp_path / f"{name}{seed}", name, 0.1, seed, 0.6)
    edit(tmp_path / "hard1" / "hans" / "hans_results.json", lambda d: d.update(n=300))
    edit(tmp_path / "hard2" / "run.json", lambda d: d.update({"challenge sets": {"stress": "b"}}))
    for seed in range(2):
        edit(tmp_path / f"random{seed}" / "run.json", lambda d: d.update({"challenge sets": {"stress": "a"}}))
    problems = load_runs(tmp_path, challenges=(HANS,)).problems
    assert any("hard1: other HANS data" in line and "pairs 300" in line for line in problems)
    assert any("hard2: other stress data" in line for line in problems)


def test_a_scheme_that_chooses_a_subset_stands_beside_random_at_equal_steps(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"random{seed}", "random", 0.1, seed, 0.6, steps=90)
        write_run(tmp_path / f"rs2{seed}", "rs2", 0.1, seed, 0.62, steps=90, online="rs2")
        edit(tmp_path / f"rs2{seed}" / "results.json", lambda d: d["train"].update(examples=2 * N))
    assert set(load_runs(tmp_path).arms) == {("random", 0.1, "steps"), ("rs2", 0.1, "steps")}


def test_a_second_pass_goes_on_from_the_run_beside_it_not_from_another_sweeps(tmp_path, monkeypatch):
    for sweep, model in (("a", "albert"), ("b", "bert")):
        runs = tmp_path / sweep / "runs"
        write_run(runs / "all-0", "all", 1.0, 0, 0.8, model=model)
        write_run(runs / "dfr-0", "dfr", 1.0, 0, 0.8, model=f"/moved/{sweep}/runs/all-0")
    for sweep, model in (("a", "albert"), ("b", "bert")):
        found = {result.name: result.identity["model"] for result in load_runs(tmp_path / sweep).results}
        assert found == {"all-0": model, "dfr-0": model}
    both = load_runs(tmp_path)
    assert {result.identity["model"] for result in both.results} == {
        "albert"
    }  # those of bert are left out, both of them
    write_run(tmp_path / "flat" / "second", "dfr", 1.0, 0, 0.8, model="first")
    write_run(tmp_path / "flat" / "first", "all", 1.0, 0, 0.8, model="albert")
    monkeypatch.chdir(tmp_path / "flat")
    assert {result.identity["model"] for result in load_runs(tmp_path / "flat").results} == {"albert"}


def test_a_plan_of_another_sweep_does_not_hide_what_is_not_begun(tmp_path):
    write_run(tmp_path / "a" / "runs" / "random-0", "random", 0.1, 0, 0.6)
    for sweep in "ab":
        (tmp_path / sweep).mkdir(exist_ok=True)
        plan = {"settings": {}, "runs": [{"name": "random-0"}], "scoring_epochs": {}}
        (tmp_path / sweep / "sweep.json").write_text(json.dumps(plan))
    assert load_runs(tmp_path).problems == ["planned, not begun: random-0"]


def test_test_sets_of_some_runs_do_not_matter(tmp_path):
    for seed in range(2):
        write_run(tmp_path / f"random{seed}", "random", 0.1, seed, 0.6)
    edit(tmp_path / "random1" / "run.json", lambda d: d["data"].update(test={"n": 5, "fingerprint": "x"}))
    assert len(load_runs(tmp_path).results) == 2


@pytest.mark.parametrize("folder", ["study/first", "study", "study/scratch"])
def test_a_studys_recorded_rows_give_its_tables(tmp_path, folder):
    """results.csv, with what stands beside it, gives results.md again; and so the tables of the first study's page."""
    folder = tiny.ROOT / folder
    for name in ("results.csv", "timings.csv", "claims.csv"):
        if (folder / name).exists():
            shutil.copy(folder / name, tmp_path)
    run(tmp_path / "results.csv")
    made = (tmp_path / "results.md").read_text()
    assert made == (folder / "results.md").read_text()
    if folder.name == "first":
        lines = set(made.splitlines())
        own = re.findall(r"(?:^\|.*\|\n)+", (tiny.ROOT / "docs" / "first_study.md").read_text(), flags=re.M)
        found = [rows for table in own if (rows := table.splitlines())[0] in lines]
        assert len(found) > 2 and all(set(rows) <= lines for rows in found)


def test_the_pages_show_the_tables_of_the_studys_report():
    for page in make_study.PAGES:
        text = page.read_text()
        assert make_study.COPIED.search(text), page.name
        assert make_study.filled(text) == text, f"{page.name}: run python -m docs.make_study"
        intervals = re.findall(r"[+-]\d+\.\d \[[^]|]*\]", re.sub(r"^\|.*\n", "", text, flags=re.M))
        report = (tiny.ROOT / "study" / "results.md").read_text()
        assert not [text for text in intervals if text not in report], f"{page.name}: another report's numbers"
    source = "<!-- study/first/results.md: At a glance; only {} -->\nold\n<!-- end -->"
    table = make_study.filled(source.format("random, hard")).splitlines()[2:-2]
    assert [row.split(" | ")[0] for row in table[2:]] == ["| random", "| hard"]
    with pytest.raises(InputError, match="At a glance has no row of nobody"):
        make_study.filled(source.format("random, nobody"))
    with pytest.raises(InputError, match="end mark is not complete"):
        make_study.filled(source.format("random").replace("end -->", "en -->") + source.format("random"))
    with pytest.raises(InputError, match="has no table 'Nothing'"):
        make_study.filled(source.format("random").replace("At a glance", "Nothing"))
