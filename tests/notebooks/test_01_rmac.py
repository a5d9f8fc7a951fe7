"""The notebook as CI builds it: every figure is a picture, every number is recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rmaclib.results import load_results

ROOT = Path(__file__).parents[2]


def test_smoke_profile_draws_and_records(tmp_path):
    command = [sys.executable, "book/run_notebook.py", "notebooks/01_rmac.ipynb",
               "--profile", "notebooks/profiles/smoke.yml", "--output", tmp_path]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "notebooks/01_rmac.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] != "stream"]
    assert len(outputs) >= 11 and all("image/png" in output["data"] for output in outputs)
    records = load_results(tmp_path / "results")
    assert len(records) >= 20
    values = {key.rsplit("/", 1)[1]: result.value for key, result in records.items()}
    assert values["images"] == 44 and 0.5 < values["baseline"] < 1
    assert values["query_removed"] < 0  # the query's own image is always found first
