"""The flags that say how training examples are chosen, and the one recipe behind them: read the inputs, check them,
choose. `select_examples.py` saves the result, `importance_sampling_mnli.py` trains on it.

Standard library only until `choose` is called, so that `--help` answers at once.
"""

import argparse
import sys

from utils.command_line import data_fraction, positive_int
from utils.run_directory import code_version

# Each is read by the strategies named in its help; given to another strategy it is an error.
PARAMETERS = ("drop_hardest", "ccs_beta", "score", "size_power", "mix", "eps", "neighbors", "gamma")


def add_strategy_args(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("strategy")
    group.add_argument("--strategy", metavar="NAME", help="how to choose; select_examples.py --list names them all")
    group.add_argument("--data_pct", type=data_fraction, metavar="FRACTION", help="share to choose; 0.1 means 10 %%")
    group.add_argument("--num_examples", type=positive_int, metavar="M", help="number to choose, instead of --data_pct")
    group.add_argument("--class_balanced", action="store_true", help="give every gold label its share of the budget")
    group.add_argument("--start_from", metavar="SELECTION", help="a selection.npz whose rows come first and count")
    group.add_argument("--embedding_path", metavar="FILE", help="cls_embeddings_*.npy, or the folder that holds it")
    group.add_argument("--cluster_path", metavar="FILE", help="clusters.npz")
    group.add_argument("--dynamics_path", metavar="FILE", help="dynamics.npz")
    group.add_argument("--logits_path", metavar="FILE", help="logits_*.npy")

    group = parser.add_argument_group("parameters of single strategies (their defaults in brackets)")
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


def choose(args: argparse.Namespace, examples, seed: int):
    """The Selection that the flags of `add_strategy_args` ask for, from these Examples.

    Raises InputError for anything missing, of other data, or out of range.
    """
    from utils.selection.selection import Selection, budget
    from utils.selection.strategies import get_strategy, load_inputs, select

    get_strategy(args.strategy)
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
        argv=sys.argv[1:],
        code=code_version(),
    )
    parameters = {name: getattr(args, name) for name in PARAMETERS}
    return select(
        args.strategy, inputs, m, seed, class_balanced=args.class_balanced, start_from=start_from, **parameters
    )
