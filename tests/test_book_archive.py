"""The archive of a built book."""

import hashlib
import importlib.util
import os
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("archive", ROOT / "book" / "archive.py")
archive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(archive)


def put(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def built(tmp_path):
    put(tmp_path, _build__html__index_dot_html="<p>Towers</p>", _build__html___static__a_dot_css="p {}",
        _build__smoke__notebooks__01_dot_ipynb="{}", _build__smoke__notebooks__02_dot_failed_dot_ipynb="{}",
        _build__smoke__results__01__a_dot_json="new", results__smoke__01__a_dot_json="old",
        results__photos__01__a_dot_json="photos", results__photos__notes_dot_txt="no record")
    return lambda: archive.contents("smoke", tmp_path / "_build", tmp_path / "results")


def test_it_has_pages_notebooks_and_records_those_of_the_build_first(built, tmp_path):
    out = tmp_path / "out" / "book.tar.gz"
    size = archive.pack(built(), "abc", out)
    assert size == out.stat().st_size and [path.name for path in out.parent.iterdir()] == ["book.tar.gz"]
    with tarfile.open(out) as packed:
        data = {name: packed.extractfile(name).read() for name in packed.getnames()}
    assert sorted(data) == ["book/MANIFEST", "book/html/_static/a.css", "book/html/index.html",
                            "book/notebooks/01.ipynb", "book/results/photos/01/a.json", "book/results/smoke/01/a.json"]
    assert data["book/results/smoke/01/a.json"] == b"new"
    lines = data["book/MANIFEST"].decode().splitlines()
    assert lines[0] == "commit abc" and len(lines) == 6
    digest, length, name = lines[2].split()
    assert (digest, int(length)) == (hashlib.sha256(data[f"book/{name}"]).hexdigest(), len(data[f"book/{name}"]))


def test_the_same_files_give_the_same_bytes(built, tmp_path):
    archive.pack(built(), "abc", tmp_path / "one.tar.gz")
    for path in (tmp_path / "_build").rglob("*.html"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    archive.pack(dict(reversed(built().items())), "abc", tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_a_book_that_is_not_built_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="html: expected a built book; run 'make book PROFILE=full'"):
        archive.contents("full", tmp_path / "_build", tmp_path / "results")
