"""Reads the project's documents: sections, and the code in them."""

import re

from tests import tiny

DOCUMENTS = [tiny.ROOT / "README.md", tiny.ROOT / "CONTRIBUTING.md", tiny.ROOT / "CHANGELOG.md"]
DOCUMENTS += sorted((tiny.ROOT / "docs").glob("*.md"))


def section(document: str, heading: str) -> str:
    """The text below a heading of the form `## heading`, up to the next one of its level or above."""
    marks, title = re.match(r"(#+) (.+)", heading).groups()
    after = re.split(rf"^{marks} {re.escape(title)}$", (tiny.ROOT / document).read_text(), flags=re.M)
    assert len(after) == 2, f"{document} has {len(after) - 1} headings {heading!r}"
    lines, fenced = [], False
    for line in after[1].splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{len(marks)}}} ", line):
            break
        lines.append(line)
    return "".join(lines)


def code(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def commands(text: str) -> list[str]:
    """Commands of a shell block, continued lines joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
