from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaclib.datasets import (
    DatasetError,
    LabelledImages,
    ListEntry,
    open_images,
    read_csv,
    read_landmarks_entries,
    read_landmarks_list,
    write_landmarks_list,
)


def touch(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()


def labelled(*rows):
    names, labels, boxes = zip(*rows, strict=True)
    return LabelledImages("c", Path("."), names, tuple(map(Path, names)), labels, boxes)


def test_lines_with_and_without_box(tmp_path):
    touch(tmp_path, "a.jpg", "my trip/b 2.jpg")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.jpg 1\r\n\r\nmy trip/b 2.jpg 0 10 110.5 20 220 \r\n"
                                        b"gone.jpg 0\r\n")
    (tmp_path / "landmarks.txt").write_text("tower\nbridge\n")
    images = read_landmarks_list(tmp_path / "list.txt")
    assert (images.name, images.names, images.labels) == ("list", ("a.jpg", "my trip/b 2.jpg"), (1, 0))
    assert images.boxes == (None, (10, 20, 110.5, 220))  # on disk x1 x2 y1 y2
    assert images.paths[1] == tmp_path / "my trip/b 2.jpg"
    assert images.label_names == ("tower", "bridge") and images.missing == ("gone.jpg",)
    assert images.counts == {"images": 2, "landmarks": 2}


def test_another_root_and_no_label_names(tmp_path):
    touch(tmp_path, "pictures/a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg 7\n")
    images = read_landmarks_list(tmp_path / "list.txt", tmp_path / "pictures")
    assert images.root == tmp_path / "pictures" and images.label_names is None and images.labels == (7,)


def test_addresses_need_no_file(tmp_path):
    (tmp_path / "list.txt").write_text("http://x.org/a b.jpg 3 1 2 3 4\n")
    entry, = read_landmarks_entries(tmp_path / "list.txt")
    assert entry == ListEntry("http://x.org/a b.jpg", 3, (1, 3, 2, 4))
    with pytest.raises(DatasetError, match="found none of 1 .first: 'http://x.org/a b.jpg'"):
        read_landmarks_list(tmp_path / "list.txt")


@pytest.mark.parametrize("line, reason", [
    ("a.jpg", "0 numbers"), ("a.jpg x", "0 numbers"), ("12", "0 numbers"), ("a.jpg 1 2 3", "3 numbers"),
    ("a.jpg 1 2 3 4 5 6", "6 numbers"), ("a.jpg -1", "label -1"), ("a.jpg 1.5", "label 1.5"),
    ("a.jpg 1 5 5 1 9", "box"), ("a.jpg 1 9 5 1 9", "box"), ("a.jpg 1 1 nan 1 9", "box"),
])
def test_malformed_lines_are_named(tmp_path, line, reason):
    (tmp_path / "list.txt").write_text(f"ok.jpg 0\n{line}\n")
    with pytest.raises(DatasetError, match=rf"list.txt:2: expected `path label` or .* found .*{reason}"):
        read_landmarks_list(tmp_path / "list.txt")


def test_empty_and_missing_lists_and_too_few_label_names(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DatasetError, match="list.txt: expected lines"):
        read_landmarks_list(tmp_path / "list.txt")
    with pytest.raises(DatasetError, match="none.txt: no such file"):
        read_landmarks_list(tmp_path / "none.txt")
    (tmp_path / "list.txt").write_text("a.jpg 1\n")
    (tmp_path / "labels.txt").write_text("tower\n")
    with pytest.raises(DatasetError, match=r"labels.txt: expected a name for each label up to 1 .* 1 names"):
        read_landmarks_list(tmp_path / "list.txt")


def test_the_order_on_disk(tmp_path):
    rows = ("a.jpg", 2, (10, 20.25, 110, 220)), ("b.jpg", 0, None)
    write_landmarks_list(tmp_path / "list.txt", labelled(*rows))
    assert (tmp_path / "list.txt").read_text() == "a.jpg 2 10 110 20.25 220\nb.jpg 0\n"
    assert [file.name for file in tmp_path.iterdir()] == ["list.txt"]


numbers = st.floats(-1e6, 1e6)
boxes = st.tuples(numbers, numbers, numbers, numbers).filter(lambda box: box[0] < box[2] and box[1] < box[3])
entries = st.tuples(st.text(min_size=1), st.integers(0, 10**6), st.none() | boxes)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(entries, min_size=1, max_size=5))
def test_a_list_reads_back_as_written_or_is_not_written(tmp_path, rows):
    path = tmp_path / "list.txt"
    path.write_text("before")
    try:
        write_landmarks_list(path, labelled(*rows))
    except ValueError:
        assert path.read_text() == "before"
    else:
        assert [tuple(entry) for entry in read_landmarks_entries(path)] == rows


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", " a.jpg", "a.jpg 3", ""])
def test_names_that_cannot_be_written_are_errors(tmp_path, name):
    with pytest.raises(ValueError, match="can't be written as"):
        write_landmarks_list(tmp_path / "list.txt", labelled((name, 0, None)))
    assert list(tmp_path.iterdir()) == []


def test_collections_of_unequal_columns_are_errors():
    with pytest.raises(ValueError, match=r"as many names, paths, labels and boxes, got \[1, 1, 2, 1\]"):
        LabelledImages("c", Path("."), ("a",), (Path("a"),), (0, 1), (None,))


def test_csv_with_names_and_boxes(tmp_path):
    touch(tmp_path, "a, b.jpg", "c.jpg")
    (tmp_path / "list.csv").write_text('\ufeffpath,label,x1,y1,x2,y2\n"a, b.jpg",tower,1,2,3,4\n'
                                       'c.jpg,bridge,,,,\ngone.jpg,bridge,,,,\n')
    images = read_csv(tmp_path / "list.csv")
    assert images.names == ("a, b.jpg", "c.jpg") and images.boxes == ((1, 2, 3, 4), None)
    assert images.labels == (1, 0) and images.label_names == ("bridge", "tower")
    assert images.missing == ("gone.jpg",)


def test_csv_with_numbers_or_without_labels(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text("label,path\n12,a.jpg\n")
    assert read_csv(tmp_path / "list.csv").labels == (12,)
    (tmp_path / "list.csv").write_text("path\na.jpg\n")
    assert read_csv(tmp_path / "list.csv").labels == (0,)


@pytest.mark.parametrize("text, message", [
    ("", r":1: expected a column `path`, found no header"),
    ("file,label\na.jpg,0\n", r":1: expected a column `path`, found \['file', 'label'\]"),
    ("path,label\na.jpg,0\n,1\n", r":3: expected a path, found an empty field"),
    ("path,label\na.jpg\n", r":2: expected 2 fields, found 1"),
    ("path\na.jpg,0\n", r":2: expected 1 fields, found 2"),
    ("path,label\na.jpg,0\na.jpg,\n", r":3: expected a label"),
    ("path,x1,y1,x2,y2\na.jpg,1,2,,\n", r":2: expected x1, y1, x2, y2"),
    ("path,x1,y1,x2,y2\na.jpg,1,2,1,4\n", r":2: expected x1, y1, x2, y2"),
    ("path\nb.jpg\n", r": expected its images under .* found none of 1"),
    ("path\n", r": expected its images under .* found none of 0"),
])
def test_malformed_csv_is_named(tmp_path, text, message):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match="list.csv" + message):
        read_csv(tmp_path / "list.csv")
    with pytest.raises(DatasetError, match="none.csv: no such file"):
        read_csv(tmp_path / "none.csv")


@pytest.mark.parametrize("line", ["b.jpg 100000000000000000000", "b.jpg " + "9" * 5000, "b.jpg 2147483648",
                                  "b\0.jpg 1", "b.jpg 1 0 inf 0 9"])
def test_absurd_lines_are_named(tmp_path, line):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text(f"a.jpg 0\n{line}\n")
    with pytest.raises(DatasetError, match=r"list.txt:2: "):
        read_landmarks_list(tmp_path / "list.txt")


def test_bad_lines_can_be_skipped(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.txt").write_text("a.jpg 0\nno label\nb.jpg 1 9 5 1 9\nb.jpg 1\na.jpg 7\n")
    (tmp_path / "labels.txt").write_text("tower\nbridge\n")
    images = read_landmarks_list(tmp_path / "list.txt", skip_bad=True)
    assert images.names == ("a.jpg", "b.jpg") and images.labels == (0, 1)
    assert [(entry.place, entry.name) for entry in images.skipped] == [
        (f"{tmp_path}/list.txt:2", "no label"), (f"{tmp_path}/list.txt:3", "b.jpg 1 9 5 1 9"),
        (f"{tmp_path}/list.txt:5", "a.jpg")]
    assert "0 numbers" in images.skipped[0].reason and "box" in images.skipped[1].reason
    assert images.left_out[1] == ("b.jpg 1 9 5 1 9", f"{tmp_path}/list.txt:3: {images.skipped[1].reason}")
    assert "3 files or rows are left out" in images.notes[0]
    with pytest.raises(DatasetError):
        read_landmarks_list(tmp_path / "list.txt")


def test_bad_rows_of_csv_can_be_skipped(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text("path,label,x1,y1,x2,y2\na.jpg,7,,,,\nb.jpg,,,,,\nb.jpg,3,1,2,1,4\nb.jpg\n"
                                       f"b.jpg,{10**20},,,,\nb.jpg,{'9' * 5000},,,,\nb.jpg,3,1,2,3,4\n")
    images = read_csv(tmp_path / "list.csv", skip_bad=True)
    assert images.names == ("a.jpg", "b.jpg") and images.labels == (7, 3) and images.boxes == (None, (1, 2, 3, 4))
    assert [entry.place.split(":")[-1] for entry in images.skipped] == ["3", "4", "5", "6", "7"]


@pytest.mark.parametrize("content, message", [
    (b"path,label\na.jpg,0\n\"b.jpg,1\n", r":3: expected CSV"), (b"path,path\na.jpg,b.jpg\n", ":1: expected a column"),
    (b"path\na\0.jpg\n", ":2: expected a path"), (b"path\n\xff.jpg\n", ":2: expected UTF-8"),
    (b"path,label\na.jpg,\"two\nlines\"\n", ":3: expected a label"),
    (b"path\n" + b"a" * 200_000, ":2: expected CSV"), (b"path,x1,y1,x2,y2\na.jpg,0,0,inf,9\n", ":2: expected x1"),
])
def test_bad_csv_is_named(tmp_path, content, message):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DatasetError, match="list.csv" + message):
        read_csv(tmp_path / "list.csv")


def test_doubles_are_counted_once_with_a_note(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "copy.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "list.txt").write_text("a.jpg 0\nb.jpg 0\na.jpg 0\n./a.jpg 0\nlink.jpg 0\nagain/a.jpg 0\ncopy.jpg 0\n"
                                       "b.jpg 1\n")
    images = read_landmarks_list(tmp_path / "list.txt")
    assert images.names == ("a.jpg", "b.jpg", "copy.jpg", "b.jpg") and images.labels == (0, 0, 0, 1)
    assert [entry.place.split(":")[-1] for entry in images.skipped] == ["3", "4", "5", "6"]
    assert {entry.reason for entry in images.skipped} == {"listed twice, counted once"}
    assert images.under_several_labels == ("b.jpg",)
    assert [note.split(":")[0] for note in images.notes] == [
        "4 images are listed twice, counted once", "1 images are listed under several labels, used under each"]
    each_once = open_images(tmp_path / "list.txt")
    assert each_once.names == ("a.jpg", "b.jpg", "copy.jpg") and each_once.labels == (0, 0, 0)


@pytest.mark.parametrize("read, name", [(read_landmarks_list, "list.txt"), (read_csv, "list.csv")])
def test_folders_and_devices_are_no_lists(tmp_path, read, name):
    (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=f"{name}: expected a text file, found a folder"):
        read(tmp_path / name)
    with pytest.raises(DatasetError, match="/dev/zero: expected a text file, found a device"):
        read("/dev/zero")
    with pytest.raises(DatasetError, match="expected the path|no such file"):
        read("a\0b.csv")
