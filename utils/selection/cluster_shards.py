"""k-means by several processes: the first one fits, all assign, each its own rows; the parts are read as one.

`fit.npz` in the output folder holds the preparation and all centroids, `shard_<i>_of_<k>/` the labels and distances of a
shard's rows. Processes that begin together all fit; the file of the first to end counts for all.
"""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.files import array_json, json_array, read_npz, write_npz
from utils.selection.blocks import row_blocks
from utils.selection.kmeans import Prepared, assign, fit
from utils.selection.shards import shard_folder, shard_folders, shard_rows, unfinished

FIT = "fit.npz"


def shared_fit(folder, shard, array, runs, algorithm: str, identity: dict, prepare: Callable[[], Prepared]):
    """The preparation of array (n, d), and {(k, seed): centroids float32 (k, d')} of `runs`, pairs (k, seed). Made here by
    `prepare` and `fit`, unless another process was first.

    identity: what fit.npz must have been made from, as JSON. Raises InputError where it was made from anything else, or
    does not exist and no shard is given.
    """
    path, identity = Path(folder) / FIT, json.loads(json.dumps(identity))
    if not path.exists() and shard:
        made = prepare()
        own = shard_folder(folder, shard) / FIT
        write_npz(
            own, mean=made.mean, projection=np.zeros((0, 0)) if made.projection is None else made.projection,
            about=json_array({"identity": identity, "prepared": [made.spread, made.explained, made.description]}),
            **{_name(run): fit(made, *run, algorithm) for run in runs},
        )  # fmt: skip
        with contextlib.suppress(FileExistsError):
            os.link(own, path)  # unlike a rename, this never replaces the file of another
        own.unlink()
    arrays = read_npz(path, required=("mean", "projection", "about"))
    about = array_json(arrays["about"])
    if about["identity"] != identity:
        raise InputError(f"{path}: made with {about['identity']}, now {identity}; give another --output_dir")
    spread, explained, description = about["prepared"]
    projection = arrays["projection"] if arrays["projection"].size else None
    prepared = Prepared(array, arrays["mean"], projection, description["metric"], spread, explained, description)
    return prepared, {run: arrays[_name(run)] for run in runs}


def assign_shard(folder, shard, prepared: Prepared, centers: dict) -> None:
    """Write the labels and distances of the shard's rows, for every run that is not there yet."""
    rows = shard_rows(len(prepared), _block_rows(prepared), shard)
    for run, own in centers.items():
        path = shard_folder(folder, shard) / f"{_name(run)}.npz"
        if rows.start < rows.stop and not path.exists():
            labels, distances = assign(prepared, own, rows)
            if not np.isfinite(distances).all():
                raise InputError(f"the embeddings of rows {rows.start} to {rows.stop - 1} hold NaN or infinity")
            write_npz(path, labels=labels, distances=distances)


def joined(folder, prepared: Prepared, run) -> tuple[np.ndarray, np.ndarray]:
    """Labels int32 (n,) and distances float32 (n,) of a run. Raises InputError where a shard is not finished."""
    parts = []
    for shard, own in shard_folders(folder).items():
        rows = shard_rows(len(prepared), _block_rows(prepared), shard)
        if rows.start < rows.stop:
            if not (path := own / f"{_name(run)}.npz").exists():
                raise unfinished(folder, shard)
            parts.append(read_npz(path, required=("labels", "distances")))
    labels, distances = (np.concatenate([part[name] for part in parts]) for name in ("labels", "distances"))
    return labels, distances


def _name(run) -> str:
    return "k{}_seed{}".format(*run)


def _block_rows(prepared: Prepared) -> int:
    return next(iter(row_blocks(*prepared.array.shape))).stop
