"""Orders and shares over groups of examples: what strategies that divide a budget have in common."""

import numpy as np


def quotas(counts, m: int) -> np.ndarray:
    """int64 (g,): m split over groups in proportion to their sizes `counts` (g,), by largest remainder.

    Never more than a group holds. Two budgets nest where they differ by at least one example of the smallest group
    (sum(counts) / min(counts)); closer together the method may take one back (the Alabama paradox).
    """
    counts = np.asarray(counts, dtype=np.int64)
    whole, remainder = np.divmod(counts * m, counts.sum())
    missing = m - whole.sum()
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return whole


def interleave(groups, ranks, *, share=None, priority=None) -> np.ndarray:
    """int64 (r,): positions, ordered so that every prefix holds its share of each group (Webster's method).

    groups: int (r,), group number of each position; ranks: (r,), its place in its group from 0; share: (g,), by default
    equal for all, which is a round-robin; priority: (g,), lower = first within a round. Prefixes nest by construction.
    """
    rounds = ranks if share is None else (ranks + 0.5) / np.maximum(share, 1e-300)[groups]
    return np.lexsort((groups if priority is None else priority[groups], rounds))


def ranks_within(groups) -> np.ndarray:
    """int64 (r,): how many earlier positions share the group of each position."""
    order = np.argsort(groups, kind="stable")
    ordered = np.asarray(groups)[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return ranks
