"""The report as one HTML page that holds its figures and needs no network."""

import base64
import html
from pathlib import Path

from utils.report.tables import Table
from utils.run_directory import EXPLORER_FILE

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}th,td{border:1px solid #ddd;padding:3px 8px;
text-align:left;white-space:nowrap}th{background:#f4f4f4;white-space:normal}tr:nth-child(even) td{background:#fafafa}figure{margin:2em 0}
img{max-width:100%}figcaption,p{color:#555}"""


def page(title: str, tables: list[Table], figures: dict[str, str], folder: Path) -> str:
    """The page: the first table, the figures ({file name in folder: caption}), the other tables."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    if (folder / EXPLORER_FILE).exists():
        body.append(f'<p><a href="{EXPLORER_FILE}">Explore the examples and what was chosen of them</a></p>')
    body.append(_section(tables[0]))
    for name, caption in figures.items():
        data = base64.b64encode((folder / name).read_bytes()).decode()
        body.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    body += [_section(table) for table in tables[1:]]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _section(table: Table) -> str:
    parts = [f"<h2>{html.escape(table.title)}</h2>"]
    if table.rows:
        header, *rows = table.rows
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        lines = "".join("<tr>" + "".join(f"<td>{_bold(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
        parts.append(f"<table><tr>{head}</tr>\n{lines}</table>")
    parts += [f"<p>{_bold(line)}</p>" for line in table.words.splitlines()]
    return "\n".join(parts)


def _bold(text: str) -> str:
    pieces = html.escape(text).split("**")
    return "".join(f"<b>{piece}</b>" if i % 2 else piece for i, piece in enumerate(pieces))
