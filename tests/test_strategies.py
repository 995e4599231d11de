"""Selection strategies: what holds for all of them, and each against a naive reference."""

import dataclasses
import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from utils.data.examples import load_split
from utils.data.overlap import overlap_share, supports_heuristics
from utils.data.tasks import get_task
from utils.errors import InputError
from utils.selection.card import subset_card
from utils.selection.cluster_quality import pair_facts
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.features import Features
from utils.selection.selection import Selection, budget, random_ranking, weights_without_replacement
from utils.selection.strategies import STRATEGIES, Inputs, Pool, get_strategy, quotas, select
from utils.selection.strategies.coverage import EXACT_ROWS, herd, lazy_greedy, similarity
from utils.selection.strategies.graph import message_passing
from utils.selection.strategies.importance_sampling import inclusion_probabilities, mixture, systematic
from utils.selection.strategies.ordering import interleave, ranks_within
from utils.selection.strategies.vectors import unit

NAMES = ("contradiction", "entailment", "neutral")
WEIGHTED = [name for name, strategy in STRATEGIES.items() if strategy.weighted]
DETERMINISTIC = [name for name in STRATEGIES if name not in WEIGHTED]
EVERY_ONE = (
    "random stratified diverse centroids clusters proportional prototypes_easy prototypes_hard moderate kcenter herding "
    "facility_location lightweight semdedup ambiguous easy hard forgetting forgettable el2n grand aum entropy margin "
    "least_confidence ccs cluster_ccs d2 counter_heuristic bias_reweight bias_reweight_rich aflite importance "
    "poisson loss correctness jtt ssft rare ranking rds tracin craig"
).split()


def make_inputs(n=300, d=6, k=7, seed=0) -> Inputs:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    embeddings = (rng.normal(size=(n, d)) + 4).astype(np.float32)
    centers = embeddings[:k]
    squared = ((embeddings[:, None] - centers) ** 2).sum(2)
    clusters = Clusters(squared.argmin(1), centers, np.sqrt(squared.min(1)), "f", n)
    logits = rng.normal(size=(5, n, 3)).astype(np.float16)
    dynamics = Dynamics(logits, labels, NAMES, np.arange(5), "train", "f")
    vocabulary = [f"w{i}" for i in range(10)]
    premises = [" ".join(rng.choice(vocabulary, 6)) for _ in range(n)]
    hypotheses = [" ".join(rng.choice(vocabulary, 2)) for _ in range(n)]
    genres = rng.choice(["fiction", "travel"], size=n).tolist()
    return Inputs(
        n, "f", labels, genres, (premises, hypotheses), NAMES, embeddings, "pooler", clusters, dynamics,
        logits[-1].astype(np.float32), ranking=rng.permutation(n)[: n // 2],
    )  # fmt: skip


INPUTS = make_inputs()


def inputs_for(name: str, inputs: Inputs = INPUTS) -> Inputs:
    """A strategy that needs two runs gets a second one, one that needs a target its own first rows."""
    if {"target", "gradients"} & set(STRATEGIES[name].needs):
        own = Features(inputs.embeddings, {"pooling": "pooler"}, inputs.logits, inputs.labels)
        wanted = Features(own.embeddings[:9], own.about, own.logits[:9], own.gold[:9])
        return dataclasses.replace(inputs, checkpoints=(own,), target=(wanted,))
    if "two splits" not in STRATEGIES[name].needs:
        return inputs
    logits = inputs.dynamics.logits[::-1]
    return dataclasses.replace(inputs, more_dynamics=(dataclasses.replace(inputs.dynamics, logits=logits),))


def pool_of(n, m, seed=0, start=()) -> Pool:
    start = np.asarray(start, dtype=np.int64)
    return Pool(np.setdiff1d(np.arange(n), start), m, seed, np.random.default_rng(seed), start)


# ---------------------------------------------------------------------------------------------------------- all of them
def test_every_strategy_is_there():
    assert sorted(STRATEGIES) == sorted(EVERY_ONE)
    assert all(strategy.description and strategy.source for strategy in STRATEGIES.values())


# aflite holds 64 matrices (d, d): at the size of a test they are larger than the embeddings.
FROM_DISK = [name for name, s in STRATEGIES.items() if "from disk" in s.reads and name != "aflite"]


@pytest.mark.parametrize("name", FROM_DISK)
def test_embeddings_are_never_held_whole(name, monkeypatch):
    """Peak memory of numpy stays below half of the matrix where a strategy says that it reads from disk."""
    monkeypatch.setattr("utils.selection.blocks.BLOCK_BYTES", 2**18)
    monkeypatch.setattr("utils.selection.strategies.coverage.REFRESHED", 512)
    monkeypatch.setattr("utils.selection.strategies.coverage.CANDIDATES", 256)
    monkeypatch.setattr("utils.selection.strategies.semdedup.BLOCK_ROWS", 256)
    monkeypatch.setattr("utils.selection.strategies.cluster_based.MEDIAN_COLUMNS", 4)
    monkeypatch.setattr("utils.data.logits.BLOCK", 512)
    n, d, k, rng = 16_000, 128, 50, np.random.default_rng(0)
    embeddings, own = rng.standard_normal((n, d), dtype=np.float32), rng.integers(k, size=n)
    clusters = Clusters(own, embeddings[:k], rng.random(n), "f", n)
    logits = rng.standard_normal((n, 3), dtype=np.float32)
    inputs = Inputs(
        n, "f", rng.integers(3, size=n), class_names=NAMES, embeddings=embeddings, pooling="pooler", clusters=clusters,
        logits=logits,
    )  # fmt: skip
    inputs = inputs_for(name, inputs)
    tracemalloc.start()
    try:
        select(name, inputs, 200, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < embeddings.nbytes / 2


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("name", EVERY_ONE)
def test_budgets_are_exact_and_a_second_run_is_identical(name, class_balanced):
    for data_pct in (0.031, 0.1, 0.777, 1.0):
        m = budget(INPUTS.n, data_pct=data_pct)
        np.random.seed(m)  # the global generator has no say
        inputs = inputs_for(name)
        first = select(name, inputs, m, 3, class_balanced=class_balanced)
        np.random.seed(0)
        second = select(name, inputs, m, 3, class_balanced=class_balanced)
        assert len(first) == m == round(data_pct * INPUTS.n)
        np.testing.assert_array_equal(first.indices, second.indices)
        np.testing.assert_array_equal(first.weights, second.weights)
        if name not in ("importance", "lightweight"):  # these draw with replacement
            assert len(np.unique(first.indices)) == m
        if class_balanced:
            counts = np.bincount(INPUTS.labels, minlength=3)
            assert np.bincount(INPUTS.labels[first.indices], minlength=3).tolist() == quotas(counts, m).tolist()


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("name", [name for name in EVERY_ONE if name != "poisson"])
def test_smaller_budgets_are_inside_larger_ones(name, class_balanced):
    given = {"ccs_beta": 0.1} if name == "ccs" else {}  # the published share depends on the budget
    subsets = [
        select(name, inputs_for(name), m, 1, class_balanced=class_balanced, **given).indices.tolist()
        for m in (15, 30, 60, 150)
    ]
    for small, large in itertools.pairwise(subsets):
        assert set(small) <= set(large)
        if not class_balanced and name not in ("stratified", "aflite"):
            assert large[: len(small)] == small


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_picks_without_a_probability_claim_no_weight(name):
    selection = select(name, inputs_for(name), 30, 0)
    assert (selection.weights == 1).all() and selection.effective_sample_size == 30


def flat_inputs(n=400) -> Inputs:
    """Every example like every other: whatever is chosen is a tie."""
    ones = np.ones((n, 4), dtype=np.float32)
    logits = np.zeros((3, n, 3), dtype=np.float16)
    labels, one_cluster = np.arange(n) % 3, np.zeros(n, dtype=np.int64)
    return Inputs(
        n, "f", labels, None, (["a b"] * n, ["c"] * n), NAMES, ones, "pooler",
        Clusters(one_cluster, np.ones((1, 4)), np.zeros(n), "f", n), Dynamics(logits, labels, NAMES, range(3), "eval", "f"),
        logits[0].astype(np.float32), ranking=np.zeros(0, dtype=np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("name", EVERY_ONE)
def test_ties_follow_the_seed_not_the_row_order(name):
    inputs = inputs_for(name, flat_inputs())
    chosen = [np.sort(select(name, inputs, 100, seed).indices) for seed in (0, 1)]
    assert not np.array_equal(*chosen)
    for rows in chosen:
        assert 150 < rows.mean() < 250  # uniform rows have mean 199.5 and standard error about 10


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("ambiguous", lambda i: i.dynamics.variability()),
        ("easy", lambda i: i.dynamics.confidence()),
        ("hard", lambda i: -i.dynamics.confidence()),
        ("forgetting", lambda i: i.dynamics.forgetting_counts()),
        ("el2n", lambda i: i.dynamics.el2n()),
        ("aum", lambda i: -i.dynamics.aum()),
        ("loss", lambda i: i.dynamics.loss()),
        ("correctness", lambda i: -i.dynamics.correctness()),
        ("prototypes_easy", lambda i: -i.clusters.distances),
        ("prototypes_hard", lambda i: i.clusters.distances),
        ("least_confidence", lambda i: -np.max(np.exp(i.logits) / np.exp(i.logits).sum(1, keepdims=True), axis=1)),
    ],
)
def test_the_highest_scores_are_kept_first(name, score):
    for balanced in (False, True):
        selection = select(name, INPUTS, 300 if not balanced else 90, 0, class_balanced=balanced)
        expected = score(INPUTS)
        np.testing.assert_allclose(selection.scores, expected, rtol=1e-5)
        for label in range(3) if balanced else (None,):
            rows = selection.indices if label is None else selection.indices[INPUTS.labels[selection.indices] == label]
            assert (np.diff(expected[rows]) <= 1e-6).all()


def test_uncertainty_directions_on_plain_logits():
    logits = np.array([[9, 0, 0], [1, 0.9, -9], [0.1, 0.2, 0.1], [4, 0, 0]], dtype=np.float32)
    inputs = Inputs(4, "f", np.zeros(4, dtype=np.int64), class_names=NAMES, logits=logits)
    assert select("entropy", inputs, 4, 0).indices.tolist() == [2, 1, 3, 0]
    assert select("margin", inputs, 4, 0).indices.tolist() == [2, 1, 3, 0]
    assert select("least_confidence", inputs, 4, 0).indices.tolist() == [2, 1, 3, 0]
    assert select("el2n", inputs, 4, 0).indices.tolist() == [2, 1, 3, 0]


def test_drop_hardest_puts_the_top_last():
    plain = select("el2n", INPUTS, 300, 0).indices
    dropped = select("el2n", INPUTS, 300, 0, drop_hardest=0.1).indices
    assert dropped.tolist() == [*plain[30:], *plain[:30][::-1]]


def partly_seen() -> Inputs:
    """INPUTS, but the first 50 examples were not trained on."""
    logits = INPUTS.dynamics.logits.copy()
    logits[:, :50] = np.nan
    return dataclasses.replace(INPUTS, dynamics=dataclasses.replace(INPUTS.dynamics, logits=logits))


@pytest.mark.parametrize("name", ["hard", "loss", "el2n", "aum"])
def test_drop_hardest_is_a_share_of_what_has_a_score(name):
    plain = select(name, partly_seen(), 250, 0).indices
    dropped = select(name, partly_seen(), 300, 0, drop_hardest=0.1).indices
    assert dropped[:250].tolist() == [*plain[25:], *plain[:25][::-1]]
    assert set(dropped[250:]) == set(range(50))


def test_examples_without_dynamics_come_last():
    inputs = partly_seen()
    names = "ambiguous easy hard forgetting aum forgettable el2n loss correctness jtt ssft"
    for name in names.split():
        assert set(select(name, inputs_for(name, inputs), 300, 0).indices[250:]) == set(range(50))
    for name in ("ccs", "cluster_ccs", "d2", "importance", "poisson"):
        assert np.isfinite(select(name, inputs, 60, 0).weights).all()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_start_set_comes_first_and_counts(name):
    start = select("random", INPUTS, 20, 5)
    selection = select(name, inputs_for(name), 50, 0, start_from=start)
    assert len(selection) == 50 and len(np.unique(selection.indices)) == 50
    assert selection.indices[:20].tolist() == start.indices.tolist()


def test_a_start_set_that_fills_the_budget_is_the_choice():
    n = EXACT_ROWS + 1
    inputs = Inputs(n, "f", embeddings=np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32))
    start = Selection(np.arange(3), np.ones(3), n, "f")
    assert select("facility_location", inputs, 3, 0, start_from=start).indices.tolist() == [0, 1, 2]


def test_balanced_classes_count_the_start_set():
    labels = np.repeat([0, 1, 2], [100, 60, 40])
    inputs = Inputs(200, "f", labels, class_names=NAMES)
    for start, m, expected in (
        (range(30), 100, [50, 30, 20]), (range(160, 200), 100, [38, 22, 40]), (range(100, 200), 100, [0, 60, 40]),
        (range(160, 200), 200, [100, 60, 40]),
    ):  # fmt: skip
        given = Selection(np.array(start), np.ones(len(start)), 200, "f")
        chosen = select("random", inputs, m, 0, class_balanced=True, start_from=given)
        assert np.bincount(labels[chosen.indices]).tolist() == expected


def test_start_sets_that_cannot_be_used():
    start = select("random", INPUTS, 20, 5)
    with pytest.raises(InputError, match="start_from"):
        select("random", INPUTS, 10, 0, start_from=start)
    with pytest.raises(InputError, match="weights"):
        select("importance", INPUTS, 40, 0, start_from=start)
    for rows, weights in (([1, 2], [0.5, 1.5]), ([1, 1], [1, 1])):
        with pytest.raises(InputError, match="weights or repeats"):
            select("random", INPUTS, 40, 0, start_from=Selection(rows, weights, INPUTS.n, "f"))
    with pytest.raises(InputError, match="other data"):
        select("random", INPUTS, 40, 0, start_from=dataclasses.replace(start, fingerprint="g"))


@pytest.mark.parametrize("name", [name for name in EVERY_ONE if name != "random"])
def test_a_missing_input_names_its_flag_and_script(name):
    with pytest.raises(InputError, match=r"--\w+"):
        select(name, Inputs(300, "f"), 30, 0)


def test_one_snapshot_is_not_enough_where_two_are_needed():
    one = dataclasses.replace(INPUTS.dynamics, logits=INPUTS.dynamics.logits[:1], epochs=np.array([1.0]))
    inputs = dataclasses.replace(INPUTS, dynamics=one)
    for name in ("ambiguous", "forgetting", "forgettable"):
        with pytest.raises(InputError, match="two snapshots"):
            select(name, inputs, 30, 0)
    select("easy", inputs, 30, 0)
    for score in ("variability", "forgetting"):
        for name in ("importance", "poisson", "ccs", "cluster_ccs", "d2"):
            with pytest.raises(InputError, match="at least two snapshots"):
                select(name, inputs, 30, 0, score=score)
        with pytest.raises(InputError, match="at least two snapshots"):
            select("ccs", INPUTS, 30, 0, score=score, score_epoch=2.0)


def test_bad_parameters_are_refused():
    for name, params in (
        ("random", {"mix": 0.5}), ("importance", {"mix": 0.0}), ("ccs", {"ccs_beta": 10}),
        ("semdedup", {"eps": 2}), ("semdedup", {"eps": 0.0}),
        ("el2n", {"drop_hardest": 5}), ("d2", {"score": "nonsense"}), ("nonsense", {}), ("d2", {"neighbors": 0}),
        ("ambiguous", {"mix_easy": 10}), ("jtt", {"jtt_lambda": 0.0}), ("el2n", {"score_epoch": 7.0}),
        ("aflite", {"aflite_models": 0}), ("aflite", {"aflite_train_share": 1.0}), ("aflite", {"aflite_tau": 75}),
    ):  # fmt: skip
        with pytest.raises(InputError):
            select(name, INPUTS, 30, 0, **params)
    for m in (301, -1):
        with pytest.raises(InputError, match="budget"):
            select("random", INPUTS, m, 0)


def test_sizes_of_their_own():
    forgotten = INPUTS.dynamics.forgetting_counts() > 0
    assert set(select("forgettable", INPUTS, None, 0).indices) == set(np.flatnonzero(forgotten))
    centroids = select("centroids", INPUTS, None, 0).indices
    nearest = {np.where(INPUTS.clusters.labels == c, INPUTS.clusters.distances, 9e9).argmin() for c in range(7)}
    assert set(centroids) == nearest
    assert len(select("bias_reweight", INPUTS, None, 0)) == len(select("jtt", INPUTS, None, 0)) == INPUTS.n
    assert select("ranking", INPUTS, None, 0).indices.tolist() == INPUTS.ranking.tolist()
    with pytest.raises(InputError, match="no size of its own"):
        select("random", INPUTS, None, 0)


@pytest.mark.parametrize("m", [60, 150, 300])
def test_jtt_weighs_by_lambda_across_labels(m):
    for class_balanced in (False, True):
        chosen = select("jtt", INPUTS, m, 0, class_balanced=class_balanced)
        wrong = chosen.scores[chosen.indices] == 1
        assert chosen.weights.mean() == pytest.approx(1) and wrong.any()
        np.testing.assert_allclose(chosen.weights, chosen.weights.max() / np.where(wrong, 1, 5), rtol=1e-6)


def test_counts_of_labels_are_added_up_and_other_notes_are_not():
    alone, balanced = (select("d2", INPUTS, 60, 0, class_balanced=way).provenance for way in (False, True))
    assert balanced["searched_dimensions"] == alone["searched_dimensions"] == 6
    assert abs(balanced["left_out"] - alone["left_out"]) <= 2
    target = dataclasses.replace(INPUTS, target=(Features(INPUTS.embeddings[:7], {"pooling": "pooler"}),))
    assert select("rds", target, 60, 0, class_balanced=True).provenance["target"] == 7


@pytest.mark.parametrize("name", ["rare", "bias_reweight", "bias_reweight_rich"])
def test_shallow_models_need_two_examples(name):
    with pytest.raises(InputError, match="needs two examples"):
        select(name, make_inputs(n=1, k=1), 1, 0)


def test_duplicates_across_labels_need_all_labels_at_once():
    with pytest.raises(InputError, match="--class_balanced"):
        select("semdedup", INPUTS, 30, 0, across_labels=True, class_balanced=True)
    start = select("random", INPUTS, 20, 5)
    assert len(select("semdedup", INPUTS, 30, 0, across_labels=True, start_from=start)) == 30


def test_a_task_whose_hypothesis_comes_first_is_read_as_premise_and_hypothesis(tmp_path):
    """QNLI is what RTE would be with its columns turned round: the choices and what is said of them are the same."""
    words = np.array("the cat dog sees hears big small old".split())
    rng = np.random.default_rng(0)
    premises = [" ".join(rng.choice(words, size=6)) for _ in range(60)]
    hypotheses = [" ".join(rng.choice(words, size=2) if i % 2 else premises[i].split()[1:4]) for i in range(60)]
    labels = rng.choice(["entailment", "not_entailment"], size=60)
    read = {}
    for name, header, first, second in [
        ("rte", "index\tsentence1\tsentence2\tlabel", premises, hypotheses),
        ("qnli", "index\tquestion\tsentence\tlabel", hypotheses, premises),
    ]:
        rows = [f"{i}\t{a}\t{b}\t{c}" for i, (a, b, c) in enumerate(zip(first, second, labels, strict=True))]
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        read[name] = load_split(get_task(name), "train", data_dir=tmp_path / name)
    assert read["qnli"].texts == read["rte"].texts[::-1]
    for strategy in ("counter_heuristic", "bias_reweight", "bias_reweight_rich"):
        chosen = {name: select(strategy, Inputs.of(examples), 9, 0) for name, examples in read.items()}
        np.testing.assert_array_equal(chosen["qnli"].indices, chosen["rte"].indices)
        cards = [subset_card(chosen[name], examples) for name, examples in read.items()]
        for what in ("words", "word_overlap", "contradicts"):
            assert cards[0][what] == cards[1][what]
    facts = [pair_facts(examples) for examples in read.values()]
    np.testing.assert_array_equal(facts[0].overlap, facts[1].overlap)
    assert 0 < facts[0].supports["lexical_overlap"].sum() < 60


def test_random_does_not_depend_on_what_else_is_known():
    bare = Inputs(INPUTS.n, "f")
    assert select("random", bare, 40, 7).indices.tolist() == select("random", INPUTS, 40, 7).indices.tolist()
    assert select("random", bare, 40, 7).indices.tolist() == random_ranking(INPUTS.n, 7)[:40].tolist()


def test_no_torch_behind_the_strategies():
    check = "import sys, utils.selection.strategies; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(__file__).resolve().parents[1]).returncode == 0


# ---------------------------------------------------------------------------------------------------- quotas and strata
def test_quotas_are_the_largest_remainder():
    assert quotas([50, 30, 20], 7).tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4
    assert quotas([5, 5, 5], 4).sum() == 4
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 30, size=rng.integers(1, 9))
        m = int(rng.integers(0, counts.sum() + 1))
        got, exact = quotas(counts, m), m * counts / counts.sum()
        assert got.sum() == m and (np.abs(got - exact) < 1).all() and (got <= counts).all()


def test_stratified_keeps_labels_and_genres():
    selection = select("stratified", INPUTS, 100, 0)
    genres = np.asarray(INPUTS.genres)
    for label in range(3):
        for genre in ("fiction", "travel"):
            cell = (INPUTS.labels == label) & (genres == genre)
            assert abs(cell[selection.indices].sum() - cell.sum() / 3) < 1


# --------------------------------------------------------------------------------------------------------- from clusters
def test_diverse_is_a_round_robin():
    labels, distances = INPUTS.clusters.labels, INPUTS.clusters.distances
    for within in ("stream", "nearest"):
        selection = select("diverse", INPUTS, 300, 0, within_cluster=within)
        assert selection.ordered
        steps = [np.diff(distances[selection.indices[labels[selection.indices] == c]]) for c in range(7)]
        assert all((step >= 0).all() for step in steps) == (within == "nearest")
        for m in (7, 14):
            counts = np.bincount(labels[selection.indices[:m]], minlength=7)
            assert (counts == m / 7).all()
    with pytest.raises(InputError, match="--within_cluster far is unknown; there are stream and nearest"):
        select("diverse", INPUTS, 30, 0, within_cluster="far")


def test_clusters_come_whole():
    selection = select("clusters", INPUTS, 150, 0)
    seen = INPUTS.clusters.labels[selection.indices]
    changes = np.flatnonzero(np.diff(seen)) + 1
    assert len(changes) + 1 == len(np.unique(seen))
    for cluster in seen[changes - 1]:
        assert (seen == cluster).sum() == INPUTS.clusters.sizes[cluster]


def test_proportional_shares():
    selection = select("proportional", INPUTS, 100, 0)
    counts = np.bincount(INPUTS.clusters.labels[selection.indices], minlength=7)
    assert (np.abs(counts - INPUTS.clusters.sizes / 3) <= 1).all()


# -------------------------------------------------------------------------------------------------------------- coverage
def test_kcenter_from_a_start_set():
    start = select("random", INPUTS, 5, 9)
    order = select("kcenter", INPUTS, 20, 0, start_from=start).indices
    e = INPUTS.embeddings.astype(np.float64)
    for t in range(5, 20):
        nearest = np.linalg.norm(e[:, None] - e[order[:t]], axis=2).min(1)
        assert order[t] == nearest.argmax()


def test_lazy_greedy_equals_plain_greedy():
    rng = np.random.default_rng(3)
    own = unit(rng.normal(size=(80, 5)).astype(np.float32))
    similarities, covered, plain = similarity(own, own), np.zeros(80, dtype=np.float32), []
    now = covered.copy()
    for _ in range(80):
        gains = np.maximum(similarities - now, 0).sum(1, dtype=np.float64)
        gains[plain] = -1
        plain.append(int(gains.argmax()))
        now = np.maximum(now, similarities[plain[-1]])
    lazy = lazy_greedy(lambda j: (slice(None), similarities[j]), covered, 80, 80)
    assert lazy[:40] == plain[:40] and sorted(lazy) == list(range(80))


def test_d2_dampens_the_neighbours_of_a_pick():
    neighbours, apart = np.array([[1], [0], [3], [2]]), np.full((4, 1), 0.01)
    assert message_passing(neighbours, apart, np.array([1.0, 0.9, 0.5, 0.4]), 2, gamma=1.0).tolist() == [0, 2]


def test_d2_takes_the_one_candidate_that_is_left():
    start = Selection(np.arange(299), np.ones(299), 300, "f")
    assert select("d2", INPUTS, 300, 0, start_from=start).indices[-1] == 299


def test_herding_goes_on_from_a_start():
    centred = np.array([[1.0, 0], [-1, 0], [0, 0.1]], dtype=np.float32)
    assert herd([centred], 1, np.array([2.0, 0])) == [(0, 1)]


# -------------------------------------------------------------------------------------------------------------------- CCS
def naive_ccs_counts(scores, m, beta, bins):
    """Zheng et al., by the letter: bin sizes, then smallest first an equal part of what is left."""
    kept = np.sort(scores)[: len(scores) - round(beta * len(scores))]
    sizes, _ = np.histogram(kept, bins=bins)
    take = np.zeros(bins, dtype=int)
    left, full = m, [b for b in np.argsort(sizes, kind="stable") if sizes[b]]
    for position, b in enumerate(full):
        take[b] = min(sizes[b], left // (len(full) - position))
        left -= take[b]
    return kept, take


@pytest.mark.parametrize("m", [20, 57, 100, 240, 270])
def test_ccs_fills_bins_like_the_paper(m):
    scores = INPUTS.dynamics.el2n()
    kept, take = naive_ccs_counts(scores, m, 0.1, 50)
    chosen = select("ccs", INPUTS, m, 0, ccs_beta=0.1, score="el2n").indices
    edges = np.histogram_bin_edges(kept, bins=50)
    assert scores[chosen].max() <= kept.max()
    # Two bins of one size may change places: compare how much the bins of each size hold.
    sizes, got = np.histogram(kept, edges)[0], np.histogram(scores[chosen], edges)[0]
    for size in np.unique(sizes):
        assert sorted(got[sizes == size]) == sorted(take[sizes == size])


def test_ccs_has_fifty_bins():
    """Scores from 0 to 50, so bins are one wide: 20.99 and 21.01 lie in two of them, 11.02 and 11.98 in one. With 49 or 51
    bins, or half or twice as many, it would be otherwise. A fifth pick is the second of a bin, so there are five bins."""
    scores = [0, 50, 20.99, 21.01, 11.02, 11.98]
    logits = np.array([[0, score, -100] for score in scores], dtype=np.float16)[None]  # AUM is minus the score
    dynamics = Dynamics(logits, np.zeros(6, dtype=np.int64), NAMES, [1.0], "eval", "f")
    inputs = Inputs(6, "f", dynamics.labels, class_names=NAMES, dynamics=dynamics)
    picks = {frozenset(select("ccs", inputs, 5, seed, ccs_beta=0.0, score="aum").indices) for seed in range(20)}
    assert picks == {frozenset({0, 1, 2, 3, 4}), frozenset({0, 1, 2, 3, 5})}


def test_ccs_takes_the_easiest_of_the_dropped_when_the_budget_is_larger():
    scores = INPUTS.dynamics.el2n()
    chosen = select("ccs", INPUTS, 285, 0, ccs_beta=0.2, score="el2n").indices
    assert set(chosen) == set(np.argsort(scores)[:285])


def test_cluster_ccs_ends():
    kept = np.argsort(INPUTS.dynamics.el2n())[:270]
    sizes = np.bincount(INPUTS.clusters.labels[kept], minlength=7)
    by_size = select("cluster_ccs", INPUTS, 90, 0, size_power=1.0).indices
    assert (np.abs(np.bincount(INPUTS.clusters.labels[by_size], minlength=7) - sizes / 3) <= 1).all()
    chosen = select("cluster_ccs", INPUTS, 35, 0, size_power=0.0).indices
    assert np.bincount(INPUTS.clusters.labels[chosen], minlength=7).min() >= 3  # shares by mean score: nearly equal


# ------------------------------------------------------------------------------------------------------------------- text
def test_heuristics_on_known_pairs():
    pairs = [
        ("The judges heard the actors.", "The actors heard the judges.", (True, False, False)),
        ("The lawyers by the actor ran.", "The actor ran.", (True, True, False)),
        ("If the artist slept, the actor ran.", "The artist slept.", (True, True, True)),
        ("The artist slept.", "The actor ran.", (False, False, False)),
        ("It is the cat's mat.", "THE CAT'S MAT!", (True, True, False)),
        ("Anything.", "", (False, False, False)),
    ]
    found = supports_heuristics([p for p, _, _ in pairs], [h for _, h, _ in pairs])
    names = ("lexical_overlap", "subsequence", "constituent")
    assert [tuple(bool(found[name][i]) for name in names) for i in range(6)] == [expected for *_, expected in pairs]
    assert overlap_share(["a b c", "a"], ["a x", ""]).tolist() == [0.5, 0.0]


def test_counter_heuristic_brings_all_counter_examples_first():
    predicted = supports_heuristics(*INPUTS.texts)["lexical_overlap"]
    counter = set(np.flatnonzero(predicted & (INPUTS.labels != 1)))
    order = select("counter_heuristic", INPUTS, 300, 0).indices
    assert set(order[: len(counter)]) == counter and 20 < len(counter) < 200


@pytest.mark.parametrize("name", ["bias_reweight", "bias_reweight_rich"])
def test_bias_reweight_weighs_against_the_shortcut(name):
    rng = np.random.default_rng(0)
    n = 600
    entailed = rng.random(n) < 0.5
    follows = rng.random(n) < 0.9  # the overlap tells the label nine times in ten
    overlapping = entailed == follows
    hypotheses = ["one two" if o else "five six" for o in overlapping]
    inputs = Inputs(n, "f", entailed.astype(np.int64), None, (["one two three"] * n, hypotheses), NAMES)
    selection = select(name, inputs, None, 0)
    weights = np.empty(n)
    weights[selection.indices] = selection.weights
    assert weights.mean() == pytest.approx(1, abs=1e-4)
    # With q what the model gives the side that the overlap speaks for: 1 - q, and 1 - (1 - q), if not split in two.
    q = follows.mean()
    expected = {"bias_reweight": (q + (1 + q) / 2) / ((1 - q) + (1 - q / 2)), "bias_reweight_rich": q / (1 - q)}
    assert weights[~follows].mean() / weights[follows].mean() == pytest.approx(expected[name], rel=0.1)
    assert "another distribution" in selection.provenance["target"]


def test_bias_model_never_sees_the_example_it_scores():
    """With features that say nothing, a model that saw an odd label would lean to it; a cross-fitted one cannot."""
    labels = np.zeros(40, dtype=np.int64)
    labels[7] = 1
    inputs = Inputs(40, "f", labels, None, (["a b"] * 40, ["c"] * 40), NAMES)
    assert select("bias_reweight_rich", inputs, None, 0).scores[7] == 1.0


# ---------------------------------------------------------------------------------------------------------- importance
class Scripted:
    """A generator that returns what the enumeration says."""

    def __init__(self, order, start):
        self.order, self.start = np.asarray(order), start

    def permutation(self, n):
        return self.order

    def random(self):
        return self.start


def test_importance_is_unbiased_by_enumeration():
    """Every pair of draws, with probabilities worked out by hand and the weights that the strategy gives."""
    losses, places = np.array([0.3, 2.0, 1.1, 0.0]), np.array([-3.0, 1.0, 0.0, 2.0])  # their mean is 0
    p = 0.8 * places**2 / 14 + 0.2 / 4
    inputs = Inputs(4, "f", embeddings=places[:, None].astype(np.float32))
    weights = {}
    for seed in range(200):
        selection = select("importance", inputs, 4, seed, mix=0.2)
        weights |= dict(zip(selection.indices.tolist(), selection.weights.tolist(), strict=True))
    draws = itertools.product(range(4), repeat=2)
    estimate = sum(p[i] * p[j] * (weights[i] * losses[i] + weights[j] * losses[j]) / 2 for i, j in draws)
    assert estimate == pytest.approx(losses.mean(), rel=1e-6)


def test_poisson_is_unbiased_by_enumeration():
    """Every order and every interval of starts between which the sample does not change: exact inclusion."""
    pi = inclusion_probabilities(mixture(np.array([1.0, 9.0, 0.0, 2.0, 3.0]), 0.2), 2)
    assert pi.sum() == pytest.approx(2) and pi.max() <= 1
    losses = np.array([0.3, 2.0, 1.1, 0.0, 0.7])
    weights = weights_without_replacement(pi, 5)
    inclusion, estimate = np.zeros(5), 0.0
    orders = list(itertools.permutations(range(5)))
    for order in orders:
        edges = np.cumsum(pi[list(order)])
        cuts = np.unique(np.r_[0, (1 - edges % 1) % 1, 1])
        for low, high in itertools.pairwise(cuts):
            if high - low < 1e-12:
                continue
            chosen = systematic(pi, Scripted(order, (low + high) / 2))
            assert len(chosen) == 2 == len(set(chosen.tolist()))
            inclusion[chosen] += (high - low) / len(orders)
            estimate += (high - low) / len(orders) * (weights[chosen] * losses[chosen]).mean()
    np.testing.assert_allclose(inclusion, pi, atol=1e-9)
    assert estimate == pytest.approx(losses.mean(), rel=1e-6)


def test_certain_examples_are_always_in():
    pi = inclusion_probabilities(np.array([0.9, 0.05, 0.03, 0.02]), 3)
    assert pi[0] == 1 and pi.sum() == pytest.approx(3) and (pi <= 1 + 1e-12).all()
    assert inclusion_probabilities(np.full(4, 0.25), 4).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("name", ["importance", "poisson", "lightweight"])
def test_weighted_means_are_unbiased_by_simulation(name, class_balanced):
    inputs = make_inputs(n=60)
    losses = np.random.default_rng(9).gamma(1.0, size=60) + inputs.dynamics.el2n() + 2 * inputs.labels
    estimates = []
    for seed in range(600):
        selection = select(name, inputs, 7, seed, class_balanced=class_balanced)  # no whole number per label
        estimates.append(float((selection.weights * losses[selection.indices]).mean()))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - losses.mean()) < 3 * error
    assert error > 0


def test_importance_prefers_high_scores_and_follows_the_formula():
    selection = select("importance", INPUTS, 3000 // 10, 0, mix=0.1)
    p = mixture(INPUTS.dynamics.el2n().astype(np.float64), 0.1)
    np.testing.assert_allclose(selection.weights, 1 / (300 * p[selection.indices]), rtol=1e-5)
    assert INPUTS.dynamics.el2n()[selection.indices].mean() > INPUTS.dynamics.el2n().mean()


def test_lightweight_probabilities():
    selection = select("lightweight", INPUTS, 100, 0)
    squared = ((INPUTS.embeddings - INPUTS.embeddings.mean(0)) ** 2).sum(1)
    q = 1 / 600 + squared / (2 * squared.sum())
    np.testing.assert_allclose(selection.weights, 1 / (300 * q[selection.indices]), rtol=1e-4)


def test_selections_survive_the_file(tmp_path):
    for name in ("diverse", "poisson"):
        selection = select(name, inputs_for(name), 30, 0)
        selection.save(tmp_path / "selection.npz")
        again = Selection.load(tmp_path / "selection.npz")
        np.testing.assert_array_equal(again.indices, selection.indices)
        assert again.provenance["method"] == name and again.ordered == selection.ordered
    assert {p.name: p.default for p in get_strategy("ccs").parameters.values()} == {
        "ccs_beta": None, "score": None, "score_epoch": None,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_taking_turns_gives_every_group_its_place_in_every_round(seed):
    rng = np.random.default_rng(seed)
    groups, priority, share = rng.integers(0, 7, 300), rng.permutation(7), rng.random(7) + 0.1
    places = [list(np.flatnonzero(groups == group)) for group in range(7)]
    assert ranks_within(groups).tolist() == [places[group].index(i) for i, group in enumerate(groups)]

    def in_turns(share):
        keys = {i: ((t + 0.5) / share[g], priority[g]) for g in range(7) for t, i in enumerate(places[g])}
        return sorted(range(300), key=keys.get)

    assert interleave(groups, priority=priority).tolist() == in_turns(np.ones(7))
    assert interleave(groups, share=share, priority=priority).tolist() == in_turns(share)
    for m in (1, 50, 299, 300, 400):
        assert interleave(groups, m, priority=priority).tolist() == in_turns(np.ones(7))[:m]
        assert interleave(groups, m, share=share, priority=priority).tolist() == in_turns(share)[:m]
