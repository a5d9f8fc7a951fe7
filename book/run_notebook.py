"""Run one notebook with the parameters of a profile: what the Snakefile calls for every notebook.

    python book/run_notebook.py notebooks/NAME.ipynb --profile notebooks/profiles/PROFILE.yml --output FOLDER

Writes FOLDER/notebooks/NAME.ipynb, whole or not at all. The notebook gets the parameters under its name in
the profile, and two more that every notebook declares: `profile` (its name) and `output` (the folder; results
go into output/results). Exit status 1, with the notebook and the cell named, when anything goes wrong.

A profile may begin with `preset: NAME`, one of `rmaclib.presets`. It then fills the parameters that the preset
knows by name: a section of the preset (`cleaning`, `ranking`, …), or a setting of its network (`backbone`,
`levels`, …). Parameters that the profile itself gives go before those of the preset.
"""

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from rmaclib.foundation.environment import prepare_process
from rmaclib.presets import PRESETS, SECTIONS

GIVEN_BY_THE_RUNNER = ("profile", "output")


class Profile(NamedTuple):
    """Parameters for a run of the notebooks.

    Attributes:
        preset: Name of a preset of ``rmaclib.presets``, or None.
        parameters: Notebook name → parameter → value.
    """

    preset: str | None
    parameters: dict[str, dict[str, Any]]


def read_profile(path: str | Path) -> Profile:
    """Read a profile.

    Args:
        path: YAML file.

    Returns:
        The profile.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another layout, or names an unknown preset; the message names the file.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected 'notebook name:' at the top level, got {type(content).__name__}")
    preset = content.pop("preset", None)
    if preset is not None and not (isinstance(preset, str) and preset in PRESETS):
        raise ValueError(f"{path}: unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    for name, parameters in content.items():
        if not isinstance(parameters, dict | None):
            raise ValueError(f"{path}: {name}: expected parameter: value, got {type(parameters).__name__}")
    return Profile(preset, {name: parameters or {} for name, parameters in content.items()})


def preset_parameters(preset: str, declared: dict) -> dict[str, Any]:
    """The parameters of a notebook that a preset knows by name.

    Args:
        preset: Name of the preset.
        declared: The notebook's parameters, as papermill reads them from its cell.

    Returns:
        Parameter → value. A parameter declared with another type than the preset's value is left out: `levels`
        may be a list of values to compare.
    """
    settings = PRESETS[preset]
    sections = {section: values for section in SECTIONS if (values := settings.values(section))}
    known = json.loads(json.dumps(settings.values("network") | sections))  # tuples become lists, as in YAML
    return {
        name: known[name]
        for name, parameter in declared.items()
        if name in known and parameter["inferred_type_name"] == type(known[name]).__name__
    }


def parameters_for(notebook: Path, profile: Path, output: Path) -> dict[str, Any]:
    """The parameters that a profile gives a notebook, checked against those that the notebook declares.

    A notebook that the profile doesn't list runs with the preset's parameters, or with its own defaults.

    Args:
        notebook: File of the notebook.
        profile: File of the profile.
        output: Folder for the executed notebook and its results.

    Returns:
        Parameter → value.

    Raises:
        ValueError: A parameter is not declared; the message names it and the declared ones nearest to it. papermill
            itself would only warn, and a misspelt setting would silently be the default.
    """
    preset, blocks = read_profile(profile)
    parameters = blocks.get(notebook.stem, {})
    reserved = sorted(set(parameters) & set(GIVEN_BY_THE_RUNNER))
    if reserved:
        raise ValueError(f"{profile}: {notebook.stem}: {', '.join(reserved)} comes from the runner")
    declared = papermill.inspect_notebook(str(notebook))
    filled = preset_parameters(preset, declared) if preset else {}
    parameters = {**filled, **parameters, "profile": profile.stem, "output": output.as_posix()}
    for name in parameters:
        if name in declared:
            continue
        if name in GIVEN_BY_THE_RUNNER:
            raise ValueError(f"{notebook}: its parameters cell must declare {name!r}")
        near = difflib.get_close_matches(name, declared, n=3, cutoff=0.5)
        declares = f"it declares {', '.join(declared) or 'none'}"
        hint = f"did you mean {' or '.join(near)}?" if near else declares
        raise ValueError(f"{profile}: {notebook.stem} has no parameter {name!r}; {hint}")
    return parameters


def run(notebook: str | Path, profile: str | Path, output: str | Path) -> Path:
    """Run a notebook in the current folder.

    Args:
        notebook: File of the notebook.
        profile: File of the profile.
        output: Folder for the executed notebook and its results.

    Returns:
        Path of the executed notebook.

    Raises:
        ValueError: The profile can't be used.
        RuntimeError: A cell fails; the message names notebook and cell. The cells executed until then stay beside
            the target as NAME.failed.ipynb.
    """
    notebook, profile, output = Path(notebook), Path(profile), Path(output)
    parameters = parameters_for(notebook, profile, output)
    target = output / "notebooks" / notebook.name
    partial = target.with_suffix(".failed.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    (output / "results" / notebook.stem).mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook), str(partial), parameters, kernel_name="python3", progress_bar=sys.stderr.isatty()
        )
    except PapermillExecutionError as error:
        raise RuntimeError(
            f"{notebook}, cell {_cell_number(notebook, error)}: {error.ename}: {error.evalue}\n"
            f"{chr(10).join(error.traceback)}\nexecuted until then: {partial}"
        ) from None
    partial.replace(target)
    return target


def _cell_number(notebook: Path, error: PapermillExecutionError) -> str:
    # Counted from 1 in the notebook as written: papermill has put a cell of its own behind the declared ones.
    cells = nbformat.read(notebook, as_version=4).cells
    declared = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", ()))
    if error.cell_index == declared + 1:
        return "of the profile's parameters"
    return str(error.cell_index + (1 if error.cell_index <= declared else 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook")
    parser.add_argument("--profile", required=True, help="YAML file, notebooks/profiles/NAME.yml")
    parser.add_argument("--output", required=True, help="folder, _build/NAME")
    options = parser.parse_args()
    prepare_process()  # the notebook's process inherits it
    try:
        run(options.notebook, options.profile, options.output)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
