"""Gradients of the classifier layer and targets: TracIn, CRAIG and RDS against plain implementations; the files they read."""

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import get_embeddings
import select_examples
from tests import tiny
from utils.data.examples import load_split
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection.embedding_writer import EmbeddingWriter
from utils.selection.embeddings import embedding_paths
from utils.selection.features import Features, load_features
from utils.selection.selection import Selection
from utils.selection.strategies import Inputs, coverage, select
from utils.selection.strategies.gradients import round_robin
from utils.selection.strategies.inputs import load_inputs

NAMES = ("contradiction", "entailment", "neutral")


def features(n, seed, d=5) -> Features:
    rng = np.random.default_rng(seed)
    gold = rng.choice(3, n, p=[0.7, 0.27, 0.03])
    about = {"pooling": "pooler"}
    return Features(rng.normal(size=(n, d)).astype("f4"), about, rng.normal(0, 2, (n, 3)).astype("f4"), gold)


def gradients(found: Features) -> np.ndarray:
    """float64 (n, C (d + 1)), written out."""
    rows = []
    for h, z, y in zip(found.embeddings.astype(float), found.logits.astype(float), found.gold, strict=True):
        p = np.exp(z) / np.exp(z).sum()
        p[y] -= 1
        rows.append(np.outer(p, np.append(h, 1)).ravel())
    return np.array(rows)


def inputs_of(*checkpoints: Features, target=()) -> Inputs:
    first = checkpoints[0]
    return Inputs(
        len(first.gold), "f", first.gold, class_names=NAMES, embeddings=first.embeddings, pooling="pooler",
        logits=first.logits, checkpoints=checkpoints, target=tuple(target),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_tracin_sums_inner_products_over_checkpoints(seed):
    mine, theirs = [features(80, seed)], [features(9, seed + 10)]
    later = features(80, seed + 20)
    mine.append(Features(later.embeddings, later.about, later.logits, mine[0].gold))
    theirs.append(features(9, seed + 30))
    expected = sum(gradients(m) @ gradients(t).mean(0) for m, t in zip(mine, theirs, strict=True))
    chosen = select("tracin", inputs_of(*mine, target=theirs), 20, seed)
    np.testing.assert_allclose(chosen.scores, expected, rtol=1e-4, atol=1e-5)
    assert set(chosen.indices) == set(np.argsort(-expected)[:20])


@pytest.mark.parametrize("seed", range(3))
def test_craig_takes_weighted_medoids_of_each_class(seed):
    mine = features(120, seed)
    chosen = select("craig", inputs_of(mine), 30, seed)
    all_gradients = gradients(mine)
    assert chosen.weights.mean() == pytest.approx(1, rel=1e-5)
    for label in range(3):
        members = np.flatnonzero(mine.gold == label)
        own = all_gradients[members]
        apart = np.linalg.norm(own[:, None] - own, axis=2)
        bound = 2 * np.linalg.norm(own, axis=1).max()
        picks = [int(np.flatnonzero(members == row)[0]) for row in chosen.indices if mine.gold[row] == label]
        assert abs(len(picks) - len(members) / 4) < 1
        covered = np.zeros(len(members))
        for pick in picks:
            gains = np.maximum(bound - apart - covered[:, None], 0).sum(0)
            assert gains[pick] >= gains.max() - 1e-2
            covered = np.maximum(covered, bound - apart[pick])
        sizes = np.bincount(apart[:, picks].argmin(1), minlength=len(picks)) if picks else np.zeros(0)
        weights = chosen.weights[mine.gold[chosen.indices] == label]
        np.testing.assert_allclose(weights * sizes.sum(), sizes * weights.sum(), rtol=1e-4)


def test_craig_on_a_graph_keeps_its_gain(monkeypatch):
    mine = features(3000, 0)
    all_gradients = gradients(mine)

    def objective(rows):
        total = 0.0
        for label in range(3):
            own, picks = all_gradients[mine.gold == label], all_gradients[[r for r in rows if mine.gold[r] == label]]
            total -= np.sqrt(np.maximum(((own[:, None] - picks) ** 2).sum(2), 0)).min(1).sum()
        return total

    exact = objective(select("craig", inputs_of(mine), 150, 0).indices)
    monkeypatch.setattr(coverage, "EXACT_ROWS", 200)
    on_graph = objective(select("craig", inputs_of(mine), 150, 0).indices)
    by_chance = np.mean([objective(select("stratified", inputs_of(mine), 150, s).indices) for s in range(5)])
    assert on_graph - by_chance >= 0.9 * (exact - by_chance) > 0


@pytest.mark.parametrize("m", [3, 40, 100])
def test_rds_gives_every_target_example_its_turn(m):
    mine, wanted = features(100, 0), features(7, 1)
    order = select("rds", inputs_of(mine, target=[wanted]), m, 0).indices
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (mine.embeddings, wanted.embeddings)]
    alike, naive = unit[1] @ unit[0].T, []
    while len(naive) < m:
        for turn in range(7):
            left = [i for i in np.argsort(-alike[turn]) if i not in naive]
            if len(naive) < m:
                naive.append(int(left[0]))
    assert order.tolist() == naive


def test_round_robin_stops_where_a_list_ends():
    assert round_robin(np.array([[4, 5], [4, 6]]), 4) == [4, 6, 5]


# ---------------------------------------------------------------------------------------------------------------- files
def test_logits_of_another_class_order_are_put_in_that_of_the_data(tmp_path):
    data = load_split(get_task("mnli"), "train", data_dir=tiny.write_mnli(tmp_path / "data"))
    rng = np.random.default_rng(0)
    logits, order = rng.normal(size=(len(data), 3)).astype("f4"), [1, 2, 0]

    def write(kind, values, names, pooling):
        about = {"model": "m", "task": "mnli", "split": "train", "fingerprint": data.fingerprint, "layer": None}
        path, _ = embedding_paths(tmp_path, "mnli", "train", kind)
        writer = EmbeddingWriter(path, about | {"pooling": pooling, "class_names": names}, *values.shape, len(data))
        writer.write(np.arange(len(data)), values)
        writer.mark_done(0)
        return writer.finish()

    names = [data.label_names[i] for i in order]
    write("pooler_embeddings", logits, names, "pooler")
    path = write("logits", logits[:, order], names, "logits")
    np.save(tmp_path / "gold_mnli_train.npy", np.argsort(order)[data.labels])
    inputs = load_inputs(data, logits_path=path, gradient_path=[tmp_path], target_path=[tmp_path])
    for found in (inputs.logits, inputs.checkpoints[0].logits, inputs.target[0].logits):
        np.testing.assert_array_equal(found, logits)
    np.testing.assert_array_equal(inputs.target[0].gold, data.labels)
    path = write("logits", logits, ["yes", "no", "maybe"], "logits")
    with pytest.raises(InputError, match=r"logits_mnli_train.npy: the checkpoint's classes are yes, no, maybe, but"):
        load_inputs(data, logits_path=path)


def test_folders_of_get_embeddings_are_what_tracin_reads(tmp_path):
    tiny.write_mnli(tmp_path / "data")
    tiny.write_mnli(tmp_path / "target", seed=5)
    tokenizer = AutoTokenizer.from_pretrained(tiny.write_tokenizer(tmp_path / "model"))
    classes = tiny.config("albert", id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)})
    AutoModelForSequenceClassification.from_config(classes).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for name in ("data", "target"):
        get_embeddings.main([
            "--model_name_or_path", str(tmp_path / "model"), "--task_name", "MNLI", "--data_dir", str(tmp_path / name),
            "--max_seq_length", "32", "--pooling", "pooler", "--logits", "--output_dir", str(tmp_path / f"of_{name}"),
        ])  # fmt: skip
    found = load_features(tmp_path / "of_target")
    assert found.has_gradients and len(found.gold) == len(found.logits)
    flags = ["--data_dir", str(tmp_path / "data"), "--data_pct", "0.25", "--target_path", str(tmp_path / "of_target")]
    for strategy, more in (
        ("tracin", ["--gradient_path", str(tmp_path / "of_data")]),
        ("rds", ["--embedding_path", str(tmp_path / "of_data")]),
    ):
        select_examples.main(["--strategy", strategy, *flags, *more, "--output_dir", str(tmp_path / strategy)])
        assert len(Selection.load(tmp_path / strategy / "selection.npz")) == 12
    with pytest.raises(InputError, match=r"--strategy tracin needs gradients: --gradient_path DIR"):
        select_examples.main(["--strategy", "tracin", *flags, "--output_dir", str(tmp_path / "x")])
    with pytest.raises(InputError, match=r"no such folder; make it with get_embeddings\.py"):
        select_examples.main(["--strategy", "rds", *flags[:-1], "nowhere", "--output_dir", str(tmp_path / "x")])
    path = tmp_path / "of_target" / "gold_mnli_train.npy"
    for gold, words in (
        (found.gold[::-1], "does not match the checksum in the json of the logits"),
        (found.gold + 7, "holds the class number [789], but the logits beside it have 3 classes"),
    ):
        np.save(path, gold)
        with pytest.raises(InputError, match=words):
            load_features(tmp_path / "of_target")
    path.unlink()
    with pytest.raises(InputError, match="needs gradients of the target"):
        select_examples.main([
            "--strategy", "tracin", *flags, "--gradient_path", str(tmp_path / "of_data"), "--output_dir", str(tmp_path / "x"),
        ])  # fmt: skip
