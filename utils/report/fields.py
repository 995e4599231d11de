"""Values from JSON files and table cells, each checked for its type here and nowhere else: a missing key, a null or a value
of another kind is one line that names file and key.
"""

import math
from collections.abc import Callable

from utils.errors import InputError


class Fields:
    """One JSON object. file: how messages name the file; place: the dotted path of the object inside it.

    Every method raises InputError where the key is missing or its value is not of that kind; with `optional` a missing key
    and a null give None.
    """

    def __init__(self, value, file: str, place: str = ""):
        self.file, self.place = file, place
        if not isinstance(value, dict):
            raise InputError(f"{file}: {place or 'the file'} is {_shown(value)}, expected an object with keys")
        self._values = value

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def part(self, key: str, *, optional: bool = False) -> "Fields":
        """The object under `key`; an empty one for a missing optional key."""
        value = self._value(key, "an object", lambda v: isinstance(v, dict), optional)
        return Fields({} if value is None else value, self.file, self._path(key))

    def parts(self) -> dict[str, "Fields"]:
        """All members, which are objects."""
        return {key: self.part(key) for key in self._values}

    def text(self, key: str, *, optional: bool = False) -> str | None:
        return self._value(key, "a text", lambda v: isinstance(v, str) and v, optional)

    def number(self, key: str, *, optional: bool = False) -> float | None:
        return self._value(key, "a number", _is_number, optional)

    def numbers(self) -> dict[str, float]:
        """All members, which are numbers."""
        return {key: self.number(key) for key in self._values}

    def positive(self, key: str, *, optional: bool = False) -> float | None:
        return self._value(key, "a number above 0", lambda v: _is_number(v) and v > 0, optional)

    def fraction(self, key: str) -> float:
        return self._value(key, "a fraction between 0 and 1", lambda v: _is_number(v) and 0 <= v <= 1)

    def fractions(self) -> dict[str, float]:
        """All members, which are fractions."""
        return {key: self.fraction(key) for key in self._values}

    def count(self, key: str, *, least: int = 0) -> int:
        return self._value(
            key, f"a whole number of at least {least}", lambda v: _is_number(v) and isinstance(v, int) and v >= least
        )

    def entries(self, key: str) -> list["Fields"]:
        """The objects of the list under `key`."""
        values = self._value(key, "a list", lambda v: isinstance(v, list))
        return [Fields(value, self.file, f"{self._path(key)}[{i}]") for i, value in enumerate(values)]

    def listed(self, key: str, kind: type) -> list:
        """The values of the list under `key`, one at least, all of one kind."""
        return self._value(
            key,
            f"a list of {kind.__name__}",
            lambda v: isinstance(v, list) and v and all(isinstance(one, kind) for one in v),
        )

    def plain(self, key: str):
        """A text, a number, a yes or no, or None, whichever is there."""
        return self._value(key, "a text or a number", lambda v: isinstance(v, (str, bool)) or _is_number(v), True)

    def plain_values(self) -> dict:
        """All members, which are plain."""
        return {key: self.plain(key) for key in self._values}

    def _value(self, key: str, kind: str, fits: Callable, optional: bool = False):
        value = self._values.get(key)
        if optional and value is None:
            return None
        if not fits(value):
            found = _shown(value) if key in self._values else "missing"
            raise InputError(f"{self.file}: {self._path(key)} is {found}, expected {kind}")
        return value

    def _path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def cell(row: dict[str, str], column: str, where: str, kind: type = str):
    """The value of one cell of a CSV row, as str, float (finite) or int. Raises InputError for an empty cell too."""
    text = row[column]
    try:
        value = kind(text)
        if not text or (kind is float and not math.isfinite(value)):
            raise ValueError
    except ValueError:
        expected = {float: "a number", int: "a whole number", str: "a text"}[kind]
        raise InputError(f"{where}: {column} is {_shown(text)}, expected {expected}") from None
    return value


def rounded_share(share: float) -> float:
    """A share of the data to three digits, by which arms are told apart: 333 of 1,000 examples and a third are one."""
    return float(f"{share:.3g}")


def _is_number(value) -> bool:
    """Whether it is a finite number that floats can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _shown(value) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
