import os
import pickle
import random
import resource
import time

import numpy as np
import pytest

from rmaclib.datasets import DatasetError, load_restricted_pickle, read_revisited


@pytest.fixture
def ground_truth():
    return {"imlist": ["a", "b", "c", "d"], "qimlist": ["q"],
            "gnd": [{"bbx": [1.0, 2.0, 30.0, 40.0], "easy": [0], "hard": np.array([2]), "junk": []}]}


@pytest.fixture
def save(tmp_path):
    """Writes the ground truth and the images a b c d q; gives the root."""
    def write(content, protocol=2):
        (tmp_path / "jpg").mkdir(exist_ok=True)
        for name in "abcdq":
            (tmp_path / f"jpg/{name}.jpg").touch()
        (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content, protocol))
        return tmp_path
    return write


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_published_structure_in_every_pickle_protocol(save, ground_truth, protocol):
    dataset = read_revisited(save(ground_truth, protocol), "ro")
    assert (dataset.name, dataset.layout, dataset.names) == ("ro", "revisited", ("a", "b", "c", "d"))
    query, = dataset.queries
    assert (query.name, query.image, query.box) == ("q", "q", (1, 2, 30, 40))
    assert query.relevance == {"easy": {"a"}, "hard": {"c"}, "junk": set()}
    assert dataset.counts == {"images": 4, "queries": 1, "positives": 2, "junk": 0}


def test_indices_keep_their_image_when_another_is_missing(save, ground_truth):
    root = save(ground_truth)
    (root / "jpg/b.jpg").unlink()
    (root / "jpg/a.jpg").unlink()
    dataset = read_revisited(root)
    assert dataset.names == ("c", "d") and dataset.missing == ("a", "b")
    assert dataset.queries[0].relevance == {"easy": set(), "hard": {"c"}, "junk": set()}


def test_a_query_without_image_is_left_out_with_a_note(save, ground_truth, noted):
    ground_truth["qimlist"], ground_truth["gnd"] = ["q", "z"], ground_truth["gnd"] * 2
    with noted(r"z \(z\)"):
        dataset = read_revisited(save(ground_truth))
    assert len(dataset.queries) == 1 and dataset.missing == ("z",)


@pytest.mark.parametrize("key, value, message", [
    ("easy", [0, 4], r"gnd\[0\] \('q'\): expected easy indices in 0..3, found 4"),
    ("junk", [-1], r"gnd\[0\] \('q'\): expected junk indices in 0..3, found -1"),
    ("hard", [1.5], r"expected hard to be a list of whole numbers"),
    ("hard", [0], r"expected one grade per image"),
    ("bbx", [1, 2, 1, 4], r"expected bbx .* found \[1, 2, 1, 4\]"),
    ("bbx", None, r"bbx: expected a list, found NoneType"),
])
def test_wrong_ground_truth_names_the_query(save, ground_truth, key, value, message):
    ground_truth["gnd"][0][key] = value
    with pytest.raises(DatasetError, match=message):
        read_revisited(save(ground_truth))


@pytest.mark.parametrize("change, message", [
    ({"gnd": []}, r"expected one gnd entry for each of 1 queries, found 0"),
    ({"gnd": [3]}, r"expected a dictionary of bbx, easy, hard and junk"),
    ({"imlist": ["a", "a"]}, r"expected imlist to be a list of different image names"),
    ({"qimlist": [7]}, r"expected qimlist to be a list of different image names"),
])
def test_another_structure_is_refused(save, ground_truth, change, message):
    with pytest.raises(DatasetError, match=message):
        read_revisited(save(ground_truth | change))


def test_another_content_is_refused(save, tmp_path):
    with pytest.raises(DatasetError, match="expected a dictionary of imlist, qimlist and gnd, found list"):
        read_revisited(save([1, 2]))
    (tmp_path / "gnd_rparis6k.pkl").touch()
    with pytest.raises(DatasetError, match="expected one gnd_r.*found gnd_roxford5k.pkl, gnd_rparis6k.pkl"):
        read_revisited(tmp_path)


class Attack:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [os.system, eval, getattr, np.load])
def test_a_pickle_that_calls_anything_is_refused(save, tmp_path, call, protocol):
    target = tmp_path / "owned"
    root = save({"imlist": Attack(call, f"touch {target}")}, protocol)
    with pytest.raises(DatasetError, match=r"gnd_roxford5k.pkl: expected a pickle of plain .* it names "):
        read_revisited(root)
    assert not target.exists()


def test_python_2_text_is_latin_1(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02]q\x00U\x04caf\xe9q\x01a.")
    assert load_restricted_pickle(tmp_path / "old.pkl") == ["café"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_arrays_come_back(tmp_path, protocol):
    content = {"s": {1, 2}, "f": frozenset({3}), "b": (b"", b"\xff"), "n": np.float32(1.5),
               "a": np.arange(6).reshape(2, 3), "empty": np.zeros(0, np.int64)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    back = load_restricted_pickle(tmp_path / "x.pkl")
    assert {key: back[key] for key in "sfbn"} == {key: content[key] for key in "sfbn"}
    np.testing.assert_array_equal(back["a"], content["a"])
    assert back["empty"].shape == (0,)


def test_both_names_of_numpys_module_are_read(tmp_path):
    data = pickle.dumps(np.arange(3), 2)
    for old, new in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        (tmp_path / "x.pkl").write_bytes(data.replace(old, new))
        assert load_restricted_pickle(tmp_path / "x.pkl").tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x02]q\x00"])
def test_damaged_files_are_named(tmp_path, damage):
    (tmp_path / "x.pkl").write_bytes(damage)
    with pytest.raises(DatasetError, match=r"x.pkl: expected a pickle"):
        load_restricted_pickle(tmp_path / "x.pkl")
    with pytest.raises(DatasetError, match=r"y.pkl: no such file"):
        load_restricted_pickle(tmp_path / "y.pkl")


def numpys(name, *arguments, state=None, module="numpy"):
    """Protocol 0: the call of a function of NumPy, and the state that the result gets."""
    body = f"c{module}\n{name}\n(" + "".join(arguments) + "tR"
    return (body + (f"({state}tb" if state else "") + ".").encode()


_ARRAY = "cnumpy\nndarray\n"
_OBJECTS = "cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
_FLOATS = "cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
# Memo entry 60 is a tuple that contains entry 59 twice, and so on: its hash takes 2 ** 60 steps.
_NESTED = b")q\x000" + b"".join(bytes([*b"h", n, *b"h", n, *b"\x86q", n + 1, *b"0"]) for n in range(60))
BOMBS = {
    "an array of 80 GB": numpys("ndarray", "(I10000000000\nt", "S'O'\n"),
    "an array of 80 GB, rebuilt": numpys("_reconstruct", _ARRAY, "(I10000000000\nt", "S'O'\n",
                                         module="numpy.core.multiarray"),
    "a state of 80 GB": numpys("_reconstruct", _ARRAY, "(I0\nt", "S'b'\n", module="numpy.core.multiarray",
                               state="I1\n(I10000000000\nt" + _OBJECTS + "I00\n(l"),
    "more numbers than bytes": numpys("_reconstruct", _ARRAY, "(I0\nt", "S'b'\n", module="numpy.core.multiarray",
                                      state="I1\n(I10000000000\nt" + _FLOATS + "I00\nS''\n"),
    "a set with a slow hash": b"\x80\x02" + _NESTED + b"cbuiltins\nset\n]h\x3ca\x85R.",
    "a key with a slow hash": b"\x80\x02" + _NESTED + b"}h\x3cNs.",
    "a memo of 32 GB": b"\x80\x02]r\xff\xff\xff\xff.",
    "a bytearray of 32 GB": b"\x80\x05\x96" + (2**35).to_bytes(8, "little") + b".",
    "text of 32 GB": b"\x80\x04\x8d" + (2**35).to_bytes(8, "little") + b".",
    "a changed function": b"cnumpy.core.numeric\n_frombuffer\n(N(S'__doc__'\nNdtb.",
    "deeper than any stack": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "an endless codec": b"c_codecs\nencode\n(V" + b"x" * 100 + b"\nS'punycode'\ntR.",
    "an object": b"\x80\x02cnumpy\nndarray\n)\x81.",
}


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_a_pickle_takes_no_more_memory_or_time_than_its_size(tmp_path, bomb):
    (tmp_path / "x.pkl").write_bytes(BOMBS[bomb])
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if bomb in ("a memo of 32 GB", "deeper than any stack"):
        assert isinstance(load_restricted_pickle(tmp_path / "x.pkl"), list)
    else:
        with pytest.raises(DatasetError, match="x.pkl: expected a pickle"):
            load_restricted_pickle(tmp_path / "x.pkl")
    assert time.monotonic() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize("key, value", [
    ("imlist", 7), ("imlist", "abcd"), ("imlist", {"a": 1}), ("imlist", [None]), ("imlist", ["a\nb"]), ("gnd", "x"),
    ("gnd", {0: 1}), ("qimlist", np.zeros((2, 2))), ("qimlist", None),
])
def test_unexpected_types_are_errors(save, ground_truth, key, value):
    with pytest.raises(DatasetError, match=r"gnd_roxford5k.pkl"):
        read_revisited(save(ground_truth | {key: value}))


@pytest.mark.parametrize("key, value", [
    ("bbx", "1234"), ("bbx", {1: 2}), ("bbx", [10**400, 1, 2, 3]), ("bbx", [1, 2, float("inf"), 4]), ("bbx", [[1]] * 4),
    ("easy", "0"), ("easy", {0}), ("easy", [[0], [1, 2]]), ("easy", [None]), ("easy", [True]), ("easy", [10**30]),
    ("easy", [10**5000]), ("easy", np.array([[0]])), ("easy", 0), ("junk", [0.0]), ("hard", {"a": 0}),
])
def test_unexpected_ground_truth_is_an_error(save, ground_truth, key, value):
    ground_truth["gnd"][0][key] = value
    with pytest.raises(DatasetError, match=r"gnd_roxford5k.pkl: gnd\[0\]"):
        read_revisited(save(ground_truth))


def test_every_mutation_is_an_error_or_read(tmp_path, ground_truth):
    ground_truth["gnd"][0]["easy"] = np.arange(3)
    for protocol in (0, 2, 5):
        whole = pickle.dumps(ground_truth, protocol)
        draw = random.Random(protocol)
        for _ in range(200):
            changed = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            (tmp_path / "x.pkl").write_bytes(changed[:draw.choice([None, draw.randrange(len(changed))])])
            try:
                load_restricted_pickle(tmp_path / "x.pkl")
            except DatasetError as error:
                assert "x.pkl" in str(error)


def test_a_folder_and_a_device_are_no_pickles(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(DatasetError, match="expected a pickle, found a"):
            load_restricted_pickle(path)
