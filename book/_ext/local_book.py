"""Sphinx extension: MathJax from an installed package, not a server; docstrings as plain text."""

import re
import shutil
from importlib.resources import files
from pathlib import Path

MATHJAX = "tex-svg-full.js"  # one file: no fonts, nothing that it would load later
ENTRY = re.compile(r"[\w*][\w*, /.]*: |returns\b|raises\b|- ")  # begins a line of its own in a docstring


def copy_mathjax(app):
    # Not through html_static_path: Jupyter Book loads every script that it finds there on every page.
    if app.builder.format == "html":
        source = files("mathjax") / "static" / "mathjax"
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "es5" / MATHJAX, target / MATHJAX)
        shutil.copyfile(source / "LICENSE", target / "LICENSE")


def plain_docstring(app, what, name, obj, options, lines):
    """Show our plain-text docstrings with a line for each "name: ...", "returns: ..." and "raises ..."."""
    shown = []
    for paragraph in "\n".join(lines).split("\n\n"):
        if re.search(r"^ {4}", paragraph, re.MULTILINE):  # an example or a table
            shown += ["::", "", *("    " + line for line in paragraph.splitlines()), ""]
            continue
        entries = []
        for line in filter(str.strip, paragraph.splitlines()):
            if entries and not ENTRY.match(line):
                entries[-1] += " " + line.strip()
            else:
                entries.append(line.strip())
        shown += ["| " + escape(entry) for entry in entries] + [""]
    lines[:] = shown


def escape(text):
    """Plain text as reStructuredText; what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a single backtick is no pair
        return re.sub(r"([\\*`|_:])", r"\\\1", text)
    parts[0::2] = [re.sub(r"([\\*|_:])", r"\\\1", part) for part in parts[0::2]]
    parts[1::2] = [f"\\ ``{part}``\\ " if part.strip() == part != "" else part for part in parts[1::2]]
    return "".join(parts)


def setup(app):
    app.connect("builder-inited", copy_mathjax)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
