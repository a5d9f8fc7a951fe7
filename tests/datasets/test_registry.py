import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rmaclib
from rmaclib.datasets import (
    DatasetError,
    data_roots,
    detect_layout,
    known_datasets,
    open_collection,
    open_dataset,
    open_images,
    self_check,
)


@pytest.fixture
def holidays(make, tmp_path, monkeypatch):
    """A registered data set, much cut down, under RMACLIB_DATA."""
    monkeypatch.setenv("RMACLIB_DATA", os.pathsep.join([str(tmp_path / "empty"), str(tmp_path)]))
    return make("holidays/jpg/100000.jpg", "holidays/jpg/100001.jpg")


@pytest.mark.parametrize("names, layout", [
    (["gt/a_1_query.txt", "jpg/a.jpg"], "oxford"), (["a_1_query.txt", "a.jpg"], "oxford"),
    (["gnd_roxford5k.pkl", "jpg/a.jpg"], "revisited"),
    (["annotation_full_val.txt", "images/x/1.jpg"], "landmarks"),
    (["jpg/100000.jpg", "jpg/100001.jpg"], "holidays"), (["x/a.jpg", "y/b.jpg"], "folder"),
    (["a.jpg", "100000.jpg"], "images"), (["100001.jpg"], "images"),
])
def test_layouts_are_told_apart(make, names, layout):
    assert detect_layout(make(*names)) == layout


def test_of_two_layouts_none_is_guessed(make):
    root = make("gt/a_1_query.txt", "gnd_roxford5k.pkl", "jpg/a.jpg")
    with pytest.raises(DatasetError, match="found oxford and revisited; name the layout"):
        open_dataset(root)
    ground_truth = {"bbx": [0, 0, 1, 1], "easy": [0], "hard": [], "junk": []}
    content = {"imlist": ["a"], "qimlist": ["a"], "gnd": [ground_truth]}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    assert open_dataset(root, "revisited").layout == "revisited"


def test_the_registry_is_complete():
    entries = known_datasets()
    assert {"oxford5k", "paris6k", "roxford5k", "rparis6k", "holidays", "landmarks_full", "landmarks_clean",
            "oxford5k_subset", "paris6k_subset", "paris6k_part", "landmarks48", "landmarks48_val"} <= entries.keys()
    for entry in entries.values():
        assert entry.kind in ("retrieval", "collection") and entry.source
        assert bool(entry.list) == (entry.layout == "landmarks")
        queries = {"queries", "positives", "junk"} if entry.kind == "retrieval" else {"landmarks"}
        assert entry.expected.keys() <= {"images"} | queries


def test_a_registered_name_is_found_and_checked(holidays):
    dataset = open_dataset("holidays")
    assert (dataset.name, dataset.root, dataset.publishable) == ("holidays", holidays / "holidays", False)
    assert self_check(dataset) == ["images: expected 1491, found 2", "queries: expected 500, found 1",
                                   "positives: expected 991, found 1"]


@pytest.fixture
def own_registry(make, monkeypatch):
    """Writes a registry of one's own, with one data set `own`, into a folder of RMACLIB_DATA."""
    root = make("own/x/a.jpg", "own/x/b.jpg")
    monkeypatch.setenv("RMACLIB_DATA", str(root))

    def write(more="", name="own"):
        fields = "kind: retrieval, layout: folder, folder: own, source: here, publishable: true"
        (root / "registry.yml").write_text(f"{name}: {{{fields}{more}}}")
    return write


def test_the_registry_says_what_is_publishable(own_registry):
    own_registry()
    assert open_dataset("own").publishable and {"own", "oxford5k"} <= known_datasets().keys()
    own_registry(", kind: collection")
    assert open_collection("own").publishable


def test_the_registry_of_the_first_root_counts(own_registry):
    own_registry(name="oxford5k")
    assert open_dataset("oxford5k").layout == "folder"


@pytest.mark.parametrize("text, message", [
    ("own: {kind: retrieval, checksum: 1}", "own: .*unexpected keyword argument 'checksum'"),
    ("own: [", "expected settings in YAML"),
    *((f"own: {{kind: {kind}, layout: {layout}, folder: {folder}, source: x, publishable: true{more}}}",
       f"own: {message}")
      for kind, layout, folder, more, message in [
          ("benchmark", "folder", "own", "", "kind: expected one of retrieval, collection, got 'benchmark'"),
          ("retrieval", "landmarks", "own", "", "layout: expected one of oxford, .*, got 'landmarks'"),
          ("collection", "oxford", "own", "", "layout: expected one of landmarks, .*, got 'oxford'"),
          ("retrieval", "folder", 5, "", "folder: expected text, got 5"),
          ("collection", "landmarks", "own", ", list: [a]", "list: expected text, got .'a'."),
          ("retrieval", "folder", "own", ", expected: 5", "expected: expected counts of images, .*, got 5"),
          ("retrieval", "folder", "own", ", expected: {landmarks: 5}", "expected: .*, got .'landmarks': 5."),
      ]),
])
def test_a_registry_that_cannot_be_used_is_named(make, monkeypatch, text, message):
    root = make("own/x/a.jpg")
    (root / "registry.yml").write_text(text)
    monkeypatch.setenv("RMACLIB_DATA", str(root))
    with pytest.raises(DatasetError, match=f"registry.yml: {message}"):
        open_dataset("own")


def test_a_copy_without_the_repository_knows_no_names(monkeypatch, tmp_path):
    (tmp_path / "rmaclib").symlink_to(Path(rmaclib.__file__).parent)
    program = "import rmaclib.datasets as d; print(d.known_datasets(), d.data_roots()); d.open_dataset('oxford5k')"
    monkeypatch.delenv("RMACLIB_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "{} []\n"
    assert re.search(r"oxford5k: .* a name .none.*no root .RMACLIB_DATA is not set", done.stderr)


def test_a_folder_is_opened_by_its_layout_and_has_nothing_to_check(make):
    dataset = open_dataset(make("x/a.jpg", "x/b.jpg"))
    assert dataset.layout == "folder" and self_check(dataset) == []


def test_the_repository_is_the_last_root(monkeypatch, tmp_path):
    monkeypatch.setenv("RMACLIB_DATA", f"{tmp_path}{os.pathsep}other")
    assert [str(root) for root in data_roots()[:2]] == [str(tmp_path), "other"]
    assert (data_roots()[-1] / "registry.yml").is_file()
    monkeypatch.delenv("RMACLIB_DATA")
    assert len(data_roots()) == 1


def test_an_unknown_or_absent_name_lists_the_roots(monkeypatch, tmp_path):
    monkeypatch.setenv("RMACLIB_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=rf"oxfrod: expected a path or a name \(oxford5k.*{tmp_path}"):
        open_dataset("oxfrod")
    with pytest.raises(DatasetError, match=rf"oxford5k: expected .* oxford5k/ under .*{tmp_path}.*http"):
        open_dataset("oxford5k")


def test_kinds_and_layouts_are_not_mixed_up(make):
    with pytest.raises(DatasetError, match="landmarks48: .* use open_collection"):
        open_dataset("landmarks48")
    with pytest.raises(DatasetError, match="oxford5k: .* use open_dataset"):
        open_collection("oxford5k")
    with pytest.raises(ValueError, match="layout: expected one of oxford, revisited, .* got 'flat'"):
        open_dataset("oxford5k", "flat")
    with pytest.raises(DatasetError, match=r"found only images \(layout images\)"):
        open_dataset(make("a.jpg"))


def test_collections_open_by_path(make):
    root = make("x/a.jpg", "y/b.jpg")
    assert open_collection(root).label_names == ("x", "y")
    make("z.csv")
    (root / "z.csv").write_text("path\nx/a.jpg\n")
    assert open_collection(root / "z.csv").names == ("x/a.jpg",)
    (root / "annotation_full_val.txt").write_text("y/b.jpg 3\n")
    assert open_collection(root / "annotation_full_val.txt").labels == (3,)
    with pytest.raises(DatasetError, match="expected the path of one list, .* annotation_full_val.txt"):
        open_collection(root)


def test_a_flat_folder_is_one_collection(make):
    assert open_collection(make("a.jpg", "b.jpg")).labels == (0, 0)


@pytest.mark.photos
@pytest.mark.parametrize("name, images, queries", [
    ("oxford5k_subset", 1053, 55), ("paris6k_subset", 124, 5), ("paris6k_part", 250, 12)])
def test_the_photographs_are_complete(photos, monkeypatch, name, images, queries):
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    dataset = open_dataset(name)
    assert (len(dataset.names), len(dataset.queries), dataset.missing) == (images, queries, ())
    assert self_check(dataset) == []
    if name == "oxford5k_subset":  # the classic protocol counts the query itself as a positive
        for query in dataset.queries:
            assert query.image in query.relevance["good"] | query.relevance["ok"]


@pytest.mark.photos
@pytest.mark.parametrize("name, images", [("landmarks48", 3735), ("landmarks48_val", 398)])
def test_the_training_photographs_are_complete(photos, monkeypatch, name, images):
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    collection = open_collection(name)
    assert len(collection.names) == images and len(collection.label_names) == 48
    assert self_check(collection) == [] and collection.missing == ()


@pytest.mark.parametrize("opener", [open_collection, open_dataset, open_images])
@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "no/such/folder"])
def test_what_is_neither_a_path_nor_a_name_is_refused(opener, name):
    with pytest.raises(DatasetError, match="expected a path or a name .*found neither"):
        opener(name)
