#!/usr/bin/env python3
"""What the blocked and relaxed variants of the covering strategies lose against their exact forms, where those fit.

  python -m benchmarks.coverage_loss            # 4,000 x 64 rows around 64 centres, a 10 % budget, 5 seeds

Objectives: k-center's covering radius and herding's distance from the mean of the chosen to the mean of all (smaller is
better), facility location's summed similarity to the nearest chosen one (larger is better); random choices beside them.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, positive_int
from utils.errors import run_script
from utils.files import write_json

BLOCK_ROWS = 500  # eight blocks


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="benchmarks.coverage_loss")
    parser.add_argument("--n", type=positive_int, default=4000, help="examples")
    parser.add_argument("--d", type=positive_int, default=64, help="embedding width")
    parser.add_argument("--num_seeds", type=positive_int, default=5, help="data and choices anew")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "coverage_loss.json")
    args = parse_args(parser, argv)

    import numpy as np

    rows = [objectives(args.n, args.d, seed) for seed in range(args.num_seeds)]
    found = {name: {way: float(np.mean([row[name][way] for row in rows])) for way in rows[0][name]} for name in rows[0]}
    for name, ways in found.items():
        print(f"{name:<42}" + "  ".join(f"{way} {value:.4g}" for way, value in ways.items()))
    write_json(
        args.output, {"n": args.n, "d": args.d, "seeds": args.num_seeds, "block_rows": BLOCK_ROWS, "objectives": found}
    )
    print(f"written to {args.output}")


def objectives(n: int, d: int, seed: int) -> dict[str, dict[str, float]]:
    import numpy as np

    from utils.selection.strategies import Inputs, Pool
    from utils.selection.strategies import coverage as c

    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((64, d), dtype=np.float32)
    points = centers[rng.integers(64, size=n)] + rng.standard_normal((n, d), dtype=np.float32)
    inputs = Inputs(n, "benchmark", embeddings=points)
    m, everything = n // 10, np.arange(n)

    def pool():
        return Pool(everything, m, seed, np.random.default_rng(seed), np.array([], dtype=np.int64))

    random = np.random.default_rng(seed + 1).permutation(n)[:m]
    mean = points.mean(0)
    unit = c.unit(points - mean)
    radius = lambda chosen: float(np.sqrt(c.squared_distances(points, points[chosen]).min(1).max()))  # noqa: E731
    gap = lambda chosen: float(np.linalg.norm(points[chosen].mean(0) - mean))  # noqa: E731
    covered = lambda chosen: float(c.similarity(unit, unit[chosen]).max(1).sum())  # noqa: E731
    return {
        "k-center, covering radius": {
            "exact": radius(c.farthest_first(points, pool(), slack=0.0)),
            "within 10 %": radius(c.farthest_first(points, pool(), slack=c.SLACK)),
            "random": radius(random),
        },
        "herding, distance to the mean": {
            "exact": gap(c.herding(inputs, pool(), block_rows=n).rows[:m]),
            "in blocks": gap(c.herding(inputs, pool(), block_rows=BLOCK_ROWS).rows[:m]),
            "random": gap(random),
        },
        "facility location, sum of similarities": {
            "exact": covered(c.facility_location(inputs, pool(), block_rows=n).rows[:m]),
            "in blocks": covered(c.facility_location(inputs, pool(), block_rows=BLOCK_ROWS).rows[:m]),
            "random": covered(random),
        },
    }


if __name__ == "__main__":
    run_script(main)
