import pytest

from rmaclib.datasets import DatasetError, read_folder_per_landmark, read_images, read_query_folder


@pytest.fixture
def make(tmp_path):
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path
    return write


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


def test_without_query_folder_every_image_asks_for_the_others(make):
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
    found = read_folder_per_landmark(make("b/1.jpg", "a/2.jpg", "a/1.jpg", "query/a.jpg"))
    assert found.names == ("a/1.jpg", "a/2.jpg", "b/1.jpg") and found.labels == (0, 0, 1)
    assert found.label_names == ("a", "b") and found.boxes == (None, None, None)


def test_any_folder_or_csv(make):
    root = make("a.jpg", "x/b.jpg")
    found = read_images(root)
    assert found.names == ("a.jpg", "x/b.jpg") and found.labels == (0, 0) and found.label_names is None
    (root / "two.csv").write_text("path,label\nx/b.jpg,4\n")
    assert read_images(root / "two.csv").labels == (4,)
