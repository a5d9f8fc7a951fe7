"""Run one notebook with the parameters of a profile: what the Snakefile calls for every notebook.

    python book/run_notebook.py notebooks/NAME.ipynb --profile notebooks/profiles/PROFILE.yml --output FOLDER

Writes FOLDER/notebooks/NAME.ipynb, whole or not at all. The notebook gets the parameters under its name in
the profile, and two more that every notebook declares: `profile` (its name) and `output` (the folder; results
go into output/results). Exit status 1, with the notebook and the cell named, when anything goes wrong.
"""

import argparse
import difflib
import sys
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from rmaclib.foundation.environment import prepare_process

GIVEN_BY_THE_RUNNER = ("profile", "output")


def read_profile(path: str | Path) -> dict[str, dict]:
    """Read a profile: notebook name -> {parameter: value}.

    raises FileNotFoundError; ValueError naming the file when it is laid out otherwise
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected 'notebook name:' at the top level, got {type(content).__name__}")
    for name, parameters in content.items():
        if not isinstance(parameters, dict | None):
            raise ValueError(f"{path}: {name}: expected parameter: value, got {type(parameters).__name__}")
    return {name: parameters or {} for name, parameters in content.items()}


def parameters_for(notebook: Path, profile: Path, output: Path) -> dict:
    """The parameters that a profile gives a notebook, checked against those that the notebook declares.

    A notebook that the profile doesn't list runs with its own defaults.
    raises ValueError naming the unknown parameter and the declared ones nearest to it: papermill itself would
    only warn, and a misspelt setting would silently be the default
    """
    parameters = read_profile(profile).get(notebook.stem, {})
    reserved = sorted(set(parameters) & set(GIVEN_BY_THE_RUNNER))
    if reserved:
        raise ValueError(f"{profile}: {notebook.stem}: {', '.join(reserved)} comes from the runner")
    parameters = {**parameters, "profile": profile.stem, "output": output.as_posix()}
    declared = papermill.inspect_notebook(str(notebook))
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

    returns: path of the executed notebook
    raises ValueError for a bad profile; RuntimeError naming notebook and cell when a cell fails (what ran
    until then stays beside the target as NAME.failed.ipynb)
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
            f"{chr(10).join(error.traceback)}\nwhat ran until then: {partial}"
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
