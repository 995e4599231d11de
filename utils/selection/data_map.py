"""The data map: confidence against variability."""

import numpy as np

from utils.files import atomic_path
from utils.selection.dynamics import Dynamics


def plot_data_map(dynamics: Dynamics, path, *, max_points: int = 25_000) -> None:
    """Write the data map: confidence against variability, coloured by correctness. Swayamdipta et al. 2020."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    confidence, variability, correctness = dynamics.confidence(), dynamics.variability(), dynamics.correctness()
    seen = np.flatnonzero(~np.isnan(confidence))
    shown = np.random.default_rng(0).permutation(seen)[:max_points]
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    points = axes.scatter(
        variability[shown], confidence[shown], c=correctness[shown], s=4, alpha=0.5, linewidths=0, cmap="coolwarm_r",
        vmin=0, vmax=1,
    )  # fmt: skip
    figure.colorbar(points, label="correctness (share of snapshots)").solids.set_alpha(1)
    axes.set(xlim=(0, 0.6), ylim=(0, 1), xlabel="variability", ylabel="confidence")
    axes.set_title(
        f"Data map: {len(shown):,} of {len(seen):,} examples, {dynamics.num_snapshots} snapshots, {dynamics.mode} mode"
    )
    # Outside the half circle in which every point must lie: variability^2 <= confidence (1 - confidence).
    for x, y, name in ((0.27, 0.95, "easy-to-learn"), (0.27, 0.03, "hard-to-learn"), (0.505, 0.49, "ambiguous")):
        axes.text(x, y, name, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
