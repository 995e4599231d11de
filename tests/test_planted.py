"""Corpora with known answers, the benchmark on them, its page, and the strategy that it was made for."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import planted
from demo import plant
from demo.plant import SHORTCUTS, Corpus, training_pairs
from docs import make_planted
from utils.data.examples import load_split
from utils.data.overlap import supports_heuristics, words
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection.bias_models import shallow_probability
from utils.selection.dynamics import Dynamics
from utils.selection.strategies import Inputs, select

N = 400


def pairs(**other):
    return training_pairs(Corpus(**{"n": N, "prevalence": 0.05, "noise": 0.1, "duplicates": 0.05, **other}), set())


# -------------------------------------------------------------------------------------------------------------- corpora
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_every_kind_has_its_exact_share_and_counter_examples_contradict(shortcut):
    rows, kinds = pairs(shortcut=shortcut)
    assert [kinds.count(kind) for kind in plant.KINDS] == [320, 20, 40, 20]
    counters = [row for row, kind in zip(rows, kinds, strict=True) if kind == "counter-example"]
    assert {row[2] for row in counters} == {SHORTCUTS[shortcut].label}
    premises, hypotheses = [row[0] for row in counters], [row[1] for row in counters]
    if shortcut in ("lexical_overlap", "subsequence"):
        assert supports_heuristics(premises, hypotheses)[shortcut].all()
    elif shortcut == "negation":
        assert all({"never", "not"} & set(words(text)) for text in hypotheses)
    else:
        assert all(any(text.endswith(f"{added} .") for added in plant.ADDED) for text in hypotheses)


def test_wrong_labels_are_wrong_and_copies_are_copies():
    clean, _ = pairs(noise=0.0)
    right = {row[:2]: row[2] for row in clean}
    for kind in plant.NOISE_KINDS:
        rows, kinds = pairs(noise_kind=kind)
        labels = [(right[row[:2]], row[2], which) for row, which in zip(rows, kinds, strict=True)]
        changed = {(before, after) for before, after, which in labels if which == "mislabelled"}
        assert all((before != after) == (which == "mislabelled") for before, after, which in labels)
        assert len(changed) == (6 if kind == "uniform" else 3)
    texts = [row[:3] for row in rows]
    assert all(texts.count(row[:3]) == 2 for row, which in zip(rows, kinds, strict=True) if which == "duplicate")


def test_files_are_seeded_and_do_not_show_what_a_pair_is(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        flags = {"output_dir": tmp_path / name, "num_train": 120, "num_dev": 30, "seed": seed, "shortcut": "negation"}
        plant.main([word for flag, value in flags.items() for word in (f"--{flag}", str(value))])
    a, b, c = ((tmp_path / name / "train.tsv").read_bytes() for name in "abc")
    assert a == b != c
    examples, kinds = load_split(get_task("mnli"), "train", data_dir=tmp_path / "a"), plant.read_kinds(tmp_path / "a")
    assert len(examples) == len(kinds) == 120 and set(examples.genres) == {plant.GENRE}
    with pytest.raises(InputError, match="more than the"):
        training_pairs(Corpus(n=N, noise=0.3, prevalence=0.3, duplicates=0.6), set())


# ------------------------------------------------------------------------------------------------------------- strategy
def test_shallow_models_see_the_shortcut_and_not_their_own_label():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    hypotheses = [f"word{label} filler{rng.integers(20)}" for label in labels]
    contradicting, changed = 7, labels.copy()
    changed[contradicting] = (labels[contradicting] + 1) % 3
    texts = ([f"premise{rng.integers(20)}" for _ in labels], hypotheses)
    found = shallow_probability(texts, changed, 0)
    assert found.argmin() == contradicting and found[contradicting] < 0.2
    both = ["one two" if label == 1 else "three four" for label in labels]  # only the pair shows what is shared
    shared = shallow_probability((["one two"] * 300, both), labels, 0)
    assert shared[labels == 1].min() > shared[labels != 1].max()


def test_rare_is_the_product_of_its_two_parts():
    rng = np.random.default_rng(1)
    labels, held_out = rng.integers(3, size=90), rng.normal(size=(90, 3)).astype(np.float32)
    texts = tuple([f"w{rng.integers(9)} w{rng.integers(9)}" for _ in labels] for _ in range(2))
    snapshots = np.stack([held_out[::-1], -held_out]).astype(np.float16)
    dynamics = Dynamics(snapshots, labels, ("a", "b", "c"), [1.0, 2.0], "eval", "f")
    inputs = Inputs(90, "f", labels, texts=texts, class_names=("a", "b", "c"), held_out=held_out, dynamics=dynamics)
    shallow = shallow_probability(texts, labels, 5)

    def expected(logits, power):
        p = np.exp(logits.astype(np.float64))
        return p[np.arange(90), labels] / p.sum(1) * (1 - shallow) ** power

    chosen = select("rare", inputs, 20, 5)
    np.testing.assert_allclose(chosen.scores, expected(snapshots[-1], 2), rtol=1e-5)
    assert set(chosen.indices) == set(np.argsort(-expected(snapshots[-1], 2))[:20])
    crossed = select("rare", inputs, 20, 5, cross_fitted=True, shallow_power=0.0)
    np.testing.assert_allclose(crossed.scores, expected(held_out, 0), rtol=1e-5)
    with pytest.raises(InputError, match="--shallow_power -1"):
        select("rare", inputs, 20, 5, shallow_power=-1.0)
    with pytest.raises(InputError, match="needs --held_out_path"):
        select("rare", dataclasses.replace(inputs, held_out=None), 20, 5, cross_fitted=True)


# ------------------------------------------------------------------------------------------------------------ benchmark
def test_one_factor_varies_at_a_time():
    design, plain = planted.cells(), Corpus()
    assert len(design) == 24
    for corpus in design.values():
        factors = ("prevalence", "noise", "noise_kind", "duplicates", "n", "seed")
        assert sum(getattr(corpus, factor) != getattr(plain, factor) for factor in factors) <= 1


def test_shares_are_of_each_kind():
    kinds = ["ordinary", "counter-example", "mislabelled", "counter-example"]
    found = planted.shares_of({0.1: np.array([1, 1, 0])}, kinds)
    assert found == {"0.1": {"ordinary": 1.0, "counter-example": 0.5, "mislabelled": 0.0, "duplicate": None}}


def test_area_and_trade_off_of_chance_and_of_the_best():
    chance = np.array([[[b, b] for b in planted.BUDGETS]] * 2)
    best = np.array([[[1.0, 0.0]] * 3])
    np.testing.assert_allclose(make_planted.area(chance), 0.5)
    np.testing.assert_allclose(make_planted.area(best), 1.0)
    assert make_planted.found_at(chance, 0.05) == pytest.approx(0.05)
    assert make_planted.found_at(best, 0.0) == pytest.approx(1.0) == make_planted.found_at(best, 0.5)


def test_a_cell_that_is_done_is_not_done_again(tmp_path, capsys):
    flags = ["--output_dir", str(tmp_path), "--cells", "negation_centre", "--num_seeds", "1"]
    corpus = {**dataclasses.asdict(planted.cells()["negation_centre"]), "seed": 1}
    (tmp_path / "negation_centre_1.json").write_text(json.dumps({"corpus": corpus}))
    planted.main(flags)
    assert "0 cells to do, 1 done" in capsys.readouterr().out
    with pytest.raises(InputError, match="is of another corpus"):
        planted.main([*flags, "--num_train", "999"])
