"""Find references that would make a built book use the network: it has to open from a disk.

    python book/check_offline.py _build/html

Only references that a browser loads by itself count (scripts, styles, fonts, images, frames), not links.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADING = {  # tag -> attributes whose address the browser fetches
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "track": ("src",), "embed": ("src",), "object": ("data",),
    "input": ("src",), "image": ("href", "xlink:href"), "use": ("href", "xlink:href"),
}  # fmt: skip
FETCHED_LINKS = {
    "stylesheet", "icon", "shortcut", "apple-touch-icon", "preload", "modulepreload", "prefetch",
    "preconnect", "dns-prefetch", "manifest",
}  # fmt: skip
EXTERNAL = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s;]+)", re.IGNORECASE)
IN_SCRIPT = re.compile(
    r"[\"'`]((?:https?:)?//[^\"'`\s]+\.(?:m?js|css|woff2?))(?:\?[^\"'`]*)?[\"'`]", re.IGNORECASE
)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.references = []
        self.inside = None  # "style" or "script", whose text is searched as well

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.inside = tag if tag in ("style", "script") else None
        names = LOADING.get(tag, ())
        if tag == "link" and FETCHED_LINKS & set(given.get("rel", "").lower().split()):
            names = ("href",)
        for name in names:
            for address in given.get(name, "").split(",") if name == "srcset" else [given.get(name, "")]:
                if EXTERNAL.match(address):
                    self.references.append(f"<{tag} {name}> {address.strip()}")
        self.references += [f"<{tag} style> {address}" for address in IN_STYLE.findall(given.get("style", ""))]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        pattern = {"style": IN_STYLE, "script": IN_SCRIPT}.get(self.inside)
        if pattern:
            self.references += [f"<{self.inside}> {address}" for address in pattern.findall(data)]


def external_references(folder: str | Path) -> list[str]:
    """List the references to other servers in the pages and style sheets of a folder.

    Args:
        folder: The built book.

    Returns:
        Lines "page: <tag attribute> address", sorted by page; none for a book that needs no network.

    Raises:
        ValueError: The folder contains no page at all.
    """
    folder = Path(folder)
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        raise ValueError(f"{folder}: no HTML page found")
    lines = []
    for path in pages:
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        lines += [f"{path.relative_to(folder)}: {reference}" for reference in page.references]
    for path in sorted(folder.rglob("*.css")):
        addresses = IN_STYLE.findall(path.read_text(encoding="utf-8"))
        lines += [f"{path.relative_to(folder)}: {address}" for address in addresses]
    return lines


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python book/check_offline.py FOLDER", file=sys.stderr)
        return 2
    lines = external_references(sys.argv[1])
    for line in lines:
        print(f"needs the network: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
