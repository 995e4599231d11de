"""Strategies that look at the text: the shortcut that HANS tests for."""

import numpy as np

from utils.data.overlap import supports_heuristics
from utils.errors import InputError
from utils.selection.bias_models import overlap_bias, rich_bias
from utils.selection.strategies.inputs import Inputs
from utils.selection.strategies.registry import Picks, Pool, strategy

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
    return Picks(pool.by_score(scores), scores=scores, counts={"counter_examples": int(counter[pool.rows].sum())})


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
    p_bias = overlap_bias(inputs.texts, inputs.classes, inputs.class_names, pool.seed, what="--strategy bias_reweight")
    return _down_weighted(pool, p_bias[np.arange(inputs.n), inputs.classes])


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
            "--strategy bias_reweight_rich needs two examples: the model that scores one must not have seen it"
        )
    p_bias = rich_bias(inputs.texts, inputs.classes, pool.seed)
    return _down_weighted(pool, p_bias[np.arange(inputs.n), inputs.classes])


def _down_weighted(pool: Pool, p_gold) -> Picks:
    """All rows of the pool in random order, weighing 1 - p_gold (n,), divided by the mean of that over the split."""
    scores = (1 - p_gold).astype(np.float32)
    rows = pool.shuffled()
    weights = scores[rows] / scores.mean(dtype=np.float64)
    return Picks(rows, weights=weights, scores=scores, natural=len(rows), notes={"target": _TARGET})
