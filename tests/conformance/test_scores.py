"""Scores of a model's view, held against plain loops that follow the definitions, one example at a time.

The loops use no numpy and nothing of this project. Data: ties, duplicates, a class of two examples, classes of unequal
spread, examples that some snapshots or all of them have not seen.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from utils.selection.dynamics import Dynamics
from utils.selection.strategies import Inputs, select

NAMES = ("contradiction", "entailment", "neutral")
N, S, D = 90, 5, 4
SEEDS = range(4)


# ----------------------------------------------------------------------------------------------------------------- data
def make_inputs(seed: int, runs: int = 1) -> Inputs:
    """Seed 0 and 2 have whole-number logits, so most scores are tied."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, N, p=[0.7, 0.28, 0.02])
    labels[:2], labels[2:] = 2, np.minimum(labels[2:], 1)
    spread = np.array([0.5, 2.0, 4.0])[labels][:, None]
    dynamics = []
    for _ in range(runs):
        logits = rng.normal(size=(S, N, 3)) * spread
        logits = np.round(logits) if seed % 2 == 0 else logits
        logits[:, 20:40] = logits[:, :20]  # duplicates
        labels[20:40] = labels[:20]
        logits[1, 50:60] = np.nan
        logits[:, 60:63] = np.nan
        dynamics.append(Dynamics(logits.astype(np.float16), labels, NAMES, np.arange(1.0, S + 1), "eval", "f"))
    features = rng.normal(size=(N, D)).astype(np.float32)
    known = np.nan_to_num(dynamics[0].logits[-1].astype(np.float32))
    return Inputs(
        N, "f", labels, class_names=NAMES, embeddings=features, pooling="pooler", dynamics=dynamics[0],
        more_dynamics=tuple(dynamics[1:]), logits=known,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- naive loops
def softmax(z):
    top = max(z)
    parts = [math.exp(value - top) for value in z]
    return [part / sum(parts) for part in parts]


def error(z, gold):
    return [p - (c == gold) for c, p in enumerate(softmax(z))]


def predicted(z):
    return z.index(max(z))


def mean(values):
    return sum(values) / len(values)


def confidence(history, gold):
    return mean([softmax(z)[gold] for z in history])


def variability(history, gold):
    middle = confidence(history, gold)
    return math.sqrt(mean([(softmax(z)[gold] - middle) ** 2 for z in history]))


def correctness(history, gold):
    return mean([float(predicted(z) == gold) for z in history])


def forgetting(history, gold):
    right = [predicted(z) == gold for z in history]
    if not any(right):
        return S
    count = 0
    for t in range(1, len(right)):
        if right[t - 1] and not right[t]:
            count += 1
    return count


def margin_of_gold(z, gold):
    return z[gold] - max(value for c, value in enumerate(z) if c != gold)


def aum(history, gold):
    return mean([margin_of_gold(z, gold) for z in history])


def error_norm(z, gold):
    return math.sqrt(sum(value**2 for value in error(z, gold)))


def el2n(history, gold):
    return mean([error_norm(z, gold) for z in history])


def loss(history, gold):
    return mean([-math.log(softmax(z)[gold]) for z in history])


def gradient_norm(z, gold, features):
    """Every entry of the gradient by the weight (C, d) and the bias (C,) of the classifier layer."""
    total = 0.0
    for value in error(z, gold):
        for feature in [*features, 1.0]:
            total += (value * feature) ** 2
    return math.sqrt(total)


def entropy(z):
    return -sum(p * math.log(p) for p in softmax(z) if p > 0)


def gap(z):
    first, second, *_ = sorted(softmax(z), reverse=True)
    return first - second


def histories(dynamics: Dynamics, i: int) -> list:
    """What each snapshot saw of example i; the snapshots that did not see it are left out."""
    return [z for z in dynamics.logits[:, i].astype(float).tolist() if not math.isnan(z[0])]


def by_hand(inputs: Inputs, definition) -> list:
    """The definition for each example, averaged over the runs that saw it; None where none did."""
    values = []
    for i in range(N):
        seen = [histories(run, i) for run in inputs.runs]
        found = [definition(history, int(inputs.labels[i])) for history in seen if history]
        values.append(mean(found) if found else None)
    return values


def check(chosen, expected) -> None:
    """The scores are those expected, higher = first, what was never seen comes last."""
    known = [i for i in range(N) if expected[i] is not None]
    np.testing.assert_allclose(chosen.scores[known], [expected[i] for i in known], rtol=2e-5, atol=2e-6)
    order = chosen.indices.tolist()
    assert sorted(order) == list(range(N)) and set(order[: len(known)]) == set(known)
    for earlier, later in itertools.pairwise(order[: len(known)]):
        assert expected[earlier] >= expected[later] - 1e-5


# ------------------------------------------------------------------------------------------------------------- rankings
RANKINGS = {
    "ambiguous": variability,
    "easy": confidence,
    "hard": lambda history, gold: -confidence(history, gold),
    "correctness": lambda history, gold: -correctness(history, gold),
    "forgetting": forgetting,
    "aum": lambda history, gold: -aum(history, gold),
    "el2n": el2n,
    "loss": loss,
}


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", RANKINGS)
def test_rankings_by_training_dynamics(name, seed, runs):
    inputs = make_inputs(seed, runs)
    check(select(name, inputs, N, seed), by_hand(inputs, RANKINGS[name]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["easy", "hard", "aum", "el2n", "loss"])
def test_rankings_by_one_epoch(name, seed):
    inputs = make_inputs(seed, 2)
    expected = []
    for i in range(N):
        found = []
        for run in inputs.runs:
            z = run.logits[1, i].astype(float).tolist()
            if not math.isnan(z[0]):
                found.append(RANKINGS[name]([z], int(inputs.labels[i])))
        expected.append(mean(found) if found else None)
    check(select(name, inputs, N, seed, score_epoch=2.0), expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("grand", lambda z, gold, features: gradient_norm(z, gold, features)),
        ("el2n", lambda z, gold, features: error_norm(z, gold)),
        ("loss", lambda z, gold, features: loss([z], gold)),
        ("entropy", lambda z, gold, features: entropy(z)),
        ("margin", lambda z, gold, features: -gap(z)),
        ("least_confidence", lambda z, gold, features: -max(softmax(z))),
    ],
)
def test_rankings_by_one_checkpoints_logits(name, definition, seed):
    inputs = dataclasses.replace(make_inputs(seed), dynamics=None)
    logits, features = inputs.logits.astype(float).tolist(), inputs.embeddings.astype(float).tolist()
    expected = [definition(logits[i], int(inputs.labels[i]), features[i]) for i in range(N)]
    check(select(name, inputs, N, seed), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_forgettable(seed):
    inputs = make_inputs(seed)
    counts = by_hand(inputs, forgetting)
    expected = {i for i in range(N) if counts[i] is not None and counts[i] > 0}
    assert set(select("forgettable", inputs, None, seed).indices.tolist()) == expected and 5 < len(expected) < N


# ------------------------------------------------------------------------------------------------------------------ CCS
def bin_of(score, low, high) -> int:
    return min(int((score - low) / ((high - low) / 50)), 49)


def counts_by_the_paper(sizes: list[int], budget: int) -> list[int]:
    """Zheng et al. 2023, algorithm 1: the smallest bin first, each gets an equal part of what is left, or all it has."""
    taken = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda b: sizes[b])
    for position, b in enumerate(order):
        taken[b] = min(sizes[b], budget // (len(order) - position))
        budget -= taken[b]
    return taken


@pytest.mark.parametrize("budget", [5, 17, 40, 70])
@pytest.mark.parametrize("score", ["aum", "probability_margin", "el2n", "forgetting"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ccs_counts(seed, score, budget):
    inputs = make_inputs(seed)
    definition = {
        "aum": RANKINGS["aum"],
        "probability_margin": lambda history, gold: -mean([margin_of_gold(softmax(z), gold) for z in history]),
        "el2n": el2n,
        "forgetting": forgetting,
    }[score]
    scores = by_hand(inputs, definition)
    middle = mean([value for value in scores if value is not None])
    scores = [middle if value is None else value for value in scores]  # unseen counts as average
    chosen = select("ccs", inputs, budget, seed, score=score, ccs_beta=0.2).indices.tolist()
    whole = select("ccs", inputs, N, seed, score=score, ccs_beta=0.2).indices.tolist()
    dropped, kept = whole[-18:], whole[:-18]
    # Which of several tied examples are dropped is for chance to say; that they are the hardest is not.
    assert min(scores[i] for i in dropped) >= max(scores[i] for i in kept) - 1e-5
    low, high = min(scores[i] for i in kept), max(scores[i] for i in kept)
    sizes, found = [0] * 50, [0] * 50
    for i in kept:
        sizes[bin_of(scores[i], low, high)] += 1
    for i in chosen:
        assert i in kept
        found[bin_of(scores[i], low, high)] += 1
    expected = counts_by_the_paper(sizes, budget)
    for size in set(sizes):  # of two bins of one size, either may get the example more
        same = [b for b in range(50) if sizes[b] == size]
        assert sorted(found[b] for b in same) == sorted(expected[b] for b in same)


@pytest.mark.parametrize(
    ("share", "beta"),
    [(0.7, 0), (0.5, 0), (0.3, 0.1), (0.2, 0.1), (0.1, 0.3), (0.01, 0.3), (0.9, 0), (1.0, 0), (0.45, 0), (0.4, 0.1)],
)
@pytest.mark.parametrize("class_balanced", [False, True])
def test_ccs_takes_the_published_share_and_score_of_its_budget(share, beta, class_balanced):
    inputs = make_inputs(1)
    labels = np.arange(N) % 3  # classes of one size, so that each has the share of the whole
    inputs = dataclasses.replace(inputs, labels=labels, dynamics=dataclasses.replace(inputs.dynamics, labels=labels))
    m = round(share * N)
    chosen = select("ccs", inputs, m, 3, class_balanced=class_balanced)
    named = select("ccs", inputs, m, 3, class_balanced=class_balanced, ccs_beta=float(beta), score="aum")
    assert chosen.indices.tolist() == named.indices.tolist() and chosen.provenance["ccs_score"] == "aum"
    assert chosen.provenance["ccs_beta"] == beta
    of_logits = dataclasses.replace(inputs, dynamics=None)
    assert select("ccs", of_logits, m, 3, class_balanced=class_balanced).provenance["ccs_score"] == "el2n"


# ---------------------------------------------------------------------------------------------------- jtt, ssft, mixing
@pytest.mark.parametrize("epoch", [None, 2.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_jtt(seed, epoch):
    inputs = make_inputs(seed)
    at, weights, wrong = S - 1 if epoch is None else 1, [], []
    for i in range(N):
        z = inputs.dynamics.logits[at, i].astype(float).tolist()
        wrong.append(not math.isnan(z[0]) and predicted(z) != inputs.labels[i])
        weights.append(20.0 if wrong[i] else 1.0)
    chosen = select("jtt", inputs, None, seed, jtt_lambda=20.0, score_epoch=epoch)
    assert sorted(chosen.indices.tolist()) == list(range(N)) and 10 < sum(wrong) < N - 10
    expected = [weights[i] / mean(weights) for i in chosen.indices]
    np.testing.assert_allclose(chosen.weights, expected, rtol=1e-6)
    for m in (5, sum(wrong), sum(wrong) + 10):
        part = select("jtt", inputs, m, seed, jtt_lambda=20.0, score_epoch=epoch)
        taken = [weights[i] for i in part.indices]
        assert sum(wrong[i] for i in part.indices) == min(m, sum(wrong))
        np.testing.assert_allclose(part.weights, [w / mean(taken) for w in taken], rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_ssft(seed):
    inputs = make_inputs(seed, 2)
    keys = []
    for i in range(N):
        both = []
        for run, stays in zip(inputs.runs, (True, False), strict=True):  # learnt in the first, forgotten in the second
            since = 1
            for t in range(S):
                z = run.logits[t, i].astype(float).tolist()
                if not math.isnan(z[0]) and (predicted(z) == inputs.labels[i]) != stays:
                    since = t + 2
            both.append(since if histories(run, i) else None)
        learnt, forgotten = both
        if None in both:
            keys.append((0, 0, 0))
        elif forgotten <= 2:  # within the first half of five snapshots
            keys.append((1, forgotten, learnt))
        else:
            keys.append((2, learnt, forgotten))
    order = select("ssft", inputs, N, seed).indices.tolist()
    assert [keys[i] for i in order] == sorted(keys, reverse=True) and len(set(keys)) > 8


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 3])
def test_easy_examples_mixed_in(seed, share):
    """Without ties but for the duplicates: the front of one ranking, and of the other what is not taken yet."""
    inputs = make_inputs(seed)
    ambiguous, easiest = by_hand(inputs, variability), by_hand(inputs, confidence)
    for m in (10, 25, 60):
        chosen = select("ambiguous", inputs, m, seed, mix_easy=share).indices.tolist()
        assert len(set(chosen)) == m
        mixed_in = math.floor(share * m + 0.5)
        # As many as the share says are at least as easy as all that are left out, the others at least as ambiguous.
        left = [i for i in range(N) if i not in chosen and easiest[i] is not None]
        as_easy = {i for i in chosen if all(easiest[i] >= easiest[j] - 1e-6 for j in left)}
        as_ambiguous = {i for i in chosen if all(ambiguous[i] >= ambiguous[j] - 1e-6 for j in left)}
        assert as_easy | as_ambiguous == set(chosen)
        assert len(as_easy) >= mixed_in and len(as_ambiguous) >= m - mixed_in
