import json
import os
import subprocess
import sys
import time

import pytest

from rmaclib.foundation import files
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.folders import MARKER, is_output, output_folder, refuse_inside, waiting


def test_a_new_folder_is_marked_and_ours_again(tmp_path):
    with output_folder(tmp_path / "out", "index") as out:
        assert is_output(out.path)
        out.will_write(["a.txt", "sub/b.txt"])
        files.write_text(out / "a.txt", "a")
    with output_folder(tmp_path / "out", "index") as out:
        assert out.listed() == {"a.txt", "sub/b.txt"} and out.listed("sub") == {"sub/b.txt"}


def test_a_folder_of_the_user_is_left_untouched(tmp_path):
    (tmp_path / "000001.txt").write_text("mine")
    with pytest.raises(OutputError, match="000001.txt"):
        with output_folder(tmp_path, "index"):
            pass
    assert os.listdir(tmp_path) == ["000001.txt"]


def test_a_folder_of_another_kind_is_an_error(tmp_path):
    with output_folder(tmp_path, "clean"):
        pass
    with pytest.raises(OutputError, match="cleaned collection.*expected an index"):
        with output_folder(tmp_path, "index"):
            pass


def test_only_listed_files_are_removed_or_replaced(tmp_path):
    with output_folder(tmp_path, "index") as out:
        out.will_write(["part/1.txt"])
        files.write_text(out / "part/1.txt", "1")
        (tmp_path / "part" / "mine.txt").write_text("mine")
        (tmp_path / "names.txt").write_text("mine")
        with pytest.raises(OutputError, match="names.txt: would be replaced"):
            out.will_write(["names.txt"])
        out.remove(["part/1.txt", "part/mine.txt", "names.txt"])
    assert (tmp_path / "part" / "mine.txt").exists() and (tmp_path / "names.txt").exists()
    assert not (tmp_path / "part" / "1.txt").exists()


def test_folders_that_become_empty_are_removed(tmp_path):
    with output_folder(tmp_path, "index") as out:
        out.will_write(["part/deep/1.txt"])
        files.write_text(out / "part/deep/1.txt", "1")
        out.remove(["part/deep/1.txt"])
    assert not (tmp_path / "part").exists()


def test_a_folder_of_an_older_version_becomes_ours(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    (tmp_path / "note.txt").write_text("mine")
    with output_folder(tmp_path, "index", recognise=lambda folder: ["meta.json"]) as out:
        out.will_write(["meta.json"])
        with pytest.raises(OutputError, match=r"note\.txt"):
            out.will_write(["note.txt"])


@pytest.mark.parametrize("marker", ["", "[]", "{", *(
    {"format": "rmaclib-folder", "version": version, "kind": "index", "files": names}
    for version, names in ((9, []), (1, ["../x"]), (1, [3])))])
def test_a_damaged_marker_is_named(tmp_path, marker):
    if isinstance(marker, dict):
        files.write_json(tmp_path / MARKER, marker, checksum=True)
    else:
        (tmp_path / MARKER).write_text(marker)
    with pytest.raises(OutputError, match=MARKER):
        with output_folder(tmp_path, "index"):
            pass


_LOCK_IT = """
import sys, time
from rmaclib.foundation.folders import output_folder
with output_folder(sys.argv[1], "index"):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _locking_process(folder, seconds):
    command = [sys.executable, "-c", _LOCK_IT, folder, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_process_waits_or_fails_at_once(tmp_path, capfd):
    process = _locking_process(tmp_path, 2)
    started = time.monotonic()
    with pytest.raises(OutputError, match="another process is writing"):
        with waiting(False), output_folder(tmp_path, "index"):
            pass
    assert time.monotonic() - started < 1
    with output_folder(tmp_path, "index"):
        assert process.poll() is not None or process.wait(5) == 0
    assert "waiting" in capfd.readouterr().err


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    process = _locking_process(tmp_path, 60)
    process.kill()
    process.wait()
    with waiting(False), output_folder(tmp_path, "index"):
        pass


def test_the_same_process_may_open_it_again(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with output_folder(tmp_path / "out", "index") as outer, output_folder(tmp_path / "link", "index") as inner:
        inner.will_write(["a"])
        outer.will_write(["b"])
    with output_folder(tmp_path / "out", "index") as out:
        assert out.listed() == {"a", "b"}


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with output_folder(tmp_path, "index") as out:
        out.will_write(["part/1.txt"])
        (tmp_path / "part").mkdir()
        abandoned = f".rmac-{files._HOST}-{dead.pid}-0.txt"
        names = [tmp_path / abandoned, tmp_path / "part" / abandoned]
        others = [tmp_path / ".1.12345.txt", tmp_path / f".rmac-{files._HOST}-{os.getpid()}-9.txt"]
        for path in names + others:
            path.write_text("")
    with output_folder(tmp_path, "index"):
        pass
    assert not any(path.exists() for path in names) and all(path.exists() for path in others)
    assert not (tmp_path / "part").exists()


def test_output_inside_the_images_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    for out in (tmp_path / "photos", tmp_path / "photos" / "out"):
        with pytest.raises(OutputError, match="inside"):
            refuse_inside(out, tmp_path / "photos")
    refuse_inside(tmp_path / "out", tmp_path / "photos")


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OutputError, match="a.txt: can't be written .No space left"):
        with files.whole_file(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")
    with pytest.raises(OutputError, match="need"):
        files.need_space(tmp_path / "not" / "there", 10**18, "descriptors")
    assert os.listdir(tmp_path) == []


def test_differences_show_values_that_can_be_read():
    before = {"settings": {"lr": 0.1, "k": 1}, "files": "a" * 64, "seed": 3}
    wanted = {"settings": {"lr": 0.2, "k": 1}, "files": "b" * 64, "seed": 3, "new": (1, 2)}
    assert files.differences(before, wanted) == ["settings.lr (0.1, now 0.2)", "files", "new (None, now [1, 2])"]


def test_damaged_json_is_named(tmp_path):
    for text in ("", "{", "[1]", "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(OutputError, match="a.json: expected a thing"):
            files.read_json(tmp_path / "a.json", OutputError, "a thing")
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert files.read_json(tmp_path / "a.json", OutputError, "a thing") == {"a": 1}


def test_changed_json_is_recognised(tmp_path):
    files.write_json(tmp_path / "a.json", {"size": 512, "b": [1.5, "x"]}, checksum=True)
    assert files.read_json(tmp_path / "a.json", OutputError, "a thing", checksum=True) == {"size": 512, "b": [1.5, "x"]}
    text = (tmp_path / "a.json").read_text()
    for changed in (text.replace("512", "912"), text.replace("checksum", "checksun")):
        (tmp_path / "a.json").write_text(changed)
        with pytest.raises(OutputError, match="a.json: expected a thing as it was written"):
            files.read_json(tmp_path / "a.json", OutputError, "a thing", checksum=True)


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    assert files.checksum(tmp_path / "a") == "cbf43926"  # the check value of CRC-32


def test_the_fingerprint_changes_with_names_files_and_boxes(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    paths, boxes = [tmp_path / "a", tmp_path / "b"], [(0, 0, 1, 2), None]
    digests = [files.files_fingerprint(["a", "b"], paths), files.files_fingerprint(["a", "c"], paths),
               files.files_fingerprint(["a", "b"], paths[::-1]), files.files_fingerprint(["a", "b"], paths, boxes),
               files.files_fingerprint(["a", "b"], paths, [None, None])]
    assert files.files_fingerprint(("a", "b"), tuple(paths), [[0.0, 0, 1, 2], None]) == digests[3]
    os.utime(tmp_path / "b", (0, 0))  # as after a copy to another machine
    assert files.files_fingerprint(["a", "b"], paths) == digests[0]
    (tmp_path / "b").write_text("c")  # as long as before
    digests.append(files.files_fingerprint(["a", "b"], paths))
    (tmp_path / "b").write_text("longer")
    digests.append(files.files_fingerprint(["a", "b"], paths))
    (tmp_path / "b").unlink()
    digests.append(files.files_fingerprint(["a", "b"], paths))
    os.mkfifo(tmp_path / "b")  # is not waited for
    assert files.files_fingerprint(["a", "b"], paths) == digests[-1]
    assert len(set(digests)) == 8


def test_a_file_that_has_not_changed_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("a")
    first = files.files_fingerprint(["a"], [path])
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *_: pytest.fail("the file was read again"))
    assert files.files_fingerprint(["a"], [path]) == first
    monkeypatch.undo()
    path.write_text("longer")
    assert files.files_fingerprint(["a"], [path]) != first


def test_paths_that_cannot_be_examined_are_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "loop/out", "a" * 300, "", "a\udcff", "two\nlines"):
        with pytest.raises((OutputError, InputError)):
            with output_folder(f"{tmp_path}/{name}" if name else "", "index"):
                pass
    assert os.listdir(tmp_path) == ["loop"]
    files.need_space(tmp_path / "loop" / ("a" * 300), 1, "descriptors")
    refuse_inside(tmp_path / "loop" / "out", tmp_path / "loop")


def test_files_of_operating_systems_are_ignored(tmp_path):
    (tmp_path / ".DS_Store").write_text("")
    with output_folder(tmp_path, "index"):
        assert is_output(tmp_path)
