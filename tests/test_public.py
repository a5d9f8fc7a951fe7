"""The public face: `import rmaclib` is quick, its names are there, and every one has an example that runs."""

import ast
import doctest
import importlib
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rmaclib
from rmaclib.datasets import open_collection
from rmaclib.network import NetworkSettings

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "rmaclib"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
WITH_DOCTESTS = sorted(path.relative_to(ROOT) for path in LIBRARY.rglob("*.py") if ">>>" in path.read_text("utf-8"))
HEAVY = {"PIL", "cv2", "faiss", "matplotlib", "numpy", "pydantic", "scipy", "timm", "torch", "torchvision", "typer"}


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A current folder with what the examples name: my_photos, my_landmarks (a folder per landmark), query.jpg."""
    images = open_collection("diorama_train")
    for label in range(3):
        shown = [path for path, of in zip(images.paths, images.labels, strict=True) if of == label][:6]
        for number, path in enumerate(shown):
            for folder in ("my_landmarks/" + path.parent.name, "my_photos")[:1 + (number < 2)]:
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / folder / f"{path.parent.name}_{path.name}")
    shutil.copy(images.paths[0], tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- names ---------------------------------------------------------------------------------------------------------


def test_importing_it_is_quick_and_loads_nothing_else():
    script = ("import sys, time; started = time.process_time(); import rmaclib; "
              "print(time.process_time() - started, *{name.split('.')[0] for name in sys.modules})")
    seconds = []
    for _ in range(3):  # the processor's time, and the best of three: other programs run beside
        measured, *loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
        seconds.append(float(measured))
        assert HEAVY & set(loaded) == set()
    assert min(seconds) < 0.3


def test_names_come_from_their_rooms():
    tree = ast.parse((LIBRARY / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    shown = {alias.name: node.module for node in block.body for alias in node.names}  # what a type checker sees
    assert sorted(shown) == sorted(rmaclib.__all__)
    assert set(rmaclib.__all__) <= set(dir(rmaclib))
    for name, module in shown.items():
        room = importlib.import_module(module if name != "presets" else "rmaclib.presets")
        assert getattr(rmaclib, name) is (room if name == "presets" else getattr(room, name))


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match="module 'rmaclib' has no attribute 'Indx'"):
        rmaclib.Indx  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Indx' from 'rmaclib'"):
        exec("from rmaclib import Indx")


def test_help_is_a_table_of_contents():
    head = rmaclib.__doc__
    assert re.findall(r"^    (\w+)  +\w.*$", head, re.M)[:len(rmaclib.__all__)] == sorted(
        rmaclib.__all__, key=lambda name: head.index(f"    {name} "))
    assert all(len(re.findall(rf"^    {name}  +\w", head, re.M)) == 1 for name in rmaclib.__all__)
    rooms = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for room in rooms if not room.startswith("_") and not re.search(rf"\b{room}\b", head)} == set()
    text = pydoc.render_doc(rmaclib, renderer=pydoc.plaintext)
    assert text.index("Section 4.1") < text.index("Example") < text.index("CLASSES") < text.index("FUNCTIONS")


# --- examples ------------------------------------------------------------------------------------------------------


def test_the_readme_has_an_example():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number, _ in enumerate(BLOCKS, 1)])
def test_the_readmes_python_runs(block, example, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert "my_photos" in capsys.readouterr().out


@pytest.mark.parametrize("path", WITH_DOCTESTS, ids=str)
def test_doctests(path, example):
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed


def test_an_index_of_photographs(example):
    index = rmaclib.Index.build("my_photos", progress=False)
    neighbours = index.search("query.jpg", k=3)
    assert Path(neighbours[0].name).read_bytes() == (example / "query.jpg").read_bytes()
    with pytest.raises(rmaclib.RmacError, match="k: expected"):
        index.search("query.jpg", k=0)


def test_descriptors_and_a_benchmark(example, little):
    network = rmaclib.create_network(NetworkSettings("efficientnet_lite0", levels=2))
    settings = rmaclib.presets.laptop.settings("extraction", {"sizes": [128]})
    descriptors = rmaclib.extract(network, sorted((example / "my_photos").iterdir()), settings, progress=False)
    assert descriptors.vectors.shape == (6, network.dim)
    evaluation = rmaclib.evaluate(network, little, "oxford", settings, progress=False)
    assert 0.5 < evaluation.scores["mAP"] <= 1


def test_cleaning_and_learning(example):
    cleaned = rmaclib.clean(open_collection("my_landmarks"), out="clean", progress=False).clean
    assert 2 < len(cleaned.names) <= 12 and None not in cleaned.boxes
    few = {"updates": 1, "triplets": 2, "size": 64}
    rmaclib.train("my_landmarks", out="trained", settings=few)
    network = rmaclib.load_network("trained/best.safetensors")
    assert network.settings == rmaclib.Index().network.settings  # training starts from the network of the package


def test_every_public_name_has_an_example():
    examples = [*BLOCKS, Path(__file__).read_text(encoding="utf-8"), rmaclib.__doc__]
    used = {name for text in examples for name in re.findall(r"\brmaclib\.(\w+)", text)}
    assert sorted(set(rmaclib.__all__) - used) == []
