"""A random sample of the training data that stands for 100 % in a sweep."""

import dataclasses
from pathlib import Path

from utils.data.examples import Examples
from utils.data.export import columns_of_examples
from utils.data.sources import Data
from utils.data.tables import write_table
from utils.errors import InputError
from utils.files import atomic_path, read_json, write_json
from utils.flags import RunSettings
from utils.selection.selection import random_ranking

ABOUT_FILE = "pool.json"  # the size of the pool, and the fingerprints of what it was made from; written last
SEED = 0  # every sweep of one size draws the same sample


def make_pool(data: Data, run: RunSettings, size: int, folder: Path) -> RunSettings:
    """Write into `folder` a sample of `size` training examples, with the dev sets; returns settings that name these files.

    A pool that is there is kept. Raises InputError where it is of another size or of other data, and where the source has
    fewer examples or is on the hub.
    """
    source = {name: data.load(name) for name in ("train", *data.task.dev)}
    train = source["train"]
    if size > len(train):
        raise InputError(f"--pool_size {size}: {train.source} has {len(train)} examples")
    if run.task_name and not run.data_dir:
        raise InputError("--pool_size samples a file: give --data_dir, or the data as --dataset_name")
    about = {"size": size, **{name: examples.fingerprint for name, examples in source.items()}}
    made = _is_made(about, source, folder)
    kept = sorted(random_ranking(len(train), SEED)[:size].tolist())
    if run.task_name:
        pooled = dataclasses.replace(run, data_dir=str(folder))
        if not made:
            _copy_lines(source, kept, Path(run.data_dir), folder)
    else:
        names = {name: folder / f"{name}.jsonl" for name in source}
        for name, path in () if made else names.items():
            write_table(path, columns_of_examples(source[name], kept if name == "train" else None))
        pooled = dataclasses.replace(
            run,
            dataset_name=None,
            dataset_config_name=None,
            train_file=str(names.pop("train")),
            validation_file=[f"{name}={path}" for name, path in names.items()] or None,
            text_columns=list(data.task.text_columns),
            label_column=data.task.label_column,
            do_regression=data.task.regression,
        )
    if not made:
        write_json(folder / ABOUT_FILE, about)
    return pooled


def _is_made(about: dict, source: dict[str, Examples], folder: Path) -> bool:
    """Whether the folder holds the whole pool. Raises InputError where it holds another one."""
    if not (folder / ABOUT_FILE).exists():
        return False
    found = read_json(folder / ABOUT_FILE)
    for name, value in about.items():
        if found.get(name) != value:
            what = f"--pool_size {value}" if name == "size" else f"{source[name].source}"
            raise InputError(f"{what}: {folder} was made with another one; restore it, or give another --output_dir")
    return True


def _copy_lines(source: dict[str, Examples], kept: list[int], data_dir: Path, folder: Path) -> None:
    """Copy the sampled lines of the training file as they are, and the whole dev files."""
    train = source["train"]
    for dev in source.values():
        if dev is not train:
            with atomic_path(folder / Path(dev.source).relative_to(data_dir)) as temporary:
                temporary.write_bytes(Path(dev.source).read_bytes())
    path = Path(train.source)
    lines = path.read_bytes().split(b"\n")
    # The slice ends at a truth value: one line where columns have names and the format has a header, else none.
    header = lines[: isinstance(train.task.text_columns[0], str) and path.suffix in (".tsv", ".txt")]
    with atomic_path(folder / path.relative_to(data_dir)) as temporary:
        temporary.write_bytes(b"\n".join([*header, *(lines[train.numbers[i] - 1] for i in kept), b""]))
