"""Strategies that look at the text: the shortcut that HANS tests for."""

import re

import numpy as np

from utils.data.overlap import overlap_share, supports_heuristics, words
from utils.errors import InputError
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Picks, Pool, strategy

_NEGATION = re.compile(r"\b(?:no|not|never|nothing|nobody|none|nor|cannot|without|\w+n['’]t)\b", re.IGNORECASE)
FOLDS = 5
_TARGET = "deliberately another distribution than the data's: no unbiased estimate of the full-data loss"


@strategy(
    "counter_heuristic", needs=("labels", "pairs", "entailment"), source="McCoy et al. 2019, arXiv 1902.01007",
    fidelity="differs in what it is for: the source counts the training pairs that contradict the lexical overlap and the "
    "subsequence heuristic, this strategy moves them to the front",
)  # fmt: skip
def counter_heuristic(inputs: Inputs, pool: Pool) -> Picks:
    """pairs whose hypothesis is made of the premise's words and is not entailed first, then the rest, both at random."""
    supported = supports_heuristics(*inputs.texts)
    predicted = supported["lexical_overlap"] | supported["subsequence"]
    counter = predicted & (inputs.classes != inputs.class_names.index("entailment"))
    scores = counter.astype(np.float32)
    return Picks(pool.by_score(scores), scores=scores, notes={"counter_examples": int(counter[pool.rows].sum())})


@strategy(
    "bias_reweight", needs=("labels", "pairs", "entailment"), weighted=True, version=2,
    source="Clark et al. 2019, arXiv 1909.03683 (the reweighting baseline, with their bias model for HANS)",
    fidelity="equal to the published model (two-way, balanced, C = 100, liblinear, the rest split evenly) on three of its "
    "features; differs in leaving out the similarities of word vectors and, which only their code has, the difference of "
    "lengths, because no word vectors are at hand; in cross-fitting, because a model that saw an example knows its label; "
    "and in words, which here are runs of letters and digits without punctuation",
)  # fmt: skip
def bias_reweight(inputs: Inputs, pool: Pool) -> Picks:
    """all examples (or a random part), weighing 1 - p(gold) of a model that knows how much of the hypothesis is in the premise."""
    entailment = inputs.class_names.index("entailment")
    is_entailed = inputs.classes == entailment
    fewest = min(int(is_entailed.sum()), int((~is_entailed).sum()))
    if fewest < 2:
        raise InputError(
            f"--strategy bias_reweight needs two examples called entailment and two that are not; {is_entailed.sum()} of "
            f"{inputs.n} are"
        )
    features, labels = _overlap_features(inputs.texts), is_entailed.astype(np.int64)
    p_entailment = _cross_fitted(features, labels, pool.seed, _published_model)[:, 1]
    others = (1 - p_entailment) / (len(inputs.class_names) - 1)
    return _down_weighted(pool, np.where(is_entailed, p_entailment, others))


@strategy(
    "bias_reweight_rich", needs=("labels", "pairs"), weighted=True,
    source="Clark et al. 2019, arXiv 1909.03683; Utama et al. 2020, arXiv 2005.00315",
    fidelity="differs in the model, because it is to know more of the shortcuts than the published one for HANS: every "
    "class on its own, not balanced, with the lengths and the negation of the hypothesis beside the overlap",
)  # fmt: skip
def bias_reweight_rich(inputs: Inputs, pool: Pool) -> Picks:
    """as bias_reweight, by a model that knows the overlap, the three HANS heuristics, both lengths and negation."""
    if inputs.n < 2:
        raise InputError(
            "--strategy bias_reweight_rich needs two examples: no example is scored by a model that saw it"
        )
    labels = inputs.classes
    probabilities = _cross_fitted(_rich_features(inputs.texts), labels, pool.seed, _rich_model)
    return _down_weighted(pool, probabilities[np.arange(inputs.n), labels])


def _down_weighted(pool: Pool, p_gold) -> Picks:
    """All rows of the pool in random order, weighing 1 - p_gold (n,), divided by the mean of that over the split."""
    scores = (1 - p_gold).astype(np.float32)
    rows = pool.shuffled()
    weights = scores[rows] / scores.mean(dtype=np.float64)
    return Picks(rows, weights=weights, scores=scores, natural=len(rows), notes={"target": _TARGET})


def _cross_fitted(features, labels, seed: int, new_model) -> np.ndarray:
    """float64 (n, C): probability of each class, of every example by a model that was fitted to the other folds.

    The folds are seeded, and hold each class in equal parts, to within one example: a class of two is in two folds. A
    class that a model has not seen has probability 0; a model that has seen one class only is sure of it.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    for number in range(fold.max() + 1):
        held_out, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        classes = np.unique(labels[rest])
        if len(classes) == 1:
            probabilities[held_out, classes[0]] = 1 - 1e-6  # keeps every weight above 0
        else:
            model = new_model().fit(features[rest], labels[rest])
            probabilities[np.ix_(held_out, classes)] = model.predict_proba(features[held_out])
    return probabilities


def _published_model():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="liblinear", class_weight="balanced", C=100, random_state=0)


def _rich_model():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))


def _overlap_features(texts) -> np.ndarray:
    """float32 (n, 3): the hypothesis stands in the premise in one piece; all its words do; the share of them that does."""
    supported = supports_heuristics(*texts)
    columns = [supported["subsequence"], supported["lexical_overlap"], overlap_share(*texts)]
    return np.column_stack(columns).astype(np.float32)


def _rich_features(texts) -> np.ndarray:
    """float32 (n, 7): overlap, the three heuristics, log lengths of both sides, negation in the hypothesis."""
    premises, hypotheses = texts
    lengths = [np.log1p([len(words(text)) for text in side]) for side in texts]
    negated = [bool(_NEGATION.search(text)) for text in hypotheses]
    supported = supports_heuristics(premises, hypotheses)
    columns = [overlap_share(premises, hypotheses), *supported.values(), *lengths, negated]
    return np.column_stack(columns).astype(np.float32)
