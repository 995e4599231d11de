"""How many of the demo corpus's planted counter-examples each strategy brings into a tenth of the data.

  python -m demo.planted --demo_dir out/demo

Reads what `make demo` left (corpus, dynamics, embeddings, clusters), adds pooler embeddings and logits, and chooses with
every strategy that these files serve, three selection seeds each. Writes planted.json and planted.md.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, data_fraction, parse_args, positive_int
from utils.errors import InputError, run_script
from utils.files import write_json, write_text

SEEDS = (0, 1, 2)


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__, prog="demo.planted")
    parser.add_argument("--demo_dir", type=Path, default=Path("out/demo"), help="where `make demo` wrote")
    parser.add_argument("--data_pct", type=data_fraction, default=0.1, help="the budget")
    parser.add_argument("--num_seeds", type=positive_int, default=len(SEEDS), help="selection seeds")
    args = parse_args(parser, argv)
    root = args.demo_dir.resolve()
    if not (root / "all" / "dynamics.npz").exists():
        raise InputError(f"--demo_dir {args.demo_dir}: no finished demo there; run `make demo` first")

    import numpy as np
    from tqdm import tqdm

    from demo.generate import COUNTER_GENRE
    from demo.run import MAX_LENGTH, stage
    from utils.data.examples import load_split
    from utils.data.tasks import get_task
    from utils.selection.selection import budget
    from utils.selection.strategies import NEEDS, STRATEGIES, load_inputs, select

    features = root / "pooler"
    stage(
        "what the classifier layer reads, and its logits",
        "get_embeddings.py", "--model_name_or_path", root / "all", "--task_name", "MNLI", "--data_dir", root / "corpus",
        "--max_seq_length", MAX_LENGTH, "--pooling", "pooler", "--logits", "--output_dir", features,
        done=features / "logits_mnli_train.json",
    )  # fmt: skip
    examples = load_split(get_task("mnli"), "train", data_dir=root / "corpus")
    planted = np.array([genre == COUNTER_GENRE for genre in examples.genres])
    m = budget(len(examples), data_pct=args.data_pct)
    paths = {
        "cluster_path": root / "clusters" / "clusters.npz",
        "dynamics_path": root / "all" / "dynamics.npz",
        "logits_path": features / "logits_mnli_train.npy",
    }
    inputs = {
        pooling: load_inputs(examples, embedding_path=folder, **paths)
        for pooling, folder in (("cls", root / "embeddings"), ("pooler", features / "pooler_embeddings_mnli_train.npy"))
    }
    shares = {}
    for name, strategy in tqdm(STRATEGIES.items(), desc="strategies"):
        given = inputs["pooler" if "pooler" in strategy.needs else "cls"]
        if not all(NEEDS[need].present(given) for need in strategy.needs):
            continue  # a list of one's own, or a run on each half of the data
        chosen = [np.unique(select(name, given, m, seed).indices) for seed in range(args.num_seeds)]
        shares[name] = [float(planted[rows].sum() / planted.sum()) for rows in chosen]
    shares = dict(sorted(shares.items(), key=lambda item: -np.mean(item[1])))
    header = f"| strategy | planted counter-examples in {100 * args.data_pct:g} % of the data, % of {planted.sum()} |"
    lines = [
        f"| `{name}` | {100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1) if len(values) > 1 else 0:.1f} |"
        for name, values in shares.items()
    ]
    table = "\n".join([header, "|---|---|", *lines])
    write_json(root / "planted.json", {"n": len(examples), "m": m, "planted": int(planted.sum()), "shares": shares})
    write_text(root / "planted.md", table + "\n")
    print(f"\n{table}\n\nwritten to {root / 'planted.json'} and planted.md")


if __name__ == "__main__":
    run_script(main)
