"""Orders and shares over groups of examples: what strategies that divide a budget have in common."""

import numpy as np


def quotas(counts, m: int) -> np.ndarray:
    """int64 (g,): m split over groups in proportion to their sizes `counts` (g,), by largest remainder.

    Never more than a group holds. Two budgets nest where they differ by at least one example of the smallest group
    (sum(counts) / min(counts)); of closer budgets the larger one may give a group one example less (the Alabama paradox).
    """
    counts = np.asarray(counts, dtype=np.int64)
    whole, remainder = np.divmod(counts * m, max(counts.sum(), 1))
    missing = m - whole.sum()
    whole[np.argsort(-remainder, kind="stable")[:missing]] += 1
    return whole


def interleave(groups, m: int | None = None, *, share=None, priority=None) -> np.ndarray:
    """int64 (r,): positions, ordered so that every prefix holds its share of each group (Webster's method).

    groups: int (r,), group number of each position; positions of one group keep their order. m: how many are wanted, by
    default all. share: (g,), by default equal for all, which is a round-robin; priority: (g,), all different, lower =
    first within a round. Prefixes nest by construction.
    """
    first = stable_order(groups if priority is None else _narrow(priority)[groups])
    grouped = groups[first]
    ranks = _ranks_in_blocks(grouped)
    rounds = _narrow(ranks) if share is None else (ranks + 0.5) / np.maximum(share, 1e-300)[grouped]
    if m is None or m >= len(rounds):
        return first[stable_order(rounds)]
    last = np.partition(rounds, m - 1)[m - 1]
    early = np.flatnonzero(rounds <= last)  # the first m, and those that tie with the last of them
    return first[early[stable_order(rounds[early])[:m]]]


def ranks_within(groups) -> np.ndarray:
    """int64 (r,): how many earlier positions share the group of each position."""
    order = stable_order(groups)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = _ranks_in_blocks(groups[order])
    return ranks


def _ranks_in_blocks(grouped) -> np.ndarray:
    """int64 (r,): place of each position in its group from 0, where the positions of a group (r,) stand side by side."""
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    ranks = np.arange(len(grouped))
    ranks -= np.repeat(starts, np.diff(np.r_[starts, len(grouped)]))
    return ranks


def stable_order(keys) -> np.ndarray:
    """int64 (n,): the stable order of keys (n,). numpy sorts 16-bit integers in linear time, so keys that fit are converted."""
    return np.argsort(_narrow(np.asarray(keys)), kind="stable")


def _narrow(keys) -> np.ndarray:
    """The same keys in 16 bits, where they fit."""
    if keys.dtype == np.uint16 or not len(keys) or not np.issubdtype(keys.dtype, np.integer):
        return keys
    return keys.astype(np.uint16) if keys.min() >= 0 and keys.max() < 1 << 16 else keys
