"""Clustering: quality measures against naive references, the file, determinism, every refusal, the script end to end."""

import json
import re
import subprocess
import sys
from itertools import combinations
from math import comb, log
from pathlib import Path

import numpy as np
import pytest

import cluster_embeddings
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection.cluster_quality import (
    agreement,
    analyse,
    extremes,
    normalized_mutual_information,
    purity,
    silhouette,
    variance_explained,
)
from utils.selection.clusters import Clusters
from utils.selection.embedding_writer import EmbeddingWriter
from utils.selection.embeddings import embedding_paths, load_embeddings
from utils.selection.kmeans import _lloyd_pass, kmeans, prepare
from utils.selection.strategies import load_inputs, select

ROOT = Path(__file__).resolve().parents[1]


def mixture(n=240, d=6, groups=4, seed=0, distance=8.0):
    """Gaussian groups far from the origin, as [CLS] vectors are: (values float32 (n, d), group int (n,))."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % groups
    centers = distance * np.eye(groups, d)
    return (rng.normal(size=(n, d)) + centers[group] + 30).astype(np.float32), group


def random_partitions(seed=0, n=60):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, n), rng.integers(0, 3, n)


# ------------------------------------------------------------------------------------------------------------- quality
def naive_silhouette(values, labels):
    scores = []
    for i in range(len(values)):
        distances = [np.sqrt(((values[i] - row) ** 2).sum()) for row in values.astype(np.float64)]
        own = [distances[j] for j in range(len(values)) if labels[j] == labels[i] and j != i]
        if not own:
            scores.append(0.0)
            continue
        others = [
            np.mean([distances[j] for j in range(len(values)) if labels[j] == c])
            for c in set(labels.tolist()) - {labels[i]}
        ]
        scores.append((min(others) - np.mean(own)) / max(min(others), np.mean(own)))
    return np.mean(scores)


def test_silhouette_is_the_naive_one():
    values, _ = mixture(n=50, distance=2)
    labels = random_partitions(n=50)[0]
    labels[0] = 7  # a cluster of one counts 0
    found = silhouette(prepare(values), labels)
    assert found == pytest.approx(naive_silhouette(values, labels), abs=1e-4)


def test_silhouette_of_a_sample_is_close_and_seeded():
    values, group = mixture(n=2000)
    prepared = prepare(values)
    exact = silhouette(prepared, group)
    sampled = [silhouette(prepared, group, seed=3, max_rows=400) for _ in range(2)]
    assert sampled[0] == sampled[1] != exact
    assert sampled[0] == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("labels", [np.zeros(20, int), np.arange(20)])
def test_silhouette_is_none_where_undefined(labels):
    assert silhouette(prepare(mixture(n=20)[0]), labels) is None


def test_purity_is_the_naive_one():
    labels, classes = random_partitions()
    naive = sum(max((classes[labels == c] == y).sum() for y in range(3)) for c in range(5)) / len(labels)
    assert purity(labels, classes) == pytest.approx(naive)
    assert purity(classes, classes) == 1
    assert purity(np.zeros_like(classes), classes) == np.bincount(classes).max() / len(classes)


def test_nmi_is_the_naive_one():
    labels, classes = random_partitions()
    n = len(labels)

    def entropy(x):
        return -sum(p * log(p) for p in np.bincount(x) / n if p)

    mutual = 0.0
    for a in range(5):
        for b in range(3):
            joint = ((labels == a) & (classes == b)).mean()
            if joint:
                mutual += joint * log(joint / ((labels == a).mean() * (classes == b).mean()))
    naive = mutual / ((entropy(labels) + entropy(classes)) / 2)
    assert normalized_mutual_information(labels, classes) == pytest.approx(naive)


def test_agreement_is_the_mean_adjusted_rand_over_pairs():
    def naive(a, b):
        pairs = list(combinations(range(len(a)), 2))
        both = sum(a[i] == a[j] and b[i] == b[j] for i, j in pairs)
        in_a, in_b = sum(a[i] == a[j] for i, j in pairs), sum(b[i] == b[j] for i, j in pairs)
        chance = in_a * in_b / comb(len(a), 2)
        return (both - chance) / ((in_a + in_b) / 2 - chance)

    parts = [*random_partitions(0), random_partitions(1)[0]]
    expected = np.mean([naive(a, b) for a, b in combinations(parts, 2)])
    assert agreement(parts) == pytest.approx(expected)
    assert agreement([parts[0], (parts[0] + 1) % 5]) == 1
    assert agreement(parts[:1]) is None


def test_variance_explained():
    labels = np.repeat([0, 1, 2], 10)
    assert variance_explained(labels * 5.0, labels, 3) == 1
    assert variance_explained(np.ones(30), labels, 3) == 0
    values = np.random.default_rng(0).normal(size=30)
    design = np.eye(3)[labels]
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    adjusted = 1 - (residual @ residual / 27) / (values.var(ddof=1))
    assert variance_explained(values, labels, 3) == pytest.approx(max(0, adjusted))


def test_extremes_are_the_nearest_and_farthest_members():
    values, _ = mixture(distance=3)
    clusters = kmeans(prepare(values), 5)
    nearest, farthest = extremes(clusters, 3)
    for c in range(5):
        members = np.flatnonzero(clusters.labels == c)
        by_distance = members[np.argsort(clusters.distances[members])]
        assert nearest[c].tolist() == by_distance[:3].tolist()
        assert farthest[c].tolist() == by_distance[::-1][:3].tolist()


# --------------------------------------------------------------------------------------------------------- preparation
def test_cosine_centres_then_gives_unit_rows_and_leaves_zero_rows_alone():
    values, _ = mixture()
    rows = prepare(values, metric="cosine").rows(slice(None))
    centred = values - values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(rows, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-5)
    assert not prepare(np.ones((4, 3), np.float32), metric="cosine").rows(slice(None)).any()


def test_pca_is_the_singular_value_decomposition():
    values, _ = mixture()
    prepared = prepare(values, pca=3)
    centred = values - values.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(prepared.rows(slice(None))), np.abs(centred @ axes[:3].T), atol=1e-3)
    assert prepared.explained == pytest.approx((singular[:3] ** 2).sum() / (singular**2).sum(), rel=1e-4)


def test_whitening_gives_the_identity_covariance_and_drops_axes_without_variance():
    values, _ = mixture()
    values[:, 5] = values[:, 4]
    rows = prepare(values, whiten=True).rows(slice(None))
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(5), atol=1e-3)


def test_blocks_do_not_matter(monkeypatch):
    values, _ = mixture()
    whole = kmeans(prepare(values, pca=4), 4)
    monkeypatch.setattr("utils.selection.blocks.BLOCK_BYTES", 7 * 6 * 4)
    blocked = kmeans(prepare(values, pca=4), 4)
    np.testing.assert_array_equal(whole.labels, blocked.labels)
    np.testing.assert_allclose(whole.distances, blocked.distances, rtol=1e-3)


# ------------------------------------------------------------------------------------------------------------- k-means
@pytest.mark.parametrize("algorithm", ["full", "minibatch"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_finds_planted_groups_and_assigns_to_the_nearest_centroid(algorithm, metric):
    values, group = mixture()
    prepared = prepare(values, metric=metric)
    clusters = kmeans(prepared, 4, algorithm=algorithm, seed=1)
    assert agreement([clusters.labels, group]) > 0.98
    rows = prepared.rows(slice(None)).astype(np.float64)
    distances = np.linalg.norm(rows[:, None] - clusters.centers[None], axis=2)
    np.testing.assert_array_equal(clusters.labels, distances.argmin(axis=1))
    np.testing.assert_allclose(clusters.distances, distances.min(axis=1), rtol=1e-4)
    assert clusters.inertia == pytest.approx((distances.min(axis=1) ** 2).sum(), rel=1e-4)
    assert (np.diff(clusters.sizes) <= 0).all()


@pytest.mark.parametrize("algorithm", ["full", "minibatch"])
def test_one_seed_one_result_another_seed_another(algorithm):
    prepared = prepare(mixture(distance=0.5)[0])
    first, again, other = (kmeans(prepared, 9, algorithm=algorithm, seed=seed) for seed in (5, 5, 6))
    for name in ("labels", "centers", "distances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.labels != other.labels).any()


def test_minibatch_on_a_sample_is_close_to_full(monkeypatch):
    values, group = mixture(n=3000, distance=4)
    monkeypatch.setattr("utils.selection.kmeans.MIN_FIT_ROWS", 500)
    monkeypatch.setattr("utils.selection.kmeans.ROWS_PER_CENTROID", 64)
    prepared = prepare(values)
    sampled = kmeans(prepared, 4, algorithm="minibatch")
    assert len(sampled) == 3000
    assert sampled.inertia < 1.05 * kmeans(prepared, 4, algorithm="full").inertia
    assert agreement([sampled.labels, group]) > 0.9


def test_lloyd_pass_is_the_mean_of_the_members(monkeypatch):
    monkeypatch.setattr("utils.selection.blocks.BLOCK_BYTES", 50 * 6 * 4)
    prepared = prepare(mixture(distance=1)[0])
    rows = prepared.rows(slice(None))
    centers = np.vstack([rows[:4], np.full((1, 6), 99, np.float32)])  # the last one is nearest to nothing
    labels = np.linalg.norm(rows[:, None] - centers[None], axis=2).argmin(axis=1)
    expected = [rows[labels == c].mean(axis=0) for c in range(4)]
    moved = _lloyd_pass((rows[i : i + 50] for i in range(0, len(rows), 50)), centers)
    np.testing.assert_allclose(moved, [*expected, centers[4]], rtol=1e-4, atol=1e-5)


def test_analyse_keeps_the_best_of_the_seeds():
    prepared = prepare(mixture(distance=1)[0])
    (best,), (row,) = analyse(prepared, [6], None, seed=2, num_seeds=4)
    runs = [kmeans(prepared, 6, seed=seed) for seed in range(2, 6)]
    assert best.inertia == row["inertia"] == min(run.inertia for run in runs)
    assert row["agreement_over_seeds"] == pytest.approx(agreement([run.labels for run in runs]))


@pytest.mark.parametrize("k", [0, 1, 21])
def test_impossible_k_is_refused(k):
    with pytest.raises(InputError, match=rf"--num_clusters {k}: 20 rows"):
        kmeans(prepare(mixture(n=20)[0]), k)


def test_nan_and_impossible_pca_are_refused():
    values, _ = mixture()
    with pytest.raises(InputError, match=r"--pca 7: .* 1 to 6 principal axes"):
        prepare(values, pca=7)
    values[3, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        prepare(values)


def test_collapsed_encoder_is_told_from_a_live_one():
    values, _ = mixture()
    assert not prepare(values).collapsed
    assert prepare(30 + 1e-5 * (values - 30)).collapsed
    constant = prepare(np.full((30, 6), 2.5, np.float32))
    assert constant.collapsed
    assert (kmeans(constant, 3).sizes == [30, 0, 0]).all()


# ---------------------------------------------------------------------------------------------------------------- file
def test_save_then_load_is_identity(tmp_path):
    clusters = kmeans(prepare(mixture()[0]), 4, fingerprint="f", about={"embeddings": {"digest": "d"}})
    clusters.save(tmp_path / "clusters.npz")
    loaded = Clusters.load(tmp_path / "clusters.npz")
    for name in ("labels", "centers", "distances"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(clusters, name))
        assert getattr(loaded, name).dtype == getattr(clusters, name).dtype
    assert (loaded.about, loaded.fingerprint, loaded.n_total) == (clusters.about, "f", 240)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "clusters.npz"
    with pytest.raises(InputError, match="no such file"):
        Clusters.load(path)
    path.write_text("text")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        Clusters.load(path)
    np.savez(path, indices=np.arange(3))
    with pytest.raises(InputError, match=r"not .'labels'"):
        Clusters.load(path)


PARTS = {"labels": [0, 1, 1], "centers": np.zeros((2, 4)), "distances": [0.0, 1.0, 2.0], "n_total": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 2]}, "do not fit centers"),
        ({"labels": [0, -1, 1]}, "do not fit centers"),
        ({"n_total": 4}, "for 4 rows"),
        ({"distances": [0.0, np.nan, 1.0]}, "NaN"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    Clusters(**PARTS, fingerprint="f")
    with pytest.raises(InputError, match=message):
        Clusters(**{**PARTS, **change}, fingerprint="f")


# -------------------------------------------------------------------------------------------------------------- script
GENRES = ("travel", "slate")
LABELS = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A generated MNLI folder of 120 pairs and embeddings of it: 3 groups, each mostly of one label."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    group = np.arange(120) % 3
    rows = ["index\tpairID\tgenre\tsentence1\tsentence2\tgold_label"]
    for i in range(120):
        premise = [str(word) for word in rng.choice(words, 8)]
        # Entailed pairs repeat the premise's beginning: every heuristic supports them.
        hypothesis = premise[:4] if group[i] == 1 else [*premise[:2], "a|b", "<new>"]
        label = LABELS[group[i] if i % 10 else (group[i] + 1) % 3]
        texts = [" ".join(premise), " ".join(hypothesis)]
        rows.append("\t".join([str(i), f"{i}x", GENRES[i % 2], *texts, label]))
    (folder / "train.tsv").write_text("\n".join(rows) + "\n")
    (folder / "dev_matched.tsv").write_text("\n".join(rows[:20]) + "\n")
    examples = load_split(get_task("mnli"), "train", data_dir=folder)
    values = (rng.normal(size=(120, 8)) + 12 * np.eye(3, 8)[group] + 20).astype(np.float32)
    save_embeddings(folder / "embeddings", values, examples.fingerprint)
    return folder, values, group, examples


def save_embeddings(folder, values, fingerprint, *, model="tiny", split="train"):
    about = {"model": model, "task": "mnli", "split": split, "fingerprint": fingerprint, "pooling": "cls", "layer": -1}
    writer = EmbeddingWriter(embedding_paths(folder, "mnli", split)[0], about, *values.shape, len(values))
    writer.write(slice(None), values)
    writer.mark_done(0)
    return writer.finish()


def run(corpus, output, *flags, data=True):
    folder = corpus[0]
    data_flags = ["--data_dir", str(folder)] if data else []
    cluster_embeddings.main(
        ["--embedding_path", str(folder / "embeddings"), *data_flags, "--output_dir", str(output), *flags]
    )


@pytest.fixture(scope="module")
def analysis(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("analysis") / "out"
    run(corpus, output, "--num_clusters", "3", "5", "--num_seeds", "2")
    return output


def test_script_writes_the_analysis(corpus, analysis):
    _, _, group, examples = corpus
    names = {path.name for path in analysis.iterdir()}
    stems = ("projection", "cluster_sizes", "cluster_labels", "quality_over_k")
    figures = {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}
    assert names == {"clusters.npz", "clusters_k5.npz", "clusters.json", "cluster_report.md", *figures}
    clusters = Clusters.load(analysis / "clusters.npz")
    assert clusters.k == 3  # the planted number has the best silhouette
    assert agreement([clusters.labels, group]) == 1
    clusters.check(examples)
    found = json.loads((analysis / "clusters.json").read_text())
    assert [row["k"] for row in found["quality"]] == [3, 5]
    assert found["kept"]["purity"] == pytest.approx(0.9)
    assert found["kept"]["genre_nmi"] < 0.05
    assert not found["collapsed"]
    for row in found["clusters"]:
        members = np.flatnonzero(clusters.labels == row["cluster"])
        assert row["size"] == len(members) == sum(row["genres"].values())
        counts = np.bincount(examples.labels[members], minlength=3)
        assert [row["labels"][name] for name in LABELS] == counts.tolist()
        repeats = group[members[0]] == 1
        assert row["supports_subsequence"] == row["supports_lexical_overlap"] == float(repeats)
        assert row["mean_words"] == 12
        assert set(row["nearest"] + row["farthest"]) <= set(members.tolist())


def test_report_is_well_formed_markdown(corpus, analysis):
    text = (analysis / "cluster_report.md").read_text()
    for image in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (analysis / image).exists()
    assert "collapsed" not in text
    widths = []
    for line in text.split("\n"):
        if line.startswith("|"):
            widths.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(widths)) <= 1  # text with | in it does not add columns
            widths = []
    examples, row = corpus[3], json.loads((analysis / "clusters.json").read_text())["clusters"][0]
    assert f"| nearest | {row['nearest'][0]} | {LABELS[examples.labels[row['nearest'][0]]]} |" in text


def test_second_run_is_identical_bit_for_bit(corpus, analysis, tmp_path):
    run(corpus, tmp_path / "again", "--num_clusters", "5", "3", "--num_seeds", "2")
    for path in analysis.iterdir():
        if path.name == "clusters.json":  # names the output folder
            continue
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_keep_and_overwrite(corpus, tmp_path):
    run(corpus, tmp_path, "--num_clusters", "3", "6", "--keep", "6", "--num_seeds", "1")
    assert Clusters.load(tmp_path / "clusters.npz").k == 6
    with pytest.raises(InputError, match="holds finished results"):
        run(corpus, tmp_path, "--num_clusters", "3")
    (tmp_path / "clusters_of_mine.npz").touch()
    run(corpus, tmp_path, "--num_clusters", "4", "--num_seeds", "1", "--overwrite_output_dir", data=False)
    (tmp_path / "clusters_of_mine.npz").unlink()
    names = {path.name for path in tmp_path.iterdir()}
    figures = {f"{stem}.{kind}" for stem in ("projection", "cluster_sizes") for kind in ("png", "pdf")}
    assert names == {"clusters.npz", "clusters.json", "cluster_report.md", *figures}
    assert "purity" not in json.loads((tmp_path / "clusters.json").read_text())["kept"]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_shards_give_the_same_clusters_and_selections(k, corpus, tmp_path, monkeypatch):
    """Byte for byte the same files. So every strategy, which reads nothing but files, chooses the same."""
    monkeypatch.setattr("utils.selection.blocks.BLOCK_BYTES", 30 * 8 * 4)  # the 120 rows are 4 blocks
    flags = ["--num_clusters", "3", "6", "--num_seeds", "2", "--algorithm", "minibatch", "--pca", "5"]
    run(corpus, tmp_path / "whole", *flags)
    out = tmp_path / "parts"
    for i in range(k, 0, -1):
        run(corpus, out, *flags, "--shard", f"{i}/{k}")
        if i == max(2, (k + 1) // 2):
            with pytest.raises(InputError, match=r"shard [12]/\d is not finished"):
                run(corpus, out, *flags)
    with pytest.raises(InputError, match="give another --output_dir"):
        run(corpus, out, *flags, "--whiten", "--shard", f"1/{k}")
    run(corpus, out, *flags)
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    for path in out.glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    whole, parts = (
        load_inputs(corpus[3], embedding_path=corpus[0] / "embeddings", cluster_path=folder / "clusters.npz")
        for folder in (tmp_path / "whole", out)
    )
    for name in ("diverse", "proportional", "prototypes_hard", "semdedup", "kcenter", "importance"):
        first, second = select(name, whole, 40, 0), select(name, parts, 40, 0)
        np.testing.assert_array_equal(first.indices, second.indices)
        np.testing.assert_array_equal(first.weights, second.weights)


def test_many_clusters_are_drawn(corpus, tmp_path):
    flags = ["--num_clusters", "60", "--num_seeds", "1", "--metric", "cosine", "--pca", "4", "--whiten"]
    run(corpus, tmp_path, *flags, "--algorithm", "minibatch")
    assert "The 40 largest clusters" in (tmp_path / "cluster_report.md").read_text()


def test_collapsed_encoder_is_reported_loudly(corpus, tmp_path, capsys):
    _, values, _, examples = corpus
    path = save_embeddings(tmp_path / "constant", np.full_like(values, 1.5), examples.fingerprint)
    run(corpus, tmp_path / "out", "--embedding_path", str(path), "--num_clusters", "3", "--num_seeds", "1")
    assert "**The encoder has collapsed**" in (tmp_path / "out" / "cluster_report.md").read_text()
    assert capsys.readouterr().out.startswith("**The encoder has collapsed**")
    assert json.loads((tmp_path / "out" / "clusters.json").read_text())["collapsed"] is True


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_clusters", "8", "121"], "--num_clusters 121: 120 rows"),
        (["--num_clusters", "1"], "--num_clusters 1: "),
        (["--num_clusters", "3", "--keep", "4"], "--keep 4 is not among"),
        (["--num_clusters", "3", "--pca", "9"], "--pca 9"),
        (["--random_state", str(2**32 - 1)], "the last seed is above 4294967295"),
        (["--split", "dev_matched"], "--split dev_matched: .* of train"),
        (["--task_name", "RTE"], "--task_name RTE: .* of mnli"),
        (["--embedding_path", "nowhere.npy"], "nowhere.npy: no such file"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_written(corpus, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(corpus, tmp_path / "out", *flags)
    assert not list(tmp_path.glob("out/*"))


def test_embeddings_of_other_data_are_refused(corpus, tmp_path):
    _, values, _, examples = corpus
    path = save_embeddings(tmp_path, values, "0" * 32)
    with pytest.raises(InputError, match="made for other data"):
        run(corpus, tmp_path / "out", "--embedding_path", str(path))
    path = save_embeddings(tmp_path, values[:50], examples.fingerprint, split="dev_matched")
    with pytest.raises(InputError, match="made for other data"):
        run(corpus, tmp_path / "out", "--embedding_path", str(path))


def test_clusters_of_other_embeddings_are_refused(corpus, analysis, tmp_path):
    folder, values, _, examples = corpus
    clusters = Clusters.load(analysis / "clusters.npz")
    clusters.check(load_embeddings(folder / "embeddings"))
    other = load_embeddings(save_embeddings(tmp_path, values + 1, examples.fingerprint, model="another"))
    with pytest.raises(InputError, match="clusters of other embeddings"):
        clusters.check(other)
    with pytest.raises(InputError, match="made for other data"):
        clusters.check(load_split(get_task("mnli"), "dev_matched", data_dir=folder))


def test_command_line_reports_bad_input_in_one_line(corpus, tmp_path):
    command = [sys.executable, "cluster_embeddings.py", "--embedding_path", str(tmp_path), "--output_dir", "unused"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("cluster_embeddings.py: error: ")
    assert done.stderr.count("\n") == 1
