import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import faiss
import numpy as np
import pytest

from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.files import write_json
from rmaclib.ranking import normalise_rows, rank
from rmaclib.search import vector_index
from rmaclib.search.distractors import synthetic_distractors
from rmaclib.search.index_folder import SearchIndexError, segment_files
from rmaclib.search.vector_index import VectorIndex, choose_structure

DIM = 16


def sample(count, seed=0, dim=DIM):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def numbered(count, first=0):
    return [f"image {number}" for number in range(first, first + count)]


def built(count, dim=DIM):
    index = VectorIndex(dim)
    index.add(sample(count, dim=dim), numbered(count))
    return index


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(vector_index, "FLAT_UP_TO", 100)
    monkeypatch.setattr(vector_index, "HNSW_UP_TO", 2000)


def recall(index, vectors, queries, k=10):
    exact = rank(queries, vectors, k)
    found = [{name for name, *_ in row} for row in index.search(queries, k)]
    return np.mean([len(row & {f"image {n}" for n in expected}) / k
                    for row, expected in zip(found, exact, strict=True)])


def test_flat_is_exact():
    vectors, queries = sample(300), sample(20, 1) * 7
    index = built(300)
    expected = rank(queries, vectors, 12)
    cosines = queries @ vectors.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
    for row, order, cosine in zip(index.search(queries, 12), expected, cosines, strict=True):
        assert [name for name, *_ in row] == [f"image {n}" for n in order]
        np.testing.assert_allclose([value for _, value, _ in row], cosine[order], atol=1e-6)


def test_structures_by_size_say_why():
    assert [choose_structure(count).name for count in (1, 50_000, 50_001, 200_000, 200_001, 10**6)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf-pq", "ivf-pq"]
    assert "2,000 are at most 50,000" in choose_structure(2000).reason
    assert "32 of 2048 cells" in choose_structure(10**6).reason
    assert "flat: every vector is compared" in str(built(3)) and str(built(3)).startswith("3 vectors of 16 numbers")


@pytest.mark.parametrize("count, structure", [(1600, "hnsw"), (3000, "ivf-pq")])
def test_large_structures(small_limits, tmp_path, count, structure):
    centres = sample(200, 5, 32)
    vectors = np.repeat(centres, count // 200, 0) + sample(count, dim=32) * np.linspace(0.1, 0.6, count)[:, None]
    index = VectorIndex(32)
    index.add(vectors, numbered(count))
    assert structure in str(index)
    queries = centres[:60]
    assert recall(index, vectors, queries) > 0.9
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    assert loaded.search(queries, 10) == index.search(queries, 10) and str(loaded) == str(index)
    gone = numbered(count)[::2]
    loaded.remove(gone)
    assert not {name for row in loaded.search(queries, 10) for name, *_ in row} & set(gone)
    for row in loaded.search(queries[:3], 10**9):  # some cells are not looked into, so that not all are found
        assert 10 < len(row) <= count // 2 and len({name for name, *_ in row}) == len(row)


def test_adding_leaves_larger_segments_alone(tmp_path):
    index = built(1000)
    index.save(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    index.add(sample(10, 1), numbered(10, 1000))
    index.save(tmp_path)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in before if after.get(name) != before[name]} == {"meta.json", ".rmac.json"}
    assert sum((tmp_path / name).stat().st_size for name in after.keys() - before.keys()) < 2000
    assert index.names == VectorIndex.load(tmp_path).names == tuple(numbered(1010))
    assert recall(index, np.concatenate([sample(1000), sample(10, 1)]), sample(30, 2)) == 1


def test_many_small_additions_make_few_segments(tmp_path):
    vectors, index = sample(200), VectorIndex(DIM)
    for number, vector in enumerate(vectors):
        index.add(vector[None], [f"image {number}"])
        if number % 3 == 0:
            index.save(tmp_path)
    index.save(tmp_path)
    assert len(list(tmp_path.glob("*.faiss"))) <= 8  # 200 is 11001000 in binary
    assert index.names == tuple(numbered(200)) and recall(VectorIndex.load(tmp_path), vectors, sample(9, 3)) == 1


def test_remove_and_add_again(tmp_path):
    index = built(50)
    index.save(tmp_path)
    index.remove(["image 7", "image 3"])
    assert len(index) == 48 and "image 7" not in index and "image 8" in index
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    assert loaded.names == index.names == tuple(name for name in numbered(50) if name not in ("image 7", "image 3"))
    nearest = loaded.search(sample(50)[7:8], 60)[0]
    assert len(nearest) == 48 and "image 7" not in {name for name, *_ in nearest}
    loaded.add(sample(50)[7:8], ["image 7"])
    assert loaded.search(sample(50)[7:8], 1)[0][0][:2] == ("image 7", pytest.approx(1, abs=1e-6))
    loaded.remove(loaded.names)
    assert len(loaded) == 0 and loaded.search(sample(2), 3) == [[], []] and loaded.names == ()
    loaded.save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".rmac.json", ".rmac.lock", "meta.json"]
    assert len(VectorIndex.load(tmp_path)) == 0


def test_names_of_any_language(tmp_path):
    names = ["Köln Dom 1.jpg", "東京/塔.png", " blank ", "a\tb", "Ωmega\u2028line", "é" * 300]
    index = VectorIndex(4)
    index.add(sample(6, dim=4), names)
    folder = tmp_path / "größer 目录"
    index.save(folder)
    assert VectorIndex.load(folder).names == tuple(names)


def test_a_lazy_copy_elsewhere_is_whole(tmp_path):
    index = built(40)
    index.save(tmp_path / "a")
    loaded = VectorIndex.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert loaded.home == (tmp_path / "b").resolve()
    loaded.remove(["image 0"])
    loaded.save(tmp_path / "b")
    assert len(VectorIndex.load(tmp_path / "a")) == 40 and len(VectorIndex.load(tmp_path / "b")) == 39


def test_two_writers_do_not_overwrite_each_other(tmp_path):
    built(5).save(tmp_path)
    first, second = VectorIndex.load(tmp_path), VectorIndex.load(tmp_path)
    first.add(sample(1, 1), ["new"])
    first.save(tmp_path)
    second.remove(["image 0"])
    second.add(sample(2, 2), ["new", "newer"])
    second.save(tmp_path)
    with pytest.raises(SearchIndexError, match="holds another index"):
        built(5).save(tmp_path)
    expected = (*numbered(5)[1:], "new", "newer")
    assert VectorIndex.load(tmp_path).names == second.names == expected
    vectors = np.concatenate([sample(5)[1:], sample(1, 1), sample(2, 2)[1:]])  # of "new" the first
    for name, vector in zip(expected, vectors, strict=True):
        nearest = second.search(vector[None], 1)[0][0]
        assert nearest.name == name and nearest.similarity == pytest.approx(1, abs=1e-6)


def test_a_reader_that_a_writer_overtakes_reads_again(tmp_path, monkeypatch):
    index = built(5)
    index.save(tmp_path)
    read_meta, calls = vector_index.read_meta, []

    def overtaken(folder):
        meta = read_meta(folder)
        if not calls:
            calls.append(1)
            index.add(sample(9, 1), numbered(9, 5))  # takes the first segment in; its files go
            index.save(tmp_path)
        return meta

    monkeypatch.setattr(vector_index, "read_meta", overtaken)
    assert len(VectorIndex.load(tmp_path)) == 14


def truncate(path, to=None):
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2 if to is None else to])


@pytest.mark.parametrize("damage, message", [
    (lambda f: (f / "meta.json").unlink(), "expected an index"),
    (lambda f: truncate(f / "meta.json"), "meta.json: expected an index.*damaged"),
    (lambda f: (f / "meta.json").write_text("[]"), "meta.json: expected an index.*dictionary"),
    (lambda f: (f / "000001.faiss").unlink(), "000001.faiss: expected a file of"),
    (lambda f: truncate(f / "000001.faiss"), "000001.faiss: expected a file of"),
    (lambda f: truncate(f / "000001.txt"), "000001.txt: expected a file of"),
    (lambda f: (f / "000001.faiss").write_bytes(bytes((f / "000001.faiss").stat().st_size)), "001.faiss: is damaged"),
    (lambda f: (f / "000001.txt").write_bytes(b"\xff" * (f / "000001.txt").stat().st_size), "001.txt: is damaged"),
    (lambda f: (f / "000001.txt").write_text("a" * (f / "000001.txt").stat().st_size), "001.txt: is damaged"),
])
def test_damage_is_named(tmp_path, damage, message):
    built(5).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(SearchIndexError, match=message):
        VectorIndex.load(tmp_path)


@pytest.mark.parametrize("change, message", [
    ({"format": "other"}, "expected format 'rmaclib-index', found 'other'"),
    ({"version": 3}, "version 3, this rmaclib reads up to 2"), ({"version": "x"}, "version x"),
    ({"version": 0}, "version 0"), ({"version": True}, "version True"),
    ({"dim": 17}, "expected 5 vectors of 17 numbers.*it has 5 of 16"), ({"dim": None}, "damaged"), ({"dim": 0}, "dim"),
    ({"generation": "1"}, "generation"),
    ({"segments": [{}]}, "damaged"), ({"segments": 3}, "damaged"), ({"about": 3}, "damaged")])
def test_other_meta_data_is_refused(tmp_path, change, message):
    built(5).save(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    del meta["checksum"]
    write_json(tmp_path / "meta.json", {**meta, **change}, checksum=True)
    with pytest.raises(SearchIndexError, match=message):
        VectorIndex.load(tmp_path)


@pytest.mark.parametrize("vectors, names, message", [
    (sample(3), numbered(2), r"expected shape \(2, 16\)"), (sample(3)[0], numbered(1), "expected shape"),
    (sample(3, dim=9), numbered(3), r"expected shape \(3, 16\).*got \(3, 9\)"),
    (sample(2) * np.nan, ["a", "b"], "finite"), (np.full((1, DIM), np.inf), ["a"], "finite"),
    (np.full((1, DIM), "x"), ["a"], "real numbers"), (np.full((1, DIM), 1j), ["a"], "real numbers"),
    (sample(2), ["a", "a"], "'a' is given twice"), (sample(1), ["image 3"], "in the index already"),
    (sample(1), ["a\nb"], "one line"), (sample(1), [7], "one line"), (sample(1), ["\udcff.jpg"], "UTF-8"),
])
def test_what_cannot_be_added_changes_nothing(vectors, names, message):
    index = built(5)
    with pytest.raises(ValueError, match=message):
        index.add(vectors, names)
    assert index.names == tuple(numbered(5)) and recall(index, sample(5), sample(3, 1), 5) == 1


@pytest.mark.parametrize("queries, k, message", [
    (sample(2), 0, "k: expected"), (sample(2), -3, "k: expected"), (sample(2), 2.0, "k: expected"),
    (sample(2), True, "k: expected"), (sample(2), None, "k: expected"), (sample(2, dim=3), 1, r"expected \(Q, 16\)"),
    (sample(2)[0], 1, r"expected \(Q, 16\)"), (sample(2) * np.nan, 1, "finite"), ([["a"] * DIM], 1, "real numbers")])
def test_bad_searches(queries, k, message):
    with pytest.raises(ValueError, match=message):
        built(5).search(queries, k)


def test_bad_removals_change_nothing():
    index = built(5)
    for names in (["image 3", "nobody"], "image 3", [["image 3"]], [None]):
        with pytest.raises(ValueError, match="names: expected names in the index"):
            index.remove(names)
    index.remove([])
    assert len(index) == 5
    with pytest.raises(ValueError, match="dim"):
        VectorIndex(0)


def test_10000_random_and_malformed_calls(tmp_path):
    """Whatever is asked for, in whatever order: an answer or a clear error; the index holds what a dictionary does."""
    chance, rng = random.Random(0), np.random.default_rng(0)
    dim, folder = 6, tmp_path / "Ünî cödé index"
    index, known, saved = VectorIndex(dim), {}, None
    names = [f"ordner {n}/bild {'é' * (n % 3)} {n}.jpg" for n in range(300)]
    bad_vectors = [None, "text", [], [[]], np.zeros((2, dim + 1)), np.full((1, dim), np.nan), np.full((2, dim), np.inf),
                   np.zeros(dim), np.zeros((1, dim), complex), np.full((1, dim), None), np.zeros((1, 1, dim)), 3]
    bad_names = [None, 3, [None], ["a\nb"], ["\ud800"], [b"bytes"], ["no such name"], "text", [["list"]],
                 ["twice"] * 2]
    counts = dict.fromkeys(("good", "refused"), 0)
    for _ in range(10_000):
        before = index.names if chance.random() < 0.02 else None
        try:
            action = chance.choice(["add", "search", "search", "remove", "bad add", "bad search", "bad remove", "disk"])
            if action == "add":
                new = [name for name in chance.sample(names, chance.randint(0, 6)) if name not in known]
                vectors = rng.normal(size=(len(new), dim)).astype(chance.choice(["f2", "f4", "f8"]))
                index.add(vectors, new, progress=False)
                known |= dict(zip(new, vectors.astype(float), strict=True))
            elif action == "search":
                query, k = rng.normal(size=dim), chance.choice([1, 2, 10, 10**12])
                found = index.search(query[None], k)[0]
                cosines = {name: query @ v / np.linalg.norm(query) / np.linalg.norm(v) for name, v in known.items()}
                expected = sorted(cosines.values(), reverse=True)[:k]
                np.testing.assert_allclose([value for _, value, _ in found], expected, atol=1e-5)
                np.testing.assert_allclose([cosines[name] for name, *_ in found], expected, atol=1e-5)
            elif action == "remove":
                gone = chance.sample(sorted(known), min(len(known), chance.randint(0, 6)))
                index.remove(gone)
                for name in gone:
                    del known[name]
            elif action == "bad add":
                index.add(chance.choice(bad_vectors), chance.choice([*bad_names, ["x"], ["x", "y"]]), progress=False)
            elif action == "bad search":
                index.search(chance.choice([*bad_vectors[:-1], np.ones((1, dim))]),
                             chance.choice([0, -1, 2.5, None, "3", float("nan"), True]))
            elif action == "bad remove":
                index.remove(chance.choice(bad_names[2:]))
            elif chance.random() < 0.2:
                index.save(folder)
                saved = set(known)
            elif saved is not None and chance.random() < 0.2:
                other = VectorIndex.load(folder)
                assert set(other.names) == saved
            elif chance.random() < 0.2:
                VectorIndex.load(chance.choice([tmp_path / "nowhere", tmp_path, "", "\0", os.devnull]))
            counts["good"] += 1
        except (ValueError, TypeError, SearchIndexError) as error:
            assert action.startswith("bad") or action == "disk", (action, error)
            assert len(str(error)) > 10
            counts["refused"] += 1
            assert before in (None, index.names)
    assert set(index.names) == set(known)
    assert counts["good"] > 5000 and counts["refused"] > 2500, counts


KILLED = """
import os, random, signal, sys, time
import numpy as np
from rmaclib.search.vector_index import VectorIndex

folder, kills = sys.argv[1], int(sys.argv[2])
def vectors(first, count):
    # From 1: a vector of zeros has no direction.
    return np.sin(np.arange(first + 1, first + count + 1)[:, None] * np.arange(1.0, 9.0)).astype(np.float32)

def following(state):  # added, looked through for removals -> the next state
    added, looked = state
    return (added, added) if looked < added else (added + 1 + 37 * added % 50, looked)

def names(state):
    added, looked = state
    return tuple(str(n) for n in range(added) if n % 7 or n >= looked)

def work(state, pipe):
    index = VectorIndex.load(folder) if state != (0, 0) else VectorIndex(8)
    while True:
        new = following(state)
        if new[0] > state[0]:
            index.add(vectors(state[0], new[0] - state[0]), [str(n) for n in range(state[0], new[0])], progress=False)
        else:
            index.remove([str(n) for n in range(state[1], new[1]) if n % 7 == 0])
        index.save(folder)
        state = new
        os.write(pipe, b"%d %d\\n" % state)

chance, state, left_overs = random.Random(0), (0, 0), 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        work(state, writing)
    os.close(writing)
    # Every fifth time while it opens the index, else after its first save: a slow machine gets that far too.
    first = os.read(reading, 1) if kill % 5 else b""
    time.sleep(chance.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = (first + os.fdopen(reading, "rb").read()).decode().split("\\n")[:-1]
    if said:
        state = tuple(map(int, said[-1].split()))
    if state == (0, 0) and not os.path.exists(folder + "/meta.json"):
        continue
    index = VectorIndex.load(folder)
    assert index.names in (names(state), names(following(state))), (state, len(index))
    state = state if index.names == names(state) else following(state)
    unit = vectors(0, state[0]) / np.linalg.norm(vectors(0, state[0]), axis=1, keepdims=True)
    for segment in index._segments:
        rows = [int(name) for name in segment.names]
        assert np.allclose(segment.index.reconstruct_n(0, len(rows)), unit[rows], atol=1e-6)
    named = {f"{segment.entry.number:06d}" for segment in index._segments} | {"meta"}
    files = [file for file in os.listdir(folder) if file not in (".rmac.json", ".rmac.lock")]
    left_overs += any(file.split(".")[0] not in named for file in files)
print(state[0], left_overs)
"""


def test_killed_50_times_while_adding_and_saving(tmp_path):
    """The folder always opens, in the last state that was announced or the one being saved; nothing half."""
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "index", "50"], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    added, left_overs = map(int, done.stdout.split())
    assert added > 200 and left_overs >= 3  # some were killed in the middle of a save


class Breakpoints:
    """Raises an error at one of the calls that a save changes the disk with, before or after it."""

    CALLS = ((os, "replace"), (os, "fsync"), (os, "unlink"), (faiss, "write_index"), (Path, "write_text"))

    def __init__(self, monkeypatch, error, after):
        self.error, self.after, self.wanted, self.count = error, after, None, 0
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def watched(self, call):
        def watching(*arguments, **options):
            self.count += 1
            chosen = self.count == self.wanted
            if chosen and not self.after:
                raise self.error
            result = call(*arguments, **options)
            if chosen:
                raise self.error
            return result
        return watching


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_an_interrupt_or_error_anywhere_in_a_save_leaves_an_index(tmp_path, monkeypatch, error, after):
    """The old state or the new one, and the next save brings the new one."""
    built(5).save(tmp_path / "start")
    breakpoints = Breakpoints(monkeypatch, error, after)
    ended, number = {"old": 0, "new": 0}, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "start", folder)
        index = VectorIndex.load(folder)
        index.add(sample(6, 1), numbered(6, 5))  # takes the first segment in
        breakpoints.wanted, breakpoints.count = number, 0
        with suppress(KeyboardInterrupt, OSError, OutputError):
            index.save(folder)
        happened, breakpoints.wanted = breakpoints.count >= number, None
        state = {5: "old", 11: "new"}[len(VectorIndex.load(folder))]
        index.save(folder)
        assert VectorIndex.load(folder).names == tuple(numbered(11))
        named = {name for segment in index._segments for name in segment_files(segment.entry.number)}
        assert set(os.listdir(folder)) == {".rmac.json", ".rmac.lock", "meta.json", *named}
        if not happened:
            break
        ended[state] += 1
    assert ended["old"] > 5 and ended["new"] > 1, ended


# --- several writers, and what older versions wrote ---------------------------------------------------------------


def test_every_kind_of_segment_is_carried_over(small_limits, tmp_path):
    """What two processes added and removed is all there, whatever segments it lies in; float32 stays to the bit."""
    for count in (60, 900, 2500):
        folder = tmp_path / str(count)
        built(30).save(folder)
        first, second = VectorIndex.load(folder), VectorIndex.load(folder)
        first.add(sample(40, 1), numbered(40, 1000))
        first.save(folder)
        vectors = normalise_rows(sample(count, 2))
        second.add(vectors, numbered(count, 5000))
        second.remove(["image 3", "image 5000"])
        second.save(folder)
        loaded = VectorIndex.load(folder)
        expected = {*numbered(30), *numbered(40, 1000), *numbered(count, 5000)} - {"image 3", "image 5000"}
        assert set(loaded.names) == set(second.names) == expected and len(loaded) == len(expected)
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
    with pytest.raises(SearchIndexError, match="holds another index since"):
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


def older(folder):
    """Makes of a folder what version 1 wrote: no checksums, no marker."""
    meta = json.loads((folder / "meta.json").read_text())
    del meta["checksum"]
    for entry in meta["segments"]:
        del entry["checksums"]
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 1}))
    for name in (".rmac.json", ".rmac.lock"):
        (folder / name).unlink()


def test_an_index_of_version_1_is_loaded_and_added_to(tmp_path):
    built(20).save(tmp_path)
    older(tmp_path)
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


@pytest.mark.parametrize("file", ["000001.faiss", "000001.txt"])
def test_changed_files_are_refused(tmp_path, file):
    """One bit of a vector or a name: still a valid file, of another content."""
    built(5).save(tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[-2] ^= 1
    (tmp_path / file).write_bytes(data)
    with pytest.raises(SearchIndexError, match=f"{file}: is damaged or was changed"):
        VectorIndex.load(tmp_path)


def test_a_file_that_faiss_would_crash_on_is_refused(small_limits, tmp_path):
    """Without checksums (version 1): another index, of the right size in bytes or not, behind the right name."""
    for count, structure in ((90, "flat"), (900, "hnsw"), (2500, "ivf-pq")):
        folder = tmp_path / structure
        built(count).save(folder)
        older(folder)
        assert len(VectorIndex.load(folder)) == count
        meta = json.loads((folder / "meta.json").read_text())
        for other in (faiss.IndexFlatL2(DIM), faiss.IndexFlatIP(DIM + 1), faiss.IndexLSH(DIM, 8),
                      faiss.IndexHNSWFlat(DIM, 4), faiss.index_factory(DIM, "IVF4,Flat")):
            vectors = sample(count, dim=other.d)
            other.train(vectors)
            other.add(vectors)
            faiss.write_index(other, str(folder / "000001.faiss"))
            meta["segments"][0]["bytes"][0] = (folder / "000001.faiss").stat().st_size
            (folder / "meta.json").write_text(json.dumps(meta))
            with pytest.raises(SearchIndexError, match=r"000001.faiss: expected .* it is damaged"):
                VectorIndex.load(folder)


# --- growing ------------------------------------------------------------------------------------------------------


def test_cells_are_learned_on_all_that_go_in(monkeypatch, tmp_path):
    """Small additions, each of other directions: an index of one addition's cells would find few of the others."""
    monkeypatch.setattr(vector_index, "FLAT_UP_TO", 200)
    monkeypatch.setattr(vector_index, "HNSW_UP_TO", 2000)
    originals = normalise_rows(np.repeat(sample(100, 5, 32), 10, 0) + 0.5 * sample(1000, 6, 32))
    vectors = np.concatenate(list(synthetic_distractors(originals, 3000)))
    queries = next(synthetic_distractors(originals, 100, 1))
    whole, index = VectorIndex(32), VectorIndex(32)
    whole.add(vectors, numbered(3000))
    for start in range(0, 3000, 10):  # number 256 merges more than HNSW_UP_TO
        index.add(vectors[start:start + 10], numbered(10, start), progress=False)
    assert "ivf-pq" in str(index) and index.names == whole.names
    assert recall(index, vectors, queries) > recall(whole, vectors, queries) - 0.01


def test_taking_in_loses_nothing():
    """Vectors that are taken in again and again stay the same to the bit."""
    vectors, index = sample(64), VectorIndex(DIM)
    index.add(vectors[:1], ["image 0"])
    first = index._segments[0].index.reconstruct(0)
    for number in range(1, 64):
        index.add(vectors[number:number + 1], [f"image {number}"])
    np.testing.assert_array_equal(index._segments[0].index.reconstruct(0), first)


def test_an_addition_that_cannot_be_written_leaves_the_old_state(tmp_path, monkeypatch):
    index = built(5)
    index.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*arguments):
        raise RuntimeError("write error in out.faiss: 0 != 64 (No space left on device)")

    monkeypatch.setattr(faiss, "write_index", full)
    index.add(sample(9, 1), numbered(9, 5))
    with pytest.raises(OutputError, match=r"000002.faiss: can't be written \(No space left on device\)"):
        index.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    index.save(tmp_path)
    assert len(VectorIndex.load(tmp_path)) == 14


def test_a_disk_that_is_full_at_the_last_bytes_is_told(tmp_path):
    """Too few bytes for a buffer to be written before the file is closed."""
    built(5).save(tmp_path)
    index = VectorIndex.load(tmp_path)
    index.add(sample(50, 1), numbered(50, 5))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises((OSError, OutputError)):
            index.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert VectorIndex.load(tmp_path).names == tuple(numbered(5))
    index.save(tmp_path)
    assert VectorIndex.load(tmp_path).names == tuple(numbered(55))


def test_sizes_in_a_file_are_not_believed(small_limits, tmp_path):
    """Of version 1, without checksums: faiss would set up terabytes, or count for hours."""
    for count, structure in ((90, "flat"), (900, "hnsw"), (2500, "ivf-pq")):
        folder = tmp_path / structure
        built(count).save(folder)
        older(folder)
        data = (folder / "000001.faiss").read_bytes()
        places = [place for place in range(len(data)) if data.startswith(count.to_bytes(8, "little"), place)]
        assert places
        for place in places:
            (folder / "000001.faiss").write_bytes(data[:place] + (2**40).to_bytes(8, "little") + data[place + 8:])
            with pytest.raises(SearchIndexError, match="000001.faiss: .* damaged"):
                VectorIndex.load(folder)
