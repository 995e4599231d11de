#!/usr/bin/env python3
"""Time and memory of every selection strategy on random data of MNLI's size.

  python benchmarks/selection.py                                  # 392,702 x 768, k = 512, a 10 % budget
  python benchmarks/selection.py --n 20000 --strategies kcenter d2

Writes a random matrix (1.2 GB at full size), clusters, training dynamics and logits into --work_dir (kept and
reused), runs each strategy in a process of its own, and records seconds and peak memory in --output. A strategy that takes
less than a few seconds runs three times, and the least time counts: a virtual machine takes long to give out memory for
the first time. Reading the embeddings from disk counts towards the seconds of a slow strategy, if it is the first that needs
them. Memory-mapped pages count towards peak_rss but not towards peak_anonymous, which is what a strategy itself allocates.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.files import read_json, write_json
from utils.run_directory import versions

WORDS = 300  # vocabulary of the random texts
SNAPSHOTS = 6
REPEATS, REPEAT_BELOW = 3, 10.0  # the least of so many times counts, while they take less than so many seconds together
CHECKPOINTS, TARGETS = 3, 1000  # of tracin; examples that rds and tracin look for
# Measured beside the strategies: k centroids of the centred embeddings, all rows assigned; and the assignment alone.
KMEANS, ASSIGNMENT = "k-means", "assignment"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=392_702, help="examples")
    parser.add_argument("--d", type=int, default=768, help="embedding width")
    parser.add_argument("--k", type=int, default=512, help="clusters")
    parser.add_argument("--data_pct", type=float, default=0.1, help="budget, a fraction")
    parser.add_argument("--dtype", default="float32", help="of the embeddings on disk")
    parser.add_argument("--strategies", nargs="*", help="default: all")
    parser.add_argument("--work_dir", type=Path, default=Path(tempfile.gettempdir()) / "selection_benchmark")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "selection.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    if args.child:
        print(json.dumps(measure(args)))
        return
    from utils.selection.selection import budget
    from utils.selection.strategies import STRATEGIES

    make_data(args)
    record = {
        "machine": machine(),
        "n": args.n, "d": args.d, "k": args.k, "m": budget(args.n, data_pct=args.data_pct), "strategies": {},
    }  # fmt: skip
    if args.strategies and args.output.exists():  # measured again, beside those that are not
        record["strategies"] = read_json(args.output)["strategies"]
    for name in args.strategies or (KMEANS, *STRATEGIES):
        record["strategies"][name] = {"cpu": record["machine"]["cpu"], **in_own_process(args, name)}
        print(f"{name:<18}", record["strategies"][name], flush=True)
        write_json(args.output, record)


def in_own_process(args, name: str) -> dict:
    """What `measure` finds of one strategy, or how it failed."""
    command = [sys.executable, __file__, "--child", name]
    for flag in ("n", "d", "k", "data_pct", "dtype", "work_dir"):
        command += [f"--{flag}", str(getattr(args, flag))]
    child = subprocess.run(command, capture_output=True, text=True)
    return {"failed": child.stderr.strip().splitlines()[-1:]} if child.returncode else json.loads(child.stdout)


def machine() -> dict:
    cpu = "unknown"
    if Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].replace("(R)", "").strip() if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "cores": cores,
        "threads": os.environ.get("OMP_NUM_THREADS", str(cores)),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
    }


def make_data(args) -> None:
    """Gaussian rows around k centres, so that clusters exist; written once."""
    import numpy as np

    from utils.selection.clusters import Clusters
    from utils.selection.dynamics import Dynamics

    sizes = {"n": args.n, "d": args.d, "k": args.k, "dtype": args.dtype}
    done = args.work_dir / "sizes.json"
    if done.exists() and read_json(done) == sizes:
        return
    args.work_dir.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((args.k, args.d), dtype=np.float32)
    own = rng.integers(args.k, size=args.n)
    distances = np.empty(args.n, dtype=np.float32)
    matrix = np.lib.format.open_memmap(
        args.work_dir / "embeddings.npy", mode="w+", dtype=args.dtype, shape=(args.n, args.d)
    )
    for start in range(0, args.n, 16_384):
        rows = slice(start, start + 16_384)
        noise = rng.standard_normal((len(own[rows]), args.d), dtype=np.float32)
        matrix[rows] = centers[own[rows]] + noise
        distances[rows] = np.linalg.norm(noise, axis=1)
    matrix.flush()
    labels = rng.integers(3, size=args.n)
    names = ("contradiction", "entailment", "neutral")
    Clusters(own, centers, distances, "benchmark", args.n).save(args.work_dir / "clusters.npz")
    logits = rng.standard_normal((SNAPSHOTS, args.n, 3), dtype=np.float32).astype(np.float16)
    Dynamics(logits, labels, names, np.arange(SNAPSHOTS) + 1.0, "eval", "benchmark").save(
        args.work_dir / "dynamics.npz"
    )
    write_json(done, sizes)


def load_matrix(args):
    import numpy as np

    from utils.selection.embeddings import AsFloat32

    return AsFloat32(np.load(args.work_dir / "embeddings.npy", mmap_mode="r"))


def load_inputs(args, chosen):
    import numpy as np

    from utils.selection.clusters import Clusters
    from utils.selection.dynamics import Dynamics
    from utils.selection.features import Features
    from utils.selection.strategies import Inputs

    dynamics, matrix = Dynamics.load(args.work_dir / "dynamics.npz"), load_matrix(args)
    own, targets, texts = (), (), ()
    if {"target", "gradients"} & {*chosen.needs}:  # of as many checkpoints as there are snapshots of the logits
        facts, some = {"pooling": "pooler"}, slice(min(args.n, TARGETS))
        every = [logits.astype(np.float32) for logits in dynamics.logits[:CHECKPOINTS]]
        own = tuple(Features(matrix, facts, logits, dynamics.labels) for logits in every)
        targets = tuple(Features(matrix[some], facts, logits[some], dynamics.labels[some]) for logits in every)
    if "pairs" in chosen.needs:
        drawn = np.random.default_rng(1).integers(WORDS, size=(args.n, 28))
        texts = tuple([" ".join(map(str, row)) for row in side.tolist()] for side in (drawn[:, :18], drawn[:, 18:]))
    return Inputs(
        args.n, "benchmark", dynamics.labels, None, texts, dynamics.class_names,
        matrix, "pooler",
        Clusters.load(args.work_dir / "clusters.npz"), dynamics, dynamics.logits[-1].astype(np.float32),
        more_dynamics=(dynamics,) if "two splits" in chosen.needs else (), ranking=np.arange(args.n // 2),
        checkpoints=own, target=targets,
    )  # fmt: skip


def measure(args) -> dict:
    """One strategy in this process: seconds of `select` alone, of the clock and of processors, peak memory in GB."""
    import threading

    from utils.selection.clusters import Clusters
    from utils.selection.kmeans import VERSION, assign, kmeans, prepare
    from utils.selection.selection import budget
    from utils.selection.strategies import get_strategy, select

    m, inputs, extra = budget(args.n, data_pct=args.data_pct), None, {"version": VERSION}
    if args.child == KMEANS:
        embeddings = load_matrix(args)

        def run():
            clusters = kmeans(prepare(embeddings), args.k, seed=0)
            extra.update(inertia=clusters.inertia, algorithm=clusters.about["algorithm"])
            return clusters.labels
    elif args.child == ASSIGNMENT:
        prepared, centers = prepare(load_matrix(args)), Clusters.load(args.work_dir / "clusters.npz").centers

        def run():
            return assign(prepared, centers)[0]
    else:
        inputs = load_inputs(args, get_strategy(args.child))
        extra["version"] = get_strategy(args.child).version

        def run():
            return select(args.child, inputs, m, 0).indices

    before, peak, done = anonymous_gb(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_gb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    times: list[tuple[float, float]] = []
    while len(times) < REPEATS and sum(seconds for seconds, _ in times) < REPEAT_BELOW:
        began, cpu = time.perf_counter(), time.process_time()
        found = run()
        times.append((time.perf_counter() - began, time.process_time() - cpu))
    done.set()
    watcher.join()
    assert len(found) == (m if inputs else args.n)
    measured = OBJECTIVES.get(args.child)
    return {
        **extra,
        "seconds": round(min(seconds for seconds, _ in times), 4),
        "cpu_seconds": round(min(cpu for _, cpu in times), 4),
        "inputs": round(before, 3),
        "peak_anonymous": round(max(peak[0] - before, 0), 3),
        "peak_rss": peak_rss_gb(),
        **(compare_with_random(measured, inputs.embeddings, found) if measured else {}),
    }


def covering_radius(embeddings, sample, chosen) -> float:
    """Largest distance of a sampled row to its nearest chosen one (lower is better)."""
    from utils.selection.strategies.vectors import squared_distances

    return float(squared_distances(embeddings[sample], embeddings[chosen]).min(1).max() ** 0.5)


def mean_error(embeddings, sample, chosen) -> float:
    """Distance of the mean of the chosen to the mean of all (lower is better)."""
    import numpy as np

    return float(np.linalg.norm(embeddings[chosen].mean(0) - np.mean(embeddings, axis=0)))


def mean_similarity(embeddings, sample, chosen) -> float:
    """Mean similarity of the sampled rows to their nearest chosen one (higher is better)."""
    import numpy as np

    from utils.selection.strategies.coverage import similarity
    from utils.selection.strategies.vectors import mean_of, unit

    mean = mean_of(embeddings, np.arange(len(embeddings)))
    return float(similarity(unit(embeddings[sample] - mean), unit(embeddings[chosen] - mean)).max(1).mean())


OBJECTIVES = {"kcenter": covering_radius, "herding": mean_error, "facility_location": mean_similarity}


def compare_with_random(objective, embeddings, chosen) -> dict:
    """What the method optimises, on 2,000 sampled rows: of its choice, and the mean over three random ones."""
    import numpy as np

    n, rng = len(embeddings), np.random.default_rng(0)
    sample = np.sort(rng.choice(n, min(n, 2000), replace=False))
    by_chance = [objective(embeddings, sample, np.sort(rng.choice(n, len(chosen), replace=False))) for _ in range(3)]
    return {
        "objective": objective.__name__,
        "value": objective(embeddings, sample, np.sort(chosen)),
        "random": float(np.mean(by_chance)),
    }


def anonymous_gb() -> float:
    """Memory of this process that is no mapped file (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e6


def peak_rss_gb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 3)


if __name__ == "__main__":
    main()
