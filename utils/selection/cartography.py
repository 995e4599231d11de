"""Training dynamics in the JSON Lines of cartography (Swayamdipta et al. 2020), read and written.

  python -m utils.selection.cartography dynamics.npz OUT

writes OUT/training_dynamics/dynamics_epoch_E.jsonl, E from 0, one for each snapshot. A line is one example:
{"guid": row number, "logits_epoch_E": [one for each class], "gold": class number}. An example that some snapshot has not
seen is left out, because cartography takes every example to be in every file. Scripts of this project read such a folder
by --dynamics_path OUT. It does not say when a snapshot was taken, nor in which mode: snapshots count as epochs 1, 2, ... in
train mode.
"""

import json
import logging
import re
from pathlib import Path

import numpy as np

from utils.command_line import ArgumentParser, setup_logging
from utils.errors import InputError, run_script
from utils.files import atomic_path
from utils.selection.dynamics import Dynamics, as_recorded
from utils.selection.own_files import rows_of

logger = logging.getLogger(__name__)

FOLDER = "training_dynamics"
READ_MODE = "train"  # of the authors' code


def write(dynamics: Dynamics, out) -> list[Path]:
    """Write one file for each snapshot into `out`/training_dynamics and return their paths."""
    seen = np.flatnonzero(~np.isnan(dynamics.logits[..., 0]).any(0))
    if len(seen) < dynamics.n_total:
        logger.warning("%d of %d examples are not in every snapshot: they are left out",
                       dynamics.n_total - len(seen), dynamics.n_total)  # fmt: skip
    if dynamics.mode != READ_MODE or not np.array_equal(dynamics.epochs, _epochs_as_read(dynamics.num_snapshots)):
        logger.warning("the format holds neither epochs nor mode: read again, %d snapshots in %s mode are epochs 1, 2, ... in "
                       "%s mode", dynamics.num_snapshots, dynamics.mode, READ_MODE)  # fmt: skip
    gold = dynamics.labels.tolist()
    paths = []
    for epoch, logits in enumerate(dynamics.logits):
        paths.append(Path(out) / FOLDER / f"dynamics_epoch_{epoch}.jsonl")
        with atomic_path(paths[-1]) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for row in seen.tolist():
                line = {"guid": row, f"logits_epoch_{epoch}": logits[row].tolist(), "gold": gold[row]}
                file.write(json.dumps(line) + "\n")
    return paths


def read(folder, examples) -> Dynamics:
    """The training dynamics in a folder that `write` or cartography made, of these Examples.

    guid: pair ids or row numbers. Class numbers are those of whoever wrote the files: which class a number means is read
    from the gold labels of the data. Raises InputError for an unknown example, for a gold label that does not fit, and
    where a file is missing or damaged.
    """
    paths = epoch_files(folder)
    classes = len(examples.label_names)
    logits = np.full((len(paths), len(examples), classes), np.nan, dtype=np.float32)
    for epoch, path in enumerate(paths):
        guids, values, gold = _read_epoch(path, f"logits_epoch_{epoch}", classes)
        rows = rows_of(guids, examples, f"{path}: line ", first=1)
        own_class = _class_numbers(path, gold, examples.labels[rows], classes)
        logits[epoch, rows] = values[:, np.argsort(own_class)]
    return Dynamics(
        as_recorded(logits), examples.labels, examples.label_names, _epochs_as_read(len(paths)), READ_MODE,
        examples.fingerprint,
    )  # fmt: skip


def _epochs_as_read(snapshots: int) -> np.ndarray:
    return np.arange(1.0, snapshots + 1)


def epoch_files(folder) -> list[Path]:
    """The files of epochs 0, 1, ... Raises InputError where there is none, or one in between is missing."""
    folder = Path(folder)
    inner = folder / FOLDER
    folder = inner if inner.is_dir() else folder
    named = {path: re.fullmatch(r"dynamics_epoch_(\d+)\.jsonl", path.name) for path in folder.iterdir()}
    found = {int(match[1]): path for path, match in named.items() if match}
    if not found:
        raise InputError(f"{folder}: holds no dynamics_epoch_0.jsonl; name a dynamics.npz, or a folder of cartography")
    missing = set(range(max(found) + 1)) - found.keys()
    if missing:
        raise InputError(f"{folder}: dynamics_epoch_{min(missing)}.jsonl is missing between the others")
    return [found[epoch] for epoch in sorted(found)]


def _read_epoch(path: Path, field: str, classes: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """guids, float32 logits (r, C) and gold class numbers (r,) of one file."""
    guids, values, gold = [], [], []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                guid, found, label = str(record["guid"]), [float(z) for z in record[field]], int(record["gold"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: line {number} is no record with guid, {field} and gold ({error!r})"
                ) from None
            if len(found) != classes or not np.isfinite(found).all() or not 0 <= label < classes:
                raise InputError(
                    f"{path}: line {number} has the logits {found} and the gold label {label}; expected {classes} finite "
                    f"logits and a label from 0 to {classes - 1}"
                )
            guids.append(guid)
            values.append(found)
            gold.append(label)
    if not guids:
        raise InputError(f"{path}: is empty")
    return guids, np.array(values, dtype=np.float32), np.array(gold)


def _class_numbers(path: Path, gold, labels, classes: int) -> np.ndarray:
    """int64 (C,): this project's class number of each class number in the file, from examples that both label."""
    own = np.full(classes, -1)
    for line, (theirs, ours) in enumerate(zip(gold.tolist(), labels.tolist(), strict=True), start=1):
        if own[theirs] == -1 and ours not in own:
            own[theirs] = ours
        if own[theirs] != ours:
            raise InputError(
                f"{path}: line {line} has the gold label {theirs}, which other lines use for another label of the data; the "
                "file is of other data, or its ids are not those of this data"
            )
    unknown = np.flatnonzero(own == -1)
    if len(unknown) > 1:
        raise InputError(
            f"{path}: no example has the gold labels {unknown.tolist()}, so what their logits mean is unknown"
        )
    own[unknown] = classes * (classes - 1) // 2 - (own.sum() + len(unknown))
    return own


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("dynamics", help="dynamics.npz of run_glue.py --record_dynamics")
    parser.add_argument("output_dir", help="where the folder training_dynamics goes")
    args = parser.parse_args(argv)
    setup_logging()
    paths = write(Dynamics.load(args.dynamics), args.output_dir)
    print(f"written: {paths[0].parent}, {len(paths)} files")


if __name__ == "__main__":
    run_script(main)
