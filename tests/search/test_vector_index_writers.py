"""Several processes that change one index, and readers meanwhile."""

import os
import shutil
import subprocess
import sys

import faiss
import numpy as np
import pytest
from search_vectors import DIM, SMALL_LIMITS, built, numbered, sample

from rmaclib.ranking import normalise_rows
from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.vector_index import VectorIndex


def test_two_writers_do_not_overwrite_each_other(tmp_path):
    built(5).save(tmp_path)
    first, second = VectorIndex.load(tmp_path), VectorIndex.load(tmp_path)
    first.add(sample(1, 1), ["new"])
    first.save(tmp_path)
    second.remove(["image 0"])
    second.add(sample(2, 2), ["new", "newer"])
    second.save(tmp_path)
    with pytest.raises(SearchIndexError, match="contains another index"):
        built(5).save(tmp_path)
    expected = (*numbered(5)[1:], "new", "newer")
    assert VectorIndex.load(tmp_path).names == second.names == expected
    vectors = np.concatenate([sample(5)[1:], sample(1, 1), sample(2, 2)[1:]])  # of "new" the first
    for name, vector in zip(expected, vectors, strict=True):
        nearest = second.search(vector[None], 1)[0][0]
        assert nearest.name == name and nearest.similarity == pytest.approx(1, abs=1e-6)


def test_a_reader_that_a_writer_overtakes_reads_again(tmp_path, monkeypatch):
    """Between reading meta.json and opening a file that it lists."""
    index = built(5)
    index.save(tmp_path)
    read_index, opened = faiss.read_index, []

    def overtaken(path, *options):
        opened.append(path)
        if len(opened) == 1:
            index.add(sample(9, 1), numbered(9, 5))  # merged with the first segment, whose files go
            index.save(tmp_path)
        return read_index(path, *options)

    monkeypatch.setattr(faiss, "read_index", overtaken)
    assert len(VectorIndex.load(tmp_path)) == 14
    assert [os.path.basename(path) for path in opened] == ["000001.faiss", "000002.faiss"]


def test_every_kind_of_segment_is_taken_over(tmp_path):
    """What two processes added and removed is all there, whatever segments it is in."""
    for count, structure in ((60, "flat"), (900, "hnsw"), (2500, "ivf-pq")):
        folder = tmp_path / str(count)
        built(30).save(folder)
        first, second = (VectorIndex.load(folder, SMALL_LIMITS) for _ in range(2))
        first.add(sample(40, 1), numbered(40, 1000))
        first.save(folder)
        vectors = normalise_rows(sample(count, 2))
        second.add(vectors, numbered(count, 5000))
        second.remove(["image 3", "image 5000"])
        second.save(folder)
        loaded = VectorIndex.load(folder)
        expected = {*numbered(30), *numbered(40, 1000), *numbered(count, 5000)} - {"image 3", "image 5000"}
        assert set(loaded.names) == set(second.names) == expected and len(loaded) == len(expected)
        assert f"  {structure}: " in str(loaded)
        assert loaded.search(sample(40, 1)[7:8], 1)[0][0].name == "image 1007"
        assert loaded.search(vectors[9:10], 1)[0][0].name == "image 5009"


def test_a_name_that_was_added_again_has_its_new_vector(tmp_path):
    built(5).save(tmp_path)
    first, second = VectorIndex.load(tmp_path), VectorIndex.load(tmp_path)
    first.add(sample(1, 1), ["new"])
    first.save(tmp_path)
    second.remove(["image 2"])
    second.add(sample(1, 9), ["image 2"])
    second.save(tmp_path)
    nearest = VectorIndex.load(tmp_path).search(sample(1, 9), 1)[0][0]
    assert nearest.name == "image 2" and nearest.similarity == pytest.approx(1, abs=1e-6)


def test_another_index_in_its_place_is_refused(tmp_path):
    built(5).save(tmp_path / "a")
    loaded = VectorIndex.load(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    other = VectorIndex(DIM, {"weights": "other"})
    other.add(sample(5, 1), numbered(5))
    other.save(tmp_path / "a")
    loaded.add(sample(1, 2), ["new"])
    with pytest.raises(SearchIndexError, match="contains another index since"):
        loaded.save(tmp_path / "a")
    assert len(VectorIndex.load(tmp_path / "a")) == 5


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from rmaclib.search.vector_index import VectorIndex

folder, mine, other, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
for number in range(rounds):
    index = VectorIndex.load(folder)
    index.add(np.random.default_rng(number).normal(size=(3, 16)), [f"{mine} {number} {n}" for n in range(3)],
              progress=False)
    (folder.parent / f"{mine} {number}").touch()
    while not (folder.parent / f"{other} {number}").exists():
        time.sleep(0.0005)
    index.save(folder)
    print(number, flush=True)
"""


def test_two_processes_add_at_a_barrier_and_nothing_is_lost(tmp_path):
    rounds = int(os.environ.get("RMACLIB_ROUNDS", 15))
    built(5).save(tmp_path / "index")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "index", *names, str(rounds)],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for names in (("a", "b"), ("b", "a"))]
    for writer in writers:
        out, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0 and out.split() == [str(number) for number in range(rounds)], errors
    expected = {*numbered(5), *(f"{who} {number} {n}" for who in "ab" for number in range(rounds) for n in range(3))}
    loaded = VectorIndex.load(tmp_path / "index")
    assert set(loaded.names) == expected and len(loaded) == len(expected)
    names = {name for path in (tmp_path / "index").glob("*.faiss") for name in (path.name, path.stem + ".txt")}
    assert names | {".rmac.json", ".rmac.lock", "meta.json"} == set(os.listdir(tmp_path / "index"))
