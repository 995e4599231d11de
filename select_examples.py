#!/usr/bin/env python3
"""Choose training examples by a named strategy and save them as a Selection.

  python select_examples.py --strategy diverse --data_dir $GLUE_DIR/MNLI --data_pct 0.1 \\
    --cluster_path $OUT/clusters/clusters.npz --output_dir $OUT/diverse_10
  python run_glue.py ... --selection $OUT/diverse_10/selection.npz

Reads the task's files, or your own (--train_file), and whatever the strategy needs: embeddings (get_embeddings.py), clusters
(cluster_embeddings.py), training dynamics (run_glue.py --record_dynamics), logits (get_embeddings.py --logits). Writes
selection.npz and selection.json, the subset card, into --output_dir; --export writes the chosen examples. --list names all
strategies. The result depends on the data, the inputs and --selection_seed alone.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, seed_number, setup_logging
from utils.errors import InputError, run_script
from utils.files import folder_lock, read_json, refuse_finished, write_json
from utils.flags import SourceSettings, name_data
from utils.run_directory import CARD_FILE, RUN_FILE
from utils.selection.choosing import add_choice_flags, choice_request, choose
from utils.settings import add_flags, settings_from

SELECTION = "selection.npz"


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_choice_flags(parser, argv)
    add_flags(parser, SourceSettings)
    group = parser.add_argument_group("split and output")
    group.add_argument("--list", action="store_true", help="print every strategy with its source, and stop")
    group.add_argument("--cache_dir", help="where hub files are cached")
    group.add_argument("--split", default="train", help="which split to choose from")
    group.add_argument("--selection_seed", type=seed_number, default=0, help="random choices and ties")
    group.add_argument("--output_dir", help="where selection.npz and selection.json go")
    group.add_argument("--export", metavar="FILE", help="write the chosen examples too: .jsonl, .csv, .tsv or .parquet")
    group.add_argument("--overwrite_output_dir", action="store_true", help="replace an earlier selection there")
    args = parse_args(parser, argv)
    if args.list:
        _print_list()
        return
    name_data(args, "MNLI")
    if args.strategy is None:
        raise InputError("give --strategy (--list names them all)")
    if args.output_dir is None:
        raise InputError("give --output_dir, where selection.npz and selection.json go")

    from utils.data.sources import open_data
    from utils.selection.card import format_card, subset_card

    setup_logging()
    folder = Path(args.output_dir)
    _check_export(args)
    with folder_lock(folder):
        _refuse_used(folder, args.overwrite_output_dir)
        examples = open_data(settings_from(SourceSettings, args), cache_dir=args.cache_dir).load(args.split)
        selection = choose(choice_request(args), examples, args.selection_seed)
        if not args.overwrite_output_dir:
            _refuse_foreign(folder, selection)
        card = subset_card(selection, examples)
        (folder / CARD_FILE).unlink(missing_ok=True)  # of an earlier selection: it must never describe this one
        selection.save(folder / SELECTION)
        if args.export:
            _export(args.export, selection, examples)
        write_json(folder / CARD_FILE, {**card, "provenance": selection.provenance})
    print(format_card(card))


def _check_export(args) -> None:
    """Raise InputError where --export names a format that is not written, or a file that would be replaced."""
    from utils.data.tables import check_written

    if args.export is None:
        return
    check_written(args.export, "--export")
    if Path(args.export).resolve() in _input_files(args):
        raise InputError(f"--export {args.export} is a file that this command reads; give another name")
    unfinished = (Path(args.output_dir) / SELECTION).exists()  # then the file may be ours, of a killed command
    if Path(args.export).exists() and not (args.overwrite_output_dir or unfinished):
        raise InputError(f"--export {args.export} exists; give another name, or --overwrite_output_dir to replace it")


def _input_files(args) -> set[Path]:
    """The files that the flags name as inputs, and those of the task in --data_dir."""
    from utils.data.sources import named_path
    from utils.data.tasks import get_task

    outputs = ("export", "output_dir")
    given = [value for name, value in vars(args).items() if name not in outputs]
    words = [word for value in given for word in (value if isinstance(value, list | tuple) else [value])]
    paths = [Path(named_path(word, "")[1]) for word in words if isinstance(word, str)]
    if args.data_dir and args.task_name:
        splits = get_task(args.task_name).splits.values()
        paths += [Path(args.data_dir, file) for split in splits for file in split.files]
    return {path.resolve() for path in paths}


def _export(path, selection, examples) -> None:
    """Write the chosen examples in the order of the selection, with their rows, weights and scores. `--train_file` reads the
    file."""
    from utils.data.export import columns_of_examples
    from utils.data.tables import write_table

    more = {"example_index": selection.indices.tolist(), "weight": selection.weights.tolist()}
    if selection.scores is not None:
        scores = selection.scores[selection.indices].tolist()
        more["score"] = [None if score != score else score for score in scores]  # NaN is not JSON
    write_table(path, columns_of_examples(examples, more["example_index"], **more))


def _refuse_used(folder, overwrite: bool) -> None:
    """Raise InputError where the folder belongs to a training run, holds a finished selection that `overwrite` does not
    release, or holds a file of that name that another program wrote."""
    if (folder / RUN_FILE).exists():
        raise InputError(
            f"--output_dir {folder} belongs to a training run, which has a selection of its own; give another"
        )
    refuse_finished(folder, CARD_FILE, overwrite)
    if (folder / CARD_FILE).exists() and "provenance" not in read_json(folder / CARD_FILE):
        raise InputError(f"--output_dir {folder}: {CARD_FILE} is not this script's; give another folder")


def _refuse_foreign(folder, selection) -> None:
    """Raise InputError where the folder holds another selection without a card: somebody else's. The same one is what a
    killed run of this command left."""
    from utils.selection.selection import Selection

    path = folder / SELECTION
    if path.exists() and not (folder / CARD_FILE).exists() and Selection.load(path).digest != selection.digest:
        refuse_finished(folder, SELECTION, overwrite=False)


def _print_list() -> None:
    from utils.selection.strategies import NEEDS, STRATEGIES

    width = max(map(len, STRATEGIES)) + 2
    for strategy in STRATEGIES.values():
        needs = "; ".join(NEEDS[need].short for need in strategy.needs)
        needs = f" Needs {needs}." if needs else ""
        print(f"{strategy.name:<{width}}{strategy.description} [{strategy.source}]{needs}")


if __name__ == "__main__":
    run_script(main)
