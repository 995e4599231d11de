"""Golden values: what this project computed from small fixed inputs, recorded once and compared by tests/test_golden.py.

    python -m tests.golden.record               # everything that has no record yet
    python -m tests.golden.record --only d2     # one strategy again, after its version in the registry was raised
    python -m tests.golden.record --only weights

The first records come from before the code was ordered into packages, so they also show that the move changed nothing.
Record again only where a result is meant to change, and say so in the commit.
"""

import argparse
import dataclasses
import hashlib
import inspect
import json
import tempfile
from pathlib import Path

import numpy as np

from tests import tiny
from utils.selection.clusters import Clusters
from utils.selection.dynamics import Dynamics
from utils.selection.features import Features
from utils.selection.strategies import STRATEGIES, Inputs, select

HERE = Path(__file__).parent
SELECTIONS, WEIGHTS, REPORT = HERE / "selections.json", HERE / "weights.json", HERE / "results.csv"
N, M, SEED = 120, 40, 7
BALANCED = ("random", "ccs")  # chosen with --class_balanced too; the rest of that path is the same for all strategies
STEPS = 10


# ----------------------------------------------------------------------------------------------------------- selections
def golden_inputs() -> Inputs:
    """120 generated pairs with random embeddings, clusters, logits and training dynamics. No result of a model."""
    rng = np.random.default_rng(SEED)
    premises, hypotheses, names = map(list, zip(*tiny.pairs(N, SEED), strict=True))
    labels = np.array([tiny.LABELS.index(name) for name in names])
    embeddings = rng.normal(1, 1, (N, 8)).astype(np.float32)
    squared = ((embeddings[:, None].astype(np.float64) - embeddings[:6]) ** 2).sum(2)
    clusters = Clusters(squared.argmin(1), embeddings[:6], np.sqrt(squared.min(1)), "golden", N)
    snapshots = rng.normal(0, 2, (5, N, 3)).astype(np.float16)
    snapshots[2, 10:20] = np.nan  # not seen in one snapshot
    dynamics = Dynamics(snapshots, labels, tiny.LABELS, np.arange(1.0, 6.0), "eval", "golden")
    genres = [("fiction", "travel")[i % 2] for i in range(N)]
    logits = rng.normal(0, 2, (N, 3)).astype(np.float32)
    return Inputs(
        N, "golden", labels, genres, (premises, hypotheses), tiny.LABELS, embeddings, "pooler", clusters, dynamics, logits,
        ranking=np.arange(N)[::-3],
    )  # fmt: skip


def own_strategies() -> list[str]:
    """The strategies of this project, without those of plugins that some test has loaded."""
    return [name for name, known in STRATEGIES.items() if known.function.__module__.startswith("utils.")]


def selection_entries(name: str) -> dict[str, dict]:
    """{entry: record} of one strategy: with its default parameters, and of some with balanced classes too."""
    modes = {name: False} | ({f"{name}, class_balanced": True} if name in BALANCED else {})
    return {entry: _selection_record(name, class_balanced) for entry, class_balanced in modes.items()}


def _selection_record(name: str, class_balanced: bool) -> dict:
    """Rows and weights of one selection. Weights are compared to five digits: processors round the last ones
    differently."""
    inputs = golden_inputs()
    if {"target", "gradients"} & set(STRATEGIES[name].needs):  # the target: the first rows
        own = Features(inputs.embeddings, {"pooling": "pooler"}, inputs.logits, inputs.labels)
        wanted = Features(own.embeddings[:9], own.about, own.logits[:9], own.gold[:9])
        inputs = dataclasses.replace(inputs, checkpoints=(own,), target=(wanted,))
    if "two splits" in STRATEGIES[name].needs:  # a second run: the first one backwards
        second = dataclasses.replace(inputs.dynamics, logits=inputs.dynamics.logits[::-1])
        inputs = dataclasses.replace(inputs, more_dynamics=(second,))
    chosen = select(name, inputs, M, SEED, class_balanced=class_balanced)
    weights = [f"{weight:.5g}" for weight in chosen.weights]
    return {
        "version": getattr(STRATEGIES[name], "version", 1),
        "indices": _sha256(chosen.indices.tolist()),
        "weights": _sha256(weights),
        "first": chosen.indices[:8].tolist(),
        "first_weights": [float(weight) for weight in weights[:4]],
    }


def _sha256(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


# --------------------------------------------------------------------------------------------------------------- weights
def trained_weights() -> dict[str, list[float]]:
    """{parameter: its norm, then at most 8 of its values} of a tiny ALBERT after ten steps on weighted examples.

    It starts from numbers drawn here, not from the library's, which may change with its version. Biases of keys are left
    out: the softmax does not see them, so their gradient is rounding alone, and Adam enlarges it.
    """
    import torch

    from tests.test_training import classifier, everything, ragged, run

    model, rng = classifier(), np.random.default_rng(SEED)
    with torch.no_grad():
        for name, tensor in sorted(model.model.named_parameters()):
            start = rng.normal(name.endswith("LayerNorm.weight"), 0.1, tensor.shape)
            tensor.copy_(torch.from_numpy(start))
    data = ragged()
    weights = rng.uniform(0, 2, len(data)).astype(np.float32)
    run(model, data, everything(data, weights), max_steps=STEPS, tokens_per_micro_batch=90, warmup_ratio=0.2)
    found = {}
    for name, tensor in sorted(model.model.named_parameters()):
        values = tensor.detach().double().flatten().numpy()
        if not name.endswith("key.bias"):
            some = values[np.linspace(0, len(values) - 1, min(8, len(values))).astype(int)]
            found[name] = [float(f"{value:.7g}") for value in (np.linalg.norm(values), *some)]
    return found


# ---------------------------------------------------------------------------------------------------------------- report
def report_csv() -> str:
    """results.csv of a report on run folders that are written here: three arms, and what makes a run unlike others."""
    import contextlib
    import io

    import report
    from tests.test_report import collapse, write_run

    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        for seed in range(2):
            write_run(runs / f"all-{seed}", "all", 1.0, seed, 0.8 + seed / 100)
            write_run(runs / f"random-{seed}", "random", 0.1, seed, 0.6 + seed / 100, 0.1 + seed / 50)
            write_run(runs / f"hard-{seed}", "hard", 0.1, seed, 0.5 + seed / 100)
            write_run(runs / f"online-{seed}", "all", 1.0, seed, 0.7, online="grad_norm")
            write_run(runs / f"steps-{seed}", "random", 0.1, seed, 0.7, steps=100)
        collapse(runs / "hard-1")
        card = {"labels": {"neutral": {"subset": 1 / 3}}, "contradicts": {"subsequence": {"subset": 7}}}
        (runs / "hard-0" / "selection.json").write_text(json.dumps(card))
        results = json.loads((runs / "online-0" / "results.json").read_text())
        results["train"]["probed"] = 1500  # forward passes beside the training ones
        (runs / "online-0" / "results.json").write_text(json.dumps(results))
        write_run(runs / "foreign", "random", 0.1, 5, 0.9, data="another")
        plan = {"settings": {}, "runs": [], "scoring_epochs": {"hard": 2 + 2 / 3}}
        (Path(folder) / "sweep.json").write_text(json.dumps(plan))
        with contextlib.redirect_stdout(io.StringIO()):
            report.main([folder])
        return (Path(folder) / "report" / "results.csv").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- recording
def write_entries(path: Path, entries: dict) -> None:
    """One line for each entry, so that a diff shows which of them changed."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__), formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=[*own_strategies(), "weights", "report"], help="record this one again")
    only = parser.parse_args(argv).only
    kept = json.loads(SELECTIONS.read_text(encoding="utf-8")) if SELECTIONS.exists() else {}
    names = [only] if only in STRATEGIES else [] if only else [name for name in own_strategies() if name not in kept]
    if names:
        for name in names:
            kept |= selection_entries(name)
        write_entries(SELECTIONS, kept)
    if only == "weights" or not (only or WEIGHTS.exists()):
        write_entries(WEIGHTS, trained_weights())
    if only == "report" or not (only or REPORT.exists()):
        REPORT.write_text(report_csv(), encoding="utf-8")
    print(f"recorded: {', '.join(names) or only or 'nothing; every record is there'}")


if __name__ == "__main__":
    main()
