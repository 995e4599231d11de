"""The report as one HTML page that holds its figures and needs no network."""

import base64
import html
import re
from pathlib import Path

from utils.report.tables import Table
from utils.run_directory import EXPLORER_FILE

HERE = Path(__file__).parent
# Nothing may be loaded: the browser itself refuses every request.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
FIRST = 2  # number of tables above the figures
NAMES = "chosen by"  # the column that stays visible where a table is scrolled sideways


def page(title: str, tables: list[Table], figures: dict[str, str], folder: Path) -> str:
    """The page: contents, the first tables, the figures ({file name in folder: caption}), the other tables."""
    parts = [(table.title, _section(table)) for table in tables]
    parts.insert(FIRST, ("Figures", "\n".join(_figure(folder / name, words) for name, words in figures.items())))
    links = "".join(f'<li><a href="#{_anchor(name)}">{html.escape(name)}</a></li>' for name, _ in parts)
    if (folder / EXPLORER_FILE).exists():
        links += f'<li><a href="{EXPLORER_FILE}">Explore the examples and what was chosen of them</a></li>'
    sections = "\n".join(
        f'<section id="{_anchor(name)}"><h2>{html.escape(name)}</h2>\n{body}</section>' for name, body in parts
    )
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{html.escape(title)}</title>
<style>{style}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<nav aria-label="Contents"><ul>{links}</ul></nav>
{sections}
<dialog aria-label="Enlarged figure"></dialog>
<script>{script}</script>
</body></html>
"""


def _figure(path: Path, caption: str) -> str:
    data, words = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{words}">'
    return f'<figure><button title="Enlarge">{image}</button><figcaption>{_bold(caption)}</figcaption></figure>'


def _section(table: Table) -> str:
    parts = []
    if table.rows:
        header, *rows = table.rows
        name = header.index(NAMES) if NAMES in header else 0
        marks = ["" if i != name else ' class="name"' for i in range(len(header))]
        head = "".join(
            f"<th{mark}><button>{html.escape(cell)}</button></th>" for mark, cell in zip(marks, header, strict=True)
        )
        lines = "".join(
            "<tr>"
            + "".join(f"<td{mark}>{_cell(cell, table.links)}</td>" for mark, cell in zip(marks, row, strict=True))
            + "</tr>\n"
            for row in rows
        )
        parts.append(
            f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>'
        )
    lines = table.words.splitlines()
    items = "".join(f"<li>{_bold(line[2:])}</li>\n" for line in lines if line.startswith("- "))
    parts += [f"<ul>{items}</ul>"] if items else [f"<p>{_bold(line)}</p>" for line in lines]
    return "\n".join(parts)


def _cell(text: str, links: dict[str, str]) -> str:
    shown = _bold(text).replace("_", "_<wbr>")  # where a narrow screen may break a name
    return f'<a href="{html.escape(links[text])}">{shown}</a>' if text in links else shown


def _bold(text: str) -> str:
    pieces = html.escape(text).replace(" %", "&nbsp;%").split("**")
    return "".join(f"<b>{piece}</b>" if i % 2 else piece for i, piece in enumerate(pieces))


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())
