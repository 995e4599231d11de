"""The subset card: what a Selection holds, against the full data, so that a later difference can be explained."""

import itertools

import numpy as np

from utils.data.examples import Examples
from utils.data.overlap import overlap_share, supports_heuristics, words
from utils.selection.selection import Selection, random_ranking

LENGTH_EDGES = (0, 10, 20, 30, 40, 60, 80, np.inf)  # words of all texts together
OVERLAP_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, np.inf)  # the last: every hypothesis word is in the premise


def subset_card(selection: Selection, examples: Examples) -> dict:
    """What is in the subset and in the full data, as plain numbers for JSON.

    Histograms are {name: {"subset": share, "full": share}}; repeats count as often as they were drawn, weights do not
    count. `contradicts` says, per HANS heuristic, for how many examples it predicts entailment and is wrong.
    """
    rows = selection.indices
    card = {
        "method": selection.provenance.get("method"),
        "source": examples.source,
        "m": len(selection),
        "n": len(examples),
        "distinct": len(np.unique(rows)),
        "effective_sample_size": selection.effective_sample_size,
        "weights": {"min": float(selection.weights.min()), "max": float(selection.weights.max())},
        "jaccard_with_random": _jaccard_with_random(selection),
    }
    if examples.labels is not None and examples.label_names:
        card["labels"] = _shares(examples.labels, rows, examples.label_names)
    if examples.genres is not None:
        names, genres = np.unique(examples.genres, return_inverse=True)
        card["genres"] = _shares(genres, rows, names.tolist())
    lengths = np.sum([[len(words(text)) for text in column] for column in examples.texts], axis=0)
    card["words"] = _histogram(lengths, rows, LENGTH_EDGES)
    if len(examples.texts) == 2:
        overlap = overlap_share(*examples.premise_first)
        card["word_overlap"] = _histogram(overlap, rows, OVERLAP_EDGES)
        if "labels" in card and "entailment" in examples.label_names:
            not_entailed = examples.labels != examples.label_names.index("entailment")
            card["contradicts"] = {
                name: {
                    "subset": int((supported & not_entailed)[rows].sum()),
                    "full": int((supported & not_entailed).sum()),
                }
                for name, supported in supports_heuristics(*examples.premise_first).items()
            }
    if selection.scores is not None:
        card["score_quantiles"] = {
            part: dict(zip(("min", "25 %", "50 %", "75 %", "max"), _quantiles(scores), strict=True))
            for part, scores in (("subset", selection.scores[rows]), ("full", selection.scores))
        }
    return card


def format_card(card: dict) -> str:
    """The card as a few aligned lines."""
    lines = [
        f"{card['method']}: {card['m']:,} of {card['n']:,} examples of {card['source']}",
        f"  distinct {card['distinct']:,}, effective sample size {card['effective_sample_size']:,.1f}, weights "
        f"{card['weights']['min']:.3g} to {card['weights']['max']:.3g}, Jaccard with random {card['jaccard_with_random']:.3f}",
    ]
    for title, key in (("label", "labels"), ("genre", "genres"), ("words", "words"), ("word overlap", "word_overlap")):
        if key in card:
            lines.append(f"  {title:<24}{'subset':>10}{'full':>10}")
            lines += [f"    {name:<22}{s['subset']:>10.1%}{s['full']:>10.1%}" for name, s in card[key].items()]
    if "contradicts" in card:
        lines.append(f"  {'contradicts heuristic':<24}{'subset':>10}{'full':>10}")
        lines += [f"    {name:<22}{s['subset']:>10,}{s['full']:>10,}" for name, s in card["contradicts"].items()]
    for part, quantiles in card.get("score_quantiles", {}).items():
        lines.append(f"  score, {part}: " + ", ".join(f"{name} {value:.4g}" for name, value in quantiles.items()))
    return "\n".join(lines)


def _jaccard_with_random(selection: Selection) -> float:
    """|A and B| / |A or B| with the random subset of the same size and seed; about f / (2 - f) by chance, f = m/n."""
    own = np.unique(selection.indices)
    seed = selection.provenance.get("selection_seed", 0)
    other = random_ranking(selection.n_total, seed)[: len(own)]
    shared = len(np.intersect1d(own, other))
    return shared / (len(own) + len(other) - shared)


def _shares(groups, rows, names) -> dict:
    subset = np.bincount(groups[rows], minlength=len(names)) / len(rows)
    full = np.bincount(groups, minlength=len(names)) / len(groups)
    return {name: {"subset": float(s), "full": float(f)} for name, s, f in zip(names, subset, full, strict=True)}


def _histogram(values, rows, edges) -> dict:
    names = [f"{low:g} - {high:g}" for low, high in itertools.pairwise(edges[:-1])] + [f"{edges[-2]:g} and more"]
    return _shares(np.digitize(values, edges[1:-1]), rows, names)


def _quantiles(scores) -> list[float]:
    known = scores[~np.isnan(scores)]
    return np.quantile(known, (0, 0.25, 0.5, 0.75, 1)).tolist() if len(known) else [float("nan")] * 5
