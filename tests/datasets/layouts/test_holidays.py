import pytest

from rmaclib.datasets import DatasetError, read_holidays


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_groups_follow_from_the_numbers(tmp_path):
    make(tmp_path, "jpg/1/100000.jpg", "jpg/1/100001.jpg", "jpg/1/100002.JPG", "jpg/2/100100.jpg",
         "jpg/.x.jpg")
    dataset = read_holidays(tmp_path, "h")
    assert (dataset.layout, dataset.names) == ("holidays", ("100000", "100001", "100002", "100100"))
    assert {query.name: query.relevance["relevant"] for query in dataset.queries} == {
        "100000": {"100001", "100002"}, "100100": set()}
    assert dataset.queries[0].box is None and dataset.queries[0].path == tmp_path / "jpg/1/100000.jpg"
    assert dataset.counts == {"images": 4, "queries": 2, "positives": 2, "junk": 0}


def test_a_group_without_query_keeps_its_images(tmp_path, noted):
    make(tmp_path, "100000.jpg", "100001.jpg", "100201.jpg")
    with noted("100200"):
        dataset = read_holidays(tmp_path)
    assert dataset.missing == ("100200",) and "100201" in dataset.names and len(dataset.queries) == 1


def test_other_names_are_refused(tmp_path):
    make(tmp_path, "100000.jpg", "100001_rotated.jpg", "1000.jpg", "holiday.jpg")
    with pytest.raises(DatasetError, match="six digits, found 3 others: 1000, 100001_rotated, holiday"):
        read_holidays(tmp_path)


def test_no_query_at_all_is_refused(tmp_path):
    make(tmp_path, "100001.jpg")
    with pytest.raises(DatasetError, match="expected the query images, found none of 1 .first: '100000'"):
        read_holidays(tmp_path)
