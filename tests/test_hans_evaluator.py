"""The evaluator: equal to the authors' on what they published, to a naive loop on what we generate, and one clear line
for everything that is not a valid pair of files.
"""

import gzip
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hans import evaluate_heur_output, generate, report
from hans.data import LABELS, find_evaluation_set, load_hans, load_predictions
from tests import tiny
from utils.errors import InputError

HANS = tiny.SHARED / "hans"
needs_hans = pytest.mark.skipif(not HANS.is_dir(), reason=f"no official HANS files at {HANS}")
SET = "heuristics_evaluation_set.txt"
HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
WORDS = ("entailment", "non-entailment", "neutral", "contradiction", "not_entailment")


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """A folder with an evaluation set of 120 pairs and predictions for it, in another order than its own."""
    folder = tmp_path_factory.mktemp("hans")
    generate.main(["--output_dir", str(folder), "--per_subcase", "4"])
    rng = random.Random(0)
    guesses = [f"ex{i},{rng.choice(WORDS)}" for i in range(120)]
    rng.shuffle(guesses)
    (folder / "hans_predictions.txt").write_text("\n".join(["pairID,gold_label", *guesses]) + "\n")
    return folder


def naive(folder: Path, predictions: Path | None = None) -> str:
    """What the authors' script prints, by one pass over the file per line printed."""
    header, *rows = [line.split("\t") for line in (folder / SET).read_text().splitlines()]
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    lines = (predictions or folder / "hans_predictions.txt").read_text().splitlines()[1:]
    guess = {line.split(",")[0]: line.split(",")[1] for line in lines}

    def accuracy(**where):
        chosen = [row for row in rows if all(row[key] == value for key, value in where.items())]
        right = [(guess[row["pairID"]] == "entailment") == (row["gold_label"] == "entailment") for row in chosen]
        return sum(right) / len(right)

    def names(column):
        return list(dict.fromkeys(row[column] for row in rows))

    out = []
    for title, label in (("entailed", "entailment"), ("non-entailed", "non-entailment")):
        out.append(f"Heuristic {title} results:")
        out += [f"{h}: {accuracy(heuristic=h, gold_label=label)}" for h in names("heuristic")] + [""]
    out += ["Subcase results:", *[f"{s}: {accuracy(subcase=s)}" for s in names("subcase")], ""]
    out += ["Template results:", *[f"{t}: {accuracy(template=t)}" for t in names("template")]]
    return "\n".join(out) + "\n"


def evaluate(*args, cwd=None, script=tiny.ROOT / "hans" / "evaluate_heur_output.py"):
    return subprocess.run([sys.executable, str(script), *map(str, args)], capture_output=True, text=True, cwd=cwd)


def printed(capsys, *args) -> str:
    evaluate_heur_output.main([str(arg) for arg in args])
    return capsys.readouterr().out


# ----------------------------------------------------------------------------------------- what the authors published
PUBLISHED = {
    "bert_preds.txt.xz": ("0.9464 0.9932 0.9844", "0.164 0.0386 0.1612"),
    "esim_heur_preds.txt.xz": ("0.982 0.9978 0.9852", "0.0098 0.018 0.008"),
}


@needs_hans
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_predictions_score_as_published(name, capsys):
    lines = printed(capsys, HANS / name, "--data_dir", HANS).splitlines()
    entailed, non_entailed = (
        [f"{h}: {value}" for h, value in zip(HEURISTICS, values.split(), strict=True)] for values in PUBLISHED[name]
    )
    start = ["Heuristic entailed results:", *entailed, "", "Heuristic non-entailed results:", *non_entailed, ""]
    assert lines[:11] == [*start, "Subcase results:"]
    assert lines[41:43] == ["", "Template results:"]
    assert sorted(line.split(": ")[0] for line in lines[11:41]) == sorted(case[1] for case in generate.SUBCASES)
    assert len(lines) == 43 + len(set(load_hans(HANS).templates))


@needs_hans
def test_unpacked_files_score_the_same_and_from_the_shell(tmp_path, capsys):
    for name in (f"{SET}.xz", "bert_preds.txt.xz"):
        (tmp_path / name.removesuffix(".xz")).write_bytes(lzma.decompress((HANS / name).read_bytes()))
    done = evaluate("bert_preds.txt", "--data_dir", ".", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == printed(capsys, HANS / "bert_preds.txt.xz", "--data_dir", HANS)


@needs_hans
def test_the_official_sets_are_what_the_paper_says():
    for file in (HANS, HANS / "heuristics_train_set.txt.xz"):
        data = load_hans(file)
        cells = Counter(zip(data.heuristics, data.labels, strict=True))
        assert cells == {(heuristic, label): 5000 for heuristic in HEURISTICS for label in LABELS}


# ----------------------------------------------------------------------------------------------- arithmetic and format
def test_lines_are_those_of_a_naive_loop(challenge, capsys):
    assert printed(capsys, challenge / "hans_predictions.txt", "--data_dir", challenge) == naive(challenge)


def test_three_levels_agree_with_each_other(challenge):
    data = load_hans(challenge)
    results = report.score(data, load_predictions(challenge, data))
    cells = [cell[label] for cell in results["by_heuristic"].values() for label in LABELS]
    assert results["accuracy"] == pytest.approx(sum(cells) / 6)  # 20 pairs in every cell
    assert results["accuracy"] == pytest.approx(sum(results["by_subcase"].values()) / 30)
    assert results["mean_non_entailed"] == pytest.approx(sum(cells[1::2]) / 3)
    assert next(iter(results)) == "mean_non_entailed"


@pytest.mark.parametrize("constant", LABELS)
def test_a_constant_answer_gets_half_of_all_and_one_side_whole(challenge, constant):
    data = load_hans(challenge)
    results = report.score(data, [constant] * len(data))
    assert results["accuracy"] == 0.5
    for cell in results["by_heuristic"].values():
        assert cell == {label: float(label == constant) for label in LABELS}
    (warning,) = report.warnings(results)
    assert f"every pair was called {constant}" in warning and "--label_order" in warning


def test_warnings_name_what_looks_like_a_mistake(challenge):
    data = load_hans(challenge)
    other = dict(zip(LABELS, reversed(LABELS), strict=True))
    assert report.warnings(report.score(data, data.labels)) == []
    assert any("far below" in w for w in report.warnings(report.score(data, [other[y] for y in data.labels])))
    mixed = [y if h == "constituent" else other[y] for y, h in zip(data.labels, data.heuristics, strict=True)]
    assert any("exactly 0 and 1" in w for w in report.warnings(report.score(data, mixed)))
    rng = random.Random(0)
    reverse = [LABELS[1] if rng.random() < 0.9 else LABELS[0] for _ in range(len(data))]
    assert any("the reverse of every model" in w for w in report.warnings(report.score(data, reverse)))


def test_a_heuristic_without_one_of_the_labels_is_left_out_of_that_block(challenge, tmp_path, capsys):
    lines = (challenge / SET).read_text().splitlines()
    kept = [line for line in lines if not (line.startswith("entailment") and "\tconstituent\t" in line)]
    (tmp_path / SET).write_text("\n".join(kept) + "\n")
    ids = [line.split("\t")[7] for line in kept[1:]]
    (tmp_path / "hans_predictions.txt").write_text("pairID,gold_label\n" + "".join(f"{i},entailment\n" for i in ids))
    lines = printed(capsys, tmp_path).splitlines()
    assert lines[:4] == ["Heuristic entailed results:", "lexical_overlap: 1.0", "subsequence: 1.0", ""]
    assert lines[4:8] == ["Heuristic non-entailed results:", *[f"{h}: 0.0" for h in HEURISTICS]]


# --------------------------------------------------------------------------------------- where it looks, what it reads
def test_a_folder_its_own_place_and_the_current_folder(challenge, tmp_path, capsys):
    expected = naive(challenge)
    assert printed(capsys, challenge) == expected
    alone = shutil.copy(challenge / "hans_predictions.txt", tmp_path)
    assert evaluate(alone, cwd=challenge).stdout == expected
    assert evaluate(alone, "--data_dir", challenge / SET, cwd=tmp_path).stdout == expected
    missing = evaluate(alone, cwd=tmp_path)
    assert missing.returncode == 2 and "give --data_dir" in missing.stderr


@pytest.fixture
def recorded(challenge, tmp_path):
    """recorded(**changes) -> a folder with predictions and the record of the set, as test_hans.py leaves them."""

    def make(per_subcase=None, **changes):
        data = load_hans(challenge)
        data = data.sample(per_subcase) if per_subcase else data
        about = {"source": data.source, "max_per_subcase": per_subcase, "fingerprint": data.fingerprint} | changes
        (tmp_path / "hans_results.json").write_text(json.dumps({"data": about}))
        lines = ["pairID,gold_label", *(f"{pair_id},entailment" for pair_id in data.pair_ids)]
        (tmp_path / "hans_predictions.txt").write_text("\n".join(lines) + "\n")
        return tmp_path, report.format_authors(report.score(data, ["entailment"] * len(data))) + "\n"

    return make


@pytest.mark.parametrize("per_subcase", [None, 2])
def test_the_set_is_found_where_the_results_say_it_lay(recorded, per_subcase, capsys):
    folder, expected = recorded(per_subcase)
    done = evaluate(folder, cwd=tiny.ROOT / "hans", script="evaluate_heur_output.py")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", expected)
    assert printed(capsys, folder / "hans_predictions.txt") == expected


def test_a_set_that_moved_is_looked_for_nearby(recorded, challenge, tmp_path, capsys):
    folder, expected = recorded(source=str(tmp_path / "gone.txt"))
    with pytest.raises(InputError, match=r"gone\.txt"):
        printed(capsys, folder)
    shutil.copy(challenge / SET, folder)
    assert printed(capsys, folder) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"fingerprint": "0" * 32}, "not the evaluation set that"), ({"source": 3}, "not what test_hans.py writes")],
)
def test_a_record_that_does_not_fit_is_one_line(recorded, changes, message, capsys):
    folder, _ = recorded(**changes)
    with pytest.raises(InputError, match=message):
        printed(capsys, folder)


def test_as_the_authors_run_it(challenge):
    done = evaluate(challenge, cwd=tiny.ROOT / "hans", script="evaluate_heur_output.py")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", naive(challenge))


def test_json(challenge, capsys):
    results = json.loads(printed(capsys, challenge, "--json"))
    data = load_hans(challenge)
    assert results == report.score(data, load_predictions(challenge, data))


@pytest.mark.parametrize("ending", [".txt.xz", ".txt.gz", ".jsonl", ".jsonl.xz", ".jsonl.gz"])
def test_every_form_of_the_evaluation_set_reads_the_same(challenge, tmp_path, ending):
    content = (challenge / SET).read_text()
    if ending.startswith(".jsonl"):
        header, *rows = [line.split("\t") for line in content.splitlines()]
        content = "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(ending[-3:], open)
    with opener(tmp_path / f"heuristics_evaluation_set{ending}", "wt") as file:
        file.write(content)
    ours, theirs = load_hans(tmp_path), load_hans(challenge)
    assert ours.fingerprint == theirs.fingerprint
    assert (ours.heuristics, ours.subcases, ours.templates) == (theirs.heuristics, theirs.subcases, theirs.templates)


def test_columns_are_found_by_name(challenge, tmp_path):
    rows = [line.split("\t") for line in (challenge / SET).read_text().splitlines()]
    (tmp_path / SET).write_text("\n".join("\t".join(reversed(row)) for row in rows) + "\n")
    assert load_hans(tmp_path).fingerprint == load_hans(challenge).fingerprint


@pytest.mark.parametrize("name", [SET, "hans_predictions.txt"])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(challenge, tmp_path, capsys, name):
    for file in (SET, "hans_predictions.txt"):
        content = (challenge / file).read_bytes()
        changed = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") if file == name else content
        (tmp_path / file).write_bytes(changed)
    assert printed(capsys, tmp_path) == naive(challenge)


def test_the_hub_data_set_is_the_same_set(challenge, monkeypatch):
    datasets = pytest.importorskip("datasets")
    ours = load_hans(challenge)
    asked = []

    def load_dataset(name, **options):
        asked.append((name, options["split"]))
        columns = {
            "premise": ours.premises, "hypothesis": ours.hypotheses, "label": [LABELS.index(x) for x in ours.labels],
            "heuristic": ours.heuristics, "subcase": ours.subcases, "template": ours.templates,
        }  # fmt: skip
        return datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=list(LABELS)))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = load_hans()
    assert asked == [("jhu-cogsci/hans", "validation")]
    assert hub.fingerprint == ours.fingerprint and hub.subcases == ours.subcases and hub.templates == ours.templates


def test_an_unreachable_hub_is_one_line_with_a_way_out(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"--data_dir .*python -m hans\.generate"):
        load_hans()


# ------------------------------------------------------------------------------------------------------------ bad input
def lines_changed(change):
    return lambda content: b"\n".join(change(content.split(b"\n")))


def damaged(content: bytes) -> bytes:
    """Bytes in the middle of the compressed data overwritten, its head and tail left as they are."""
    middle = len(content) // 2
    return content[:middle] + b"\x00" * 40 + content[middle + 40 :]


BAD_PREDICTIONS = {
    "missing ids": (lines_changed(lambda x: x[:-4] + x[-1:]), "no prediction for 3 of its 120 pairs"),
    "repeated id": (lines_changed(lambda x: [*x[:-1], x[1], b""]), "was predicted before"),
    "foreign id": (lines_changed(lambda x: [*x[:-1], b"ex999,neutral", b""]), "1 predictions for pairs it does not have"),
    "unknown label": (lines_changed(lambda x: [*x[:5], b"ex5,maybe", *x[6:]]), "line 6: 'ex5,maybe'"),
    "no label": (lines_changed(lambda x: [*x[:5], b"ex5", *x[6:]]), "line 6: 'ex5' is not pairID,label"),
    "no header": (lines_changed(lambda x: x[1:]), "the header pairID,gold_label is due"),
    "empty": (lambda content: b"", "the header pairID,gold_label is due"),
    "another set": (lambda content: content.replace(b"ex", b"hans"), "do not belong together"),
    "not UTF-8": (lambda content: content.replace(b"ex7,", b"ex\xff7,"), "not UTF-8"),
    "binary": (lambda content: bytes(range(256)) * 4, "not UTF-8"),
}  # fmt: skip


def one_line(done) -> str:
    assert done.returncode == 2 and done.stdout == "", done
    (line,) = done.stderr.splitlines()
    assert line.startswith("evaluate_heur_output.py: error: ")
    return line


@pytest.mark.parametrize("case", BAD_PREDICTIONS)
def test_bad_predictions_are_one_line_and_status_2(challenge, tmp_path, case):
    change, expected = BAD_PREDICTIONS[case]
    path = tmp_path / "guesses.txt"
    path.write_bytes(change((challenge / "hans_predictions.txt").read_bytes()))
    line = one_line(evaluate(path, "--data_dir", challenge))
    assert expected in line and str(path) in line


BAD_SETS = {
    "another kind of file": (lambda content: b"index\tsentence\n0\ta\n", "no column 'gold_label'"),
    "empty": (lambda content: b"", "no column 'gold_label'"),
    "header only": (lines_changed(lambda x: x[:1]), "holds no pairs"),
    "surplus tab": (lines_changed(lambda x: [*x[:3], x[3] + b"\tmore", *x[4:]]), "line 4 has 12 tab-separated"),
    "doubled column": (lines_changed(lambda x: [x[0] + b"\tsentence1", *x[1:]]), "names sentence1 more than once"),
    "short row": (lines_changed(lambda x: [*x[:3], b"entailment\tThe end .", *x[4:]]), "line 4 has 2 tab-separated"),
    "unknown label": (lambda content: content.replace(b"\nentailment", b"\nentails", 1), "unknown gold_label 'entails'"),
    "repeated id": (lines_changed(lambda x: [*x[:-1], x[1], b""]), "line 122: pairID 'ex0' is also on line 2"),
    "not UTF-8": (lambda content: content.replace(b"The", b"Th\xe9", 1), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SETS)
def test_a_bad_evaluation_set_is_one_line_and_status_2(challenge, tmp_path, case):
    change, expected = BAD_SETS[case]
    (tmp_path / SET).write_bytes(change((challenge / SET).read_bytes()))
    line = one_line(evaluate(challenge, "--data_dir", tmp_path))
    assert expected in line and str(tmp_path / SET) in line


@pytest.mark.parametrize("damage", [damaged, lambda content: content[:-30], lambda content: b"plain text\n"])
@pytest.mark.parametrize("ending", [".xz", ".gz"])
@pytest.mark.parametrize("name", [SET, "hans_predictions.txt"])
def test_a_damaged_archive_is_one_line_and_status_2(challenge, tmp_path, name, ending, damage):
    pack = {".xz": lzma.compress, ".gz": gzip.compress}[ending]
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(damage(pack((challenge / name).read_bytes())))
    args = (challenge, "--data_dir", path) if name == SET else (path, "--data_dir", challenge)
    assert str(path) in one_line(evaluate(*args))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("[1, 2]", "line 1 is not a JSON object"),
        ("{", "not a JSON"),
        ('{"gold_label": "entailment"}', "has no 'sentence1'"),
    ],
)
def test_bad_json_lines_are_one_line_and_status_2(challenge, tmp_path, row, expected):
    path = tmp_path / "heuristics_evaluation_set.jsonl"
    path.write_text(row + "\n")
    assert expected in one_line(evaluate(challenge, "--data_dir", path))


def test_absent_files_are_one_line_and_status_2(challenge, tmp_path):
    assert "no such file" in one_line(evaluate(tmp_path / "nothing.txt", "--data_dir", challenge))
    assert "no such file" in one_line(evaluate(tmp_path, "--data_dir", challenge))  # a folder without predictions
    assert "give --data_dir" in one_line(evaluate(challenge, "--data_dir", tmp_path / "nowhere"))
    with pytest.raises(InputError, match="a, b"):
        find_evaluation_set(["a", "b"])


def test_scoring_imports_nothing_heavy(challenge):
    code = (
        "import sys\nfrom hans.evaluate_heur_output import main\nmain(sys.argv[1:])\n"
        "print('HEAVY', [m for m in ('torch', 'transformers', 'numpy', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(challenge)], capture_output=True, text=True, cwd=tiny.ROOT, env=os.environ
    )
    assert done.stdout.startswith("Heuristic entailed results:") and done.stdout.endswith("HEAVY []\n")
