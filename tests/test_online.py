"""Online sampling: unbiased where the papers say so, bounded weights, exact boundaries, continuing after a kill."""

import itertools

import numpy as np
import pytest
import torch

from tests.test_training import ALONE, FLOAT32, Killed, classifier, ragged, same, weights_of
from utils.data.logits import cross_entropy
from utils.errors import InputError
from utils.flags import TrainingSettings
from utils.selection.selection import Selection
from utils.training import online
from utils.training.checkpoint import Checkpoints
from utils.training.loop import Hooks, train

N = 40


def batches(scheme, data=None, *, batch_size=8, epochs=3, seed=0, **options):
    data = data or ragged(N)
    selection = Selection.everything(len(data), data.fingerprint)
    plan = {"batch_size": batch_size, "seed": seed, "epochs": epochs, "max_steps": None}
    return online.make_batches(scheme, selection, labels=data.labels, processes=ALONE, **plan, **options)


def random_logits(rows, labels, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (1000, 3)).astype(np.float32)[rows]


def test_grad_norm_weights_are_unbiased_for_the_candidates_by_enumeration():
    """Four examples, all of them candidates: every batch of two, with probabilities worked out by hand and the weights
    that `draw` gives."""
    data, values = ragged(4), np.array([5.0, -1.0, 2.0, 7.0])
    gold = np.array([0.2, 0.5, 0.9, 1.0])  # probability of the gold label; that of the other two is equal
    logits = np.log(np.where(np.eye(3)[data.labels] == 1, gold[:, None], np.maximum(1 - gold, 1e-9)[:, None] / 2))
    scores = (1 - gold) * np.sqrt(1.5)  # the norm of (1 - g, (1 - g) / 2, (1 - g) / 2)
    p = 0.9 * scores / scores.sum() + 0.1 / 4
    b, weights = batches("grad_norm", data, batch_size=2), {}
    for step in range(200):
        b.tau = 1e9  # as if sampling had long paid
        rows, w = b.draw(step, lambda rows: logits[rows].astype(np.float32))
        weights |= dict(zip(rows.tolist(), w.tolist(), strict=True))
    batch_means = (
        p[i] * p[j] * (weights[i] * values[i] + weights[j] * values[j]) / 2
        for i, j in itertools.product(range(4), repeat=2)
    )
    assert sum(batch_means) == pytest.approx(values.mean(), rel=1e-5)
    assert max(weights.values()) <= 1 / 0.1 + 1e-5
    assert online.sampling_probability(np.ones(5), 0.1)[1] == pytest.approx(1)


def test_grad_norm_gradient_is_unbiased_over_the_data_by_simulation():
    data = ragged(N)
    b = batches("grad_norm", data)
    b.tau = 1e9  # as if sampling had long paid
    values = np.random.default_rng(1).normal(size=N)
    means = []
    for step in range(4000):
        rows, weights = b.draw(step, lambda rows: random_logits(rows, data.labels))
        b.tau = 1e9
        means.append((weights * values[rows]).mean())
        assert weights.max() <= 10 + 1e-5
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - values.mean()) < 3 * error
    assert b.active_steps == 4000 and b.report()["sampled_steps"] == 4000


def test_grad_norm_waits_until_sampling_pays():
    data = ragged(N)
    b = batches("grad_norm", data)
    rows, weights = b.draw(0, None)  # a probe would fail: none may be made
    assert (weights == 1).all()
    flat = torch.zeros(len(rows), 3)
    b.observe(rows, flat, None)
    b.draw(1, None)
    assert b.tau == pytest.approx(1, abs=1e-6) and b.tau < b.threshold == 2
    peaked = torch.full((len(rows), 3), -30.0)
    peaked[torch.arange(len(rows)), torch.from_numpy(data.labels[rows])] = 30
    peaked[0] = -peaked[0]  # one example has all the gradient
    for step in range(2, 40):
        b.observe(rows, peaked, None)
        b.draw(step, lambda rows: random_logits(rows, data.labels))
    assert b.tau > b.threshold or b.active_steps > 0


def loss_by_row(rows):
    return torch.from_numpy((rows % 4).astype(np.float32))


def walk(b):
    """All batches of a run in which row i always has loss i % 4."""
    step, seen = 0, []
    while step < b.num_steps:
        rows, weights = b.draw(step)
        b.observe(rows, None, loss_by_row(rows))
        seen.append((b.epoch(step), rows, weights))
        step += 1
    return seen


def test_infobatch_leaves_out_half_of_the_easy_ones_and_reweights_the_rest():
    b = batches("infobatch", epochs=8, batch_size=7)
    seen = walk(b)
    first = np.concatenate([rows for epoch, rows, _ in seen if epoch == 0])
    assert sorted(first) == list(range(N))  # nothing is known yet
    second = [(rows, weights) for epoch, rows, weights in seen if epoch == 1]
    rows, weights = np.concatenate([r for r, _ in second]), np.concatenate([w for _, w in second])
    hard = np.arange(N) % 4 >= 2  # the mean loss is 1.5
    assert set(np.flatnonzero(hard)) <= set(rows)
    assert (weights[hard[rows]] == 1).all() and (weights[~hard[rows]] == 2).all()
    assert len(rows) < N and len(seen) == b.num_steps < 8 * -(-N // 7)


def test_infobatch_weighted_sums_are_unbiased():
    values = np.random.default_rng(3).normal(size=N)
    sums = []
    for seed in range(400):
        seen = walk(batches("infobatch", seed=seed, epochs=2))
        sums.append(sum((weights * values[rows]).sum() for epoch, rows, weights in seen if epoch == 1))
    assert abs(np.mean(sums) - values.sum()) < 3 * np.std(sums) / np.sqrt(len(sums))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 8, 10])
def test_infobatch_uses_everything_at_weight_one_from_the_boundary_on(epochs):
    b = batches("infobatch", epochs=epochs)
    assert b.prunable_visits == round(0.875 * epochs * N)
    seen = walk(b)
    free = epochs * N - b.prunable_visits  # visits at the end that are never left out
    rows = np.concatenate([r for _, r, _ in seen])[-min(free, N) :]
    weights = np.concatenate([w for _, _, w in seen])[-free:]
    assert (weights == 1).all() and len(set(rows)) == len(rows)
    assert b.progress(b.num_steps) == 1
    progress = [b.progress(step) for step in range(b._starts[-2], b.num_steps)]
    assert progress == sorted(progress)


def test_infobatch_refuses_what_it_cannot_plan():
    with pytest.raises(InputError, match="whole number of epochs"):
        batches("infobatch", epochs=1.5)


def test_rho_takes_the_most_reducible_losses_of_the_candidates():
    data = ragged(N)
    irreducible = np.random.default_rng(5).random(N).astype(np.float32)
    b = batches("rho", data, irreducible_loss=irreducible, batch_size=4)
    rows, weights = b.draw(0, lambda rows: random_logits(rows, data.labels))
    reducible = cross_entropy(random_logits(np.arange(N), data.labels), data.labels) - irreducible
    assert set(rows) == set(np.argsort(-reducible)[:4]) and (weights == 1).all()  # 10 b = 40 candidates: everything


def subsets(epochs, size=10, **options):
    """The rows of each epoch of rs2, and the number of its steps."""
    b = batches("rs2", subset_size=size, epochs=epochs, batch_size=5, **options)
    per_epoch = -(-size // 5)
    rows = [np.concatenate([b.draw(per_epoch * e + i)[0] for i in range(per_epoch)]) for e in range(epochs)]
    return rows, b.num_steps


def test_rs2_visits_every_example_once_before_any_twice():
    rows, steps = subsets(12)
    assert steps == 24 and all(len(set(subset)) == 10 for subset in rows)
    for first in (0, 4, 8):  # 40 examples in slices of 10
        assert sorted(np.concatenate(rows[first : first + 4])) == list(range(N))
    assert set(rows[0]) != set(rows[4])
    uneven, _ = subsets(9, size=7)  # slices of 7 go on across the ends of permutations
    counts = np.bincount(np.concatenate(uneven), minlength=N)
    assert set(counts) <= {1, 2} and counts.sum() == 63


def test_rs2_with_replacement_draws_independent_subsets():
    rows, steps = subsets(300, replacement=True)
    assert steps == 600 and all(len(set(subset)) == 10 for subset in rows)
    counts = np.bincount(np.concatenate(rows), minlength=N)
    assert 1 < abs(counts - 75).max() < 5 * np.sqrt(75)


def test_grad_norm_never_measures_tau_on_a_batch_that_it_sampled():
    data = ragged(N)
    b = batches("grad_norm", data)
    b.tau = 2.01
    even = np.zeros((N, 3), dtype=np.float32)
    rows, _ = b.draw(0, lambda rows: even[rows])  # sampled; all scores are equal, so tau falls below the threshold
    assert b.active_steps == 1 and b.tau < b.threshold
    before = b.tau
    b.observe(rows, torch.eye(3)[torch.arange(len(rows)) % 3] * 20, None)
    b.draw(1, None)
    assert b.tau == before


@pytest.mark.parametrize("scheme", ["grad_norm", "infobatch", "rho", "rs2"])
def test_a_killed_online_run_continues_to_the_same_bits(scheme, tmp_path, monkeypatch):
    data = ragged(N)
    monkeypatch.setattr(online.GradNorm, "smoothing", 0.0)
    options = {"rs2": {"subset_size": 24}, "rho": {"irreducible_loss": np.zeros(N, dtype=np.float32)}}.get(scheme, {})

    def go(checkpoints=None, hooks=None):
        model = classifier()
        settings = TrainingSettings(learning_rate=1e-3, seed=0, save_steps=3)
        summary = train(
            model, data, batches(scheme, data, **options), settings, processes=ALONE, precision=FLOAT32,
            checkpoints=checkpoints, hooks=hooks,
        )  # fmt: skip
        return weights_of(model), summary

    expected, summary = go()

    def kill(done):
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        go(Checkpoints(tmp_path), Hooks(on_step=[kill]))
    again, resumed = go(Checkpoints(tmp_path))
    assert same(expected, again)
    assert {k: v for k, v in summary.items() if k != "seconds"} == {k: v for k, v in resumed.items() if k != "seconds"}
