"""The structure of the library: the rooms and their order as CONTRIBUTING.md draws them, limits of size, and how much
of its inside the tests replace. Everything is read from the sources; nothing is imported."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY, TESTS, GUIDE = ROOT / "rmaclib", ROOT / "tests", ROOT / "CONTRIBUTING.md"
MODULE_LINES, FUNCTION_LINES, PARAMETERS, REPLACED = 350, 60, 8, 12


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(LIBRARY.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room(module: str) -> str:
    """The part of the library that a module is in: a file or a folder directly under rmaclib."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what a file imports, wherever in it: "rmaclib.boxes.Box", "torch"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: expected the full name of a module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports() -> dict[str, set[str]]:
    """Module → modules of the library that it imports, at its top or in a function. The version is nobody's."""
    edges: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        names = [name for name in imported(tree) if name.split(".")[0] == "rmaclib" and name != "rmaclib.__version__"]
        edges[module] = {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return edges


def drawing() -> list[list[str]]:
    """The rooms as CONTRIBUTING.md draws them, one line each: a line's rooms import those of the lines above."""
    block = re.search(r"^## The rooms\n.*?^```text\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert block, f"{GUIDE.name}: expected a drawing under 'The rooms'"
    return [re.split(r"  +", line)[0].split(", ") for line in block.group(1).splitlines()]


def names(tree: ast.Module) -> set[str]:
    """Functions, classes and constants at the top of a module."""
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)
               for target in getattr(node, "targets", [getattr(node, "target", None)])]
    return defined | {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def circle(edges: dict[str, set[str]]) -> str:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def test_no_circle_of_modules():
    assert circle(imports()) == ""


def test_no_circle_of_rooms():
    edges: dict[str, set[str]] = {}
    for module, others in imports().items():
        edges.setdefault(room(module), set()).update({room(other) for other in others} - {room(module)})
    assert circle(edges) == ""


def test_the_drawing_has_every_room_once():
    drawn = [name for line in drawing() for name in line]
    assert sorted(drawn) == sorted({room(module) for module in MODULES})


def test_no_upward_imports():
    level = {name: number for number, line in enumerate(drawing()) for name in line}
    upward = [f"{module} imports {other}" for module, others in imports().items() for other in sorted(others)
              if level[room(other)] > level[room(module)]]
    assert upward == []


def test_the_generator_of_the_embedded_data_set_is_no_part_of_the_library():
    generator = {path.stem for path in (ROOT / "data/diorama/generator").glob("*.py")}
    assert "render" in generator
    users = [module for module, tree in TREES.items() for name in imported(tree)
             if name.split(".")[0] in ("generator", "mitsuba")]
    assert users == []


# --- what CONTRIBUTING.md tells --------------------------------------------------------------------------------------


def test_what_the_guide_points_at_is_there():
    guide = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| `(rmaclib/.+\.py)` \| `(\w+)` \|$", guide, re.M)
    assert len(rows) == 5
    assert [row for row in rows if row[2] not in names(TREES[module_name(ROOT / row[1])])] == []
    paths = re.findall(r"`((?:book|data|notebooks|rmaclib|tests)/[a-z_/.]+)`", guide)
    assert len(paths) > 20 and [path for path in paths if not (ROOT / path).exists()] == []


def test_the_guide_names_what_its_recipes_change():
    for module, name in [("backbones", "_TORCHVISION"), ("backbones", "NAMES"), ("commands.options", "BACKBONES"),
                         ("datasets.registry", "_RETRIEVAL_READERS"), ("evaluation.protocols", "_OF_LAYOUT"),
                         ("learning.losses", "LossName"), ("learning.losses", "LOSSES"),
                         ("learning.ranking", "_MARGINS")]:
        assert name in names(TREES[f"rmaclib.{module}"]) and f"`{name}`" in GUIDE.read_text(encoding="utf-8"), name


def test_recipes_are_short():
    recipes = re.findall(r"^### ([^\n]+)\n(.*?)(?=^##)", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert [title for title, _ in recipes] == ["A backbone", "Another network in the package", "A data set", "A loss",
                                               "A notebook"]
    assert {title: count for title, text in recipes if (count := len(text.strip().splitlines())) >= 30} == {}


# --- sizes -------------------------------------------------------------------------------------------------------


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether its parameters are the options of a command, @app.command()."""
    calls = [decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call)]
    return any(ast.unparse(call) == "app.command" for call in calls)


def test_no_long_module():
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MODULE_LINES} == {}


def test_no_long_function():
    """From `def` to the last line, docstring and nested functions included."""
    lines = {f"{module}.{function.name}": function.end_lineno - function.lineno + 1
             for module, tree in TREES.items() for function in functions(tree) if not is_command(function)}
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES} == {}


def test_no_function_of_many_parameters():
    counts = {}
    for module, tree in TREES.items():
        for function in functions(tree):
            of = function.args
            names = [argument.arg for argument in (*of.posonlyargs, *of.args, *of.kwonlyargs, of.vararg, of.kwarg)
                     if argument]
            if not is_command(function):
                counts[f"{module}.{function.name}"] = len([name for name in names if name not in ("self", "cls")])
    assert {name: count for name, count in counts.items() if count > PARAMETERS} == {}


# --- what the tests replace ----------------------------------------------------------------------------------------


def replaced(tree: ast.AST) -> Iterator[int]:
    """Lines at which a test file replaces something of the library: monkeypatch.setattr or delattr, or mock.patch.

    The target is a text that begins with "rmaclib.", or begins with a name that the file gets from the library:
    imported, or assigned from import_module("rmaclib…"). Another package as the library imports it (`files.shutil`)
    isn't the library's. Approximate: what a fixture or a loop hands over under a name of its own isn't seen.
    """
    ours = {alias.asname or alias.name.split(".")[0] for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
            if (getattr(node, "module", None) or alias.name).split(".")[0] == "rmaclib"}
    ours |= {target.id for node in ast.walk(tree) if isinstance(node, ast.Assign)
             and re.match(r"(importlib\.)?import_module\(f?'rmaclib", ast.unparse(node.value))
             for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        if not re.search(r"(\bmonkeypatch|\bpatch)\.(setattr|delattr|object)$|\bpatch$", ast.unparse(node.func)):
            continue
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            owner = first.value.rpartition(".")[0]
        else:
            owner = re.sub(r"^(\w+)", lambda name: "rmaclib." + name[1] if name[1] in ours else name[1],
                           ast.unparse(first))
        last = owner.rpartition(".")[2]
        if owner.split(".")[0] == "rmaclib" and last not in sys.stdlib_module_names | {"faiss", "np", "torch", "cv2"}:
            yield node.lineno


@pytest.mark.parametrize("line, is_replaced", [
    ("monkeypatch.setattr('rmaclib.images.fit', None)", True),
    ("monkeypatch.setattr(images, 'fit', None)", True),
    ("monkeypatch.setattr(images.Reader, 'fit', None)", True),
    ("patch.setattr(module, 'fit', None)", True),
    ("mock.patch('rmaclib.images.fit')", True),
    ("monkeypatch.setattr('rmaclib.images.os.replace', None)", False),
    ("monkeypatch.setattr(images.os, 'replace', None)", False),
    ("monkeypatch.setattr(torch.hub, 'get_dir', None)", False),
    ("monkeypatch.setenv('RMACLIB_DATA', '')", False),
])  # fmt: skip
def test_what_counts_as_replaced(line, is_replaced):
    head = "from rmaclib import images\nmodule = import_module('rmaclib.commands.train')\n"
    assert list(replaced(ast.parse(head + line))) == [3] * is_replaced


def test_tests_replace_little_of_the_library():
    places = [f"{path.relative_to(ROOT)}:{line}" for path in sorted(TESTS.rglob("*.py"))
              for line in replaced(ast.parse(path.read_text(encoding="utf-8")))]
    assert len(places) <= REPLACED, f"{len(places)}: {' '.join(places)}"
