"""Files that a user made elsewhere: several runs, scores, rankings, bare embeddings. Read, used, and refused in one line."""

import dataclasses
import logging

import numpy as np
import pytest

import select_examples
from tests import documents, tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection import cartography
from utils.selection.dynamics import Dynamics
from utils.selection.own_files import read_ranking, read_scores
from utils.selection.selection import Selection
from utils.selection.strategies import load_inputs, select

N = 45


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data and three recorded runs."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_mnli(root / "data", n_train=N, n_dev=6)
    examples = load_split(get_task("mnli"), "train", data_dir=root / "data")
    for seed in range(3):
        run_of(examples, seed).save(root / f"run{seed}.npz")
    return root


@pytest.fixture(scope="module")
def examples(world):
    return load_split(get_task("mnli"), "train", data_dir=world / "data")


def run_of(examples, seed) -> Dynamics:
    logits = np.random.default_rng(seed).normal(size=(4, N, 3)).astype(np.float16)
    return Dynamics(logits, examples.labels, examples.label_names, [0.5, 1, 1.5, 2], "eval", examples.fingerprint)


def choose(world, out, *flags) -> Selection:
    words = ["--data_dir", world / "data", "--data_pct", 0.2, "--output_dir", out, *flags]
    select_examples.main([str(word) for word in words])
    return Selection.load(out / "selection.npz")


# --------------------------------------------------------------------------------------------------------- several runs
def test_measures_are_averaged_over_the_runs(world, examples, tmp_path):
    paths = [world / f"run{seed}.npz" for seed in range(3)]
    chosen = choose(world, tmp_path, "--strategy", "el2n", "--dynamics_path", *paths)
    mean = np.mean([Dynamics.load(path).el2n() for path in paths], axis=0)
    np.testing.assert_allclose(chosen.scores, mean, rtol=1e-6)
    assert set(chosen.indices) == set(np.argsort(-mean)[:9])
    assert [run["path"] for run in chosen.provenance["dynamics"]] == [str(path) for path in paths]


def test_one_epoch_is_chosen(world, tmp_path):
    paths = [world / f"run{seed}.npz" for seed in range(2)]
    flags = ("--strategy", "el2n", "--dynamics_path", *paths, "--score_epoch")
    chosen = choose(world, tmp_path, *flags, 1.5)
    expected = np.mean([Dynamics.load(path).el2n_per_snapshot()[2] for path in paths], axis=0)
    np.testing.assert_allclose(chosen.scores, expected, rtol=1e-6)
    with pytest.raises(InputError, match=r"--score_epoch 3: .* epochs 0.50, 1.00, 1.50, 2.00"):
        choose(world, tmp_path / "other", *flags, 3)


@pytest.mark.parametrize("name", ["easy", "hard", "loss", "aum", "ccs", "jtt", "importance", "poisson"])
def test_every_strategy_with_score_epoch_reads_it(world, examples, name):
    inputs = load_inputs(examples, dynamics_path=[world / "run0.npz"])
    every, one = select(name, inputs, 9, 0), select(name, inputs, 9, 0, score_epoch=0.5)
    alone = dataclasses.replace(inputs, dynamics=inputs.dynamics.at_epoch(0.5))
    np.testing.assert_array_equal(one.indices, select(name, alone, 9, 0).indices)
    np.testing.assert_array_equal(one.scores, select(name, alone, 9, 0).scores)
    assert one.indices.tolist() != every.indices.tolist()


def test_an_example_counts_where_a_run_has_seen_it(world, examples):
    inputs = load_inputs(examples, dynamics_path=[world / "run0.npz", world / "run1.npz"])
    first, second = (run.logits.copy() for run in inputs.runs)
    first[:, :2], second[:, 1:3] = np.nan, np.nan
    runs = [dataclasses.replace(run, logits=z) for run, z in zip(inputs.runs, (first, second), strict=True)]
    scores = select("el2n", dataclasses.replace(inputs, dynamics=runs[0], more_dynamics=(runs[1],)), N, 0).scores
    assert scores[0] == inputs.runs[1].el2n()[0] and scores[2] == inputs.runs[0].el2n()[2] and np.isnan(scores[1])


def test_runs_that_cannot_be_averaged_are_refused(world, examples, tmp_path):
    run = run_of(examples, 0)
    for change, said in (
        ({"fingerprint": "other"}, "made for other data"),
        ({"labels": np.roll(run.labels, 1)}, "recorded with other gold labels .* first in row"),
        ({"mode": "train"}, "run0.npz was recorded in eval mode and .*other.npz in train mode"),
    ):
        dataclasses.replace(run, **change).save(tmp_path / "other.npz")
        with pytest.raises(InputError, match=said):
            load_inputs(examples, dynamics_path=[world / "run0.npz", tmp_path / "other.npz"])
    with pytest.raises(InputError, match="of two runs"):
        choose(world, tmp_path, "--strategy", "ssft", "--dynamics_path", world / "run0.npz")


# --------------------------------------------------------------------------------------------------------------- scores
def write_scores(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        lines = ["score", *map(repr, map(float, values))]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["el2n", "loss", "ccs", "importance", "poisson"])
@pytest.mark.parametrize("suffix", ["npy", "csv", "tsv"])
def test_scores_of_ones_own_stand_for_those_of_a_model(world, examples, tmp_path, name, suffix):
    values = np.random.default_rng(5).gamma(1.0, size=N)
    path = write_scores(tmp_path / f"scores.{suffix}", values)
    chosen = choose(world, tmp_path, "--strategy", name, "--score_path", path)
    known = ~np.isnan(chosen.scores)
    np.testing.assert_allclose(chosen.scores[known], values[known], rtol=1e-6)
    if name in ("el2n", "loss"):
        assert chosen.indices.tolist() == np.argsort(-values)[:9].tolist()  # the hardest first
    assert chosen.provenance["scores"]["path"] == str(path)


def test_a_table_of_several_columns_names_the_scores(examples, tmp_path):
    rows = [f"{guid},{i / 2},x" for i, guid in enumerate(examples.guids)]
    (tmp_path / "s.csv").write_text("\n".join(["id,score,note", *rows]))
    assert read_scores(tmp_path / "s.csv", examples).tolist() == [i / 2 for i in range(N)]
    (tmp_path / "s.csv").write_text("\n".join(["id,value,note", *rows]))
    with pytest.raises(InputError, match="columns id, value, note; call the one that holds the scores score"):
        read_scores(tmp_path / "s.csv", examples)


def test_scores_that_cannot_be_used_are_one_clear_line(world, examples, tmp_path):
    ones = np.ones(N)
    nan, huge = ones.copy(), ones.copy()
    nan[7], huge[8] = np.nan, 1e300
    for path, said in (
        (write_scores(tmp_path / "short.npy", ones[1:]), rf"holds \({N - 1},\) values, but .* has {N} rows"),
        (write_scores(tmp_path / "short.csv", ones[1:]), rf"holds \({N - 1},\) values"),
        (write_scores(tmp_path / "wide.npy", np.ones((N, 2))), rf"holds \({N}, 2\) values"),
        (write_scores(tmp_path / "nan.npy", nan), "the score of row 7 is nan"),
        (write_scores(tmp_path / "nan.tsv", nan), "the score of row 7 is nan"),
        (write_scores(tmp_path / "huge.npy", huge), r"the score of row 8 is 1e\+300"),
        (write_scores(tmp_path / "words.npy", np.array(["a"] * N)), "scores are numbers"),
        (tmp_path / "missing.npy", "no such file"),
        (tmp_path / "missing.csv", "no such file"),
        (tmp_path / "scores.json", "unknown format '.json'"),
    ):
        with pytest.raises(InputError, match=said):
            read_scores(path, examples)
    (tmp_path / "word.csv").write_text("score\n1\nhigh\n")
    with pytest.raises(InputError, match="line 3 holds 'high' where a number should be"):
        read_scores(tmp_path / "word.csv", examples)
    (tmp_path / "bad.npy").write_text("nothing")
    with pytest.raises(InputError, match=r"not a readable \.npy"):
        read_scores(tmp_path / "bad.npy", examples)
    good = write_scores(tmp_path / "good.npy", ones)
    for flag in (("--score", "aum"), ("--score_epoch", 1)):
        with pytest.raises(InputError, match=f"{flag[0]} and --score_path are two ways to score"):
            choose(world, tmp_path, "--strategy", "ccs", "--score_path", good, *flag)


# -------------------------------------------------------------------------------------------------------------- ranking
@pytest.mark.parametrize("by_id", [True, False])
def test_a_ranking_is_followed_and_the_rest_is_random(world, examples, tmp_path, by_id):
    rows = [9, 3, 44, 0, 12]
    (tmp_path / "r.txt").write_text("".join(f"{examples.guids[row] if by_id else row}\n" for row in rows))
    flags = ("--strategy", "ranking", "--ranking", tmp_path / "r.txt")
    chosen = [choose(world, tmp_path / str(seed), *flags, "--selection_seed", seed).indices.tolist() for seed in (0, 1)]
    assert chosen[0][:5] == chosen[1][:5] == rows and chosen[0] != chosen[1]
    assert len(set(chosen[0])) == 9 and read_ranking(tmp_path / "r.txt", examples).tolist() == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3\n7\n3\n", r"lines 1 and 3 both name row 3 \(3\)"),
        (f"3\n{N}\n", f"line 2: row {N} does not exist; .* has the rows 0 to {N - 1}"),
        ("nobody\n", "line 1: 'nobody' is no pair id"),
        ("1\n-2\n", "line 1: '1' is no pair id|line 2: '-2' is no pair id"),
        ("\n", "is empty"),
    ],
)
def test_rankings_that_cannot_be_used_are_one_clear_line(examples, tmp_path, text, said):
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        read_ranking(tmp_path / "r.txt", examples)


def test_rankings_that_are_no_text(examples, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_ranking(tmp_path / "none.txt", examples)
    (tmp_path / "r.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not a text file"):
        read_ranking(tmp_path / "r.txt", examples)


def test_ids_that_do_not_tell_rows_apart_are_refused(examples, tmp_path):
    twice = dataclasses.replace(examples, guids=[examples.guids[0], *examples.guids[:-1]])
    (tmp_path / "r.txt").write_text(f"{examples.guids[3]}\n")
    with pytest.raises(InputError, match="give row numbers"):
        read_ranking(tmp_path / "r.txt", twice)


# ------------------------------------------------------------------------------------------------------ bare embeddings
def test_a_bare_array_is_trusted_and_said_to_be(world, examples, tmp_path, caplog):
    values = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
    np.save(tmp_path / "mine.npy", values)
    with caplog.at_level(logging.WARNING):
        inputs = load_inputs(examples, embedding_path=tmp_path / "mine.npy")
    assert [record.message for record in caplog.records if "trusted" in record.message] == [
        f"{tmp_path / 'mine.npy'} has no .json beside it: its rows are trusted to be in the order of {examples.source}"
    ]
    np.testing.assert_array_equal(inputs.embeddings, values)
    chosen = choose(world, tmp_path / "out", "--strategy", "kcenter", "--embedding_path", tmp_path / "mine.npy")
    assert len(chosen) == 9 and chosen.provenance["embeddings"]["pooling"] == "unknown"


def test_bare_arrays_can_be_clustered(world, tmp_path):
    import cluster_embeddings

    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32))
    words = ["--embedding_path", tmp_path / "mine.npy", "--data_dir", world / "data", "--num_clusters", 3]
    cluster_embeddings.main([str(word) for word in (*words, "--output_dir", tmp_path / "clusters")])
    clusters = ("--embedding_path", tmp_path / "mine.npy", "--cluster_path", tmp_path / "clusters" / "clusters.npz")
    assert len(choose(world, tmp_path / "out", "--strategy", "diverse", *clusters)) == 9


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((N - 1, 4), dtype=np.float32), rf"has shape \({N - 1}, 4\), but .* has {N} rows"),
        (np.ones(N, dtype=np.float32), rf"must have the shape \({N}, d\)"),
        (np.ones((N, 4), dtype=np.int64), "embeddings are float32"),
        (np.full((N, 4), np.nan, dtype=np.float32), "row 0 holds NaN"),
    ],
)
def test_bare_arrays_that_cannot_be_used(examples, tmp_path, values, said):
    np.save(tmp_path / "mine.npy", values)
    with pytest.raises(InputError, match=said):
        load_inputs(examples, embedding_path=tmp_path / "mine.npy")


# ------------------------------------------------------------------------------------------------------------- document
def test_the_commands_of_the_page_run_as_printed(world, tmp_path):
    """In this process, with the files of `world` under the names of the page."""
    for name in ("run0", "run1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dynamics.npz").write_bytes((world / f"{name}.npz").read_bytes())
    write_scores(tmp_path / "scores.csv", np.arange(N))
    (tmp_path / "ranking.txt").write_text("7\n3\n")
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(N, 4)))
    (tmp_path / "MNLI").symlink_to(world / "data")
    blocks = documents.code((tiny.ROOT / "docs" / "own_files.md").read_text(), "bash")
    found = [command for block in blocks for command in documents.commands(block)]
    assert len(found) == 6
    for command in found:
        words = command.replace("$OUT", str(tmp_path)).replace("$GLUE_DIR", str(tmp_path)).split()
        if words[1] == "-m":
            cartography.main(words[3:])
            continue
        select_examples.main(words[2:])
        assert len(Selection.load(f"{words[words.index('--output_dir') + 1]}/selection.npz")) == round(0.1 * N)
    assert Selection.load(tmp_path / "by_my_ranking" / "selection.npz").indices[:2].tolist() == [7, 3]
