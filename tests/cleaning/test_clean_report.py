import csv
import html.parser
import json

import pytest
from cleaning_pictures import save, texture
from PIL import Image
from typer.testing import CliRunner

from rmaclib import cli
from rmaclib.datasets import open_collection, read_landmarks_entries

COUNT = ("--keypoints", 200)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["clean", *map(str, arguments)])


@pytest.fixture(scope="module")
def report(collection, tmp_path_factory):
    """The folder that `rmac clean` writes; the collection has a broken image and a line without a file."""
    broken = collection / "images/2/broken.png"
    broken.write_text("no picture")
    listed = collection / "noisy.txt"
    listed.write_text((collection / "list.txt").read_text() + "images/2/broken.png 2\nimages/2/gone <1>.png 2\n")
    out = tmp_path_factory.mktemp("report")
    result = run(listed, "--out", out, *COUNT)
    broken.unlink()
    assert result.exit_code == 0, result.output
    assert "1 listed images are not there" in result.stderr
    assert "9 of 13 images of 4 landmarks kept" in result.stderr
    return out


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_clean_list_is_the_releases_format_and_opens(report):
    entries = read_landmarks_entries(report / "annotation_clean.txt")
    assert [entry.label for entry in entries] == [0, 0, 0, 0, 2, 2, 2, 5, 5]
    assert all(entry.box is not None for entry in entries)
    again = open_collection(report / "annotation_clean.txt")
    assert again.counts == {"images": 9, "landmarks": 3} and again.missing == ()
    for path, (x1, y1, x2, y2) in zip(again.paths, again.boxes, strict=True):
        width, height = Image.open(path).size
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert again.label_names[2] == "bridge"


def test_every_image_is_in_the_table_with_its_reason(report):
    rows = {row["path"]: row for row in table(report / "images.csv")}
    assert len(rows) == 14
    assert rows["images/0/0.png"]["component"] == "0" and rows["images/0/0.png"]["reason"] == ""
    assert int(rows["images/0/0.png"]["edges"]) == 3 and int(rows["images/0/0.png"]["inliers"]) > 12
    assert rows["images/0/4.png"]["reason"] == "no verified match" and rows["images/0/4.png"]["x1"] == ""
    assert "no known image format" in rows["images/2/broken.png"]["reason"]
    assert rows["images/2/gone <1>.png"]["reason"] == "no file"


def test_every_landmark_is_in_the_table_also_the_empty(report):
    rows = {row["landmark"]: row for row in table(report / "landmarks.csv")}
    assert list(rows) == ["tower", "empty", "bridge", "single", "unused", "twins"]
    assert (rows["tower"]["images"], rows["tower"]["kept"], rows["tower"]["pairs"]) == ("6", "4", "15")
    assert (rows["empty"]["images"], rows["empty"]["share"]) == ("0", "")
    assert (rows["bridge"]["unreadable"], rows["single"]["kept"]) == ("1", "0")


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_what_was_kept_and_why_not(report):
    page = Page((report / "report.html").read_text())
    assert "9 of 13 images kept (69.2%)" in page.text
    for reason in ("no verified match", "no file", "no known image format"):
        assert reason in page.text
    assert len(page.images) == 12  # all but the broken one
    for image in page.images:
        assert max(Image.open(report / image).size) <= 128
    assert "<1>" not in page.text or "gone <1>" in page.text


def test_another_threshold_needs_no_matching(collection, tmp_path):
    part = collection / "part.txt"
    part.write_text("".join(f"images/2/{number}.png 2\n" for number in range(3)))
    assert "3 of 3 images" in run(part, "--out", tmp_path, "--threshold", 9, *COUNT).stderr
    (tmp_path / "s.yml").write_text("verification: {min_inliers: 9}\ngraph: {threshold: 9}\n")
    messages = run(part, "--out", tmp_path, "--threshold", 5000, "--settings", tmp_path / "s.yml", *COUNT).stderr
    assert "0 images of 0 landmarks to match" in messages and "0 of 3 images" in messages


def test_a_folder_per_landmark_and_settings_from_a_file(tmp_path):
    for number in range(2):
        save(tmp_path / "photos" / "castle" / f"{number}.png", texture(1))
    (tmp_path / "settings.yml").write_text("keypoints: {count: 150}\nexhaustive: 1\nneighbours: 1\n")
    result = run(tmp_path / "photos", "--out", tmp_path / "out", "--settings", tmp_path / "settings.yml",
                 "--largest", 2, "--conductance", 0.25, "--thumbnails", 0)
    assert result.exit_code == 0, result.output  # two images are more than one: a shortlist by descriptors
    assert (tmp_path / "out" / "labels.txt").read_text() == "castle/0\n"
    graph = json.loads((tmp_path / "out" / "settings.json").read_text())["graph"]
    assert graph == {"threshold": 10, "conductance": 0.25, "largest": 2, "min_images": 2, "min_matches": 1}
    assert len(open_collection(tmp_path / "out" / "annotation_clean.txt").names) == 2
    assert not (tmp_path / "out" / "thumbnails").exists()
    assert "0 of 2 images" in run(tmp_path / "photos", "--out", tmp_path / "out", "--settings",
                                  tmp_path / "settings.yml", "--min-matches", 2, "--thumbnails", 0).stderr


@pytest.mark.parametrize("text, message", [
    ("keypoints: {coun: 1}", "unknown key 'coun'"), ("- a", "expected settings in YAML"),
    ("keypoints: 7", "keypoints: expected `name: value`, got 7"), ("a: {", "expected settings in YAML"),
])
def test_bad_settings_files_are_named(collection, tmp_path, text, message):
    (tmp_path / "settings.yml").write_text(text)
    result = run(collection / "list.txt", "--out", tmp_path / "out", "--settings", tmp_path / "settings.yml")
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception) and "settings.yml" in str(result.exception)


def test_a_list_of_missing_files_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 0\n")
    result = run(tmp_path / "list.txt", "--out", tmp_path / "out")
    assert "found none of 2" in str(result.exception)
