"""report.py on run folders written by the test: layout, verdicts, what is left out and named, one page without a network."""

import csv
import json
import re

import pytest

import report
from hans.challenge import HEURISTICS
from utils.errors import InputError
from utils.report.comparison import differences_from_random
from utils.report.published import PUBLISHED
from utils.report.run_folders import load_runs

N = 1000


def write_run(
    folder, strategy, pct, seed, accuracy, non_entailed=0.1, *, steps=None, data="abc", lr=2e-5, online=None, hans=True,
    model="albert-base-v1", probed=0, version=None,
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
    found = differences_from_random(load_runs(sweep).arms, ["mnli"])["hard", 0.1, "epochs"]["mnli"]
    assert found.low < 0 < found.high and found.detectable > 20 and found.n == 3
    assert by_way["hard"]["mnli"] == f"+1.0 [{found.low:+.1f}, {found.high:+.1f}] > {found.detectable:.1f}"
    assert by_way["diverse"]["HANS non-entailed"] == "+1.0 (no spread)"


def test_cost_holds_scoring_and_says_when_it_pays(sweep):
    run(sweep)
    rows = {row[1]: row for row in tables((sweep / "report" / "results.md").read_text())["Cost"]}
    # Everything takes 2 epochs, a tenth 0.2: 1.8 saved by each training.
    assert rows["random"][3:] == ["0.20", "0.00", "0.20", "1 training"]
    assert rows["diverse"][3:] == ["0.20", "0.50", "0.70", "1 training"]
    assert rows["hard"][3:] == ["0.20", "4.00", "4.20", "3 trainings"]
    assert rows["all"][6] == "-"


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


def test_the_page_holds_everything_and_needs_no_network(sweep):
    run(sweep)
    page = (sweep / "report" / "report.html").read_text()
    figures = sorted(path.name for path in (sweep / "report").glob("*.png"))
    assert figures == [
        "accuracy_epochs.png",
        "cost_against_accuracy.png",
        "hans_against_accuracy.png",
        "hans_epochs.png",
    ]
    assert page.count('src="data:image/png;base64,') == len(figures)
    assert not re.search(r'(src|href)="(?!data:)', page) and "61.00 ± 1.00" in page


def test_the_same_runs_give_the_same_files(sweep, tmp_path):
    run(sweep, "--output_dir", str(tmp_path / "one"))
    run(sweep, "--output_dir", str(tmp_path / "two"))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_results_csv_stands_for_its_runs(sweep, tmp_path):
    """Tables, figures and page can be made again from the recorded rows alone, byte for byte."""
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
        assert (sweep / "report" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes(), name


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
    write_run(runs / "again", "random", 0.1, 2, 0.99)
    collapse(write_run(runs / "constant", "random", 0.1, 5, 0.33))
    for path in sorted((runs / "noisy-0").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (runs / "noisy-0").rmdir()
    printed = run(sweep, capsys=capsys)
    for expected in (
        "better-1/results.json: not readable as JSON",
        "better-2: unfinished or failed (run_glue.py: failed: the loss is nan at step 7)",
        "foreign: other data than most runs (train another instead of abc)",
        "hot: other settings than most runs (learning_rate 1.0 instead of 2e-05)",
        "other: other settings than most runs (model_name_or_path bert-base-uncased instead of albert-base-v1)",
        "random-2: the same strategy, share, budget and seed as again; left out",
        "failed seeds, the same answer to every dev example, counted, not averaged in: constant",
        "planned, not begun: noisy-0",
        "hard at 10 % (equal epochs): seed 0, 5 missing",
    ):
        assert expected in printed and expected in (sweep / "report" / "results.md").read_text(), expected
    rows = {row[1]: row for row in tables(printed)["Accuracy by share of the data"]}
    assert rows["random"][3] == "3 (1 failed)" and rows["diverse"][3] == "1"
    differences = {row[1]: row for row in tables(printed)["Difference from random"]}
    assert "one seed" in differences["diverse"][4] and differences["hard"][3] == "2"


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
    from tests import tiny

    for page in ("README.md", "docs/published.md"):
        text = (tiny.ROOT / page).read_text()
        rows = re.findall(r"^\| (\d+) \| ([\d. /]+) \| ([\d., ]+) \| ([\d., ]+) \|$", text, flags=re.M)
        found = {
            int(pct) / 100: tuple(tuple(map(float, re.split(" / |, ", cell))) for cell in cells) for pct, *cells in rows
        }
        assert found == PUBLISHED and len(rows) == len(PUBLISHED), page


def test_the_readmes_study_is_what_its_recorded_rows_give(tmp_path):
    """study/results.csv alone gives study/results.md; the rows of the README and of docs/study.md stand there."""
    from tests import tiny

    study = tiny.ROOT / "study"
    run(study / "results.csv", "--output_dir", str(tmp_path))
    made = (tmp_path / "results.md").read_text()
    assert made == (study / "results.md").read_text()
    readme = (tiny.ROOT / "README.md").read_text().partition("**Ours.**")[2].partition("**Published")[0]
    for text, least in ((readme, 8), ((tiny.ROOT / "docs" / "study.md").read_text(), 50)):
        rows = re.findall(r"^\|.*\|$", text, flags=re.M)
        assert len(rows) > least and set(rows) <= set(made.splitlines())
