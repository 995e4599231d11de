"""Word overlap of premise and hypothesis, and which HANS heuristics would call a pair entailed.

Words are lower-cased runs of letters and digits (apostrophes inside a word stay), so punctuation does not count.
"""

import re

import numpy as np

HEURISTICS = ("lexical_overlap", "subsequence", "constituent")

_WORD = re.compile(r"\w+(?:['’]\w+)*")
# Where one clause may end and the next begin; there are no parses here.
_CLAUSE = re.compile(
    r"[^\w\s'’]+|\b(?:if|that|whether|because|since|unless|although|though|while|when|before|after|and|or|but)\b"
)


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def overlap_share(premises, hypotheses) -> np.ndarray:
    """float32 (n,) in [0, 1]: the share of the hypothesis's words that are in the premise; 0 for an empty one."""
    shares = np.zeros(len(premises), dtype=np.float32)
    for i, (premise, hypothesis) in enumerate(zip(premises, hypotheses, strict=True)):
        own = words(hypothesis)
        if own:
            known = set(words(premise))
            shares[i] = sum(word in known for word in own) / len(own)
    return shares


def supports_heuristics(premises, hypotheses) -> dict[str, np.ndarray]:
    """Pairs that each HANS heuristic would call entailed: bool (n,) per name in HEURISTICS.

    lexical_overlap: every hypothesis word is in the premise; subsequence: they stand there in one piece; constituent:
    they are one clause of the premise. Each implies the one before. The last is an approximation without parses:
    clauses are cut at punctuation and at conjunctions, so phrases that are constituents inside a clause are missed.
    An empty hypothesis supports nothing. McCoy et al. 2019, arXiv 1902.01007.
    """
    found = {name: np.zeros(len(premises), dtype=bool) for name in HEURISTICS}
    for i, (premise, hypothesis) in enumerate(zip(premises, hypotheses, strict=True)):
        own, theirs = words(hypothesis), words(premise)
        if not own or not set(theirs).issuperset(own):
            continue
        found["lexical_overlap"][i] = True
        if f" {' '.join(own)} " not in f" {' '.join(theirs)} ":
            continue
        found["subsequence"][i] = True
        found["constituent"][i] = own == theirs or any(own == words(c) for c in _CLAUSE.split(premise.lower()))
    return found
