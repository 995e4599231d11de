"""Strategies on clusters and on text against plain loops that follow their sources word by word."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from utils.errors import InputError
from utils.selection.clusters import Clusters
from utils.selection.strategies import Inputs, select
from utils.selection.strategies.adversarial import predictability
from utils.selection.strategies.cluster_based import distances_to_class_medians

NAMES = ("contradiction", "entailment", "neutral")
SEEDS = range(4)
MANY = 400  # seeds, where every outcome of a tie is to be seen


def awkward(seed: int, n: int = 90, d: int = 5, k: int = 6) -> Inputs:
    """Classes and clusters of very unequal size and spread (one cluster of one example), every third row a copy of
    the row before, and text in a few words."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.7, 0.25, 0.05])
    labels[:2] = 2
    embeddings = rng.normal(labels[:, None], 1 + 3 * labels[:, None], (n, d)).astype(np.float32)
    embeddings[2::3] = embeddings[1::3][: len(embeddings[2::3])]
    centers = embeddings[rng.permutation(n)[:k]].copy()
    centers[0] = embeddings[0] = 100
    squared = ((embeddings[:, None].astype(np.float64) - centers) ** 2).sum(2)
    clusters = Clusters(squared.argmin(1), centers, np.sqrt(squared.min(1)).astype(np.float32), "f", n)
    words = [f"w{i}" for i in range(6)]
    premises, hypotheses = ([" ".join(rng.choice(words, size)) for _ in range(n)] for size in (5, 2))
    return Inputs(n, "f", labels, None, (premises, hypotheses), NAMES, embeddings, "cls", clusters)


# ---------------------------------------------------------------------------------------------------------- from clusters
def turns(inputs: Inputs, indices) -> list[list[int]]:
    """The rows in the rounds of a round-robin: the t-th of every cluster that still has one."""
    queues = {c: [i for i in indices if inputs.clusters.labels[i] == c] for c in range(inputs.clusters.k)}
    rounds = []
    while any(queues.values()):
        rounds.append([queue.pop(0) for queue in queues.values() if queue])
    return rounds


@pytest.mark.parametrize("within", ["stream", "nearest"])
@pytest.mark.parametrize("seed", SEEDS)
def test_diverse_takes_one_of_each_cluster_in_turn(seed, within):
    inputs = awkward(seed)
    indices = select("diverse", inputs, inputs.n, seed, within_cluster=within).indices.tolist()
    position = 0
    priority = [inputs.clusters.labels[i] for i in indices[: inputs.clusters.k]]
    for expected in turns(inputs, indices):
        got = indices[position : position + len(expected)]
        assert set(got) == set(expected)
        assert [inputs.clusters.labels[i] for i in got] == [
            c for c in priority if c in inputs.clusters.labels[expected]
        ]
        position += len(expected)
    if within == "nearest":
        for c in range(inputs.clusters.k):
            own = [inputs.clusters.distances[i] for i in indices if inputs.clusters.labels[i] == c]
            assert own == sorted(own)


def test_the_stream_inside_a_cluster_is_random():
    """Of a cluster of three, each example comes first about as often."""
    inputs = Inputs(4, "f", clusters=Clusters(np.array([0, 0, 0, 1]), np.zeros((2, 1)), np.arange(4.0), "f", 4))
    first = [min(select("diverse", inputs, 2, seed).indices) for seed in range(MANY)]
    assert (np.abs(np.bincount(first, minlength=3) - MANY / 3) < 4 * np.sqrt(MANY * 2 / 9)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_centroids_are_the_nearest_of_each_cluster(seed):
    inputs = awkward(seed)
    labels, distances = inputs.clusters.labels, inputs.clusters.distances
    indices = select("centroids", inputs, inputs.n, seed).indices
    k = inputs.clusters.k
    assert sorted(labels[indices[:k]]) == list(range(k))
    for i in indices[:k]:
        assert distances[i] == min(distances[j] for j in range(inputs.n) if labels[j] == labels[i])
    rest = distances[indices[k:]].tolist()
    assert rest == sorted(rest)


@pytest.mark.parametrize("seed", SEEDS)
def test_clusters_are_emptied_one_after_the_other(seed):
    inputs = awkward(seed)
    left = inputs.clusters.sizes.copy()
    open_cluster = None
    for i in select("clusters", inputs, inputs.n, seed).indices:
        own = inputs.clusters.labels[i]
        assert own == open_cluster or open_cluster is None or left[open_cluster] == 0
        open_cluster, left[own] = own, left[own] - 1
    assert not left.any()


@pytest.mark.parametrize("seed", SEEDS)
def test_proportional_gives_the_next_place_to_the_cluster_that_lacks_most(seed):
    """Webster's method: the next place goes to the cluster with the largest size / (2 taken + 1)."""
    inputs = awkward(seed)
    sizes, taken = inputs.clusters.sizes, np.zeros(inputs.clusters.k)
    for i in select("proportional", inputs, inputs.n, seed).indices:
        claims = sizes / (2 * taken + 1)
        own = inputs.clusters.labels[i]
        assert claims[own] == pytest.approx(claims.max(), rel=1e-12)
        taken[own] += 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "sign"), [("prototypes_easy", 1), ("prototypes_hard", -1)])
def test_prototypes_by_distance_to_their_centroid(name, sign, seed):
    inputs = awkward(seed)
    indices = select(name, inputs, 30, seed).indices
    signed = [sign * float(distance) for distance in inputs.clusters.distances]
    assert [signed[i] for i in indices] == sorted(signed)[:30]


# --------------------------------------------------------------------------------------------------------------- moderate
def published_band(inputs: Inputs, m: int) -> list[float]:
    """The distances that the published rule keeps: class medians, all distances sorted, the band in the middle."""
    distances = []
    for i in range(inputs.n):
        own = [j for j in range(inputs.n) if inputs.labels[j] == inputs.labels[i]]
        prototype = [np.median([inputs.embeddings[j, c] for j in own]) for c in range(inputs.embeddings.shape[1])]
        distances.append(float(np.linalg.norm(inputs.embeddings[i].astype(np.float64) - prototype)))
    low = (inputs.n - m) // 2
    return sorted(distances)[low : low + m]


@pytest.mark.parametrize("seed", SEEDS)
def test_moderate_is_the_published_band(seed):
    inputs = awkward(seed, n=60)
    distances = distances_to_class_medians(inputs.embeddings, inputs.labels)
    for m in (2, 10, 34, 60):
        chosen = select("moderate", inputs, m, seed).indices
        np.testing.assert_allclose(sorted(distances[chosen]), published_band(inputs, m), rtol=1e-6)
    for m in (1, 11, 59):  # one end of the band is a matter of rounding
        chosen = sorted(distances[select("moderate", inputs, m, seed).indices])
        wide = published_band(inputs, m + 1)
        assert np.allclose(chosen, wide[1:]) or np.allclose(chosen, wide[:-1])


def test_moderate_looks_at_one_rank_over_all_classes():
    """Two classes, one near its median and one far: the band lies between them, not inside each."""
    near, far = np.linspace(-1, 1, 21), np.linspace(-100, 100, 21)
    embeddings = np.concatenate([near, far])[:, None].astype(np.float32)
    inputs = Inputs(42, "f", np.repeat([0, 1], 21), class_names=NAMES, embeddings=embeddings)
    chosen = set(select("moderate", inputs, 6, 0).indices)
    distances = np.abs(embeddings[:, 0])
    assert chosen == set(np.argsort(distances)[18:24])


def test_medians_in_blocks_of_columns(monkeypatch):
    inputs = awkward(0)
    whole = distances_to_class_medians(inputs.embeddings, inputs.labels)
    monkeypatch.setattr("utils.selection.strategies.cluster_based.MEDIAN_COLUMNS", 2)
    np.testing.assert_array_equal(distances_to_class_medians(inputs.embeddings, inputs.labels), whole)


def test_moderate_where_all_are_alike_is_random():
    inputs = Inputs(40, "f", np.zeros(40, dtype=np.int64), class_names=NAMES, embeddings=np.ones((40, 2), np.float32))
    chosen = [frozenset(select("moderate", inputs, 5, seed).indices) for seed in range(20)]
    assert len(set(chosen)) == 20


# ------------------------------------------------------------------------------------------------------------------- text
def is_piece(hypothesis: list[str], premise: list[str]) -> bool:
    places = range(len(premise) - len(hypothesis) + 1)
    return any(premise[i : i + len(hypothesis)] == hypothesis for i in places)


@pytest.mark.parametrize("seed", SEEDS)
def test_counter_heuristic_puts_the_contradicting_pairs_first(seed):
    inputs = awkward(seed)
    contradicting = set()
    for i, (premise, hypothesis) in enumerate(zip(*inputs.texts, strict=True)):
        known = all(word in premise.split() for word in hypothesis.split())
        if known and NAMES[inputs.labels[i]] != "entailment":
            contradicting.add(i)
    indices = select("counter_heuristic", inputs, inputs.n, seed).indices
    assert set(indices[: len(contradicting)]) == contradicting and 5 < len(contradicting) < inputs.n - 5


def naive_bias_weights(inputs: Inputs, seed: int) -> np.ndarray:
    """One two-way model a fold, as the authors fit it; each example scored by the model of the other four folds."""
    from sklearn.linear_model import LogisticRegression

    features, entailed = [], [NAMES[label] == "entailment" for label in inputs.labels]
    for premise, hypothesis in zip(*inputs.texts, strict=True):
        p, h = premise.split(), hypothesis.split()
        known = [word in p for word in h]
        features.append([is_piece(h, p), all(known), sum(known) / len(h)])
    order = np.random.default_rng(seed).permutation(inputs.n).tolist()
    dealt = [i for i in order if not entailed[i]] + [i for i in order if entailed[i]]  # like cards, to five hands
    weights = np.empty(inputs.n)
    for hand in range(5):
        own = dealt[hand::5]
        rest = [i for i in range(inputs.n) if i not in own]
        model = LogisticRegression(solver="liblinear", class_weight="balanced", C=100)
        model.fit([features[i] for i in rest], [entailed[i] for i in rest])
        for i in own:
            p_other, p_entailed = model.predict_proba([features[i]])[0]
            weights[i] = 1 - (p_entailed if entailed[i] else p_other / 2)
    return weights / weights.mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_bias_reweight_is_the_published_model_cross_fitted(seed):
    inputs = awkward(seed)
    selection = select("bias_reweight", inputs, None, seed)
    assert sorted(selection.indices) == list(range(inputs.n))
    np.testing.assert_allclose(selection.weights, naive_bias_weights(inputs, seed)[selection.indices], rtol=1e-4)


def test_bias_reweight_holds_balanced_sides():
    """Nine of ten examples are not entailed and the text says nothing: a balanced model is at one half all the same."""
    labels = np.repeat([0, 2, 1], [60, 30, 10])
    inputs = Inputs(100, "f", labels, None, (["a b"] * 100, ["c"] * 100), NAMES)
    np.testing.assert_allclose(
        select("bias_reweight", inputs, None, 0).scores, np.where(labels == 1, 0.5, 0.75), atol=1e-3
    )


def test_bias_reweight_of_two_classes_splits_nothing():
    labels = np.repeat([0, 1], 20)
    inputs = Inputs(40, "f", labels, None, (["a b"] * 40, ["c"] * 40), ("entailment", "not_entailment"))
    np.testing.assert_allclose(select("bias_reweight", inputs, None, 0).scores, 0.5, atol=1e-3)


@pytest.mark.parametrize("labels", [[1], [1, 1, 1], [0, 2, 0], [1, 0, 2]])
def test_bias_reweight_of_too_few_is_one_line(labels):
    inputs = Inputs(len(labels), "f", np.array(labels), None, (["a"] * len(labels), ["a"] * len(labels)), NAMES)
    with pytest.raises(InputError, match=r"needs two examples called entailment and two that are not; \d of \d are"):
        select("bias_reweight", inputs, None, 0)


def test_bias_reweight_of_two_and_two():
    inputs = Inputs(4, "f", np.array([1, 1, 0, 2]), None, (["a"] * 4, ["a", "b", "a", "b"]), NAMES)
    weights = select("bias_reweight", inputs, None, 0).weights
    assert np.isfinite(weights).all() and weights.mean() == pytest.approx(1, abs=1e-5)


def test_the_rich_model_of_few_examples():
    one = Inputs(1, "f", np.array([1]), None, (["a"], ["a"]), NAMES)
    with pytest.raises(InputError, match="bias_reweight_rich needs two examples"):
        select("bias_reweight_rich", one, None, 0)
    for labels in ([1, 1], [0, 1, 2], [0] * 9 + [1]):
        n = len(labels)
        inputs = Inputs(n, "f", np.array(labels), None, (["a b"] * n, ["a"] * n), NAMES)
        weights = select("bias_reweight_rich", inputs, None, 0).weights
        assert np.isfinite(weights).all() and weights.mean() == pytest.approx(1, abs=1e-5)


# ----------------------------------------------------------------------------------------------------------------- aflite
@pytest.mark.parametrize("seed", SEEDS)
def test_predictability_is_that_of_discriminants_on_random_parts(seed):
    """The same splits, drawn again; one model of scikit-learn on each; every held-out prediction counted."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    inputs = awkward(seed)
    e, rows = inputs.embeddings, np.setdiff1d(np.arange(inputs.n), [5, 6, 50])
    fast = predictability(e, inputs.labels, rows, e.mean(0), np.random.default_rng(seed), models=20, train_share=0.5)
    rng = np.random.default_rng(seed)
    blocks = np.array_split(rng.permutation(len(rows)), 64)
    right, asked = np.zeros(len(rows)), np.zeros(len(rows))
    for _ in range(20):
        seen = np.concatenate([blocks[b] for b in rng.choice(64, 32, replace=False)])
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.01).fit(e[rows[seen]], inputs.labels[rows[seen]])
        for i in set(range(len(rows))) - set(seen.tolist()):
            asked[i] += 1
            right[i] += model.predict(e[rows[i]][None])[0] == inputs.labels[rows[i]]
    differ = np.abs(fast - right / np.maximum(asked, 1)) > 1e-6
    assert differ.sum() <= 1  # a tie of two classes may fall either way
    assert fast.std() > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_aflite_drops_slices_until_the_budget_or_the_early_stop(seed):
    """Round by round: what is gone at the next budget are the highest shares above tau, a fiftieth of n at most."""
    inputs = awkward(seed, n=110)
    center = inputs.embeddings.mean(0, dtype=np.float64).astype(np.float32)
    settings = {"aflite_tau": 0.8, "aflite_models": 16}
    kept, rounds, full = list(range(110)), 0, True
    while full:
        rng = np.random.default_rng([seed, rounds])
        shares = predictability(
            inputs.embeddings, inputs.labels, np.array(kept), center, rng, models=16, train_share=0.1
        )
        high = sorted((share for share in shares if share >= 0.8), reverse=True)
        after = select("aflite", inputs, len(kept) - min(2, len(high)), seed, **settings).indices
        gone = [share for i, share in zip(kept, shares, strict=True) if i not in after]
        assert sorted(gone, reverse=True) == high[:2]
        kept, rounds, full = sorted(after), rounds + 1, len(high) >= 2
    assert rounds > 3
    below = select("aflite", inputs, len(kept) - 4, seed, **settings)
    assert set(below.indices) < set(kept)
    assert below.provenance["aflite_left"] == len(kept) and below.provenance["aflite_rounds"] == rounds


def test_aflite_keeps_what_a_linear_model_cannot_tell():
    """In half of the examples one column gives the label away; in the others it says the opposite as often as not."""
    rng = np.random.default_rng(0)
    labels, given_away = rng.integers(0, 2, 600), np.arange(600) < 300
    e = rng.normal(size=(600, 8)).astype(np.float32)
    e[:, 0] = np.where(given_away, labels, rng.integers(0, 2, 600)) * 4 + 0.1 * rng.normal(size=600)
    inputs = Inputs(600, "f", labels, class_names=NAMES, embeddings=e)
    contradicted = np.flatnonzero((e[:, 0] > 2) != labels)
    for balanced in (False, True):
        chosen = select("aflite", inputs, 400, 0, class_balanced=balanced).indices
        assert np.isin(contradicted, chosen).all() and len(contradicted) > 100
    start = select("random", inputs, 30, 1)
    again = select("aflite", inputs, 250, 0, start_from=start).indices
    assert set(start.indices) <= set(again) and len(set(again)) == 250


def test_aflite_ends_on_classes_that_lie_far_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    corners = np.sign(rng.normal(size=(3, 128)))
    for spread in (1e-3, 0.0):
        e = (corners[labels] + spread * rng.normal(size=(900, 128))).astype(np.float32)
        chosen = select("aflite", Inputs(900, "f", labels, class_names=NAMES, embeddings=e), 850, 0)
        assert chosen.scores[chosen.indices].max() == -1  # every model predicts every example


def test_aflite_of_one_class_is_random():
    inputs = Inputs(50, "f", np.zeros(50, dtype=np.int64), class_names=NAMES, embeddings=awkward(0, n=50).embeddings)
    chosen = {frozenset(select("aflite", inputs, 25, seed).indices) for seed in range(5)}
    assert len(chosen) == 5


# ------------------------------------------------------------------------------------------------- strata and importance
@pytest.mark.parametrize("m", [1, 7, 20, 89])
@pytest.mark.parametrize("seed", SEEDS)
def test_stratified_gives_each_label_and_genre_its_share(seed, m):
    genres = [("fiction", "travel", "letters")[int(i % 7 > 3) + int(i % 7 == 6)] for i in range(90)]
    inputs = replace(awkward(seed), genres=genres)
    strata = list(zip(inputs.labels.tolist(), genres, strict=True))
    chosen = Counter(strata[i] for i in select("stratified", inputs, m, seed).indices)
    remainders = {stratum: Fraction(count * m, 90) - count * m // 90 for stratum, count in Counter(strata).items()}
    rounded_up = {stratum for stratum, count in Counter(strata).items() if chosen[stratum] > count * m // 90}
    assert sum(chosen.values()) == m
    assert all(chosen[stratum] - count * m // 90 in (0, 1) for stratum, count in Counter(strata).items())
    lowest_up = min((remainders[stratum] for stratum in rounded_up), default=1)
    assert all(remainders[stratum] <= lowest_up for stratum in remainders.keys() - rounded_up)


def naive_probabilities(scores: list[float], mix: float) -> list[float]:
    n, total = len(scores), sum(scores)
    return [(1 - mix) * (score / total if total else 1 / n) + mix / n for score in scores]


def squared_from_mean(inputs: Inputs) -> list[float]:
    mean = inputs.embeddings.mean(0, dtype=np.float64)
    return [float(((e - mean) ** 2).sum()) for e in inputs.embeddings.astype(np.float64)]


def quiet(seed: int) -> Inputs:
    """As awkward, without the example far out: it would take nearly all of the probability."""
    inputs = awkward(seed)
    embeddings = inputs.embeddings.copy()
    embeddings[0] = embeddings[3]
    return replace(inputs, embeddings=embeddings)


@pytest.mark.parametrize("make", [awkward, quiet])
@pytest.mark.parametrize(("name", "mix"), [("importance", 0.1), ("importance", 0.6), ("lightweight", 0.5)])
@pytest.mark.parametrize("seed", SEEDS)
def test_draws_have_the_probabilities_that_their_weights_claim(seed, name, mix, make):
    """Weights are 1 / (n p) by the formula; and how often each example is drawn is what p says."""
    inputs = make(seed)
    p = np.array(naive_probabilities(squared_from_mean(inputs), mix))
    parameters = {"mix": mix} if name == "importance" else {}
    drawn = np.zeros(inputs.n)
    for draw in range(MANY):
        selection = select(name, inputs, inputs.n, draw, **parameters)
        np.testing.assert_allclose(selection.weights, 1 / (inputs.n * p[selection.indices]), rtol=1e-4)
        drawn += np.bincount(selection.indices, minlength=inputs.n)
    expected = MANY * inputs.n * p
    chi_squared = ((drawn - expected) ** 2 / expected).sum()
    assert abs(chi_squared - (inputs.n - 1)) < 5 * np.sqrt(2 * (inputs.n - 1))


def naive_inclusion(p: list[float], m: int) -> list[float]:
    """min(1, c p) with c found by halving an interval until the sum is m."""
    low, high = 0.0, 1 / min(p) * m
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if sum(min(1.0, c * x) for x in p) < m else (low, c)
    return [min(1.0, high * x) for x in p]


@pytest.mark.parametrize("make", [awkward, quiet])
@pytest.mark.parametrize("m", [3, 30, 80])
def test_poisson_includes_with_the_probabilities_that_its_weights_claim(m, make):
    inputs = make(m)
    pi = np.array(naive_inclusion(naive_probabilities(squared_from_mean(inputs), 0.1), m))
    included = np.zeros(inputs.n)
    for draw in range(MANY):
        selection = select("poisson", inputs, m, draw)
        np.testing.assert_allclose(selection.weights, m / inputs.n / pi[selection.indices], rtol=1e-4)
        included[selection.indices] += 1
    spread = np.sqrt(MANY * pi * (1 - pi))
    assert (np.abs(included - MANY * pi) <= 5 * spread + 1e-6).all()
    assert included.sum() == MANY * m
