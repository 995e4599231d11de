#!/usr/bin/env python3
"""Extract one embedding per example from a checkpoint: [CLS] of encoders, the last token of other models.

  python get_embeddings.py --model_name_or_path $OUT/saved_models --task_name MNLI --data_dir $GLUE_DIR/MNLI \\
    --max_seq_len 128 --output_dir $OUT/embeddings

Writes cls_embeddings_<task>_<split>.npy (row i = TSV row i, open it with np.load(..., mmap_mode="r")) and a
.json beside it that names the checkpoint and the data; --logits writes logits_<task>_<split>.npy and
gold_<task>_<split>.npy as well. Memory does not grow with the data, an interrupted run continues where it was. Several GPUs:
torchrun --nproc_per_node=N get_embeddings.py ...
Several machines: the same command with --shard 1/K to K/K, then once without (docs/growth.md).
"""

import logging
from pathlib import Path

from utils.command_line import ArgumentParser, parse_args, positive_int, setup_logging, shard
from utils.data.pooling import POOLINGS, choose_pooling
from utils.errors import InputError, run_script
from utils.files import atomic_path, folder_lock, save_array
from utils.flags import InferenceSettings, SourceSettings, name_data
from utils.settings import add_flags, add_no_ops, settings_from

logger = logging.getLogger(__name__)


def add_args(parser) -> None:
    group = parser.add_argument_group("embeddings")
    group.add_argument(
        "--split", nargs="+", default=["train"], help="train, a dev or test split, several of them, or all"
    )
    group.add_argument(
        "--pooling",
        choices=POOLINGS,
        default="auto",
        help="cls: the first token; pooler: what the classifier layer takes in (the strategy grand needs it); mean: over the tokens; last: the last token; auto: cls for encoders, last for decoders and encoder-decoders",
    )
    group.add_argument("--layer", type=int, help="hidden layer to read, 0 = embeddings, -1 = last (default: the last)")
    group.add_argument(
        "--logits", action="store_true", help="write the classifier's logits and the gold labels beside the embeddings"
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="embeddings on disk; float16 keeps three digits",
    )
    group.add_argument("--shard", type=shard, metavar="I/K", help="do the I-th of K parts")
    group.add_argument("--output_dir", required=True, help="where the .npy and .json files go")
    group.add_argument(
        "--overwrite_output_dir", action="store_true", help="replace embeddings of another checkpoint or data there"
    )
    group.add_argument(
        "--per_device_train_batch_size",
        "--per_gpu_train_batch_size",
        type=positive_int,
        default=8,
        help="accepted for compatibility; nothing is trained here",
    )


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    add_args(parser)
    add_flags(parser, SourceSettings)
    add_flags(parser, InferenceSettings)
    add_no_ops(parser)
    args = parse_args(parser, argv)
    name_data(args)
    if args.layer is not None and args.pooling == "pooler":
        parser.error("--layer does not go with --pooling pooler, which reads the classifier's input")
    if args.label_order == "auto":
        parser.error("--label_order auto is for run_glue.py and test_hans.py; state the order here, by output number")
    if not (args.model_name_or_path or args.config_name):
        raise InputError("give --model_name_or_path: the checkpoint whose embeddings are wanted")

    from utils.data.class_names import unresolved_message
    from utils.data.sources import open_data
    from utils.models import distributed
    from utils.models.session import open_session
    from utils.selection.embedding_writer import remove_joined
    from utils.selection.shards import shard_folder, shard_folders

    settings = settings_from(InferenceSettings, args)
    processes = distributed.start(use_cpu=args.use_cpu)
    setup_logging(main_process=processes.main)
    data = open_data(settings_from(SourceSettings, args), cache_dir=args.cache_dir)
    examples = [data.load(split) for split in (data.splits if args.split == ["all"] else args.split)]
    session = open_session(data.task.labels, settings, processes, need_head=args.logits or args.pooling == "pooler")
    check_layer(args.layer, session.classifier)
    settle_pooling(args, session.classifier.model)
    if args.logits and not session.classifier.named:
        raise InputError(f"--logits: {unresolved_message(session.classifier.labels)}")
    model = {"model": args.model_name_or_path or args.config_name, **session.classifier.identity()}
    written = []
    with folder_lock(shard_folder(args.output_dir, args.shard), enabled=processes.main):
        parts = {} if args.shard else shard_folders(args.output_dir)
        for split in examples:
            written += extract(args, split, session, model, parts)
        for part in parts.values() if processes.main else ():
            remove_joined(part, [path.name for _, path, _ in written])
    distributed.stop()
    if processes.main:
        lines = [f"{state}: {path} {shape}" for state, path, shape in written]
        print("\n".join(lines or ["no rows fall to this shard: there are more shards than blocks"]))


def extract(args, examples, session, model: dict, parts: dict) -> list[tuple]:
    """Write the embeddings (and logits) of one split or of the shard's rows; returns (what happened, path, shape) per file.
    model: the identity of the model; parts: the folders of finished shards, whose rows are taken from there."""
    import numpy as np

    from utils.models.inference import BLOCK_ROWS
    from utils.selection.embedding_writer import EmbeddingWriter, already_there
    from utils.selection.embeddings import embedding_paths
    from utils.selection.shards import shard_folder, shard_rows

    processes = session.processes
    span = shard_rows(len(examples), BLOCK_ROWS, args.shard)
    if span.start == span.stop:  # more shards than blocks
        return []
    data = session.encode(examples)
    states, writers = [], {}
    for kind, width, about in wanted_files(args, examples, session):
        about = model | about
        path, _ = embedding_paths(shard_folder(args.output_dir, args.shard), examples.task.name, examples.split, kind)
        shape = (span.stop - span.start, width)
        # Looked at before anyone writes, so that every process decides alike.
        finished = already_there(path, about, shape, overwrite=args.overwrite_output_dir)
        processes.barrier()
        states.append(("already there" if finished else "written", path, shape))
        if processes.main and not finished:
            if kind == "logits" and not args.shard:  # gold labels of earlier data must never lie beside these
                gold_path(args.output_dir, examples).unlink(missing_ok=True)
            writers[kind] = EmbeddingWriter(path, about, *shape, BLOCK_ROWS)
            for shard, folder in parts.items():
                writers[kind].take(shard, folder)
    # Blocks that any file still lacks; the main process alone knows and writes.
    mine = sorted({block for writer in writers.values() for block in writer.remaining_blocks()})
    blocks = processes.gather(mine)[0]
    starts = [span.start + block * BLOCK_ROWS for block in blocks]
    rows = [np.arange(start, min(start + BLOCK_ROWS, span.stop)) for start in starts]
    passes = session.infer(
        data,
        np.concatenate(rows) if rows else np.empty(0, dtype=np.int64),
        pooling=args.pooling,
        layer=args.layer,
        description=f"{args.pooling} embeddings of {examples.split}",
    )
    for block, outputs in zip(blocks, passes, strict=True):
        for kind, writer in writers.items():
            writer.write(outputs.rows - span.start, outputs.logits if kind == "logits" else outputs.features)
            writer.mark_done(block)
    for writer in writers.values():
        writer.finish()
    if args.logits and processes.main and not args.shard and examples.labels is not None:
        write_gold(args.output_dir, examples)
    return states


def wanted_files(args, examples, session) -> list[tuple[str, int, dict]]:
    """(kind, width of a row, what its json says of the rows) of each file that the flags ask for."""
    from utils.selection.features import array_sha256

    classifier = session.classifier
    about = {
        "task": examples.task.name,
        "split": examples.split,
        "fingerprint": examples.fingerprint,
        "max_seq_length": session.max_length,
        "precision": session.precision.name,
        "class_names": list(classifier.labels),
        "shard": args.shard,
    }
    chosen = {"pooling": args.pooling, "layer": args.layer, "dtype": args.dtype}
    files = [(f"{args.pooling}_embeddings", feature_width(classifier, args.pooling), about | chosen)]
    if args.logits:
        named = classifier.model.config.id2label
        about |= {"pooling": "logits", "layer": None, "dtype": "float32"}
        about["outputs"] = [named[number] for number in range(len(named))]
        if examples.labels is not None:
            about["gold_sha256"] = array_sha256(examples.labels)
        files.append(("logits", max(len(classifier.labels), 1), about))
    return files


def write_gold(folder, examples) -> None:
    """Save the gold labels beside the logits: then a folder alone gives gradients of the classifier layer."""
    with atomic_path(gold_path(folder, examples)) as temporary:
        save_array(temporary, examples.labels)


def gold_path(folder, examples) -> Path:
    from utils.selection.embeddings import embedding_paths

    return embedding_paths(folder, examples.task.name, examples.split, "gold")[0]


def settle_pooling(args, model) -> None:
    """Put the pooling that fits the model in the place of `auto`, and say so."""
    from utils.data.pooling import kind_of

    chosen = choose_pooling(model.config, args.pooling)
    if args.pooling == "auto":
        logger.info("--pooling auto: %s, because %s is %s", chosen, type(model).__name__, kind_of(model.config))
    args.pooling = chosen


def check_layer(layer: int | None, classifier) -> None:
    """Raise InputError where --layer is none of the model's: 0 to its number of layers, or from -1 down."""
    from utils.models.families import num_layers

    layers = num_layers(classifier.model)
    if layer is not None and not -layers - 1 <= layer <= layers:
        raise InputError(
            f"--layer {layer}: the model has {layers} layers; give 0 (embeddings) to {layers}, or -1 to {-layers - 1}"
        )


def feature_width(classifier, pooling: str) -> int:
    from utils.models.families import final_linear

    model = classifier.model
    return final_linear(model).in_features if pooling == "pooler" else model.config.hidden_size


if __name__ == "__main__":
    run_script(main)
