"""Files with one example a row: CSV, TSV, JSON Lines and Parquet, read as columns and written from rows. No column means
anything here. Values are taken as they stand: no type is guessed, and no text is taken for a missing value.
"""

import csv
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import InputError, quoted
from utils.files import atomic_path

logger = logging.getLogger(__name__)

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".ndjson", ".parquet")
WRITTEN = (".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Table:
    """n rows with named columns.

    path: as messages name the file. names: of the columns; positions where a file has no header. column(name) -> list of n
    values: texts, or what JSON and Parquet hold. unit and numbers: what messages call row i, for example line 7.
    class_names: what the numbers in a column mean, where the data set says so.
    """

    path: str
    names: list
    column: Callable[[str | int], list]
    unit: str
    numbers: Sequence[int]
    class_names: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, i: int) -> str:
        return f"{self.path}: {self.unit} {self.numbers[i]}"


def read_table(path) -> Table:
    """The table in a file; its suffix says the format. Raises InputError where it is missing, damaged, empty or of another
    format."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{path}: a file of an unknown format; give one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix == ".csv":
        table = _read_csv(path)
    elif suffix in (".tsv", ".txt"):
        table = read_tsv(path)
    else:
        table = _read_json(path)
    if not len(table):
        raise InputError(f"{path}: holds no examples")
    return table


def read_text(path: Path) -> str:
    """The text of a file. Raises InputError that names the line which is not UTF-8, and for an empty file."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")  # some files begin with a byte-order mark, MRPC's for example
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); convert the file, for example with iconv, "
            "if it is a text file at all"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


# ------------------------------------------------------------------------------------------------------- CSV and TSV
def read_tsv(path: Path, *, width: int | None = None, short_rows: tuple | None = None) -> Table:
    """Tabs between columns, one row a line; quotes are text, as in GLUE.

    width: number of columns of a file without a header. short_rows: shorter rows count where these columns are in them,
    and are left out otherwise; None refuses them. Raises InputError for a row of another width.
    """
    text = read_text(path)
    lines = text.split("\n")  # lines end at \n alone: GLUE text holds U+2028 and the like
    if lines[-1] == "":
        lines.pop()
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    header = lines.pop(0).split("\t") if width is None else list(range(width))
    _check_header(path, header)
    needed = max((header.index(name) for name in short_rows or () if name in header), default=0)
    rows, numbers, skipped = [], [], 0
    for number, line in enumerate(lines, start=1 + (width is None)):
        fields = line.split("\t")
        if len(fields) != len(header):
            if len(fields) > len(header) or short_rows is None:
                raise InputError(_wrong_width(path, number, len(fields), len(header)))
            if len(fields) <= needed:
                skipped += 1
                continue
        rows.append(fields)
        numbers.append(number)
    if skipped:
        logger.warning("%s: skipped %d rows with too few columns, as the official file has", path, skipped)
    return _table_of_rows(path, header, rows, numbers)


def _wrong_width(path: Path, number: int, found: int, due: int) -> str:
    where = f"{path}: line {number} has {found} tab-separated columns where {due} are due"
    if found < due:
        return f"{where}; the line is cut short, or the file is of another kind"
    return f"{where}; a text holds a tab, which would shift the columns after it: replace it with a space"


def _read_csv(path: Path) -> Table:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, numbers, header, start = [], [], None, 1
    try:
        for fields in reader:
            if header is None:
                header = fields
                _check_header(path, header)
            elif fields:  # a blank line is no row
                if len(fields) != len(header):
                    raise InputError(
                        f"{path}: line {start} has {len(fields)} comma-separated columns where {len(header)} are due; a "
                        "text with a comma, a quote or a line break stands in double quotes"
                    )
                rows.append(fields)
                numbers.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {start} is not CSV ({error}); is a double quote left open there?") from None
    return _table_of_rows(path, header, rows, numbers)


def _check_header(path: Path, header: list) -> None:
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise InputError(
            f"{path}: its header names {quoted(', '.join(twice))} more than once; keep one column of each name"
        )


def _table_of_rows(path: Path, header: list, rows: list, numbers: list[int]) -> Table:
    def column(name):
        at = header.index(name)
        return [fields[at] for fields in rows]

    return Table(str(path), header, column, "line", numbers)


# ---------------------------------------------------------------------------------------------------------------- JSON
def _read_json(path: Path) -> Table:
    """One JSON object a line, or one array of objects."""
    text = read_text(path)
    if text.lstrip()[0] == "[":
        objects, unit = enumerate(_json(text, str(path)), 1), "entry"
    else:
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        objects, unit = ((number, _json(line, f"{path}: line {number}")) for number, line in lines), "line"
    rows, numbers = [], []
    for number, value in objects:
        if not isinstance(value, dict):
            raise InputError(
                f"{path}: {unit} {number} is {quoted(value)}, expected an object with a key for each column"
            )
        if "\\u" in text and (lone := _lone_surrogate(value)):
            raise InputError(
                f"{path}: {unit} {number} holds \\u{ord(lone):04x}, half of a character; write the text again"
            )
        rows.append(value)
        numbers.append(number)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), names, lambda name: [row.get(name) for row in rows], unit, numbers)


def _lone_surrogate(value) -> str | None:
    """Half of a character that UTF-16 writes as two, which no UTF-8 file can hold; None where there is none."""
    found = re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False))
    return found and found[0]


def _json(text: str, where: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: not JSON ({str(error)[:100]}); JSON Lines has one whole object on each line"
        ) from None


# ------------------------------------------------------------------------------------------- Parquet and data sets
def _read_parquet(path: Path) -> Table:
    parquet = _pyarrow_parquet(path)
    try:
        read = parquet.read_table(path)
    except Exception as error:  # pyarrow raises a dozen unrelated types on damaged bytes
        raise InputError(f"{path}: not a readable Parquet file ({str(error)[:200]})") from None
    # The library `datasets` keeps the names of classes in the file's metadata.
    about = json.loads((read.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = about.get("info", {}).get("features", {})
    class_names = {
        name: facts["names"]
        for name, facts in features.items()
        if isinstance(facts, dict) and facts.get("_type") == "ClassLabel"
    }
    numbers = range(1, read.num_rows + 1)
    return Table(str(path), read.column_names, lambda name: read.column(name).to_pylist(), "row", numbers, class_names)


def _pyarrow_parquet(path: Path):
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{path}: Parquet needs the package pyarrow, which is not installed (pip install pyarrow); CSV, TSV and JSON "
            "Lines need nothing"
        ) from None
    return pyarrow.parquet


def table_of(data, path: str) -> Table:
    """The table of a `datasets.Dataset`."""
    class_names = {name: feature.names for name, feature in data.features.items() if hasattr(feature, "names")}
    return Table(path, data.column_names, lambda name: list(data[name]), "row", range(1, len(data) + 1), class_names)


# -------------------------------------------------------------------------------------------------------------- writing
def check_written(path, flag: str) -> None:
    """Raise InputError where `write_table` knows no format for the suffix, or lacks the package for it."""
    if Path(path).suffix.lower() not in WRITTEN:
        raise InputError(f"{flag} {path}: give a file that ends in {', '.join(WRITTEN)}")
    if Path(path).suffix.lower() == ".parquet":
        _pyarrow_parquet(Path(path))


def write_table(path, columns: dict[str, list]) -> None:
    """Write columns of equal length so that `read_table` gives the same texts. Raises InputError for a TSV cell with a tab
    or a line break."""
    path = Path(path)
    suffix, names = path.suffix.lower(), list(columns)
    with atomic_path(path) as temporary:
        if suffix == ".parquet":
            import pyarrow

            _pyarrow_parquet(path).write_table(pyarrow.table(columns), temporary)
            return
        rows = zip(*columns.values(), strict=True)
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            if suffix == ".csv":
                csv.writer(file).writerows([names, *rows])
            elif suffix == ".tsv":
                file.writelines(f"{_tsv_line(path, number, row)}\n" for number, row in enumerate([names, *rows], 1))
            else:
                file.writelines(
                    f"{json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)}\n" for row in rows
                )


def _tsv_line(path: Path, number: int, row) -> str:
    cells = ["" if value is None else str(value) for value in row]
    for cell in cells:
        if any(mark in cell for mark in "\t\n\r"):
            raise InputError(
                f"{path}: line {number}: {quoted(cell)} holds a tab or a line break, which TSV cannot; write .jsonl, .csv "
                "or .parquet"
            )
    return "\t".join(cells)
