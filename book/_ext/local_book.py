"""Sphinx extension: MathJax from an installed package, not a server; the reference pages of the library.

    ```{modules}
    rmaclib.network
    rmaclib.backbones.*
    ```

documents modules, in this order; `PACKAGE.*` is the package with all its modules. A name in a docstring's `Raises:`
or in a signature links to its entry.

    ```{presets}
    ```

is the table of `rmaclib.presets`.
"""

import pkgutil
import shutil
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from rmaclib.presets import PRESETS, SECTIONS

MATHJAX = "tex-svg-full.js"  # one file: no fonts, nothing that it would load later


def copy_mathjax(app):
    # Not through html_static_path: Jupyter Book loads every script that it finds there on every page.
    if app.builder.format == "html":
        source = files("mathjax") / "static" / "mathjax"
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "es5" / MATHJAX, target / MATHJAX)
        shutil.copyfile(source / "LICENSE", target / "LICENSE")


def expand_modules(lines: Iterable[str]) -> list[str]:
    """The modules that the lines of a ``modules`` directive name.

    Args:
        lines: Names of modules, or ``PACKAGE.*`` for a package with all modules below it.

    Returns:
        Names of modules, each once.

    Raises:
        ImportError: There is no such module.
    """
    names = []
    for line in filter(None, map(str.strip, lines)):
        package = line.removesuffix(".*")
        module = import_module(package)
        names.append(package)
        if line != package:
            below = pkgutil.walk_packages(module.__path__, package + ".")
            names += sorted(info.name for info in below if not info.name.endswith("__main__"))
    return list(dict.fromkeys(names))


class Modules(SphinxDirective):
    """The entries of modules, each under its name."""

    has_content = True

    def run(self):
        try:
            names = expand_modules(self.content)
        except ImportError as error:
            raise self.error(f"modules: {error}") from error
        text = []
        for name in names:
            text += ["```{eval-rst}", f".. rubric:: {name}", f"   :name: {name.replace('.', '-')}", "",
                     f".. automodule:: {name}", "   :members:"]  # fmt: skip
            # What a package imports has its entry in its own module.
            if find_spec(name).submodule_search_locations:
                text += ["   :ignore-module-all:"]
            text += ["```", ""]
        box = nodes.container()
        self.state.nested_parse(StringList(text, source=self.env.docname), self.content_offset, box)
        return box.children


class Presets(SphinxDirective):
    """The settings of all presets, side by side, with the source of the paper's values.

    What the paper says of a value with mark R is not printed: nobody has checked it.
    """

    HEAD = ("setting", "`paper`", "mark", "`authors_release`", "`laptop`", "source of the paper's value")

    def run(self):
        entries = {name: {entry[:2]: entry for entry in preset.table()} for name, preset in PRESETS.items()}
        paper = entries["paper"]
        text = ["````{list-table}", ":header-rows: 1", ":class: presets", ":widths: 20 9 6 13 16 36", ""]
        rows, section = [self.HEAD], None
        keys = dict.fromkeys([*paper, *entries["laptop"]])
        for key in sorted(keys, key=lambda key: SECTIONS.index(key[0])):  # keeps the order within a section
            if key[0] != section:
                section = key[0]
                rows.append((f"**{section}**", *[""] * 5))
            entry = paper.get(key)
            mark, source = (entry.mark, entry.source) if entry else ("", "")
            cells = {name: f"`{entries[name][key].value}`" if key in entries[name] else "" for name in entries}
            rows.append((f"`{key[1]}`", cells["paper"], mark, cells["authors_release"], cells["laptop"], source))
        for row in rows:
            text += ["* - " + row[0], *("  - " + cell for cell in row[1:])]
        box = nodes.container(classes=["scroll"])
        self.state.nested_parse(StringList([*text, "````"], source=self.env.docname), self.content_offset, box)
        return [box]


def keep_returns_whole(app, what, name, obj, options, lines):
    """Keep the first line of `Returns:` whole: napoleon would take all before a colon as a type.

    The types are in the signature. An empty type in front of the line has no effect but this.
    """
    for number, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            text = lines[number + 1].lstrip()
            indent = lines[number + 1][: len(lines[number + 1]) - len(text)]
            lines[number + 1] = f"{indent}: {text}"


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple: its docstring lists them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def link_by_name(app, env, node, contnode):
    """Link a class or function that is named without its module, where only one has the name.

    Private names and type variables of a signature have no entry and need no link.
    """
    if node.get("refdomain") != "py":
        return None
    module, _, name = node["reftarget"].rpartition(".")
    if name.startswith("_") or isinstance(getattr(sys.modules.get(module), name, None), TypeVar):
        return contnode
    objects = env.domains["py"].objects.items()
    entries = {entry for full, entry in objects if full.rpartition(".")[2] == name and entry.objtype != "module"}
    if len(entries) != 1:
        return None
    entry = entries.pop()
    return make_refnode(app.builder, node.get("refdoc", entry.docname), entry.docname, entry.node_id, contnode)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")  # whose events are used below
    app.add_directive("modules", Modules)
    app.add_directive("presets", Presets)
    app.connect("builder-inited", copy_mathjax)
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("missing-reference", link_by_name)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
