"""Scores and rankings that a user made elsewhere: plain files, one value or one name a line, checked against the data."""

from pathlib import Path

import numpy as np

from utils.data.tables import read_table
from utils.errors import InputError
from utils.files import read_npy


def read_scores(path, examples) -> np.ndarray:
    """float32 (n,), higher = harder, in the data's row order: from a .npy, or a .csv or .tsv with a header.

    A table of several columns must call one of them score. Raises InputError for another format, a wrong number of
    values, NaN, infinity, or a number that float32 does not hold.
    """
    path = Path(path)
    if path.suffix == ".npy":
        values = _read_npy(path)
    elif path.suffix in (".csv", ".tsv"):
        values = _read_table(path)
    else:
        raise InputError(
            f"--score_path {path}: unknown format {path.suffix!r}; give a .npy, or a .csv or .tsv with a header"
        )
    if values.shape != (len(examples),):
        raise InputError(
            f"--score_path {path}: holds {values.shape} values, but {examples.source} has {len(examples)} rows; give one "
            "score for each row, in the data's order"
        )
    with np.errstate(over="ignore"):
        scores = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise InputError(
            f"--score_path {path}: the score of row {bad[0]} is {values[bad[0]]:g}; scores must be finite numbers below 3e38"
        )
    return scores


def _read_npy(path: Path) -> np.ndarray:
    values = read_npy(path, name=f"--score_path {path}")
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError(f"--score_path {path}: holds {getattr(values, 'dtype', 'several arrays')}, scores are numbers")
    return values


def _read_table(path: Path) -> np.ndarray:
    table = read_table(path)
    if len(table.names) != 1 and "score" not in table.names:
        raise InputError(
            f"--score_path {path}: has the columns {', '.join(table.names)}; call the one that holds the scores score"
        )
    texts = table.column("score" if "score" in table.names else table.names[0])
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = float(text)
        except ValueError:
            raise InputError(
                f"--score_path {path}: line {table.numbers[i]} holds {text!r} where a number should be"
            ) from None
    return values


def read_ranking(path, examples) -> np.ndarray:
    """int64 (r,): the rows that the file lists, best first, one row number or pair id a line.

    Raises InputError for an unknown name, and for one that stands there twice.
    """
    names = [line.strip() for line in _lines(path, "--ranking")]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise InputError(f"--ranking {path}: is empty; write one row number or pair id a line, best first")
    rows = rows_of(names, examples, f"--ranking {path}: line ", first=1)
    first_line: dict[int, int] = {}
    for number, row in enumerate(rows.tolist(), start=1):
        if row in first_line:
            raise InputError(
                f"--ranking {path}: lines {first_line[row]} and {number} both name row {row} ({names[number - 1]}); "
                "list each example once"
            )
        first_line[row] = number
    return rows


def rows_of(names: list[str], examples, place: str, *, first: int = 0) -> np.ndarray:
    """int64: the row of each name. Whole numbers throughout are row numbers from 0; anything else is a list of pair ids.

    Raises InputError for the first that is unknown; its message begins with `place` and the name's number from `first`.
    """
    if all(name.isascii() and name.isdigit() for name in names):
        rows = [int(name) for name in names]
        outside = next((i for i, row in enumerate(rows) if row >= len(examples)), None)
        if outside is not None:
            raise InputError(
                f"{place}{first + outside}: row {names[outside]} does not exist; {examples.source} has the rows 0 to "
                f"{len(examples) - 1}"
            )
        return np.array(rows, dtype=np.int64)
    known = {guid: row for row, guid in enumerate(examples.guids)}
    unknown = next((i for i, name in enumerate(names) if name not in known), None)
    if unknown is not None:
        raise InputError(
            f"{place}{first + unknown}: {names[unknown]!r} is no pair id of {examples.source}; its ids look like "
            f"{examples.guids[0]!r} (or give row numbers throughout)"
        )
    if len(known) < len(examples):
        raise InputError(f"{place}{first}: pair ids do not tell the rows of {examples.source} apart; give row numbers")
    return np.array([known[name] for name in names], dtype=np.int64)


def _lines(path, flag: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{flag} {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{flag} {path}: not a text file ({error.reason})") from None
