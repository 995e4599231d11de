"""Importance sampling is unbiased, exactly: every draw that the sampling strategies can make from a few examples, each
with its probability, from the strategies' own code down to the gradient that the training loop sees.

The probabilities come from the formulas written out here; were the strategies' own different, no expectation would fit.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.test_training import FLOAT32, classifier, ragged
from utils.flags import TrainingSettings
from utils.models.collate import collate
from utils.models.distributed import Processes
from utils.selection.selection import Selection
from utils.selection.strategies import STRATEGIES, Inputs, Pool
from utils.training.batches import UniformBatches
from utils.training.loop import train

N, M, MIX = 5, 3, 0.2
DATA = ragged(N)
EMBEDDINGS = np.array([[0, 0], [0, 3], [1, 0], [9, 1], [2, 5]], dtype=np.float32)
INPUTS = Inputs(N, "data", DATA.labels, embeddings=EMBEDDINGS)
SCORES = ((EMBEDDINGS - EMBEDDINGS.mean(0)) ** 2).sum(1).astype(np.float64)


def mixed(share: float) -> np.ndarray:
    return (1 - share) * SCORES / SCORES.sum() + share / N


class Scripted:
    """A generator that returns what the enumeration says."""

    def __init__(self, *, order=None, numbers=None):
        self.order, self.numbers = order, numbers

    def permutation(self, n):
        assert n == len(self.order)
        return np.array(self.order)

    def random(self, size=None):
        assert np.shape(self.numbers) == (() if size is None else (size,))
        return self.numbers


def picks(name, rng, **parameters):
    found = STRATEGIES[name].function(INPUTS, Pool(np.arange(N), M, 0, rng, np.empty(0, dtype=np.int64)), **parameters)
    assert len(found.rows) == M
    return found.rows.tolist(), found.weights.tolist()


def draws_with_replacement(name, p, **parameters):
    """(probability, rows, weights) of each of the n^m draws: every uniform number in the middle of an example's share."""
    middles = np.cumsum(p) - p / 2
    for draw in itertools.product(range(N), repeat=M):
        yield np.prod(p[list(draw)]), *picks(name, Scripted(numbers=middles[list(draw)]), **parameters)


def draws_without_replacement(name, pi, **parameters):
    """Every order, and in it every interval of random starts between which the sample does not change."""
    orders = list(itertools.permutations(range(N)))
    for order in orders:
        cuts = np.unique(np.r_[0, (-np.cumsum(pi[list(order)])) % 1, 1])
        for low, high in itertools.pairwise(cuts):
            if high - low > 1e-9:
                rng = Scripted(order=order, numbers=(low + high) / 2)
                yield (high - low) / len(orders), *picks(name, rng, **parameters)


def inclusion_probabilities() -> np.ndarray:
    """min(1, c p), summing to m, with c by bisection."""
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * mixed(MIX)).sum() < M else (low, middle)
    return np.minimum(1, high * mixed(MIX))


def outcomes(name) -> dict:
    """(rows, weights) -> probability, over everything that the strategy can draw."""
    if name == "lightweight":
        draws = draws_with_replacement(name, mixed(0.5))
    elif name == "importance":
        draws = draws_with_replacement(name, mixed(MIX), mix=MIX, score="embedding")
    else:
        draws = draws_without_replacement(name, inclusion_probabilities(), mix=MIX, score="embedding")
    found: dict = {}
    for probability, rows, weights in draws:
        key = tuple(sorted(zip(rows, weights, strict=True)))
        found[key] = found.get(key, 0.0) + probability
    assert sum(found.values()) == pytest.approx(1) and len(found) > 3
    return found


REWEIGHTED = ("bias_reweight", "bias_reweight_rich", "jtt", "craig")  # they change the target distribution on purpose
NAMES = [name for name, strategy in STRATEGIES.items() if strategy.weighted and name not in REWEIGHTED]


def test_these_are_the_strategies_that_draw():
    assert sorted(NAMES) == ["importance", "lightweight", "poisson"]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_counts_one_nth_by_expectation(name):
    """So the weighted mean is unbiased for every loss there is, not for one."""
    share = np.zeros(N)
    for drawn, probability in outcomes(name).items():
        for row, weight in drawn:
            share[row] += probability * weight / M
    np.testing.assert_allclose(share, 1 / N, rtol=1e-6)


def test_poisson_includes_each_example_with_its_probability():
    included = np.zeros(N)
    for drawn, probability in outcomes("poisson").items():
        included[[row for row, _ in drawn]] += probability
    np.testing.assert_allclose(included, inclusion_probabilities(), atol=1e-9)
    assert included.max() == pytest.approx(1), "the case with an example that is always in is part of it"


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_weighted_subset_is_that_of_all_data_by_expectation(name):
    model = classifier()
    batch = collate(DATA, np.arange(N), torch.device("cpu"))
    out = model.model(batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids)
    F.cross_entropy(out.logits, torch.from_numpy(DATA.labels)).backward()
    expected = {key: p.grad.clone() for key, p in model.model.named_parameters()}
    total = {key: torch.zeros_like(gradient) for key, gradient in expected.items()}
    spread = 0.0
    for drawn, probability in outcomes(name).items():
        rows, weights = map(np.array, zip(*drawn, strict=True))
        for key, gradient in gradient_of(Selection(rows, weights, N, "data", provenance={"method": name})).items():
            total[key] += probability * gradient
            spread = max(spread, float((gradient - expected[key]).abs().max()))
    for key, gradient in expected.items():
        assert torch.allclose(total[key], gradient, atol=1e-6), key
    assert spread > 1e-3, "every draw has the gradient of all data: nothing is shown"


def gradient_of(selection) -> dict[str, torch.Tensor]:
    """What the training loop hands to the optimizer when it trains on the selection in one batch."""
    model, seen = classifier(), {}

    class Spy(Processes):
        def sum_gradients(self, parameters):
            seen.update({key: p.grad.clone() for key, p in model.model.named_parameters()})

    batches = UniformBatches(selection, batch_size=M, seed=0, epochs=1)
    train(model, DATA, batches, TrainingSettings(), processes=Spy(0, 1, torch.device("cpu")), precision=FLOAT32)
    return seen
