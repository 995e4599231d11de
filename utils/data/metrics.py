"""Metrics on whole arrays, computed once over all rows, never a mean of batch means."""

import numpy as np


def compute_metrics(names: tuple[str, ...], predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics by name for one split.

    `predictions` (n,): int64 class numbers, or float values for regression; `labels` (n,) of the same kind. `f1` takes
    class 1 as the positive one, as GLUE does. `corr` and `acc_and_f1` are the means that GLUE reports. Raises
    ValueError for empty or unequal arrays.
    """
    if len(predictions) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels")
    return {name: float(METRICS[name](np.asarray(predictions), np.asarray(labels))) for name in names}


def _accuracy(predictions, labels):
    return (predictions == labels).mean()


def _f1(predictions, labels):
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, pos_label=1, average="binary", zero_division=0)


def _mcc(predictions, labels):
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(labels, predictions)


def _correlation(kind):
    def compute(predictions, labels):
        from scipy import stats

        # A constant has no correlation with anything; GLUE's own scripts print nan there, a table wants 0.
        if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
            return 0.0
        return getattr(stats, kind)(predictions, labels).statistic

    return compute


_pearson, _spearman = _correlation("pearsonr"), _correlation("spearmanr")
METRICS = {
    "acc": _accuracy,
    "f1": _f1,
    "acc_and_f1": lambda p, y: (_accuracy(p, y) + _f1(p, y)) / 2,
    "mcc": _mcc,
    "pearson": _pearson,
    "spearmanr": _spearman,
    "corr": lambda p, y: (_pearson(p, y) + _spearman(p, y)) / 2,
}
# How the Hugging Face scripts spell them: --metric_for_best_model takes both, trackers are sent these.
SPELLINGS = {"acc": "accuracy", "mcc": "matthews_correlation", "acc_and_f1": "combined_score", "corr": "combined_score"}
