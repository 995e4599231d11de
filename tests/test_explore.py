"""The explorer's page without a browser: what it holds, what it refuses, how Selections are compared."""

import base64
import html
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import explore
from tests import explored, tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.explore.build import rows_shown, short_names
from utils.explore.compare import comparison, jaccard
from utils.selection.cluster_quality import pair_facts
from utils.selection.selection import Selection


class Scripts(HTMLParser):
    """Script elements as a browser sees them, and the names of all elements."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.found, self.attributes = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes = dict(attrs)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.found.append((self.attributes.get("class"), data))


def read(path) -> tuple[dict, list, Scripts]:
    """(the data with its arrays decoded, the texts, the scripts) of a page."""
    scripts = Scripts(path.read_text(encoding="utf-8"))
    about = json.loads(next(data for kind, data in scripts.found if kind == "about"))
    texts = [pair for kind, data in scripts.found if kind == "texts" for pair in json.loads(data)]

    def decoded(array):
        return np.frombuffer(base64.b64decode(array["data"]), dtype=array["type"])

    about["rows"] = decoded(about["rows"])
    about["columns"] = {c["name"]: c | {"values": decoded(c["values"])} for c in about["columns"]}
    about["maps"] = [m | {"x": decoded(m["x"]), "y": decoded(m["y"])} for m in about["maps"]]
    return about, texts, scripts


@pytest.fixture(scope="module")
def made():
    return explored.world(1200)


def test_the_page_holds_what_the_files_say(tmp_path, made):
    examples, inputs, selections = made
    explored.write(tmp_path, made)
    about, texts, _ = read(tmp_path / "explorer.html")
    assert [tuple(pair) for pair in texts] == list(zip(*examples.texts, strict=True))
    columns = {name: column["values"] for name, column in about["columns"].items()}
    assert np.array_equal(columns["gold label"], examples.labels)
    assert np.array_equal(columns["cluster"], inputs.clusters.labels)
    for name in ("confidence", "variability", "correctness", "loss", "AUM"):
        assert np.array_equal(columns[name], getattr(inputs.dynamics, name.lower())(), equal_nan=True)
    last = inputs.dynamics.correct()[-1]
    assert np.array_equal(columns["prediction is"], np.where(np.isnan(last), -1, last))
    for name, selection in selections.items():
        assert np.flatnonzero(columns[name]).tolist() == np.unique(selection.indices).tolist()
    axes, data_map = about["maps"]
    centred = inputs.embeddings - inputs.embeddings.mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    assert np.allclose([np.linalg.norm(axes["x"]), np.linalg.norm(axes["y"])], singular[:2], rtol=1e-3)
    assert f"({singular[0] ** 2 / (singular**2).sum():.0%} of the variance)" in axes["xTitle"]
    assert np.array_equal(data_map["y"], columns["confidence"], equal_nan=True)


def test_no_text_name_or_genre_breaks_out_of_its_place(tmp_path, made):
    explored.write(tmp_path, made)
    about, texts, scripts = read(tmp_path / "explorer.html")
    assert texts[0][0] == explored.HOSTILE and explored.HOSTILE in about["columns"]["genre"]["names"]
    assert scripts.tags.count("script") == 1 + 3 + 2 and "img" not in scripts.tags  # data, 1200 texts, plotly and ours
    text = (tmp_path / "explorer.html").read_text()
    assert "default-src 'none'" in text and html.escape(explored.HOSTILE) in text


def test_a_sample_holds_every_chosen_example_and_says_so(tmp_path, made):
    chosen = np.unique(np.concatenate([selection.indices for selection in made[2].values()]))
    note = explored.write(tmp_path, made, max_points=len(chosen) + 50)
    about, texts, _ = read(tmp_path / "explorer.html")
    rows = about["rows"]
    assert np.isin(chosen, rows).all() and len(rows) == len(chosen) + 50 and (np.diff(rows) > 0).all()
    assert f"holds {len(rows):,} of 1,200 examples: all {len(chosen):,} that a Selection chose and 50 drawn" in note
    assert [pair[1] for pair in texts] == [made[0].texts[1][row] for row in rows]
    assert np.array_equal(rows_shown(1200, made[2], len(chosen) + 50, 0)[0], rows)
    assert len(rows_shown(1200, made[2], 10, 0)[0]) == len(chosen)
    assert rows_shown(100, {}, 10, 0)[0].tolist() != rows_shown(100, {}, 10, 1)[0].tolist()


def test_selections_are_compared_by_their_distinct_rows(made):
    examples, _, selections = made
    sets = [set(selection.indices.tolist()) for selection in selections.values()]
    chosen = np.array([[row in rows for row in range(1200)] for rows in sets])
    expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    assert np.allclose(jaccard(chosen), expected)
    text = comparison(selections, pair_facts(examples))
    assert f"Chosen by all 3: {len(set.intersection(*sets))}<" in text
    for k, own in enumerate(sets):
        only = len(own - set.union(*(other for j, other in enumerate(sets) if j != k)))
        assert f'data-choose="only" data-selection="{k}">{only}<' in text
        share = np.mean(examples.labels[sorted(own)] == 1)
        assert f">{share:.1%}<" in text
    # The tree puts the two that share examples beside each other.
    places = [text.index(html.escape(name) + "</th><td style") for name in selections]
    assert abs(sorted(places).index(places[0]) - sorted(places).index(places[1])) == 1
    assert comparison({}, pair_facts(examples)) == ""


def test_names_of_selections_are_the_shortest_that_differ(tmp_path):
    paths = ["a/x/selection.npz", "b/x/selection.npz", "b/mine.npz"]
    assert short_names(paths) == ["a/x", "b/x", "b/mine"]
    assert short_names(["a/x/selection.npz"]) == ["x"] and short_names([]) == []
    assert short_names(["a/selection.npz", "a.npz"]) == ["a/selection.npz", "a.npz"]
    with pytest.raises(InputError, match="given twice"):
        short_names(["a/x.npz", "a/../a/x.npz"])


# --------------------------------------------------------------------------------------------------------------- script
@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tiny.write_mnli(tmp_path_factory.mktemp("data") / "MNLI")
    return folder, load_split(get_task("mnli"), "dev_matched", data_dir=folder)


def run(data, out, *more):
    folder, _ = data
    explore.main(["--data_dir", str(folder), "--split", "dev_matched", "--output_dir", str(out), *map(str, more)])
    return read(out / "explorer.html")[0]


def write_predictions(path, examples, **changes):
    names = examples.label_names
    lines = ["index\tgold\tprediction\t" + "\t".join(f"p_{name}" for name in names)]
    for i in range(0, len(examples), 2):
        row = {"index": i, "gold": names[examples.labels[i]], "prediction": names[i % 3]} | changes
        lines.append("\t".join(map(str, [*row.values(), 0.2, 0.3, 0.5])))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_data_alone_give_a_map_and_predictions_of_a_run_give_columns(data, tmp_path):
    examples = data[1]
    about = run(data, tmp_path, "--predictions", write_predictions(tmp_path / "predictions.tsv", examples))
    assert [m["title"] for m in about["maps"]] == ["Length of the texts"]
    assert about["columns"]["prediction"]["values"].tolist() == [-1 if i % 2 else i % 3 for i in range(24)]
    gold = about["columns"]["probability of the gold label"]["values"]
    assert np.allclose(gold[::2], np.array([0.2, 0.3, 0.5])[examples.labels[::2]]) and np.isnan(gold[1::2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gold": "neutral"}, "another gold label"),
        ({"index": 24}, "names row 24"),
        ({"prediction": "maybe"}, "it holds 'maybe', which is no label"),
        ({"index": "x"}, "line 2: expected index, gold label"),
        ({"gold": "gold"}, "line 2: expected index, gold label"),
    ],
)
def test_predictions_of_other_examples_are_refused(data, tmp_path, changes, message):
    path = write_predictions(tmp_path / "predictions.tsv", data[1], **changes)
    with pytest.raises(InputError, match=message):
        run(data, tmp_path / "out", "--predictions", path)
    assert not (tmp_path / "out").exists()


def test_files_of_other_data_are_refused(data, tmp_path, made):
    _, inputs, selections = made
    inputs.clusters.save(tmp_path / "clusters.npz")
    inputs.dynamics.save(tmp_path / "dynamics.npz")
    selections["other"].save(tmp_path / "selection.npz")
    for flag, name in (("cluster_path", "clusters"), ("dynamics_path", "dynamics"), ("selection", "selection")):
        with pytest.raises(InputError, match=f"{name}.npz: (made|recorded)"):
            run(data, tmp_path / "out", f"--{flag}", tmp_path / f"{name}.npz")
    own = Selection([3, 1], [1, 1], 24, data[1].fingerprint)
    own.save(tmp_path / "own.npz")
    about = run(data, tmp_path / "out", "--selection", tmp_path / "own.npz")
    assert np.flatnonzero(about["columns"]["own"]["values"]).tolist() == [1, 3]


def test_without_plotly_it_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(InputError, match="pip install"):
        run(data, tmp_path / "out")


def test_a_task_of_single_sentences_and_a_regression_have_a_page(tmp_path):
    (tmp_path / "sst").mkdir()
    (tmp_path / "sst" / "train.tsv").write_text("sentence\tlabel\nfine\t1\nbad\t0\n")
    explore.main(["--task_name", "sst-2", "--data_dir", str(tmp_path / "sst"), "--output_dir", str(tmp_path / "out")])
    assert read(tmp_path / "out" / "explorer.html")[0]["maps"][0]["xTitle"] == "row"
    (tmp_path / "sst" / "train.tsv").write_text("index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta b\tb\t2.5\n")
    explore.main(["--task_name", "sts-b", "--data_dir", str(tmp_path / "sst"), "--output_dir", str(tmp_path / "out")])
    assert read(tmp_path / "out" / "explorer.html")[0]["columns"]["gold label"]["values"].tolist() == [2.5]
