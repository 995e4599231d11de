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

from utils.command_line import ArgumentParser, parse_args, seed_number
from utils.errors import InputError, run_script
from utils.selection.choosing import add_choice_flags, choice_request, choose


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_choice_flags(parser, argv)
    group = parser.add_argument_group("data and output")
    group.add_argument("--list", action="store_true", help="print every strategy with its source, and stop")
    group.add_argument("--task_name", default="MNLI", help="a GLUE task in any letter case")
    group.add_argument("--data_dir", help="folder with the task's TSV files (default: nyu-mll/glue from the hub)")
    group.add_argument("--cache_dir", help="where hub files are cached")
    group.add_argument("--split", default="train", help="which split to choose from")
    group.add_argument("--selection_seed", type=seed_number, default=0, help="random choices and ties")
    group.add_argument("--output_dir", help="where selection.npz and selection.json go")
    args = parse_args(parser, argv)
    if args.list:
        _print_list()
        return
    if args.strategy is None:
        raise InputError("give --strategy (--list names them all)")
    if args.output_dir is None:
        raise InputError("give --output_dir, where selection.npz and selection.json go")

    from pathlib import Path

    from utils.command_line import setup_logging
    from utils.data.examples import load_split
    from utils.data.tasks import get_task
    from utils.files import write_json
    from utils.run_directory import CARD_FILE
    from utils.selection.card import format_card, subset_card

    setup_logging()
    examples = load_split(get_task(args.task_name), args.split, data_dir=args.data_dir, cache_dir=args.cache_dir)
    selection = choose(choice_request(args), examples, args.selection_seed)
    card = subset_card(selection, examples)
    selection.save(Path(args.output_dir) / "selection.npz")
    write_json(Path(args.output_dir) / CARD_FILE, {**card, "provenance": selection.provenance})
    print(format_card(card))


def _print_list() -> None:
    from utils.selection.strategies import NEEDS, STRATEGIES

    for strategy in STRATEGIES.values():
        needs = "; ".join(NEEDS[need].short for need in strategy.needs)
        needs = f" Needs {needs}." if needs else ""
        print(f"{strategy.name:<20}{strategy.description} [{strategy.source}]{needs}")


if __name__ == "__main__":
    run_script(main)
