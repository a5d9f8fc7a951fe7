import os

import pytest

from rmaclib.datasets import EXTENSIONS, DatasetError, list_images
from rmaclib.datasets.files import images_by_stem, read_lines


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_are_listed_in_byte_order_whatever_their_extension(tmp_path):
    touch(tmp_path, "b.JPG", "a/z.png", "B.jpeg", "a.jpg", "notes.txt", "Ü.webp")
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["B.jpeg", "a.jpg", "a/z.png", "b.JPG", "Ü.webp"]


def test_hidden_files_and_folders_are_skipped(tmp_path):
    touch(tmp_path, "a.jpg", ".b.jpg", ".thumbs/c.jpg")
    assert list_images(tmp_path) == [tmp_path / "a.jpg"]


def test_links_are_followed_once_and_dead_ones_skipped(tmp_path):
    touch(tmp_path, "set/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "set/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/dead.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert [path.name for path in list_images(tmp_path / "set")] == ["a.jpg", "b.jpg"]


def test_a_folder_without_images_names_the_extensions(tmp_path):
    with pytest.raises(DatasetError) as error:
        list_images(tmp_path)
    assert all(text in str(error.value) for text in (str(tmp_path), *EXTENSIONS))


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="expected a folder, found nothing"):
        list_images(tmp_path / "none")
    touch(tmp_path, "a.jpg")
    with pytest.raises(DatasetError, match="expected a folder, found a file"):
        list_images(tmp_path / "a.jpg")


def test_an_unreadable_folder_is_refused(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse_locked(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_locked)
    with pytest.raises(DatasetError, match=r"locked: can't read this folder \(Permission denied\)"):
        list_images(tmp_path)


def test_two_files_of_one_name_are_both_named(tmp_path):
    touch(tmp_path, "x/a.jpg", "y/a.png")
    with pytest.raises(DatasetError, match=r"y/a.png.*x/a.jpg"):
        images_by_stem(tmp_path)


def test_lines_come_with_their_numbers(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone \r\n\r\n  two\x0bhalf\r\n")
    assert list(read_lines(tmp_path / "a.txt")) == [(1, "one"), (3, "two\x0bhalf")]


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DatasetError, match=r"a.txt:1: expected UTF-8"):
        list(read_lines(tmp_path / "a.txt"))
