"""From checked inputs to the page: which rows it holds, and the file."""

from pathlib import Path

import numpy as np

from utils.data.examples import Examples
from utils.errors import InputError
from utils.explore.columns import columns_of, maps_of, measures_of, members
from utils.explore.compare import comparison
from utils.explore.page import page
from utils.files import write_text
from utils.run_directory import EXPLORER_FILE
from utils.selection.cluster_quality import pair_facts
from utils.selection.selection import Selection
from utils.selection.strategies import Inputs


def write_explorer(
    examples: Examples,
    inputs: Inputs,
    out: Path,
    *,
    selections: dict[str, Selection],
    predictions=None,
    max_points: int,
    seed: int,
) -> str:
    """Write explorer.html into `out`; returns the sentence that says which examples it holds.

    The inputs and Selections were checked to be of these examples. predictions: a file, which is checked here. Raises
    InputError where they are of other examples.
    """
    facts = pair_facts(examples)
    measures = measures_of(inputs.runs)
    columns = columns_of(examples, inputs, facts, measures, selections, predictions)
    maps = maps_of(inputs, facts, measures)
    rows, note = rows_shown(len(examples), selections, max_points, seed)
    title = f"{examples.task.name} {examples.split}: {len(examples):,} examples"
    text = page(title, note, examples, rows, columns, maps, comparison(selections, facts))
    write_text(out / EXPLORER_FILE, text)
    return note


def load_selections(paths, examples: Examples) -> dict[str, Selection]:
    """The Selections by short name. Raises InputError for one of other data, and for a file that is named twice."""
    found = {}
    for name, path in zip(short_names(paths), paths, strict=True):
        found[name] = Selection.load(path)
        found[name].check(examples, path=path)
    return found


def short_names(paths) -> list[str]:
    """The shortest ends of these paths that tell them apart; `selection.npz` is left out. Raises InputError for a file that
    is named twice."""
    ends = [Path(path).resolve().with_suffix("").parts for path in paths]
    if len(set(ends)) < len(ends):
        twice = next(path for path, end in zip(paths, ends, strict=True) if ends.count(end) > 1)
        raise InputError(f"--selection: {twice} is given twice; name each file once")
    ends = [end[:-1] if end[-1] == "selection" and len(end) > 2 else end for end in ends]
    for parts in range(1, max(map(len, ends), default=0) + 1):
        names = ["/".join(end[-parts:]) for end in ends]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def rows_shown(n: int, selections: dict[str, Selection], max_points: int, seed: int) -> tuple[np.ndarray, str]:
    """Ascending row numbers, all of them or a seeded sample that holds every chosen example; and the sentence about it."""
    if n <= max_points:
        return np.arange(n), f"This page holds all examples: {n:,}."
    chosen = np.zeros(n, dtype=bool)
    for selection in selections.values():
        chosen |= members(selection)
    others = np.flatnonzero(~chosen)
    room = max(0, max_points - int(chosen.sum()))
    drawn = np.random.default_rng(seed).choice(others, min(room, len(others)), replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(chosen), drawn]))
    held = f"all {int(chosen.sum()):,} that a Selection chose and {len(drawn):,} " if chosen.any() else ""
    note = f"This page holds {len(rows):,} of {n:,} examples: {held}drawn at random (seed {seed})."
    return rows, f"{note} Tables of Selections count all." if selections else note
