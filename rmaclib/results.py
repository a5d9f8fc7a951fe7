"""Result records: one small JSON file for every number that the book prints.

A record holds the number together with what is needed to judge and repeat it: the data and their counts, the
protocol, all settings, the seed, library versions, the commit, the kind of machine, the time and the date.
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
from typing import Annotated

from pydantic import Field

from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import read_json, write_text
from rmaclib.foundation.settings import from_mapping, settings

VERSIONED = ("torch", "torchvision", "timm", "numpy", "faiss-cpu", "rmaclib")
KEY = re.compile(r"[a-z0-9_][a-z0-9_.-]*(/[a-z0-9_][a-z0-9_.-]*)+")
LONGEST_TEXT = 80  # a value that is text is a label ("grid"), not a report


class ResultError(RmacError, ValueError):
    """A file that is no result record; the text names it."""


@settings
class Result:
    """One recorded measurement.

    key: "notebook/data set/name", lower case; also the file name
    value: finite number, or a short text
    unit: "mAP" and "points" (difference of two mAP) and "share" hold fractions, 0.617 is printed 61.7;
        any other unit is printed behind the value as it is
    dataset: {"name": ..., "counts": {"images": 1053, ...}}
    versions: package -> version, and "python"
    commit: git commit of the library, "+dirty" when the tree had changes, "unknown" outside git
    seconds: wall time of the measurement
    machine: processor and number of usable cores, and the GPU where one was computed on
    date: UTC, YYYY-MM-DD
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


def record(
    folder: str | Path,
    key: str,
    value: float | int | str,
    *,
    unit: str,
    protocol: str,
    dataset: Mapping,
    settings: Mapping,
    seed: int | None,
    seconds: float,
    notebook: str,
    profile: str,
) -> Result:
    """Write a measurement to folder/key.json and return it.

    key: "01_rmac/oxford5k_subset/baseline"; begins with the notebook's name, so that a notebook owns a folder
    value: finite number (NumPy scalars too) or text of at most 80 characters
    dataset: {"name": str, "counts": {str: int}}
    settings: anything that JSON can hold; NaN and infinity are refused
    seconds: wall time, finite, not negative
    The file appears whole or not at all; an older record of the same key is replaced.
    raises InputError, naming the key, when one of these does not hold; OutputError
    """
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
        "key": key, "value": value, "unit": unit, "protocol": protocol, "dataset": dict(dataset),
        "settings": dict(settings), "seed": seed, "versions": _versions(), "commit": _commit(),
        "seconds": round(float(seconds), 3), "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(), "notebook": notebook, "profile": profile,
    }  # fmt: skip
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"result {key}: not strict JSON: {error}") from error
    made = from_mapping(Result, json.loads(text), f"result {key}")  # as a reader will see it: tuples are lists by now
    write_text(Path(folder) / f"{key}.json", text)
    return made


def load_result(path: str | Path) -> Result:
    """Read one record.

    raises FileNotFoundError; ResultError naming the file and what is wrong with it
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

    returns: key -> Result, sorted by key; empty when the folder does not exist
    raises ResultError naming the file that is no record, or that lies where its key does not say
    """
    folder = Path(folder)
    results = {}
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith("."):  # left by a writer that was killed
            continue
        result = load_result(path)
        place = path.relative_to(folder).with_suffix("").as_posix()
        if result.key != place:
            raise ResultError(f"{path}: holds the key {result.key!r}, expected {place!r}")
        results[result.key] = result
    return results


def _check_value(key, value):
    if isinstance(value, str):
        if not 0 < len(value) <= LONGEST_TEXT:
            raise InputError(f"result {key}: a text has 1 to {LONGEST_TEXT} characters, got {len(value)}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"result {key}: expected a number or a short text, got {type(value).__name__}")
    elif not math.isfinite(value):
        raise InputError(f"result {key}: expected a finite number, got {value!r}")


def _versions() -> dict[str, str]:
    # From the installed packages' metadata: importing torch for its version would take seconds.
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _commit(root: Path | None = None) -> str:
    root = root or Path(__file__).resolve().parents[1]

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository, whose commit would be a lie.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"
        return git("rev-parse", "--short=12", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> str:
    # The kind of machine only; a host name says nothing to a reader.
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        model = platform.processor() or model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")  # importing it would take seconds
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_initialized() else ""
    return f"{model}, {cores} cores{gpu}"
