#!/usr/bin/env python3
"""Clustering analysis: k-means on embeddings, how good it is and what is in the clusters.

  python cluster_embeddings.py --embedding_path $OUT/experiments --data_dir $GLUE_DIR/MNLI \\
    --num_clusters 8 32 128 --output_dir $OUT/clusters

Reads what get_embeddings.py wrote and, with --data_dir (or --train_file, --dataset_name), the labels, genres and texts of
the same rows; without these flags the report says only what embeddings alone tell. Writes clusters.npz (the k with the best
silhouette, or --keep), clusters_k<K>.npz for the other k, cluster_report.md, figures (*.png) and, last of all,
clusters.json with every number of the report. The same flags give the same clusters.
Several machines: the same command with --shard 1/K to K/K, then once without (docs/growth.md).
"""

import logging
import re
import shutil
from pathlib import Path

from utils.command_line import MOST_SEED, ArgumentParser, parse_args, positive_int, seed_number, setup_logging, shard
from utils.errors import InputError, run_script
from utils.files import folder_lock, refuse_finished, write_json, write_text
from utils.flags import SourceSettings, name_data
from utils.run_directory import versions
from utils.settings import add_flags, settings_from

FINISHED = "clusters.json"  # written last: where it exists, the analysis is complete


def add_args(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("embeddings")
    group.add_argument("--embedding_path", required=True, help="embeddings .npy, or a folder that holds exactly one")
    group.add_argument("--split", help="the split the embeddings are of (default: as their json says)")

    add_flags(parser, SourceSettings)
    parser.add_argument("--cache_dir", help="where hub files are cached")

    group = parser.add_argument_group("clustering")
    group.add_argument(
        "--num_clusters", type=positive_int, nargs="+", default=[8, 32, 128], metavar="K", help="every k is analysed"
    )
    group.add_argument(
        "--keep", type=positive_int, metavar="K", help="the k of clusters.npz (default: best silhouette)"
    )
    group.add_argument(
        "--algorithm",
        choices=("auto", "minibatch", "full"),
        default="auto",
        help="auto: full (Lloyd) up to 50,000 rows, mini-batch above",
    )
    group.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean", help="after centring")
    group.add_argument("--pca", type=positive_int, metavar="DIM", help="project on this many principal axes first")
    group.add_argument("--whiten", action="store_true", help="give every principal axis the same variance")
    group.add_argument("--random_state", type=seed_number, default=0, help="seed of k-means and of all samples")
    group.add_argument(
        "--num_seeds",
        type=positive_int,
        default=3,
        help="k-means runs per k: the best is kept, their agreement reported",
    )

    group.add_argument("--shard", type=shard, metavar="I/K", help="only assign the rows of the I-th of K parts")

    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", required=True, help="folder for clusters, report and figures")
    group.add_argument("--overwrite_output_dir", action="store_true", help="replace an earlier analysis")


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_args(parser)
    args = parse_args(parser, argv)
    name_data(args, "MNLI")
    ks = sorted(set(args.num_clusters))
    if args.keep is not None and args.keep not in ks:
        raise InputError(f"--keep {args.keep} is not among --num_clusters {' '.join(map(str, ks))}")
    if args.random_state + args.num_seeds - 1 > MOST_SEED:
        raise InputError(
            f"--random_state {args.random_state}: with --num_seeds {args.num_seeds} the last seed is above {MOST_SEED}"
        )

    from utils.selection.shards import shard_folder

    setup_logging()
    with folder_lock(shard_folder(args.output_dir, args.shard)):
        refuse_finished(args.output_dir, FINISHED, args.overwrite_output_dir)
        _cluster(args, Path(args.output_dir), ks)


def _cluster(args, folder: Path, ks: list[int]) -> None:
    """Analyse every k, write the files, print the summary; as a shard, only assign its rows."""
    from utils.figure_style import FORMATS
    from utils.selection import cluster_report
    from utils.selection.cluster_quality import analyse, make_up, pair_facts
    from utils.selection.cluster_shards import FIT
    from utils.selection.embeddings import load_embeddings
    from utils.selection.shards import shard_folders

    trusted = _trusted_for(args)
    embeddings = load_embeddings(args.embedding_path, trusted_for=trusted, values=args.shard is None)
    examples = _examples(args, embeddings) if trusted is None else trusted
    if ks[0] < 2 or ks[-1] > len(embeddings):
        wrong = ks[0] if ks[0] < 2 else ks[-1]
        raise InputError(f"--num_clusters {wrong}: {len(embeddings)} rows can be split into 2 to {len(embeddings)}")
    prepared, found = _prepared(args, folder, embeddings, ks)
    if args.shard:
        print("written: shard {}/{}".format(*args.shard))
        return
    facts = None if examples is None else pair_facts(examples)
    if prepared.collapsed:
        logging.getLogger(__name__).warning(
            "%s: the encoder has collapsed to a constant; see the report", embeddings.path
        )
    source = {**embeddings.about, "digest": embeddings.digest}
    partitions, quality = analyse(
        prepared, ks, facts, algorithm=args.algorithm, seed=args.random_state, num_seeds=args.num_seeds,
        fingerprint=embeddings.fingerprint, about={"embeddings": source}, found=found,
    )  # fmt: skip
    best = max(quality, key=lambda row: -2 if row["silhouette"] is None else row["silhouette"])
    kept = next(row for row in quality if row["k"] == args.keep) if args.keep else best

    _clear(folder, [f"{Path(name).stem}{suffix}" for name in cluster_report.FIGURES for suffix in FORMATS])
    for clusters in partitions:
        clusters.save(folder / ("clusters.npz" if clusters.k == kept["k"] else f"clusters_k{clusters.k}.npz"))
    chosen = next(clusters for clusters in partitions if clusters.k == kept["k"])
    rows = make_up(chosen, facts)
    figures = cluster_report.draw(folder, chosen, quality, prepared, facts, seed=args.random_state)
    lines = cluster_report.summary(kept, quality, rows, prepared)
    head = {
        "model": embeddings.about["model"],
        "data": f"{embeddings.about['task']} {embeddings.about['split']}, {len(embeddings)} examples",
        "embeddings": f"width {embeddings.about['d']}, pooling {embeddings.about['pooling']}, layer "
        f"{embeddings.about['layer']}, spread {prepared.spread:.3g} of the norm of the mean",
        "preparation": ", ".join(f"{name} {value}" for name, value in prepared.description.items()),
        "k-means": f"{chosen.about['algorithm']}, best of {args.num_seeds} seeds from {args.random_state} on",
    }
    write_text(folder / "cluster_report.md", cluster_report.markdown(head, lines, quality, rows, examples, figures))
    write_json(
        folder / FINISHED,
        {
            **chosen.about,
            "n_total": len(embeddings),
            "fingerprint": embeddings.fingerprint,
            "spread": prepared.spread,
            "collapsed": prepared.collapsed,
            "kept": kept,
            "quality": quality,
            "clusters": rows,
            "summary": lines,
            "arguments": vars(args),
            "versions": versions(),
        },
    )
    for part in shard_folders(folder).values():
        shutil.rmtree(part, ignore_errors=True)  # a shard without rows left no folder
    (folder / FIT).unlink(missing_ok=True)
    for line in lines:
        print(line)
    names = ["clusters.npz", "cluster_report.md", FINISHED, *(path.name for path in figures)]
    print(f"written to {folder}: {', '.join(names)}")


def _prepared(args, folder: Path, embeddings, ks):
    """The prepared embeddings; and what shards have computed, as a function of k and seed, or None. A shard's part is
    written here."""
    from utils.selection import cluster_shards, kmeans

    def prepare():
        return kmeans.prepare(embeddings.array, pca=args.pca, whiten=args.whiten, metric=args.metric)

    if not args.shard and not cluster_shards.shard_folders(folder):
        return prepare(), None
    seeds = range(args.random_state, args.random_state + args.num_seeds)
    runs = [(k, seed) for k in ks for seed in seeds]
    algorithm = kmeans.resolve(args.algorithm, len(embeddings))
    preparation = {"pca": args.pca, "whiten": args.whiten, "metric": args.metric}
    identity = {"embeddings": embeddings.digest, "runs": runs, "algorithm": algorithm, **preparation}
    prepared, centers = cluster_shards.shared_fit(
        folder, args.shard, embeddings.array, runs, algorithm, identity, prepare
    )
    if args.shard:
        cluster_shards.assign_shard(folder, args.shard, prepared, centers)
    return prepared, lambda k, seed: (centers[k, seed], *cluster_shards.joined(folder, prepared, (k, seed)))


def _trusted_for(args):
    """The rows that an .npy without a json is trusted to hold: those of --data_dir and --split."""
    from utils.data.sources import open_data

    path = Path(args.embedding_path)
    if not _has_data(args) or not path.is_file() or path.with_suffix(".json").exists():
        return None
    return open_data(settings_from(SourceSettings, args), cache_dir=args.cache_dir).load(args.split or "train")


def _has_data(args) -> bool:
    """Whether the flags say where the rows are. A task alone does not: nothing is fetched from the hub for a report."""
    return bool(args.data_dir or not args.task_name)


def _examples(args, embeddings):
    """The rows that the embeddings are of, or None where no flag says where they are."""
    from utils.data.sources import data_name, open_data

    settings, about = settings_from(SourceSettings, args), embeddings.about
    if data_name(settings) != about["task"]:
        given = f"--task_name {args.task_name}" if args.task_name else f"the data set {data_name(settings)}"
        raise InputError(f"{given}: {embeddings.path} holds embeddings of {about['task']}")
    if args.split not in (None, about["split"]):
        raise InputError(f"--split {args.split}: {embeddings.path} holds embeddings of {about['split']}")
    if not _has_data(args):
        return None
    examples = open_data(settings, cache_dir=args.cache_dir).load(about["split"])
    embeddings.check(examples)
    return examples


def _clear(folder: Path, names) -> None:
    """Remove an earlier analysis: what the new flags do not make must not stay beside what they make."""
    # FINISHED goes first: a crash in between must not leave a folder that looks finished.
    ours = [path for path in folder.glob("clusters*.npz") if re.fullmatch(r"clusters(_k\d+)?\.npz", path.name)]
    for path in [folder / FINISHED, *ours, *(folder / name for name in names)]:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    run_script(main)
