"""Strategies that look at the text: the shortcut that HANS tests for."""

import re

import numpy as np

from utils.data.overlap import overlap_share, supports_heuristics, words
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Picks, Pool, strategy

_NEGATION = re.compile(r"\b(?:no|not|never|nothing|nobody|none|nor|cannot|without|\w+n['’]t)\b", re.IGNORECASE)


@strategy(
    "counter_heuristic", needs=("labels", "pairs", "entailment"), source="McCoy et al. 2019, arXiv 1902.01007"
)  # fmt: skip
def counter_heuristic(inputs: Inputs, pool: Pool) -> Picks:
    """pairs whose hypothesis is made of the premise's words and is not entailed first, then the rest, both at random."""
    supported = supports_heuristics(*inputs.texts)
    predicted = supported["lexical_overlap"] | supported["subsequence"]
    counter = predicted & (inputs.classes != inputs.class_names.index("entailment"))
    scores = counter.astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores, notes={"counter_examples": int(counter[pool.rows].sum())})


@strategy(
    "bias_reweight", needs=("labels", "pairs"), weighted=True,
    source="Clark et al. 2019, arXiv 1909.03683; Utama et al. 2020, arXiv 2005.00315",
)  # fmt: skip
def bias_reweight(inputs: Inputs, pool: Pool) -> Picks:
    """all examples (or a random part), weighing 1 - p(gold) of a shallow model that only sees the word overlap."""
    scores = 1 - shallow_gold_probability(inputs, pool.seed)
    rows = pool.shuffled()
    weights = scores[rows] / scores.mean(dtype=np.float64)
    note = "deliberately another distribution than the data's: no unbiased estimate of the full-data loss"
    return Picks(rows, weights=weights, scores=scores, natural=len(rows), notes={"target": note})


def shallow_gold_probability(inputs: Inputs, seed: int, *, folds: int = 5) -> np.ndarray:
    """float32 (n,): gold-label probability by logistic regression on overlap features, cross-fitted over `folds`
    seeded random folds, so that no example is scored by a model that saw it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = _shallow_features(inputs.texts), inputs.classes
    fold = np.random.default_rng(seed).permutation(inputs.n) % min(folds, inputs.n)
    gold = np.empty(inputs.n, dtype=np.float32)
    for number in range(fold.max() + 1):
        held_out, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        classes = np.unique(labels[rest])
        probability = np.zeros((len(held_out), int(labels.max()) + 1), dtype=np.float32)
        if len(classes) == 1:
            probability[:, classes[0]] = 1 - 1e-6  # nothing to learn from
        else:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(features[rest], labels[rest])
            probability[:, classes] = model.predict_proba(features[held_out])
        gold[held_out] = probability[np.arange(len(held_out)), labels[held_out]]
    return gold


def _shallow_features(texts) -> np.ndarray:
    """float32 (n, 7): overlap, the three heuristics, log lengths of both sides, negation in the hypothesis."""
    premises, hypotheses = texts
    lengths = [np.log1p([len(words(text)) for text in side]) for side in texts]
    negated = [bool(_NEGATION.search(text)) for text in hypotheses]
    supported = supports_heuristics(premises, hypotheses)
    columns = [overlap_share(premises, hypotheses), *supported.values(), *lengths, negated]
    return np.column_stack(columns).astype(np.float32)
