import json
import subprocess
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from rmaclib import results
from rmaclib.results import ResultError, load_result, load_results, record

KEY = "01_rmac/oxford5k_subset/baseline"
GIVEN = {
    "unit": "mAP",
    "protocol": "oxford",
    "dataset": {"name": "oxford5k_subset", "counts": {"images": 1053, "queries": 55}},
    "settings": {"size": 512, "levels": 3},
    "seed": 0,
    "seconds": 61.5,
    "notebook": "01_rmac",
    "profile": "photos",
}


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    written = record(tmp_path, KEY, 0.617, **GIVEN)
    assert load_results(tmp_path) == {KEY: written}
    assert load_result(tmp_path / f"{KEY}.json") == written
    assert (written.value, written.seconds, written.dataset["counts"]["images"]) == (0.617, 61.5, 1053)
    with pytest.raises(FrozenInstanceError):
        written.value = 1.0


def test_versions_machine_and_date_are_added(tmp_path):
    result = record(tmp_path, KEY, 0.617, **GIVEN)
    assert set(result.versions) == {"python", "torch", "torchvision", "timm", "numpy", "faiss-cpu", "rmaclib"}
    assert result.versions["numpy"] == np.__version__
    assert "cores" in result.machine
    assert len(result.date) == 10


def test_the_gpu_of_a_measurement_is_named(tmp_path, monkeypatch):
    assert results.machine().endswith(" cores")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Abacus 9")
    assert results.machine().endswith(" cores, Abacus 9")


def test_a_second_record_replaces_the_first_and_leaves_no_other_file(tmp_path):
    record(tmp_path, KEY, 0.5, **GIVEN)
    record(tmp_path, KEY, 0.6, **GIVEN)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["baseline.json"]
    assert load_results(tmp_path)[KEY].value == 0.6


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(3), 7, "grid", -0.25])
def test_values_that_can_be_recorded(tmp_path, value):
    result = record(tmp_path, KEY, value, **GIVEN)
    assert result.value == value
    assert type(result.value) in (int, float, str)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.float32("nan"), None, True, [1], "", 81 * "x"])
def test_values_that_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match=KEY):
        record(tmp_path, KEY, value, **GIVEN)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("key", ["", "one", "/01_rmac/a", "01_rmac/", "01_rmac/../a", "01_rmac/A", "a//b"])
def test_keys_that_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="result key"):
        record(tmp_path, key, 1.0, **GIVEN)


@pytest.mark.parametrize("context", [{**GIVEN, "note": "x"}, {"unit": "mAP"}])
def test_context_is_complete(tmp_path, context):
    with pytest.raises(ValueError, match=f"result {KEY}: expected unit, protocol, .*, got unit"):
        record(tmp_path, KEY, 1.0, **context)


def test_a_key_belongs_to_its_notebook(tmp_path):
    with pytest.raises(ValueError, match="begin with its notebook's name"):
        record(tmp_path, "02_cleaning/a", 1.0, **GIVEN)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"rate": float("nan")}},
        {"settings": {"device": object()}},
        {"seconds": -1.0},
        {"seconds": float("inf")},
        {"dataset": {"name": "x"}},
    ],
)
def test_context_that_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match=KEY):
        record(tmp_path, KEY, 1.0, **(GIVEN | change))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": NaN}', "\x00"])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ResultError, match="bad.json: .*a result record"):
        load_results(tmp_path)


@pytest.mark.parametrize("field, value", [("settings", [1]), ("seed", 1.5), ("seconds", -1), ("seconds", "1"),
                                          ("dataset", None), ("unit", 3), ("value", True), ("value", ""),
                                          ("settings", {"rate": float("inf")})])
def test_a_wrong_field_is_named(tmp_path, field, value):
    record(tmp_path, KEY, 0.5, **GIVEN)
    path = tmp_path / f"{KEY}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ResultError, match=r"baseline\.json: not a result record"):
        load_results(tmp_path)


def test_a_record_in_the_wrong_place_is_named(tmp_path):
    record(tmp_path, KEY, 0.5, **GIVEN)
    (tmp_path / f"{KEY}.json").rename(tmp_path / "moved.json")
    with pytest.raises(ValueError, match="moved.json: contains the key"):
        load_results(tmp_path)


def test_an_infinite_value_in_a_file_is_refused(tmp_path):
    record(tmp_path, KEY, 0.5, **GIVEN)
    path = tmp_path / f"{KEY}.json"
    path.write_text(path.read_text().replace("0.5", "1e999", 1))
    with pytest.raises(ValueError, match="baseline.json.*finite"):
        load_result(path)


def test_a_temporary_file_of_a_killed_process_is_ignored(tmp_path):
    record(tmp_path, KEY, 0.5, **GIVEN)
    (tmp_path / "01_rmac" / ".half.123.json").write_text('{"key"')
    assert list(load_results(tmp_path)) == [KEY]


def test_no_folder_means_no_results(tmp_path):
    assert load_results(tmp_path / "absent") == {}


def test_the_commit_says_when_the_tree_has_changes(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    assert results.current_commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-m", "m")
    clean = results.current_commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a").write_text("2")
    assert results.current_commit(tmp_path) == clean + "+dirty"
    (tmp_path / "inner").mkdir()
    assert results.current_commit(tmp_path / "inner") == "unknown"


def test_the_file_is_plain_json(tmp_path):
    record(tmp_path, KEY, 0.617, **GIVEN)
    content = json.loads((tmp_path / f"{KEY}.json").read_text())
    assert content["value"] == 0.617
    assert "hostname" not in content
