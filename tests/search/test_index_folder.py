import json
import os

import pytest
from search_vectors import as_version_1, built, numbered, recall, sample

from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.files import write_json
from rmaclib.search.index_folder import META, SearchIndexError, index_folder, read_meta, write_meta
from rmaclib.search.vector_index import VectorIndex


def test_meta_is_read_as_it_was_written(tmp_path):
    index = built(5)
    index.save(tmp_path)
    index.remove(["image 1", "image 3"])
    index.save(tmp_path)
    meta = read_meta(tmp_path)
    assert (meta.generation, meta.dim, meta.about) == (2, 16, {}) and meta.segments[0].removed == (1, 3)
    text = (tmp_path / META).read_text()
    with index_folder(tmp_path) as folder:
        write_meta(folder.path, meta)
    assert (tmp_path / META).read_text() == text and list(json.loads(text)) == [
        "format", "version", "generation", "dim", "about", "segments", "checksum"]


@pytest.mark.parametrize("change, message", [
    ({"format": "other"}, "expected format 'rmaclib-index', found 'other'"),
    ({"version": 3}, "version 3, this rmaclib reads up to 2"), ({"version": "x"}, "version x"),
    ({"version": 0}, "version 0"), ({"version": True}, "version True"),
    ({"dim": 17}, "expected 5 vectors of 17 dimensions.*it has 5 of 16"), ({"dim": None}, "damaged"),
    ({"dim": 0}, "dim"), ({"generation": "1"}, "generation"),
    ({"segments": [{}]}, "damaged"), ({"segments": 3}, "damaged"), ({"about": 3}, "damaged")])
def test_other_metadata_is_refused(tmp_path, change, message):
    built(5).save(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    del meta["checksum"]
    write_json(tmp_path / "meta.json", {**meta, **change}, checksum=True)
    with pytest.raises(SearchIndexError, match=message):
        VectorIndex.load(tmp_path)


def test_an_index_of_version_1_is_loaded_and_added_to(tmp_path):
    built(20).save(tmp_path)
    as_version_1(tmp_path)
    (tmp_path / "000009.txt").write_text("the user's")
    loaded = VectorIndex.load(tmp_path)
    assert loaded.names == tuple(numbered(20)) and recall(loaded, sample(20), sample(4, 1)) == 1
    loaded.add(sample(1, 1), ["new"])
    loaded.save(tmp_path)
    assert VectorIndex.load(tmp_path).names == (*numbered(20), "new")
    assert (tmp_path / "000009.txt").read_text() == "the user's"


def test_files_of_the_user_are_never_touched(tmp_path):
    (tmp_path / "000001.txt").write_text("a label")
    with pytest.raises(OutputError, match="000001.txt"):
        built(5).save(tmp_path)
    assert os.listdir(tmp_path) == ["000001.txt"]
    index = built(5)
    index.save(tmp_path / "index")
    mine = {tmp_path / "index" / name for name in ("000077.txt", "000078.faiss", "describing-mine")}
    for path in mine:
        path.write_text("mine")
    index.add(sample(9, 1), numbered(9, 5))
    index.save(tmp_path / "index")
    assert all(path.read_text() == "mine" for path in mine) and len(VectorIndex.load(tmp_path / "index")) == 14
