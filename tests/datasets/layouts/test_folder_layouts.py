import os

import pytest

from rmaclib.datasets import (
    DatasetError,
    open_collection,
    open_images,
    read_folder_per_landmark,
    read_images,
    read_query_folder,
)
from rmaclib.foundation.folders import output_folder


def relevant(dataset):
    return {query.name: query.relevance["relevant"] for query in dataset.queries}


def test_query_folder_names_the_landmarks(make):
    root = make("tower/a.jpg", "tower/b.jpg", "tower_2/a.jpg", "query/tower.jpg", "query/tower_2.jpg",
                "query/tower_2_07.jpg")
    dataset = read_query_folder(root, "own")
    assert dataset.names == ("tower/a.jpg", "tower/b.jpg", "tower_2/a.jpg") and dataset.layout == "folder"
    assert relevant(dataset) == {"tower": {"tower/a.jpg", "tower/b.jpg"}, "tower_2": {"tower_2/a.jpg"},
                                 "tower_2_07": {"tower_2/a.jpg"}}
    assert dataset.queries[0].image == "query/tower.jpg" and dataset.queries[0].image not in dataset.names


def test_without_query_folder_the_queries_are_leave_one_out(make):
    dataset = read_query_folder(make("x/a.jpg", "x/deep/b.jpg", "y/a.jpg"))
    assert relevant(dataset) == {"x/a.jpg": {"x/deep/b.jpg"}, "x/deep/b.jpg": {"x/a.jpg"}, "y/a.jpg": set()}
    assert dataset.counts == {"images": 3, "queries": 3, "positives": 2, "junk": 0}


@pytest.mark.parametrize("names, message", [
    (["x/a.jpg", "query/z.jpg"], r"query/z.jpg: expected <landmark> .* found no landmark of x"),
    (["x/a.jpg", "b.jpg"], r"b.jpg: expected every image in a sub-folder"),
    (["query/x.jpg"], r"expected a sub-folder per landmark, found only query/"),
    (["x/a.jpg", "query/x.jpg", "query/x.png"], r"query: expected different file names"),
])
def test_wrong_folders_are_named(make, names, message):
    with pytest.raises(DatasetError, match=message):
        read_query_folder(make(*names))


def test_folder_per_landmark(make):
    collection = read_folder_per_landmark(make("b/1.jpg", "a/2.jpg", "a/1.jpg", "query/a.jpg"))
    assert collection.names == ("a/1.jpg", "a/2.jpg", "b/1.jpg") and collection.labels == (0, 0, 1)
    assert collection.label_names == ("a", "b") and collection.boxes == (None, None, None)


def test_any_folder_or_csv(make):
    root = make("a.jpg", "x/b.jpg")
    collection = read_images(root)
    assert collection.names == ("a.jpg", "x/b.jpg") and collection.labels == (0, 0) and collection.label_names is None
    (root / "list.csv").write_text("path,label\nx/b.jpg,4\n")
    assert read_images(root / "list.csv").labels == (4,)


def test_images_outside_the_sub_folders_are_errors_or_skipped(make):
    root = make("x/a.jpg", "b.jpg", "y/c.jpg")
    with pytest.raises(DatasetError, match="b.jpg: expected .* move it into one, or leave out such .*--skip-bad"):
        open_collection(root)
    collection = open_collection(root, skip_bad=True)
    assert collection.names == ("x/a.jpg", "y/c.jpg") and collection.labels == (0, 1)
    assert [(entry.name, entry.reason) for entry in collection.skipped] == [
        ("b.jpg", "not in a sub-folder named after its landmark")]


def test_any_tree_can_be_opened_where_labels_do_not_matter(make):
    root = make("a.jpg", "x/b.jpg", "x/deep/c.jpg", "query/d.jpg")
    (root / "annotation_own.txt").write_text("a.jpg 0\n")
    collection = open_images(root)
    assert collection.names == ("a.jpg", "query/d.jpg", "x/b.jpg", "x/deep/c.jpg") and set(collection.labels) == {0}
    assert open_images("diorama_val").counts == open_collection("diorama_val").counts  # names as before
    with pytest.raises(DatasetError, match="expected a path or a name"):
        open_images(root / "nothing")


def test_names_that_no_list_can_contain_are_left_out_with_a_reason(make, noted):
    root = make("tower/a.jpg", "tower/two\nlines.jpg", "bridge/b.jpg")
    with open(os.fsencode(root) + b"/tower/caf\xe9.jpg", "wb"):
        pass
    os.mkdir(os.fsencode(root) + b"/\xff")
    with open(os.fsencode(root) + b"/\xff/c.jpg", "wb"):
        pass
    for collection in (read_folder_per_landmark(root), open_images(root)):
        assert collection.names == ("bridge/b.jpg", "tower/a.jpg")
        assert {entry.reason for entry in collection.skipped} == {"its name is no line of UTF-8 text"}
        assert len(collection.skipped) == 3 and collection.notes[0].encode()
    assert read_folder_per_landmark(root).label_names == ("bridge", "tower")
    with noted("3 files left out"):
        assert read_query_folder(root).names == ("bridge/b.jpg", "tower/a.jpg")


def test_links_to_missing_files_and_pipes_are_skipped_with_a_reason(make):
    root = make("x/a.jpg")
    (root / "x/dead.jpg").symlink_to(root / "gone.jpg")
    os.mkfifo(root / "x/pipe.jpg")
    for collection in (read_folder_per_landmark(root), open_images(root)):
        assert collection.names == ("x/a.jpg",)
        assert [(entry.name, entry.reason) for entry in collection.skipped] == [
            ("x/dead.jpg", "a link to a file that isn't there"), ("x/pipe.jpg", "no regular file")]


def test_outputs_of_the_library_are_never_inputs(make):
    root = make("x/a.jpg")
    with output_folder(root / "cleaned", "clean") as out:
        out.will_write(["thumbnails/1.jpg"])
        make("cleaned/thumbnails/1.jpg")
    assert open_images(root).names == read_folder_per_landmark(root).names == ("x/a.jpg",)
    with pytest.raises(DatasetError, match="cleaned: expected photographs, found the output folder of a run"):
        open_images(root / "cleaned")


def test_a_file_linked_twice_under_a_landmark_counts_once(make):
    root = make("x/a.jpg", "x/copy.jpg", "y/b.jpg")
    (root / "x/link.jpg").symlink_to("a.jpg")
    (root / "y/other.jpg").symlink_to("../x/a.jpg")
    collection = read_folder_per_landmark(root)
    assert collection.names == ("x/a.jpg", "x/copy.jpg", "y/b.jpg", "y/other.jpg")
    assert [entry.name for entry in collection.skipped] == ["x/link.jpg"]
    assert collection.under_several_labels == ("y/other.jpg",)
