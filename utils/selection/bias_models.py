"""Bias models: classifiers that see the shortcut alone. They are cross-fitted: the model that scores an example was not
fitted to it, because it would know its label.

Each takes texts, a list of n strings for each text column (the premise first), and labels, int64 (n,), of the training
split. All but shallow_probability return p_bias, float64 (n, C): a probability of each class for every example.
"""

import re

import numpy as np

from utils.data.overlap import overlap_share, supports_heuristics, words
from utils.errors import InputError

_NEGATION = re.compile(r"\b(?:no|not|never|nothing|nobody|none|nor|cannot|without|\w+n['’]t)\b", re.IGNORECASE)
FOLDS = 5
SHALLOW = 40.0  # n times C of the logistic regression; so strong a regularisation leaves broad rules only


def overlap_bias(texts, labels, class_names, seed: int, *, what: str) -> np.ndarray:
    """The bias model for HANS of Clark et al. 2019, arXiv 1909.03683: it predicts from the word overlap whether a pair is
    entailed; the probability that it is not is split evenly over the other classes.

    Uses three of the published features: those of word vectors and the difference of lengths are left out. what: the flags
    that ask for it, for messages. Raises InputError unless two examples are entailed and two are not.
    """
    is_entailed = labels == class_names.index("entailment")
    if min(int(is_entailed.sum()), int((~is_entailed).sum())) < 2:
        raise InputError(
            f"{what} needs two examples called entailment and two that are not; {is_entailed.sum()} of {len(labels)} are"
        )
    two_way = _cross_fitted(_overlap_features(texts), is_entailed.astype(np.int64), seed, _published_model)
    p_bias = np.repeat(two_way[:, :1] / (len(class_names) - 1), len(class_names), axis=1)
    p_bias[:, class_names.index("entailment")] = two_way[:, 1]
    return p_bias


def rich_bias(texts, labels, seed: int) -> np.ndarray:
    """Logistic regression over all classes, on the overlap, the three HANS heuristics, both lengths and negation."""
    return _cross_fitted(_rich_features(texts), labels, seed, _rich_model)


def hypothesis_bias(texts, labels, seed: int) -> np.ndarray:
    """Logistic regression over all classes, on which words occur in the hypothesis (the last text column).

    The hypothesis-only models of Clark et al. 2019 and Utama et al. 2020 are encoders.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    present = CountVectorizer(analyzer=words, binary=True, dtype=np.float32).fit_transform(texts[-1])
    return _cross_fitted(present, labels, seed, _words_model)


def shallow_probability(texts, labels, seed: int) -> np.ndarray:
    """float64 (n,): the gold label's probability under whichever of two shallow models gives it less.

    The first model sees only the words of the last text column (of a pair: the hypothesis). The second sees for each word
    which columns hold it, and how many words there are of each kind; strong regularisation leaves it broad rules only.
    """
    gold = np.arange(len(labels)), labels
    all_columns = _cross_fitted(_word_sets(texts), labels, seed, lambda: _words_model(C=SHALLOW / len(labels)))
    return np.minimum(all_columns[gold], hypothesis_bias(texts, labels, seed)[gold])


def _word_sets(texts):
    """Sparse (n, d): the words of each row by the columns that hold them, and how many there are."""
    from sklearn.feature_extraction import DictVectorizer

    return DictVectorizer(dtype=np.float32).fit_transform(_words_by_place(row) for row in zip(*texts, strict=True))


def _words_by_place(row) -> dict[str, int]:
    """{"01:word": 1, "01": number of such words, ...} of one example, where 01 means that both columns hold them."""
    columns, found = [set(words(text)) for text in row], {}
    for word in set().union(*columns):
        place = "".join(str(number) for number, column in enumerate(columns) if word in column)
        found[f"{place}:{word}"] = 1
        found[place] = found.get(place, 0) + 1
    return found


def _cross_fitted(features, labels, seed: int, new_model) -> np.ndarray:
    """float64 (n, C): class probabilities of every example, by a model that was fitted to the other folds.

    The seed decides the folds. Every class is spread evenly over them: a class of two examples is in two folds. A class
    that a model has not seen has probability 0; a model that has seen one class only is sure of it.
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


def _words_model(C: float = 1.0):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=C, tol=1e-3, max_iter=1000)


def _rich_model():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))


def _overlap_features(texts) -> np.ndarray:
    """float32 (n, 3): whether the hypothesis is one piece of the premise; whether all its words are in it; the share that is."""
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
