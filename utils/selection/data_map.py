"""The data map: confidence against variability."""

import numpy as np

from utils import figure_style as style
from utils.selection.dynamics import Dynamics

CELLS = (40, 60)  # of the grid in which examples are counted: across, up
LIMITS = ((0, 0.6), (0, 1))
DENSE = (10, 100, 1_000, 10_000)  # examples in a cell: a line around the cells that have as many


def plot_data_map(dynamics: Dynamics, path, *, max_points: int = 25_000) -> None:
    """Write the data map: confidence against variability, coloured by correctness, with how many examples lie where.
    Swayamdipta et al. 2020. Histograms and density lines count all examples, also where not all are drawn."""
    confidence, variability, correctness = dynamics.confidence(), dynamics.variability(), dynamics.correctness()
    seen = np.flatnonzero(~np.isnan(confidence))
    shown = np.random.default_rng(0).permutation(seen)[:max_points]
    with style.new_figure(path, 5) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5))
        axes = figure.add_subplot(grid[1, 0])
        points = axes.scatter(
            variability[shown], confidence[shown], c=correctness[shown], s=4, alpha=0.6, linewidths=0, cmap=style.RAMP,
            vmin=0, vmax=1, rasterized=True,
        )  # fmt: skip
        _density(axes, variability[seen], confidence[seen])
        across, up = figure.add_subplot(grid[0, 0], sharex=axes), figure.add_subplot(grid[1, 1], sharey=axes)
        across.hist(variability[seen], CELLS[0], range=LIMITS[0], color=style.GREY)
        up.hist(confidence[seen], CELLS[1], range=LIMITS[1], color=style.GREY, orientation="horizontal")
        across.set_ylabel("examples")
        up.set_xlabel("examples")
        across.tick_params(labelbottom=False)
        up.tick_params(labelleft=False)
        figure.colorbar(points, ax=up, label="correctness (share of snapshots)", aspect=40).solids.set_alpha(1)
        axes.set(
            xlim=LIMITS[0], ylim=LIMITS[1], xlabel="variability (standard deviation of the gold label's probability)",
            ylabel="confidence (mean probability of the gold label)",
        )  # fmt: skip
        drawn = f"{len(shown):,} of {len(seen):,}" if len(shown) < len(seen) else f"{len(seen):,}"
        figure.suptitle(
            f"Data map: {drawn} examples, {dynamics.num_snapshots} snapshots, {dynamics.mode} mode", fontsize=9
        )
        # Outside the half circle in which every point must lie: variability^2 <= confidence (1 - confidence).
        for x, y, name in ((0.36, 0.95, "easy-to-learn"), (0.36, 0.03, "hard-to-learn"), (0.51, 0.49, "ambiguous")):
            axes.text(x, y, name)


def _density(axes, x, y) -> None:
    """Lines around the cells that hold at least so many examples, labelled with the number."""
    from scipy.ndimage import gaussian_filter

    counts, xs, ys = np.histogram2d(x, y, CELLS, LIMITS)
    counts = gaussian_filter(counts, 1.2, mode="nearest")  # without it the lines are noise
    levels = [level for level in DENSE if (counts >= level).sum() > 1]
    if levels:
        places = ((edges[1:] + edges[:-1]) / 2 for edges in (xs, ys))
        lines = axes.contour(*places, counts.T, levels, colors=style.SECOND, linewidths=0.7)
        axes.clabel(lines, fmt=lambda level: f"{level:,.0f} a cell", fontsize=style.SMALL)
