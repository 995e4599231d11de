"""A random sample of a data folder that stands for 100 % in a sweep."""

from pathlib import Path

from utils.data.examples import load_split
from utils.data.tasks import Task
from utils.errors import InputError
from utils.files import atomic_path
from utils.selection.selection import random_ranking

SEED = 0  # every sweep of one size draws the same sample


def make_pool(task: Task, source: Path, size: int, folder: Path) -> Path:
    """Write into `folder` the dev files of `source` and a train.tsv that is a sample of `size` of its lines.

    A finished pool is kept: the caller makes sure that it came from the same data. Raises InputError where the source has
    fewer examples, or not one line for each.
    """
    if (folder / "train.tsv").exists():
        return folder
    n = len(load_split(task, "train", data_dir=source))
    if size > n:
        raise InputError(f"--pool_size {size}: {source / 'train.tsv'} has {n} examples")
    lines = (source / "train.tsv").read_bytes().splitlines(keepends=True)
    header = len(lines) - n
    if header not in (0, 1):
        raise InputError(f"{source / 'train.tsv'}: blank or doubled lines; --pool_size needs one line per example")
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.glob("dev*.tsv"):
        with atomic_path(folder / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
    kept = sorted(random_ranking(n, SEED)[:size].tolist())
    with atomic_path(folder / "train.tsv") as temporary:
        temporary.write_bytes(b"".join(lines[:header] + [lines[header + i] for i in kept]))
    return folder
