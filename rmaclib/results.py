"""Result records: one small JSON file for every number that the book prints.

A record contains the number and what is needed to judge and repeat it: the data and their counts, the protocol, all
settings, the seed, versions of the libraries, the commit, the kind of machine, the time taken and the date.
"""

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

from pydantic import Field

from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import read_json, write_text
from rmaclib.foundation.settings import from_mapping, settings

VERSIONED = ("torch", "torchvision", "timm", "numpy", "faiss-cpu", "rmaclib")
KEY = re.compile(r"[a-z0-9_][a-z0-9_.-]*(/[a-z0-9_][a-z0-9_.-]*)+")
LONGEST_TEXT = 80  # a value that is text is a label ("grid"), not a report


class ResultError(RmacError, ValueError):
    """A file that is no result record; the text names it."""


class Context(TypedDict):
    """What has to be told about a measurement; ``record`` adds the rest.

    Attributes:
        unit: See ``Result``.
        protocol: How the value was measured, such as "oxford".
        dataset: {"name": str, "counts": {str: int}}.
        settings: Anything that JSON can express; NaN and infinity are errors.
        seed: None where nothing is random.
        seconds: Wall time of the measurement, finite, at least 0.
        notebook: Name of the notebook, with which the key begins.
        profile: Profile that the notebook ran with.
    """

    unit: str
    protocol: str
    dataset: Mapping
    settings: Mapping
    seed: int | None
    seconds: float
    notebook: str
    profile: str


@settings
class Result:
    """One recorded measurement.

    Attributes:
        key: "notebook/data set/name", lower case; also the name of the file.
        value: A finite number, or a short text.
        unit: "mAP", "points" (a difference of two mAP) and "share" contain fractions: 0.617 is printed as 61.7. Any
            other unit is printed behind the value as it is.
        protocol: How the value was measured.
        dataset: {"name": ..., "counts": {"images": 1053, ...}}.
        settings: All settings of the measurement.
        seed: None where nothing is random.
        versions: Package → version, and "python".
        commit: Git commit of the library, "+dirty" when the tree had changes, "unknown" outside of git.
        seconds: Wall time of the measurement.
        machine: Processor, number of usable cores, and the GPU if the measurement used one.
        date: UTC, YYYY-MM-DD.
        notebook: Name of the notebook.
        profile: Profile that the notebook ran with.
    """

    key: str
    value: float | int | str
    unit: str
    protocol: str
    dataset: dict
    settings: dict
    seed: int | None
    versions: dict
    commit: str
    seconds: Annotated[float, Field(ge=0)]
    machine: str
    date: str
    notebook: str
    profile: str


def record(folder: str | Path, key: str, value: float | int | str, **context: Unpack[Context]) -> Result:
    """Write a measurement to folder/key.json, complete or not at all.

    An older record of the same key is replaced.

    Args:
        folder: The folder of all records.
        key: Such as "01_rmac/oxford5k_subset/baseline". It begins with the notebook's name, so that each notebook
            writes to a folder of its own.
        value: A finite number (NumPy scalars too), or a text of at most 80 characters.
        **context: See ``Context``; all of it is needed.

    Returns:
        The record, with versions, commit, machine and date.

    Raises:
        InputError: One of the arguments can't be recorded; the text names the key.
        OutputError: The file can't be written.
    """
    if context.keys() != Context.__annotations__.keys():
        raise InputError(f"result {key}: expected {', '.join(Context.__annotations__)}, got {', '.join(context)}")
    notebook, dataset, seconds = context["notebook"], context["dataset"], context["seconds"]
    if not KEY.fullmatch(key):
        raise InputError(f"result key {key!r}: expected parts of [a-z0-9_.-] joined by '/', at least two")
    if not key.startswith(notebook + "/"):
        raise InputError(f"result key {key!r}: expected to begin with its notebook's name {notebook!r}")
    value = value.item() if hasattr(value, "item") else value
    _check_value(key, value)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"result {key}: seconds must be finite and not negative, got {seconds!r}")
    if set(dataset) != {"name", "counts"}:
        raise InputError(f"result {key}: dataset needs 'name' and 'counts', got {sorted(dataset)}")
    content = {
        "key": key, "value": value, "unit": context["unit"], "protocol": context["protocol"], "dataset": dict(dataset),
        "settings": dict(context["settings"]), "seed": context["seed"], "versions": _versions(),
        "commit": current_commit(),
        "seconds": round(float(seconds), 3), "machine": machine(), "date": datetime.now(UTC).date().isoformat(),
        "notebook": notebook, "profile": context["profile"],
    }  # fmt: skip
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"result {key}: not strict JSON: {error}") from error
    result = from_mapping(Result, json.loads(text), f"result {key}")  # as it is read back: tuples are lists
    write_text(Path(folder) / f"{key}.json", text)
    return result


def load_result(path: str | Path) -> Result:
    """Read one record.

    Args:
        path: Its file.

    Returns:
        The record.

    Raises:
        FileNotFoundError: There is no such file.
        ResultError: The file is no record; the text names it and says what is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(path)
    content = read_json(path, ResultError, "a result record")
    expected = {field.name for field in fields(Result)}
    if set(content) != expected:
        missing, unknown = sorted(expected - set(content)), sorted(set(content) - expected)
        raise ResultError(f"{path}: not a result record: missing {missing}, unknown {unknown}")
    try:
        result = from_mapping(Result, content, str(path))
        _check_value(result.key, result.value)
        json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise ResultError(f"{path}: not a result record: {str(error).removeprefix(f'{path}: ')}") from error
    return result


def load_results(folder: str | Path) -> dict[str, Result]:
    """Read every record below a folder.

    Args:
        folder: The folder of all records.

    Returns:
        Key → record, sorted by key; empty when the folder does not exist.

    Raises:
        ResultError: A file is no record, or lies elsewhere than its key says; the text names it.
    """
    folder = Path(folder)
    results = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith("."):  # a temporary file of a process that was killed
            continue
        result = load_result(path)
        place = path.relative_to(folder).with_suffix("").as_posix()
        if result.key != place:
            raise ResultError(f"{path}: contains the key {result.key!r}, expected {place!r}")
        results[result.key] = result
    return results


def _check_value(key: str, value: Any) -> None:
    """Raises InputError unless a value is a finite number or a short text."""
    if isinstance(value, str):
        if not 0 < len(value) <= LONGEST_TEXT:
            raise InputError(f"result {key}: a text has 1 to {LONGEST_TEXT} characters, got {len(value)}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"result {key}: expected a number or a short text, got {type(value).__name__}")
    elif not math.isfinite(value):
        raise InputError(f"result {key}: expected a finite number, got {value!r}")


def _versions() -> dict[str, str]:
    # From the metadata of the installed packages: importing torch for its version would take seconds.
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def current_commit(root: Path | None = None) -> str:
    """Tell the commit of a working tree.

    Args:
        root: Top folder of the repository, by default the library's.

    Returns:
        Twelve digits, with "+dirty" when the tree has changes; "unknown" outside of git.
    """
    root = root or Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed copy may lie inside another repository, whose commit says nothing of the library.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"
        return git("rev-parse", "--short=12", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Tell the kind of machine, without the host's name, which tells a reader nothing.

    Returns:
        Processor, number of usable cores, and the GPU if one is in use.
    """
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        model = platform.processor() or model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")  # a measurement without torch used no GPU, and importing torch takes seconds
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_initialized() else ""
    return f"{model}, {cores} cores{gpu}"
