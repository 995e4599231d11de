#!/usr/bin/env python3
"""Look at the data: one page with maps of the examples, their texts, and the Selections made of them.

  python explore.py --data_dir $GLUE_DIR/MNLI --embedding_path $OUT/embeddings --cluster_path $OUT/clusters/clusters.npz \\
    --dynamics_path $OUT/all/dynamics.npz --selection $OUT/diverse_10/selection.npz $OUT/random_10/selection.npz \\
    --output_dir $OUT/explorer

Writes explorer.html into --output_dir. It holds everything, so it opens from disk and needs no network. Each file that is
left out takes its columns away; without embeddings and dynamics a map of length and word overlap is drawn. Above
--max_points the page holds a seeded sample with every chosen example in it, and says so.
"""

from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, positive_int, seed_number, setup_logging
from utils.errors import run_script
from utils.files import folder_lock
from utils.flags import SourceSettings, name_data
from utils.run_directory import EXPLORER_FILE
from utils.selection.choosing import KnownFiles
from utils.settings import add_flags, settings_from


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_flags(parser, KnownFiles)
    add_flags(parser, SourceSettings)
    group = parser.add_argument_group("split and output")
    group.add_argument("--cache_dir", help="where hub files are cached")
    group.add_argument("--split", default="train", help="which split to look at")
    group.add_argument("--selection", nargs="+", metavar="FILE", help="selection.npz files to compare")
    group.add_argument(
        "--predictions", metavar="FILE", help="predictions_<split>.tsv of a run (default: from logits or dynamics)"
    )
    group.add_argument("--max_points", type=positive_int, default=50_000, help="more examples than these are sampled")
    group.add_argument("--seed", type=seed_number, default=0, help="seed of the sample that --max_points asks for")
    group.add_argument("--output_dir", required=True, help="where explorer.html goes; an earlier one is replaced")
    args = parse_args(parser, argv)
    name_data(args, "MNLI")

    from utils.data.sources import open_data
    from utils.explore.build import load_selections, write_explorer
    from utils.selection.strategies import load_inputs

    setup_logging()
    folder = Path(args.output_dir)
    with folder_lock(folder):
        examples = open_data(settings_from(SourceSettings, args), cache_dir=args.cache_dir).load(args.split)
        note = write_explorer(
            examples,
            load_inputs(examples, **settings_from(KnownFiles, args).paths()),
            folder,
            selections=load_selections(args.selection or (), examples),
            predictions=args.predictions,
            max_points=args.max_points,
            seed=args.seed,
        )
    page = folder / EXPLORER_FILE
    print(f"{note} Size of the page: {page.stat().st_size / 2**20:.1f} MB")
    print(f"the page to open: {page}")


if __name__ == "__main__":
    run_script(main)
