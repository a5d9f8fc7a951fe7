import pytest

from rmaclib.datasets import DatasetError, read_oxford

QUERY = "oxc1_hall_000001 10 20.5 110 220\n"


@pytest.fixture
def root(tmp_path):
    """One query, hall_1: good hall_000001 and 2, ok 3, junk 4; one distractor."""
    (tmp_path / "jpg").mkdir()
    (tmp_path / "gt").mkdir()
    for name in ("hall_000001", "hall_000002", "hall_000003", "hall_000004", "other_000001"):
        (tmp_path / "jpg" / f"{name}.jpg").touch()
    for grade, text in (("query", QUERY), ("good", "hall_000001\nhall_000002\n"), ("ok", "hall_000003\n"),
                        ("junk", "hall_000004\n")):
        (tmp_path / "gt" / f"hall_1_{grade}.txt").write_text(text)
    return tmp_path


def add_query(root, name, image):
    for grade in ("good", "ok", "junk"):
        (root / "gt" / f"{name}_{grade}.txt").touch()
    (root / "gt" / f"{name}_query.txt").write_text(f"{image} 0 0 9 9")


def test_the_official_layout(root):
    dataset = read_oxford(root, "hall")
    assert (dataset.name, dataset.layout, dataset.publishable) == ("hall", "oxford", False)
    assert dataset.names == ("hall_000001", "hall_000002", "hall_000003", "hall_000004", "other_000001")
    assert dataset.paths[4] == root / "jpg/other_000001.jpg"
    query, = dataset.queries
    assert (query.name, query.image, query.path) == ("hall_1", "hall_000001", root / "jpg/hall_000001.jpg")
    assert query.box == (10, 20.5, 110, 220)
    assert query.relevance == {"good": {"hall_000001", "hall_000002"}, "ok": {"hall_000003"},
                               "junk": {"hall_000004"}}
    assert dataset.counts == {"images": 5, "queries": 1, "positives": 3, "junk": 1}
    assert dataset.missing == ()


@pytest.mark.parametrize("ground_truth, images", [("gt_files", "images"), ("gt", "png"), (".", "paris/hall")])
def test_other_places_of_the_same_layout(root, tmp_path_factory, ground_truth, images):
    other = tmp_path_factory.mktemp("other")
    for source, target in (("gt", ground_truth), ("jpg", images)):
        (other / target).mkdir(parents=True, exist_ok=True)
        for file in (root / source).iterdir():
            file.rename(other / target / file.name.replace(".jpg", ".PNG"))
    dataset = read_oxford(other)
    assert dataset.name == other.name
    assert dataset.counts == {"images": 5, "queries": 1, "positives": 3, "junk": 1}


def test_blank_lines_windows_ends_and_a_byte_order_mark(root):
    (root / "gt/hall_1_good.txt").write_bytes(b"\xef\xbb\xbfhall_000001  \r\n\r\nhall_000002\r\n\r\n")
    (root / "gt/hall_1_query.txt").write_bytes(b"\xef\xbb\xbf\r\n" + QUERY.strip().encode() + b" \r\n")
    query, = read_oxford(root).queries
    assert query.relevance["good"] == {"hall_000001", "hall_000002"} and query.image == "hall_000001"


def test_images_without_file_are_listed_and_left_out(root):
    (root / "jpg/hall_000003.jpg").unlink()
    dataset = read_oxford(root)
    assert dataset.missing == ("hall_000003",)
    assert dataset.queries[0].relevance["ok"] == set()
    assert dataset.counts["positives"] == 2


def test_a_query_without_its_image_is_left_out_with_a_note(root, noted):
    add_query(root, "hall_2", "hall_000009")
    with noted(r"1 queries left out.*hall_2 \(hall_000009\)"):
        dataset = read_oxford(root)
    assert [query.name for query in dataset.queries] == ["hall_1"]
    assert dataset.missing == ("hall_000009",)


def test_no_query_image_at_all_is_an_error(root):
    (root / "jpg/hall_000001.jpg").unlink()
    with pytest.raises(DatasetError, match="found none of 1 .first: 'hall_000001'"):
        read_oxford(root)


def test_corrupt_paris_files_are_left_out(root):
    (root / "jpg/paris_louvre_000136.jpg").touch()
    (root / "gt/hall_1_ok.txt").write_text("hall_000003\nparis_louvre_000136\n")
    dataset = read_oxford(root)
    assert dataset.missing == ("paris_louvre_000136",)
    assert dataset.counts == {"images": 5, "queries": 1, "positives": 3, "junk": 1}


@pytest.mark.parametrize("file, text, message", [
    ("query", "hall_000001 1 2 3\n", r"hall_1_query.txt:1: expected 5 fields .* found 4"),
    ("query", "\nhall_000001 1 2 3 x\n", r"hall_1_query.txt:2: expected numbers .* 'hall_000001 1 2 3 x'"),
    ("query", "hall_000001 1 2 nan 9\n", r"hall_1_query.txt:1: expected numbers"),
    ("query", "hall_000001 5 2 5 9\n", r"hall_1_query.txt:1: expected numbers with x1 < x2"),
    ("query", "hall_000001 9 2 5 9\n", r"hall_1_query.txt:1: expected numbers with x1 < x2"),
    ("query", "", r"hall_1_query.txt: expected one line .* found 0 lines"),
    ("query", QUERY * 2, r"hall_1_query.txt: expected one line .* found 2 lines"),
    ("good", "hall_000001\nhall_000002 1\n", r"hall_1_good.txt:2: expected one .* 'hall_000002 1'"),
    ("junk", "hall_000003\n", r"hall_1_junk.txt: .* 'hall_000003', which the good or ok list has too"),
])
def test_malformed_ground_truth_names_file_and_line(root, file, text, message):
    (root / f"gt/hall_1_{file}.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_oxford(root)


def test_a_missing_list_and_missing_ground_truth_are_refused(root):
    (root / "gt/hall_1_ok.txt").unlink()
    with pytest.raises(DatasetError, match=r"hall_1_ok.txt: no such file"):
        read_oxford(root)
    (root / "gt/hall_1_query.txt").unlink()
    with pytest.raises(DatasetError, match=r"expected \*_query.txt files in gt/, gt_files/ or the folder"):
        read_oxford(root)


def test_two_images_of_one_name_are_refused(root):
    (root / "jpg/more").mkdir()
    (root / "jpg/more/hall_000001.jpg").touch()
    with pytest.raises(DatasetError, match=r"more/hall_000001.jpg: expected one file named 'hall_000001'"):
        read_oxford(root)
