"""Metrics against scikit-learn and scipy, on all rows at once."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from utils.data.metrics import compute_metrics
from utils.data.tasks import TASKS


def reference(name, predictions, labels):
    if name == "acc_and_f1":
        return (reference("acc", predictions, labels) + reference("f1", predictions, labels)) / 2
    if name == "corr":
        return (reference("pearson", predictions, labels) + reference("spearmanr", predictions, labels)) / 2
    return {
        "acc": lambda: sk.accuracy_score(labels, predictions),
        "f1": lambda: sk.f1_score(labels, predictions, pos_label=1),
        "mcc": lambda: sk.matthews_corrcoef(labels, predictions),
        "pearson": lambda: stats.pearsonr(predictions, labels)[0],
        "spearmanr": lambda: stats.spearmanr(predictions, labels)[0],
    }[name]()


@pytest.mark.parametrize("name", TASKS)
def test_every_tasks_metrics(name):
    task, rng = TASKS[name], np.random.default_rng(len(name))
    if task.regression:
        labels = rng.uniform(0, 5, 200).round(1)
        predictions = labels + rng.normal(0, 1, 200)
    else:
        labels = rng.integers(0, len(task.labels), 200)
        predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(0, len(task.labels), 200))
    found = compute_metrics(task.metrics, predictions, labels)
    assert list(found) == list(task.metrics)
    for metric, value in found.items():
        assert value == pytest.approx(reference(metric, predictions, labels)), metric


def test_f1_counts_class_1():
    labels, predictions = np.array([1, 1, 0, 0, 0]), np.array([1, 0, 0, 0, 1])
    assert compute_metrics(("f1",), predictions, labels)["f1"] == pytest.approx(0.5)


@pytest.mark.parametrize("answer", [0, 1])
def test_one_answer_for_everything_is_a_number(answer):
    labels = np.array([0, 1, 1, 0])
    found = compute_metrics(("acc", "f1", "mcc", "acc_and_f1"), np.full(4, answer), labels)
    assert found["acc"] == 0.5 and found["mcc"] == 0 and np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(
    "label, answer, expected",
    [
        (
            0,
            0,
            {"acc": 1, "f1": 0, "mcc": 0, "acc_and_f1": 0.5},
        ),  # no positive anywhere: F1 is 0, as scikit-learn has it
        (0, 1, {"acc": 0, "f1": 0, "mcc": 0, "acc_and_f1": 0}),
        (1, 0, {"acc": 0, "f1": 0, "mcc": 0, "acc_and_f1": 0}),
        (1, 1, {"acc": 1, "f1": 1, "mcc": 0, "acc_and_f1": 1}),
    ],
)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_a_split_of_one_class(label, answer, expected):
    found = compute_metrics(("acc", "f1", "mcc", "acc_and_f1"), np.full(3, answer), np.full(3, label))
    assert found == expected


def test_a_split_of_one_class_and_mixed_answers():
    found = compute_metrics(("acc", "f1", "mcc"), np.array([1, 1, 0, 1]), np.ones(4, dtype=np.int64))
    assert found == {"acc": 0.75, "f1": pytest.approx(6 / 7), "mcc": 0}


VARIED, CONSTANT = np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 2.5)


@pytest.mark.parametrize("predictions, labels", [(CONSTANT, VARIED), (VARIED, CONSTANT), (CONSTANT, CONSTANT)])
def test_a_constant_has_no_correlation(predictions, labels):
    found = compute_metrics(("corr", "pearson", "spearmanr"), predictions, labels)
    assert found == {"corr": 0, "pearson": 0, "spearmanr": 0}


def test_spearman_shares_ranks_between_equal_values():
    labels, predictions = np.array([1.0, 1.0, 2.0, 3.0, 3.0]), np.array([0.0, 9.0, 10.0, 1e3, 1e6])
    found = compute_metrics(("spearmanr",), predictions, labels)["spearmanr"]
    assert found == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4.5, 4.5], [1, 2, 3, 4, 5])[0, 1])


def test_a_reports_numbers_are_plain_floats():
    for task in TASKS.values():
        found = compute_metrics(task.metrics, np.array([0, 1, 1]), np.array([0, 1, 0]))
        assert {type(value) for value in found.values()} == {float}


def test_a_mean_of_batch_means_would_differ():
    """Matthews correlation is no average: halves of one split have quite another mean."""
    labels, predictions = np.array([0, 0, 0, 1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    whole = compute_metrics(("mcc",), predictions, labels)["mcc"]
    halves = [compute_metrics(("mcc",), predictions[part], labels[part])["mcc"] for part in (slice(4), slice(4, 8))]
    assert whole == pytest.approx(sk.matthews_corrcoef(labels, predictions)) != pytest.approx(np.mean(halves))


@pytest.mark.parametrize("n", [(0, 0), (3, 4)])
def test_empty_or_unequal_arrays_are_refused(n):
    with pytest.raises(ValueError, match="predictions for"):
        compute_metrics(("acc",), np.zeros(n[0]), np.zeros(n[1]))
