"""The clustering analysis as Markdown and figures. Owns wording and drawing; the numbers are those of `cluster_quality`."""

from pathlib import Path

import numpy as np

from utils import figure_style as style
from utils.selection.cluster_quality import PairFacts, sample_rows
from utils.selection.clusters import Clusters
from utils.selection.kmeans import Prepared

MAX_ROWS = 40  # clusters in a table of texts; more are not read
BARS, MAX_BARS = 32, 256  # clusters in a row of bars, and in all rows
MIN_SIZE = 20  # examples; of smaller clusters the summary quotes no shares
MAX_TEXT = 160  # characters of a text in a table
FIGURES = ("projection.png", "cluster_sizes.png", "cluster_labels.png", "quality_over_k.png")
POINTS = 6_000  # examples drawn in the projection

QUALITY_COLUMNS = {
    "k": ("k", "d"),
    "inertia": ("inertia", ".4g"),
    "silhouette": ("silhouette", ".3f"),
    "agreement_over_seeds": ("agreement over seeds (ARI)", ".3f"),
    "purity": ("label purity", ".3f"),
    "label_nmi": ("label NMI", ".3f"),
    "genre_nmi": ("genre NMI", ".3f"),
    "length_r2": ("R² of length", ".3f"),
    "overlap_r2": ("R² of overlap", ".3f"),
    "smallest": ("smallest", "d"),
    "median_size": ("median size", ".0f"),
    "largest": ("largest", "d"),
}
EXPLANATION = """\
Silhouette: -1 to 1, above 0.25 is clear structure, near 0 a partition of one cloud. Agreement: adjusted Rand index
between k-means of different seeds, 1 = the same clusters, 0 = chance. Purity: share of examples with the commonest
label of their cluster. NMI: 0 = independent, 1 = one determines the other. R²: share of the variance of (log) pair
length in words, or of word overlap, that the cluster explains, adjusted for k. Overlap: share of the hypothesis's words that occur
in the premise. "Supports": share of pairs for which the heuristic predicts entailment."""


# -------------------------------------------------------------------------------------------------------------- wording
def summary(kept: dict, quality: list[dict], clusters: list[dict], prepared: Prepared) -> list[str]:
    """What a reader should take away, one sentence per finding; `kept` is the row of `quality` for the saved k."""
    lines = []
    if prepared.collapsed:
        lines.append(
            f"**The encoder has collapsed**: its embeddings spread {prepared.spread:.1e} of the norm of their mean, so "
            "they are one constant plus noise. Treat the run as failed; the clusters below mean nothing."
        )
    score = kept["silhouette"]
    shape = "undefined" if score is None else f"{score:.3f}, {_grade(score, (0.05, 0.25), _SHAPES)}"
    tried = ", ".join(str(row["k"]) for row in quality)
    lines.append(f"k = {kept['k']} is saved (of {tried}); its silhouette is {shape}.")
    if (rand := kept["agreement_over_seeds"]) is not None:
        lines.append(f"Over seeds the clusters are {_grade(rand, (0.4, 0.7), _STABILITY)} (adjusted Rand {rand:.2f}).")
    if kept["empty"]:
        lines.append(f"Empty clusters: {kept['empty']}; there are fewer distinct embeddings than k.")
    if "purity" in kept:
        lines.append(
            f"Label purity is {kept['purity']:.3f}, where naming the commonest label everywhere gives "
            f"{kept['majority_share']:.3f}; NMI with the label is {kept['label_nmi']:.3f}: clusters "
            f"{_grade(kept['label_nmi'], (0.02, 0.2), _RELATION)} the gold label."
        )
    if "genre_nmi" in kept:
        relation = _grade(kept["genre_nmi"], (0.02, 0.2), _RELATION)
        lines.append(f"NMI with the genre is {kept['genre_nmi']:.3f}: clusters {relation} the genre.")
    if "length_r2" in kept:
        text = f"The cluster explains {kept['length_r2']:.0%} of the variance of (log) pair length"
        if "overlap_r2" in kept:
            text += f" and {kept['overlap_r2']:.0%} of that of word overlap"
        lines.append(text + (": in good part this is a clustering by length." if kept["length_r2"] > 0.3 else "."))
    tiny = [row for row in clusters if 0 < row["size"] < MIN_SIZE]
    if tiny:
        rows = sum(row["size"] for row in tiny)
        lines.append(
            f"Clusters of fewer than {MIN_SIZE} examples: {len(tiny)}, with {rows} examples in all: outliers, look at "
            "their texts."
        )
    large = [row for row in clusters if row["size"] >= MIN_SIZE]
    if large and "labels" in large[0]:
        purest = max(large, key=lambda row: max(row["labels"].values()) / row["size"])
        label = max(purest["labels"], key=purest["labels"].get)
        share = purest["labels"][label] / purest["size"]
        lines.append(f"The purest cluster is {purest['cluster']} ({purest['size']} examples, {share:.0%} {label}).")
    for name in [name for name in clusters[0] if large and name.startswith("supports_")]:
        filled = [row for row in clusters if row["size"]]
        overall = sum(row[name] * row["size"] for row in filled) / sum(row["size"] for row in filled)
        most = max(large, key=lambda row: row[name])
        lines.append(
            f"Pairs that support the {name.removeprefix('supports_').replace('_', ' ')} heuristic: {overall:.1%} of "
            f"all, at most {most[name]:.1%}, in cluster {most['cluster']} ({most['size']} examples)."
        )
    return lines


_SHAPES = ("a partition of one cloud rather than separate groups", "weak structure", "clear structure")
_STABILITY = ("unstable: read single clusters with care", "moderately stable", "stable")
_RELATION = ("say almost nothing about", "partly follow", "largely follow")


def _grade(value: float, thresholds, words) -> str:
    return words[int(np.searchsorted(thresholds, value, side="right"))]


def markdown(about: dict, lines, quality, clusters, examples, figures) -> str:
    """The whole report. `about`: facts for the head; `lines`: the summary; `examples`: Examples or None (no texts)."""
    parts = ["# Clustering of embeddings", ""]
    parts += [f"- {name}: {value}" for name, value in about.items()]
    parts += ["", "## Summary", "", *(f"- {line}" for line in lines)]
    used = [name for name in QUALITY_COLUMNS if any(name in row for row in quality)]
    head = [QUALITY_COLUMNS[name][0] for name in used]
    rows = [[_cell(row.get(name), QUALITY_COLUMNS[name][1]) for name in used] for row in quality]
    parts += ["", "## Quality over k", "", *_table(head, rows), "", EXPLANATION]
    parts += ["", "## Figures", "", *(f"![{path.stem.replace('_', ' ')}]({path.name})\n" for path in figures)]
    parts += ["## Clusters", "", *_cluster_table(clusters)]
    if examples is not None:
        parts += ["", *_texts(clusters, examples)]
    return "\n".join(parts) + "\n"


def _cluster_table(clusters) -> list[str]:
    labels = list(clusters[0].get("labels", ()))
    genres = "genres" in clusters[0]
    means = [name for name in clusters[0] if name.startswith(("mean_", "supports_"))]
    head = ["cluster", "size", *labels, *(["commonest genre"] if genres else []), *(n.replace("_", " ") for n in means)]
    rows = []
    for row in clusters:
        size = max(1, row["size"])
        cells = [str(row["cluster"]), str(row["size"]), *(f"{row['labels'][name] / size:.0%}" for name in labels)]
        if genres:
            genre = max(row["genres"], key=row["genres"].get)
            cells.append(f"{_plain_text(genre)} {row['genres'][genre] / size:.0%}")
        rows.append([*cells, *(_cell(row[name], ".1%" if name.startswith("supports_") else ".3g") for name in means)])
    return _table(head, rows)


def _texts(clusters, examples) -> list[str]:
    shown = clusters[:MAX_ROWS]
    title = "## Examples nearest to and farthest from each centroid"
    parts = [title, ""]
    if len(shown) < len(clusters):
        parts += [f"The {len(shown)} largest clusters; clusters.json has the row numbers of all {len(clusters)}.", ""]
    for row in shown:
        rows = []
        for where in ("nearest", "farthest"):
            for i in row[where]:
                label = _label(examples, i)
                rows.append([where, str(i), label, *(_plain_text(column[i]) for column in examples.premise_first)])
        head = ["", "row", "label", *("premise", "hypothesis")[: len(examples.texts)]]
        parts += [f"### Cluster {row['cluster']} ({row['size']} examples)", "", *_table(head, rows), ""]
    return parts


def _label(examples, i: int) -> str:
    if examples.labels is None:
        return "–"
    return f"{examples.labels[i]:g}" if examples.task.regression else examples.label_names[examples.labels[i]]


def _table(head, rows) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _cell(value, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _plain_text(text: str) -> str:
    """One table cell: no markup, no line break, at most MAX_TEXT characters."""
    text = " ".join(text.split())
    text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return text


# -------------------------------------------------------------------------------------------------------------- drawing
def draw(
    folder, kept: Clusters, quality: list[dict], prepared: Prepared, facts: PairFacts | None, *, seed: int = 0
) -> list[Path]:
    """Draw every figure that the facts at hand allow into `folder`; returns the paths of the PNGs."""
    folder = Path(folder)
    has_labels = facts is not None and facts.classes is not None
    bars = -(-min(kept.k, MAX_BARS) // BARS)  # rows of bars
    inputs = (
        (_projection, 4.1, (kept, prepared, facts, seed)),
        (_sizes, 1.3 * bars + 0.9, (kept,)),
        (_label_bars, 1.3 * bars + 0.9, (kept, facts) if has_labels else None),
        (_quality, 2.7, (quality, kept.k) if len(quality) > 1 else None),
    )
    paths = []
    for name, (plot, height, given) in zip(FIGURES, inputs, strict=True):
        if given is not None:
            with style.new_figure(folder / name, height) as figure:
                plot(figure, *given)
            paths.append(folder / name)
    return paths


def _projection(figure, clusters: Clusters, prepared: Prepared, facts, seed: int) -> None:
    chosen = sample_rows(len(clusters), POINTS, seed)
    rows = prepared.rows(chosen).astype(np.float64)
    rows -= rows.mean(axis=0)
    rows = np.pad(rows, ((0, 0), (0, max(0, 2 - rows.shape[1]))))  # with --pca 1 the map is a line
    values, vectors = np.linalg.eigh(rows.T @ rows)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    xy = rows @ axes
    share = values[::-1][:2] / max(values.sum(), 1e-30)
    # Points in random order, so that no group hides the others.
    order = np.random.default_rng(seed).permutation(len(chosen))
    labels = clusters.labels[chosen]
    coloured = min(clusters.k, len(style.CLUSTERS))
    names = [f"{j} ({size:,})" for j, size in enumerate(clusters.sizes[:coloured])]
    groups, colours = np.minimum(labels, coloured), [*style.CLUSTERS[:coloured]]
    title = f"k = {clusters.k}, by cluster (size)"
    if clusters.k > coloured:
        names, colours = [*names, "others"], [*colours, style.REST]
        title = f"k = {clusters.k}, the {coloured} largest clusters (size)"
    panels = [(title, groups, names, colours)]
    if facts is not None and facts.classes is not None:
        palette = [style.LABELS[j % len(style.LABELS)] for j in range(len(facts.label_names))]
        panels.append(("by gold label", facts.classes[chosen], facts.label_names, palette))
    for axis, (title, groups, names, colours) in zip(style.panels(figure, len(panels), 2), panels, strict=True):
        axis.scatter(*xy[order].T, c=np.array(colours)[groups[order]], s=3, linewidths=0, alpha=0.7, rasterized=True)
        for colour, name in zip(colours, names, strict=True):
            axis.scatter([], [], c=colour, s=20, label=name)
        axis.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=4, handletextpad=0.2, columnspacing=1)
        axis.set(title=title, xlabel=f"principal axis 1 ({share[0]:.0%} of variance)")
        axis.set_ylabel(f"principal axis 2 ({share[1]:.0%})")
    for j in range(coloured):
        if (labels == j).any():
            figure.axes[0].text(*np.median(xy[labels == j], axis=0), str(j), ha="center", va="center", weight="bold",
                                bbox={"fc": "white", "ec": style.CLUSTERS[j], "boxstyle": "round,pad=0.15"})  # fmt: skip
    drawn = (
        f"{len(chosen):,} of {len(clusters):,} examples" if len(chosen) < len(clusters) else f"{len(chosen):,} examples"
    )
    figure.suptitle(f"The embeddings on their first two principal axes, {drawn}", fontsize=9)


def _bar_rows(figure, clusters: Clusters, title: str, draw_bars) -> None:
    """Rows of bars of the same scale and width. draw_bars(axes, numbers of its clusters) draws one."""
    shown = np.array_split(np.arange(min(clusters.k, MAX_BARS)), -(-min(clusters.k, MAX_BARS) // BARS))
    grid = style.panels(figure, len(shown), 1, sharey=True)
    for axis, own in zip(grid, shown, strict=True):
        draw_bars(axis, own)
        axis.set_xticks(own, own)
        axis.set_xlim(own[0] - 0.7, own[0] + max(6, len(shown[0])) - 0.3)
        axis.tick_params(axis="x", length=0, labelrotation=90 if clusters.k > 100 else 0)
        axis.grid(axis="y")
    rest = f" (the {MAX_BARS} largest)" if clusters.k > MAX_BARS else ""
    style.legend(figure, title=f"{title}, k = {clusters.k}{rest}, {len(clusters):,} examples")
    figure.supxlabel("cluster, largest first", fontsize=8)


def _sizes(figure, clusters: Clusters) -> None:
    mean = len(clusters) / clusters.k

    def bars(axis, own):
        drawn = axis.bar(own, clusters.sizes[own], 0.8, color=style.ACCENT)
        axis.axhline(mean, color="black", linewidth=0.8, linestyle="--", label=f"mean {mean:,.0f}")
        axis.bar_label(drawn, fmt="{:,.0f}", fontsize=style.SMALL, rotation=90 if clusters.k > 12 else 0, padding=2,
                       bbox=style.ON_WHITE)  # fmt: skip
        axis.set_ylim(0, 1.35 * clusters.sizes.max())

    _bar_rows(figure, clusters, "Cluster sizes", bars)
    figure.supylabel("examples", fontsize=8)


def _label_bars(figure, clusters: Clusters, facts: PairFacts) -> None:
    from utils.selection.cluster_quality import contingency

    counts = contingency(clusters.labels, facts.classes, clusters.k, len(facts.label_names))
    overall = counts.sum(axis=0) / counts.sum()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

    def bars(axis, own):
        bottom = np.zeros(len(own))
        for j, name in enumerate(facts.label_names):
            colour = style.LABELS[j % len(style.LABELS)]
            axis.bar(own, shares[own, j], 0.8, bottom=bottom, color=colour, label=name)
            bottom += shares[own, j]
        for line in np.cumsum(overall)[:-1]:
            axis.axhline(line, color="black", linewidth=0.8, linestyle="--", label="all examples")
        axis.set_ylim(0, 1)

    _bar_rows(figure, clusters, "Gold labels of each cluster", bars)
    figure.supylabel("share of examples", fontsize=8)


def _quality(figure, quality: list[dict], kept: int) -> None:
    rows = sorted(quality, key=lambda row: row["k"])
    ks = [row["k"] for row in rows]
    words = {"inertia": "inertia (sum of squared distances)", "silhouette": "silhouette (-1 to 1)"}
    for axis, (name, label) in zip(figure.subplots(1, 2), words.items(), strict=True):
        values = [np.nan if row[name] is None else row[name] for row in rows]
        axis.axvline(kept, color="black", linestyle="--", linewidth=0.8, label=f"kept: k = {kept}")
        axis.plot(ks, values, marker="o", color=style.ACCENT)
        axis.set_xscale("log")
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.minorticks_off()
        axis.set(xlabel="number of clusters k (log scale)", ylabel=label)
        axis.grid()
    figure.axes[0].legend()
