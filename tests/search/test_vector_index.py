import os
import random

import numpy as np
import pytest
from search_vectors import DIM, SMALL_LIMITS, built, numbered, recall, sample

from rmaclib.ranking import normalise_rows, rank
from rmaclib.search.distractors import synthetic_distractors
from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.structures import StructureLimits
from rmaclib.search.vector_index import VectorIndex


def test_flat_is_exact():
    vectors, queries = sample(300), sample(20, 1) * 7
    index = built(300)
    expected = rank(queries, vectors, 12)
    cosines = queries @ vectors.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
    for row, order, cosine in zip(index.search(queries, 12), expected, cosines, strict=True):
        assert [name for name, *_ in row] == [f"image {n}" for n in order]
        np.testing.assert_allclose([value for _, value, _ in row], cosine[order], atol=1e-6)


@pytest.mark.parametrize("count, structure", [(1600, "hnsw"), (3000, "ivf-pq")])
def test_large_structures(tmp_path, count, structure):
    centres = sample(200, 5, 32)
    vectors = np.repeat(centres, count // 200, 0) + sample(count, dim=32) * np.linspace(0.1, 0.6, count)[:, None]
    index = VectorIndex(32, limits=SMALL_LIMITS)
    index.add(vectors, numbered(count))
    assert structure in str(index)
    queries = centres[:60]
    assert recall(index, vectors, queries) > 0.9
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    assert loaded.search(queries, 10) == index.search(queries, 10) and str(loaded) == str(index)
    removed = numbered(count)[::2]
    loaded.remove(removed)
    assert not {name for row in loaded.search(queries, 10) for name, *_ in row} & set(removed)
    for row in loaded.search(queries[:3], 10**9):  # some cells are not searched, so not all are returned
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


def test_cells_are_learned_on_all_that_is_added():
    """Small additions, each of other directions: an index with one addition's cells would find few of the others."""
    originals = normalise_rows(np.repeat(sample(100, 5, 32), 10, 0) + 0.5 * sample(1000, 6, 32))
    vectors = np.concatenate(list(synthetic_distractors(originals, 3000)))
    queries = next(synthetic_distractors(originals, 100, 1))
    limits = StructureLimits(200, 2000)
    whole, index = VectorIndex(32, limits=limits), VectorIndex(32, limits=limits)
    whole.add(vectors, numbered(3000))
    for start in range(0, 3000, 10):  # number 256 makes a segment of more than 2,000
        index.add(vectors[start:start + 10], numbered(10, start), progress=False)
    assert "ivf-pq" in str(index) and index.names == whole.names
    assert recall(index, vectors, queries) > recall(whole, vectors, queries) - 0.01


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


def test_a_memory_mapped_index_is_copied_whole(tmp_path):
    index = built(40)
    index.save(tmp_path / "a")
    loaded = VectorIndex.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert loaded.home == (tmp_path / "b").resolve()
    loaded.remove(["image 0"])
    loaded.save(tmp_path / "b")
    assert len(VectorIndex.load(tmp_path / "a")) == 40 and len(VectorIndex.load(tmp_path / "b")) == 39


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
    """Each call gives a result or a clear error, in whatever order; the index contains what a dictionary does."""
    chance, rng = random.Random(0), np.random.default_rng(0)
    dim, folder = 6, tmp_path / "Ünî cödé index"
    index, known, saved = VectorIndex(dim), {}, None
    names = [f"ordner {n}/bild {'é' * (n % 3)} {n}.jpg" for n in range(300)]
    bad_vectors = [None, "text", [], [[]], np.zeros((2, dim + 1)), np.full((1, dim), np.nan), np.full((2, dim), np.inf),
                   np.zeros(dim), np.zeros((1, dim), complex), np.full((1, dim), None), np.zeros((1, 1, dim)), 3]
    bad_names = [None, 3, [None], ["a\nb"], ["\ud800"], [b"bytes"], ["no such name"], "text", [["list"]],
                 ["twice"] * 2]
    counts = dict.fromkeys(("good", "rejected"), 0)
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
                neighbours = index.search(query[None], k)[0]
                cosines = {name: query @ v / np.linalg.norm(query) / np.linalg.norm(v) for name, v in known.items()}
                expected = sorted(cosines.values(), reverse=True)[:k]
                np.testing.assert_allclose([value for _, value, _ in neighbours], expected, atol=1e-5)
                np.testing.assert_allclose([cosines[name] for name, *_ in neighbours], expected, atol=1e-5)
            elif action == "remove":
                removed = chance.sample(sorted(known), min(len(known), chance.randint(0, 6)))
                index.remove(removed)
                for name in removed:
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
            counts["rejected"] += 1
            assert before in (None, index.names)
    assert set(index.names) == set(known)
    assert counts["good"] > 5000 and counts["rejected"] > 2500, counts
