import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rmaclib.presets import PRESETS

pytest.importorskip("papermill")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "book" / "run_notebook.py"
spec = importlib.util.spec_from_file_location("run_notebook", SCRIPT)
run_notebook = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_notebook)

PARAMETERS = 'profile: str = "smoke"\noutput: str = "_build/x"\nlevels: int = 3  # of the grid\nlongest = 512'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *sources, profile="", parameters=PARAMETERS):
    cell = nbformat.v4.new_code_cell(parameters)
    cell.metadata["tags"] = ["parameters"]
    cells = [nbformat.v4.new_markdown_cell("# Title"), cell, *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "01_tiny.ipynb")
    (folder / "small.yml").write_text(profile)
    return "01_tiny.ipynb", "small.yml", "out"


def test_a_notebook_runs_with_the_profiles_parameters(folder):
    source = "open(f'{output}/results/01_tiny/values', 'w').write(f'{profile} {levels} {longest}')"
    target = run_notebook.run(*write(folder, source, profile="01_tiny: {levels: 2}\nother: {x: 1}"))
    assert target == Path("out/notebooks/01_tiny.ipynb")
    assert Path("out/results/01_tiny/values").read_text() == "small 2 512"
    assert [path.name for path in Path("out/notebooks").iterdir()] == ["01_tiny.ipynb"]
    assert str(folder) not in target.read_text()


def test_a_failing_cell_is_named_and_no_result_is_left(folder):
    call = write(folder, "1 + 1", "raise OSError('no pictures')", profile="01_tiny: {levels: 2}")
    with pytest.raises(RuntimeError, match=r"01_tiny.ipynb, cell 4: OSError: no pictures"):
        run_notebook.run(*call)
    assert [path.name for path in Path("out/notebooks").iterdir()] == ["01_tiny.failed.ipynb"]


def test_the_command_says_so_on_its_last_lines_and_with_its_status(folder):
    notebook, profile, output = write(folder, "1 / 0")
    command = [sys.executable, SCRIPT, notebook, "--profile", profile, "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "error: 01_tiny.ipynb, cell 3: ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("profile", "parameters", "message"),
    [
        ("01_tiny: {level: 2}", PARAMETERS, "01_tiny has no parameter 'level'; did you mean levels"),
        ("01_tiny: {zzz: 2}", PARAMETERS, "it declares profile, output, levels, longest"),
        ("01_tiny: {output: x}", PARAMETERS, "output comes from the runner"),
        ("01_tiny: [1]", PARAMETERS, "small.yml: 01_tiny: expected parameter: value, got list"),
        ("- 1", PARAMETERS, "small.yml: expected 'notebook name:'"),
        ("a: {", PARAMETERS, "small.yml: not YAML"),
        ("", 'profile = "x"', "01_tiny.ipynb: its parameters cell must declare 'output'"),
    ],
)
def test_bad_parameters_are_rejected_before_anything_runs(folder, profile, parameters, message):
    call = write(folder, "open('ran', 'w')", profile=profile, parameters=parameters)
    with pytest.raises(ValueError, match=message):
        run_notebook.run(*call)
    assert not Path("ran").exists()


WITH_SECTIONS = PARAMETERS + (
    '\nbackbone: str = "efficientnet_lite0"\nranking: dict = {}\ncleaning: dict = {"exhaustive": 2}\nproposals: int = 8'
)


def parameters_of(folder, profile, parameters=WITH_SECTIONS):
    notebook, profile, output = write(folder, profile=profile, parameters=parameters)
    return run_notebook.parameters_for(Path(notebook), Path(profile), Path(output))


def test_a_preset_fills_the_parameters_that_it_knows(folder):
    parameters = parameters_of(folder, "preset: paper\n01_tiny: {}")
    assert parameters == {
        "levels": 2, "backbone": "resnet101", "profile": "small", "output": "out",
        "ranking": json.loads(json.dumps(PRESETS["paper"].values("ranking"))),
        "cleaning": PRESETS["paper"].values("cleaning"),
    }  # fmt: skip
    assert parameters["ranking"]["size"] == 800
    assert parameters_of(folder, "preset: paper") == parameters  # also a notebook that the profile doesn't list


def test_a_preset_leaves_other_types_and_unknown_sections(folder):
    compared = PARAMETERS.replace("levels: int = 3", "levels: list = [1, 2]")
    assert "levels" not in parameters_of(folder, "preset: paper", compared)
    # The authors' release has no cleaning and no training: the notebook's own settings stay.
    assert {"cleaning", "ranking"}.isdisjoint(parameters_of(folder, "preset: authors_release"))


def test_explicit_parameters_go_before_the_presets(folder):
    parameters = parameters_of(folder, "preset: paper\n01_tiny: {levels: 4, ranking: {lr: 1.0}, longest: 9}")
    assert (parameters["levels"], parameters["ranking"], parameters["longest"]) == (4, {"lr": 1.0}, 9)
    assert parameters["backbone"] == "resnet101"


def test_a_preset_reaches_the_notebook(folder):
    source = "open(f'{output}/results/01_tiny/values', 'w').write(f'{levels} {ranking[\"triplets\"]}')"
    run_notebook.run(*write(folder, source, profile="preset: paper", parameters=WITH_SECTIONS))
    assert Path("out/results/01_tiny/values").read_text() == "2 64"


def test_an_unknown_preset_names_the_known_ones(folder):
    with pytest.raises(ValueError, match="small.yml: unknown preset 'papr'; there are .*paper.*authors_release"):
        parameters_of(folder, "preset: papr")
    with pytest.raises(ValueError, match=r"small.yml: unknown preset \[1\]"):
        parameters_of(folder, "preset: [1]")


@pytest.mark.parametrize("profile", sorted((ROOT / "notebooks/profiles").glob("*.yml")), ids=lambda p: p.stem)
def test_every_profile_fits_the_notebooks(profile):
    for name in run_notebook.read_profile(profile).parameters:
        run_notebook.parameters_for(ROOT / "notebooks" / f"{name}.ipynb", profile, Path("_build/x"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_stored_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count] == []
