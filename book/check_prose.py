"""Finds numbers in prose that look like results and don't come from a record.

    python book/check_prose.py

Looked at are decimals, percentages and points in the pages and in the text cells of the notebooks, outside of code,
formulas, links and roles such as {result}. What may stand there is listed in prose_numbers.yml, with the reason.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
ALLOWED = ROOT / "book" / "prose_numbers.yml"
NUMBER = re.compile(r"\b\d+(?:\.\d+)? points\b|(?<![\w.])\d[\d,]*\.\d+(?: ?%)?(?![\w.]*\w)|\d[\d,]* ?%")
LEFT_OUT = (r"^(`{3,}).*?^\1\s*$", r"^\|?[-: |]+\|$", r"\{[\w:]+\}`[^`]*`", r"`[^`]*`", r"\$[^$]*\$",
            r"\]\([^)]*\)", r"https?://\S+")


class ProseNumber(NamedTuple):
    """A number, where it stands, and the line around it."""

    page: str
    line: int
    number: str
    text: str


def numbers(text: str, page: str) -> Iterator[ProseNumber]:
    """The numbers in the prose of a page or text cell, in MyST Markdown."""
    shown = text
    for pattern in LEFT_OUT:
        shown = re.sub(pattern, lambda match: "\n" * match[0].count("\n"), shown, flags=re.MULTILINE | re.DOTALL)
    for number, line in enumerate(shown.splitlines(), start=1):
        for match in NUMBER.finditer(line):
            around = line[max(0, match.start() - 40):match.end() + 40]
            yield ProseNumber(page, number, match[0], around.strip())


def all_numbers(root: Path = ROOT) -> Iterator[ProseNumber]:
    """Those of all pages and notebooks of the book."""
    for path in sorted((root / "book").glob("*.md")):
        yield from numbers(path.read_text(encoding="utf-8"), path.name)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield from numbers("".join(cell["source"]), path.name)


def read_allowed(path: Path = ALLOWED) -> list[dict]:
    """The entries of the list: page (a regular expression, all pages without it), text around the number, why.

    Raises:
        ValueError: An entry without text or reason.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        if not (entry.get("text") and entry.get("why")) or set(entry) - {"page", "text", "why"}:
            raise ValueError(f"{path.name}: expected text, why and perhaps page, got {entry}")
    return entries


def allows(entry: dict, number: ProseNumber) -> bool:
    """Whether an entry of the list is about this number: its text contains the number and is a part of the line."""
    return bool(re.fullmatch(entry.get("page", ".*"), number.page)) and any(
        match.start() < match.end() and number.number in match[0] for match in re.finditer(entry["text"], number.text))


def problems() -> list[str]:
    """A line for each number that comes from no record and isn't listed, and for each entry of the list without use."""
    allowed, used, lines = read_allowed(), set(), []
    for number in all_numbers():
        places = [place for place, entry in enumerate(allowed) if allows(entry, number)]
        used.update(places)
        if not places:
            lines.append(f"{number.page}, line {number.line}: {number.number} in “{number.text}” comes from no record")
    unused = [entry["text"] for place, entry in enumerate(allowed) if place not in used]
    return lines + [f"{ALLOWED.name}: nothing in the book needs {text!r}" for text in unused]


def main() -> int:
    lines = problems()
    print("\n".join(lines) or "every number comes from a record or is listed")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
