"""Sphinx extension: on every page the first use of each word of the glossary leads to the glossary.

The words are the entries of glossary.md. Titles, code, figures, tables and existing links are left as they are.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

GLOSSARY = "glossary"
LEFT = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.table, nodes.figure, nodes.raw,
        nodes.math, nodes.term, addnodes.pending_xref, nodes.caption)


def entries(text: str) -> list[str]:
    """The words of a page's glossaries: the lines of each that aren't indented."""
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line[0].isspace()]


def pattern_of(word: str) -> re.Pattern:
    """The word by itself, as it is written or with a capital, and in the plural."""
    first, rest = re.escape(word[0]), re.escape(word[1:])
    start = f"[{word[0].upper()}{word[0].lower()}]" if word[0].isalpha() and word[1:].islower() else first
    return re.compile(rf"(?<![\w-]){start}{rest}(?:s|es)?(?![\w-])")


class FirstUse(SphinxPostTransform):
    """Makes links of first uses; before links are resolved."""

    default_priority = 5

    def run(self, **_):
        glossary = Path(self.env.doc2path(GLOSSARY)) if GLOSSARY in self.env.found_docs else None
        if glossary is None or self.env.docname == GLOSSARY:
            return
        words = entries(glossary.read_text(encoding="utf-8"))
        # The longest first: "query expansion" before "query".
        for word in sorted(words, key=len, reverse=True):
            pattern = pattern_of(word)
            for text in list(self.document.findall(nodes.Text)):
                match = pattern.search(text.astext())
                if match and not any(isinstance(above, LEFT) for above in _above(text)):
                    self.link(text, match, word)
                    break

    def link(self, text: nodes.Text, match: re.Match, word: str) -> None:
        shown = nodes.inline("", match[0], classes=["first-use"])
        link = addnodes.pending_xref("", shown, refdomain="std", reftype="term", reftarget=word, refexplicit=True,
                                     refdoc=self.env.docname, refwarn=True)
        before, after = text.astext()[:match.start()], text.astext()[match.end():]
        text.parent.replace(text, [piece for piece in (nodes.Text(before), link, nodes.Text(after)) if piece.astext()])


def _above(node: nodes.Node):
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app):
    app.add_post_transform(FirstUse)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
