#!/usr/bin/env python3
"""Choose training examples by a named strategy and save them as a Selection.

  python select_examples.py --strategy diverse --data_dir $GLUE_DIR/MNLI --data_pct 0.1 \\
    --cluster_path $OUT/clusters/clusters.npz --output_dir $OUT/diverse_10
  python run_glue.py ... --selection $OUT/diverse_10/selection.npz

Reads the task's TSV files and whatever the strategy needs: embeddings (get_embeddings.py), clusters
(cluster_embeddings.py), training dynamics (run_glue.py --record_dynamics), logits (get_embeddings.py --logits). Writes
selection.npz and selection.json, the subset card, into --output_dir. --list names all strategies. The result depends
on the data, the inputs and --selection_seed alone.
"""

import sys

from utils.runs import ArgumentParser, InputError, data_fraction, non_negative_int, parse_args, positive_int, run_script

# Each is read by the strategies named in its help; given to another one it is an error.
PARAMETERS = ("drop_hardest", "ccs_beta", "score", "size_power", "mix", "eps", "neighbors", "gamma")


def add_strategy_args(parser) -> None:
    group = parser.add_argument_group("strategy")
    group.add_argument("--strategy", metavar="NAME", help="how to choose; --list names them all")
    group.add_argument("--list", action="store_true", help="print every strategy with its source, and stop")
    group.add_argument("--data_pct", type=data_fraction, metavar="FRACTION", help="share to choose; 0.1 means 10 %%")
    group.add_argument("--num_examples", type=positive_int, metavar="M", help="number to choose, instead of --data_pct")
    group.add_argument("--class_balanced", action="store_true", help="give every gold label its share of the budget")
    group.add_argument("--start_from", metavar="SELECTION", help="a selection.npz whose rows come first and count")
    group.add_argument("--selection_seed", type=non_negative_int, default=0, help="random choices and ties")
    group.add_argument("--embedding_path", metavar="FILE", help="cls_embeddings_*.npy, or the folder that holds it")
    group.add_argument("--cluster_path", metavar="FILE", help="clusters.npz")
    group.add_argument("--dynamics_path", metavar="FILE", help="dynamics.npz")
    group.add_argument("--logits_path", metavar="FILE", help="logits_*.npy")

    group = parser.add_argument_group("parameters of single strategies")
    group.add_argument("--drop_hardest", type=float, help="el2n, grand, aum, hard: put this share at the top last (0)")
    group.add_argument("--ccs_beta", type=float, help="ccs, cluster_ccs: share of the hardest that is dropped (0.1)")
    group.add_argument(
        "--score",
        help="ccs, cluster_ccs, d2, importance, poisson: el2n, loss, aum, confidence, variability or forgetting (el2n); "
        "importance, poisson: also embedding",
    )
    group.add_argument("--size_power", type=float, help="cluster_ccs: a in size^a x mean score^(1-a) (0.5)")
    group.add_argument("--mix", type=float, help="importance, poisson: uniform share of the probabilities (0.1)")
    group.add_argument("--eps", type=float, help="semdedup: duplicates have a cosine above 1 - eps (0.05)")
    group.add_argument("--neighbors", type=positive_int, help="d2: neighbours of each example (10)")
    group.add_argument("--gamma", type=float, help="d2: a neighbour's message is exp(-gamma x squared distance) (1)")


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_strategy_args(parser)
    group = parser.add_argument_group("data")
    group.add_argument("--task_name", default="MNLI", help="a GLUE task in any letter case")
    group.add_argument("--data_dir", help="folder with the task's TSV files (default: nyu-mll/glue from the hub)")
    group.add_argument("--cache_dir", help="where hub files are cached")
    group.add_argument("--split", default="train", help="which split to choose from")
    group.add_argument("--output_dir", help="where selection.npz and selection.json go")
    args = parse_args(parser, argv)
    if args.list:
        _print_list()
        return
    for flag in ("strategy", "output_dir"):
        if getattr(args, flag) is None:
            raise InputError(f"give --{flag}" + (" (--list names the strategies)" if flag == "strategy" else ""))

    from pathlib import Path

    from utils.glue import load_split
    from utils.runs import setup_logging, write_json
    from utils.selection import Selection, budget
    from utils.strategies import get_strategy, load_inputs, select
    from utils.strategies.card import format_card, subset_card
    from utils.tasks import get_task

    setup_logging()
    get_strategy(args.strategy)
    examples = load_split(get_task(args.task_name), args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    m = None
    if args.data_pct is not None or args.num_examples is not None:
        m = budget(len(examples), data_pct=args.data_pct, num_examples=args.num_examples)
    start_from = Selection.load(args.start_from) if args.start_from else None
    if start_from is not None:
        start_from.check(examples, path=args.start_from)
    inputs = load_inputs(
        examples,
        embedding_path=args.embedding_path,
        cluster_path=args.cluster_path,
        dynamics_path=args.dynamics_path,
        logits_path=args.logits_path,
        argv=sys.argv[1:] if argv is None else list(argv),
    )
    selection = select(
        args.strategy,
        inputs,
        m,
        args.selection_seed,
        class_balanced=args.class_balanced,
        start_from=start_from,
        **{name: getattr(args, name) for name in PARAMETERS},
    )
    card = subset_card(selection, examples)
    selection.save(Path(args.output_dir) / "selection.npz")
    write_json(Path(args.output_dir) / "selection.json", {**card, "provenance": selection.provenance})
    print(format_card(card))


def _print_list() -> None:
    from utils.strategies.registry import NEEDS, STRATEGIES

    for strategy in STRATEGIES.values():
        needs = "; ".join(NEEDS[need][1].partition(":")[0] for need in strategy.needs)
        needs = f" Needs {needs}." if needs else ""
        print(f"{strategy.name:<18}{strategy.description} [{strategy.source}]{needs}")


if __name__ == "__main__":
    run_script(main)
