"""Selections beside each other: how much they overlap, as a matrix with a tree, and what each holds against the full data."""

import html

import numpy as np

from utils.explore.columns import members
from utils.selection.cluster_quality import PairFacts
from utils.selection.selection import Selection

ROW_HEIGHT = 2  # rem, of the matrix; the tree beside it has the same rows
TREE_WIDTH = 120  # pixels


def jaccard(chosen: np.ndarray) -> np.ndarray:
    """float64 (s, s): |A and B| / |A or B| of each two of the s rows of `chosen`, bool (s, n)."""
    both = (chosen.astype(np.float32) @ chosen.T.astype(np.float32)).astype(np.float64)  # exact below 16 million rows
    sizes = np.diag(both)
    return both / (sizes[:, None] + sizes - both)


def comparison(selections: dict[str, Selection], facts: PairFacts) -> str:
    """The section of the page, as HTML; empty without Selections."""
    if not selections:
        return ""
    chosen = np.stack([members(selection) for selection in selections.values()])
    names = list(selections)
    times = chosen.sum(axis=0)
    parts = ["<h2>Selections</h2>"]
    if len(names) > 1:
        parts.append(_overlap(names, jaccard(chosen)))
        everyone = int((times == len(names)).sum())
        parts.append(f'<p><button data-choose="all">Chosen by all {len(names)}: {everyone:,}</button></p>')
    parts.append(_composition(names, chosen, times, facts))
    return "\n".join(parts)


def _overlap(names: list[str], overlap: np.ndarray) -> str:
    """The matrix, in the order of the leaves of a tree that joins what overlaps most (average linkage of 1 - Jaccard)."""
    from scipy.cluster.hierarchy import dendrogram, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    distances = squareform(1 - overlap, checks=False)
    tree = dendrogram(optimal_leaf_ordering(linkage(distances, "average"), distances), no_plot=True)
    order = tree["leaves"]
    head = "".join(f"<th scope=col title='{html.escape(names[j])}'>{k}</th>" for k, j in enumerate(order, start=1))
    lines = [f"<tr><th></th><th scope=col>Jaccard index</th>{head}</tr>"]
    for k, i in enumerate(order):
        cells = [_shaded(f"{overlap[i, j]:.2f}", 0.6 * overlap[i, j]) for j in order]
        drawn = f"<td rowspan={len(names)} class=tree>{_drawn(tree, len(names))}</td>" if k == 0 else ""
        lines.append(f"<tr>{drawn}{_row_head(names[i], number=k + 1)}{''.join(cells)}</tr>")
    return (
        "<h3>Overlap</h3><p>Jaccard index: the examples that both chose, divided by those that at least one chose. The tree "
        "joins first what overlaps most; its length is 1 - Jaccard.</p>"
        f"<div class=scroll><table class=matrix>{''.join(lines)}</table></div>"
    )


def _drawn(tree: dict, leaves: int) -> str:
    """The tree as SVG, its leaves at the right. scipy puts leaf i at 10 i + 5."""
    longest = max(max(depths) for depths in tree["dcoord"]) or 1
    paths = [
        "M" + "L".join(f"{TREE_WIDTH * (1 - d / longest):.1f},{y:.1f}" for y, d in zip(ys, depths, strict=True))
        for ys, depths in zip(tree["icoord"], tree["dcoord"], strict=True)
    ]
    return (
        f'<svg viewBox="-2 0 {TREE_WIDTH + 2} {10 * leaves}" preserveAspectRatio="none" role="img" '
        f'aria-label="tree of Selections" style="width:{TREE_WIDTH}px;height:{ROW_HEIGHT * leaves}rem">'
        f'<path d="{"".join(paths)}" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"/></svg>'
    )


def _composition(names: list[str], chosen: np.ndarray, times: np.ndarray, facts: PairFacts) -> str:
    columns = _facts(facts)
    full = {name: float(values.mean()) for name, (values, _) in columns.items()}
    head = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in columns)
    cells = "".join(f"<td>{full[name]:{form}}</td>" for name, (_, form) in columns.items())
    n = chosen.shape[1]
    lines = [
        f"<tr><th scope=col>Selection</th><th scope=col>examples</th><th scope=col>only here</th>{head}</tr>",
        f"<tr><th scope=row>full data</th><td>{n:,}</td><td></td>{cells}</tr>",
    ]
    for k, name in enumerate(names):
        cells = []
        for column, (values, form) in columns.items():
            own = float(values[chosen[k]].mean())
            ratio = np.log2((own + 1e-3) / (full[column] + 1e-3))
            cells.append(_shaded(f"{own:{form}}", min(0.6, 0.4 * abs(ratio)), less=ratio < 0))
        only = int((chosen[k] & (times == 1)).sum())
        lines.append(
            f'<tr>{_row_head(name)}<td><button data-choose="in" data-selection="{k}">'
            f'{int(chosen[k].sum()):,}</button></td><td><button data-choose="only" data-selection="{k}">{only:,}</button>'
            f"</td>{''.join(cells)}</tr>"
        )
    return (
        "<h3>Composition</h3><p>Shares and means over the distinct examples of each Selection. Blue: more than in the full "
        "data; orange: less. A button shows its examples in the table above.</p>"
        f"<div class=scroll><table>{''.join(lines)}</table></div>"
    )


def _facts(facts: PairFacts) -> dict[str, tuple[np.ndarray, str]]:
    """What is averaged: column title -> values (n,) and how their mean is printed."""
    found = {}
    if facts.classes is not None:
        found |= {name: (facts.classes == i, ".1%") for i, name in enumerate(facts.label_names)}
    found["words"] = (facts.lengths, ".1f")
    if facts.overlap is not None:
        found["word overlap"] = (facts.overlap, ".2f")
    for name, supports in facts.supports.items():
        found[f"{name.replace('_', ' ')} holds"] = (supports, ".1%")
    if facts.supports and facts.classes is not None and "entailment" in facts.label_names:
        broken = facts.classes != facts.label_names.index("entailment")
        found["a heuristic holds, label not entailment"] = (np.any([*facts.supports.values()], axis=0) & broken, ".1%")
    if facts.genres is not None:
        found |= {f"genre {name}": (facts.genres == i, ".1%") for i, name in enumerate(facts.genre_names)}
    return found


def _row_head(name: str, *, number: int | None = None) -> str:
    """The name of a Selection at the head of a row, cut by the style where it is long and whole when hovered over."""
    name = html.escape(name)
    return f'<th scope=row title="{name}">{"" if number is None else f"{number} "}{name}</th>'


def _shaded(text: str, strength: float, *, less: bool = False) -> str:
    colour = "213,94,0" if less else "0,114,178"
    return f'<td style="background:rgba({colour},{strength:.2f})">{text}</td>'
