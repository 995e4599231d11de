"""The page itself: data as typed arrays and JSON, script and style inlined, nothing loaded from elsewhere."""

import base64
import html
import json
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from utils.data.examples import Examples
from utils.errors import InputError
from utils.explore.columns import Column, Map

HERE = Path(__file__).parent
TEXTS_PER_CHUNK = 500  # parsed when one of them is looked at


def page(
    title: str, note: str, examples: Examples, rows: np.ndarray, columns: list[Column], maps: list[Map], compared: str
) -> str:
    """The whole page for these row numbers. compared: the section of Selections, as HTML."""
    about = {
        "rows": _array(rows.astype(np.int32)),
        "texts": examples.task.text_names,
        "textsPerChunk": TEXTS_PER_CHUNK,
        "columns": [
            {
                "name": column.name, "group": column.group, "names": column.names, "main": column.main,
                "values": _array(_smallest(column)[rows]),
            }
            for column in columns
        ],
        "maps": [
            {"title": m.title, "xTitle": m.x_title, "yTitle": m.y_title, "x": _array(m.x[rows]), "y": _array(m.y[rows])}
            for m in maps
        ],
    }  # fmt: skip
    chunks = [
        _json_script(
            [[column[i] for column in examples.texts] for i in rows[start : start + TEXTS_PER_CHUNK].tolist()], "texts"
        )
        for start in range(0, len(rows), TEXTS_PER_CHUNK)
    ]
    return Template((HERE / "template.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        note=html.escape(note),
        style=(HERE / "explorer.css").read_text(encoding="utf-8"),
        compared=compared,
        about=_json_script(about, "about"),
        texts="\n".join(chunks),
        plotly=_plotly(),
        script=(HERE / "explorer.js").read_text(encoding="utf-8"),
    )


def _plotly() -> str:
    """The script that plotly's package brings. Raises InputError where the package is not installed."""
    try:
        return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise InputError("the page needs plotly's script: pip install -r requirements.txt") from None


def _json_script(value, name: str) -> str:
    """A script element that only holds data. No text can end it or open another: every < is written as an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{name}">{text}</script>'


def _smallest(column: Column) -> np.ndarray:
    """The values in the smallest type that the page reads: float32, or int8, int16 or int32 for the names there are."""
    if not column.names:
        return np.asarray(column.values, dtype=np.float32)
    return np.asarray(column.values).astype(np.min_scalar_type(-max(2, len(column.names))))


def _array(values: np.ndarray) -> dict:
    """{type, base64 of the little-endian bytes}"""
    values = np.ascontiguousarray(values)
    data = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return {"type": values.dtype.name, "data": base64.b64encode(data).decode()}
