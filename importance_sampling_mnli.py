#!/usr/bin/env python3
"""Choose training examples by a strategy and fine-tune on the choice, in one command; or sample while training.

  python importance_sampling_mnli.py --strategy ambiguous --data_pct 0.3 --model_name_or_path albert-base-v1 \\
    --task_name MNLI --do_train --do_eval --data_dir $GLUE_DIR/MNLI --output_dir $OUT/ambiguous_30 --fp16
  python importance_sampling_mnli.py --online grad_norm --model_name_or_path albert-base-v1 --task_name MNLI \\
    --do_train --do_eval --data_dir $GLUE_DIR/MNLI --output_dir $OUT/grad_norm --fp16

The twin of subsampling_mnli.py: everything else is run_glue.py, same flags, same output. What the strategy needs and no
flag gives (embeddings, clusters, training dynamics) is made first, by a short proxy run or from --selector_model, and
kept in <output_dir>/selector/. --online schemes: grad_norm (Katharopoulos & Fleuret 2018), infobatch (Qin et al. 2024),
rho (Mindermann et al. 2022), rs2 (Okanovic et al. 2023).
"""

import os

from utils.command_line import ArgumentParser, parse_args
from utils.errors import InputError, run_script
from utils.flags import add_data_args, add_model_args, add_training_args
from utils.selection.choosing import add_strategy_args, choose
from utils.selection.ingredients import Selector, add_selector_args

ONLINE = ("grad_norm", "infobatch", "rho", "rs2")


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_strategy_args(parser)
    group = parser.add_argument_group("online importance sampling")
    group.add_argument(
        "--online", choices=ONLINE, help="choose anew while training, instead of --strategy; rs2 reads --data_pct"
    )
    group.add_argument(
        "--irreducible_loss",
        metavar="FILE",
        help="rho: an .npz with irreducible_loss (n,) (default: cross-fitted from two proxy runs)",
    )
    add_selector_args(parser)
    add_model_args(parser)
    add_data_args(parser, default_task="MNLI")
    add_training_args(parser)
    args = parse_args(parser, argv)
    if (args.strategy is None) == (args.online is None):
        parser.error("give exactly one of --strategy and --online")
    if not args.do_train:
        parser.error("give --do_train: this script trains on what it chooses")
    if args.online == "rs2" and args.data_pct is None:
        parser.error("--online rs2 needs --data_pct: the share of the data in each epoch's subset")
    if args.online and args.online != "rs2" and (args.data_pct or args.num_examples):
        parser.error(f"--online {args.online} draws from all of the data; --data_pct belongs to --strategy and rs2")
    if args.online == "infobatch" and (args.max_steps or args.num_train_epochs % 1):
        parser.error("--online infobatch plans its own steps: it takes a whole --num_train_epochs, and not --max_steps")
    if args.dry_run:
        parser.error("--dry_run: not for this script, whose proxy run is a run of its own; try run_glue.py --dry_run")

    from utils.command_line import setup_logging
    from utils.training import finetune

    setup_logging(main_process=_first_process())
    seed = args.seed if args.selection_seed is None else args.selection_seed
    run = train_online if args.online else train_on_choice
    run(args, Selector(args, seed), seed, finetune)


def train_on_choice(args, selector, seed, finetune) -> None:
    """Make what is missing, choose once, train; the subset card goes beside selection.npz."""
    from pathlib import Path

    from utils.files import write_json
    from utils.run_directory import CARD_FILE
    from utils.selection.card import format_card, subset_card
    from utils.selection.strategies import get_strategy

    given = vars(args).copy()  # what the user said, before paths are filled in: the run's identity

    def pick(examples):
        selector.fill_in(get_strategy(args.strategy).needs)
        selection = choose(args, examples, seed)
        card = subset_card(selection, examples)
        if _first_process():
            write_json(Path(args.output_dir) / CARD_FILE, {**card, "provenance": selection.provenance})
            print(format_card(card))
        return selection

    finetune.run(args, script="importance_sampling_mnli.py", choose=pick, arguments_given=given)


def train_online(args, selector, seed, finetune) -> None:
    """Train with batches that the scheme draws; its plan and savings go into results.json."""
    from utils.data.examples import load_split
    from utils.data.tasks import get_task
    from utils.files import read_npz
    from utils.selection.selection import budget
    from utils.training.online import make_batches

    examples = load_split(get_task(args.task_name), "train", data_dir=args.data_dir, cache_dir=args.cache_dir)
    options = {}
    if args.online == "rs2":
        options["subset_size"] = budget(len(examples), data_pct=args.data_pct)
    if args.online == "rho":
        path = args.irreducible_loss or selector.irreducible_loss(examples)
        loss = read_npz(path, required=("irreducible_loss",))["irreducible_loss"]
        if loss.shape != (len(examples),):
            raise InputError(f"{path}: irreducible losses of {loss.shape} rows, but the data has {len(examples)}")
        options["irreducible_loss"] = loss
    results = finetune.run(
        args, script="importance_sampling_mnli.py", make_batches=make_batches(args.online, **options)
    )
    if not _first_process():
        return
    t, epochs = results["train"], results["train"]["epochs"]
    full = epochs * len(examples)
    print(
        f"{args.online}: {t['examples']} examples through the backward pass where {epochs:g} full epochs take {full:.0f} "
        f"({100 * (1 - t['examples'] / full):.1f} % saved), {t['probed']} more forward passes for choosing"
    )


def _first_process() -> bool:
    """Before and after the run itself there is no process group to ask."""
    return not int(os.environ.get("RANK", 0))


if __name__ == "__main__":
    run_script(main)
