"""Mutations of one format, one after the other, in a child of attack_server.

What is wrong about each is noted at once, so that a crash loses only the last case.
"""

import json
import shutil
import signal
import zlib
from pathlib import Path

import numpy as np
from attack_formats import FORMATS
from attack_mutations import damaged

_SECONDS = 10


class _Slow(BaseException):
    pass


def _too_slow(*_):
    raise _Slow


def run(name: str, material: str, folder: str, start: int, stop: int) -> dict[str, int]:
    """Try cases start … stop - 1 of a format; returns how many were refused, and how many read right.

    folder/notes gets a line of JSON for each case that was begun and each problem.
    """
    from rmaclib.foundation.errors import RmacError

    form, folder = FORMATS[name], Path(folder)
    pristine = folder / "pristine"
    if not pristine.exists():
        pristine.mkdir()
        (pristine / "material").write_text(material)
        form.make(Path(material), pristine)
    original = _read(form, pristine, folder / "original")
    if form.expected and _json(form.expected(pristine)) != original:
        raise AssertionError(f"{name}: the rule gives {_json(form.expected(pristine))}, the reader {original}")
    signal.signal(signal.SIGALRM, _too_slow)
    counts = {"refused": 0, "right": 0}
    with (folder / "notes").open("a") as notes:
        for case in range(start, stop):
            print(json.dumps(["begun", case]), file=notes, flush=True)
            verdict, problem = _try(form, name, case, pristine, folder / f"work-{case}", original, RmacError)
            if problem:
                print(json.dumps(["problem", case, problem]), file=notes, flush=True)
            else:
                counts[verdict] += 1
    return counts


def _try(form, name: str, case: int, pristine: Path, work: Path, original: str, ours) -> tuple[str, str]:
    """(verdict, problem) of a case."""
    random = np.random.default_rng([zlib.crc32(name.encode()), case])
    shutil.copytree(pristine, work)
    pattern = sorted(form.kinds)[case % len(form.kinds)]
    files = sorted(path for path in work.glob(pattern) if path.is_file())
    file = files[int(random.integers(len(files)))]
    before = file.read_bytes()
    after = damaged(before, form.kinds[pattern], random)
    file.write_bytes(after)
    what = f"{file.name} {_change(before, after)}"
    expected = _json(form.expected(work)) if form.expected else None
    signal.alarm(_SECONDS)
    try:
        value = _json(form.read(work))
    except ours as error:
        text = str(error)
        if file.name not in text and str(work) not in text:
            return "", f"{what}: the error names no file: {text[:200]}"
        if "\n" in text:
            return "", f"{what}: the error has several lines: {text[:200]!r}"
        return "refused", ""
    except _Slow:
        return "", f"{what}: took more than {_SECONDS} seconds"
    except BaseException as error:
        return "", f"{what}: {type(error).__name__}: {str(error)[:160]!r}"
    finally:
        signal.alarm(0)
        shutil.rmtree(work)
    if value == original or (form.expected and value == expected):
        return "right", ""
    return "", f"{what}: accepted, read as something else: {_first_difference(value, expected or original)}"


def _read(form, pristine: Path, work: Path) -> str:
    if work.exists():
        shutil.rmtree(work)
    shutil.copytree(pristine, work)
    try:
        return _json(form.read(work))
    finally:
        shutil.rmtree(work)


def _json(value) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _change(before: bytes, after: bytes) -> str:
    """What was done to a file, for people to read."""
    start = next((place for place, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]),
                 min(len(before), len(after)))
    return (f"({len(before)} -> {len(after)} bytes, from {start}: {before[start:start + 24]!r} -> "
            f"{after[start:start + 24]!r})")


def _first_difference(value: str, expected: str) -> str:
    start = next((place for place, pair in enumerate(zip(value, expected, strict=False)) if pair[0] != pair[1]),
                 min(len(value), len(expected)))
    return f"…{value[max(0, start - 20):start + 60]}, expected …{expected[max(0, start - 20):start + 60]}"
