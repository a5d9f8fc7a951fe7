import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rmaclib import cli


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_evaluate_json(little):
    result = run("evaluate", little, "--protocol", "oxford", "--network", "efficientnet_lite0", "--size", 224,
                 "--levels", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert 0.3 < found["scores"]["mAP"] <= 1 and found["counts"]["queries"] == 6
    assert found["network"]["levels"] == 3 and found["settings"]["sizes"] == [224] and found["bad"] == []


def test_evaluate_whitened_and_per_query(little):
    result = run("evaluate", little, "--size", 224, "--dim", 32, "--whiten-on", "diorama_val", "--per-query")
    assert result.exit_code == 0, result.output
    assert "mAP" in result.stdout and "berala" in result.stdout
    assert "whitening learned on" in result.stderr


def test_evaluate_protocol_of_another_layout(little):
    result = run("evaluate", little, "--protocol", "holidays", "--size", 64)
    assert isinstance(result.exception, ValueError)


def test_describe_then_show(little, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # names are not cut
    (little / "jpg" / "broken.jpg").write_text("no picture")
    try:
        result = run("describe", little / "jpg", "--out", tmp_path / "d", "--size", 160)
        assert result.exit_code == 0, result.output
        assert "1 images can't be read" in result.stderr
    finally:
        (little / "jpg" / "broken.jpg").unlink()
    query = sorted((little / "jpg").iterdir())[0]
    result = run("show", tmp_path / "d", query, "--k", 7, "--box", "10,10,200,150", "--out", tmp_path / "found.png")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "found.png").width > 500
    result = run("show", tmp_path / "d", query, "--k", 1, "--out", tmp_path / "one.png")
    assert query.stem in result.stdout.replace("\n", "") or query.name[:8] in result.stdout
    names = (tmp_path / "d" / "names.txt").read_text().splitlines()
    vectors = np.load(tmp_path / "d" / "descriptors.npy")
    assert len(names) == len(vectors) and str(query) in names


@pytest.mark.parametrize("arguments, message", [
    (("evaluate", "no_such_set"), "no_such_set"),
    (("show", "nowhere", "query.jpg"), "nowhere"),
    (("describe", "nowhere", "--out", "out"), "nowhere"),
    (("evaluate", "{little}", "--network", "resnet0"), "resnet0"),
    (("evaluate", "{little}", "--network", "missing.safetensors"), "missing.safetensors"),
])
def test_errors_are_one_line(little, arguments, message):
    arguments = [argument.format(little=little) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", "from rmaclib.cli import main; main()", *arguments],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "error:" in done.stderr and message in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
