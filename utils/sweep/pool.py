"""A random sample of the training data that stands for 100 % in a sweep."""

import dataclasses
from pathlib import Path

from utils.data.examples import Examples
from utils.data.export import columns_of_examples
from utils.data.sources import Data
from utils.data.tables import write_table
from utils.errors import InputError
from utils.files import atomic_path
from utils.flags import RunSettings
from utils.selection.selection import random_ranking

SEED = 0  # every sweep of one size draws the same sample


def make_pool(data: Data, run: RunSettings, size: int, folder: Path) -> RunSettings:
    """Write into `folder` a sample of `size` training examples, with the dev sets; returns settings that name these files.

    A pool that is there is kept: the caller makes sure that it came from the same data. Raises InputError where the
    source has fewer examples, or is on the hub.
    """
    train = data.load("train")
    if size > len(train):
        raise InputError(f"--pool_size {size}: {train.source} has {len(train)} examples")
    if run.task_name and not run.data_dir:
        raise InputError("--pool_size samples a file: give --data_dir, or the data as --dataset_name")
    kept = sorted(random_ranking(len(train), SEED)[:size].tolist())
    if run.task_name:
        _copy_lines(data, train, kept, Path(run.data_dir), folder)
        return dataclasses.replace(run, data_dir=str(folder))
    names = {name: folder / f"{name}.jsonl" for name in ("train", *data.task.dev)}
    for name, path in names.items():
        if not path.exists():
            write_table(path, columns_of_examples(data.load(name), kept if name == "train" else None))
    return dataclasses.replace(
        run,
        dataset_name=None,
        dataset_config_name=None,
        train_file=str(names.pop("train")),
        validation_file=[f"{name}={path}" for name, path in names.items()] or None,
        text_columns=list(data.task.text_columns),
        label_column=data.task.label_column,
        do_regression=data.task.regression,
    )


def _copy_lines(data: Data, train: Examples, kept: list[int], source: Path, folder: Path) -> None:
    """Copy the sampled lines of the training file as they are, and the whole dev files."""
    path = Path(train.source).relative_to(source)
    made = (folder / path).exists()
    for name in data.task.dev:
        own = Path(data.load(name).source).relative_to(source)
        content = (source / own).read_bytes()
        if made and (folder / own).read_bytes() != content:
            raise InputError(
                f"{source / own}: has changed since it was copied to {folder}; restore it, or give another --output_dir"
            )
        if not made:
            with atomic_path(folder / own) as temporary:
                temporary.write_bytes(content)
    if made:
        return
    lines = (source / path).read_bytes().split(b"\n")
    # The slice ends at a truth value: one line where columns have names and the format has a header, else none.
    header = lines[: isinstance(data.task.text_columns[0], str) and path.suffix in (".tsv", ".txt")]
    with atomic_path(folder / path) as temporary:
        temporary.write_bytes(b"\n".join([*header, *(lines[train.numbers[i] - 1] for i in kept), b""]))
