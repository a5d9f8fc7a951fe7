"""Sphinx extension: the retrieval explorer on a page.

    ```{explorer}
    :picture: _static/retrieval.jpg
    :alt: what the picture shows
    ```

Without JavaScript the picture stands in its place. The data are in _explorer/ beside the pages, where
book/explorer/make.py has written them; explorer/ has the scripts.
"""

import shutil
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

FOLDER = "_static/explorer"


class Explorer(SphinxDirective):
    """The explorer, with a picture for readers without JavaScript."""

    option_spec = {"picture": directives.unchanged_required, "alt": directives.unchanged_required}  # noqa: RUF012

    def run(self):
        if set(self.options) != {"picture", "alt"}:
            raise self.error("explorer: expected the options picture and alt")
        if not (Path(self.env.srcdir) / "_explorer" / "data.js").is_file():
            raise self.error("explorer: expected _explorer/data.js, written by book/explorer/make.py; found none")
        up = "../" * self.env.docname.count("/")
        scripts = "".join(f'<script defer src="{up}{FOLDER}/{name}.js"></script>' for name in ("explorer", "page"))
        picture = f'<img src="{up}{self.options["picture"]}" alt="{escape(self.options["alt"])}">'
        html = f'<div class="explorer" data-folder="{up}{FOLDER}">{picture}</div>{scripts}'
        return [nodes.raw("", html, format="html")]


def copy_explorer(app):
    # Not through html_static_path: Jupyter Book loads every script that it finds there on every page.
    if app.builder.format != "html":
        return
    target = Path(app.outdir) / FOLDER
    for source in (Path(app.srcdir) / "explorer", Path(app.srcdir) / "_explorer"):
        for file in sorted(source.glob("*")):
            if file.suffix in (".js", ".jpg"):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file.name)


def setup(app):
    app.add_directive("explorer", Explorer)
    app.connect("builder-inited", copy_explorer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
