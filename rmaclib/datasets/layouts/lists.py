"""Lists of labelled images: the text format of the Landmarks release (Section 3), and CSV.

The Landmarks lists write a box as `x1 x2 y1 y2`; everywhere else it is (x1, y1, x2, y2). This module is the
only one that knows the order on disk.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.boxes import Box
from rmaclib.datasets.files import read_lines, read_rows
from rmaclib.datasets.layouts.oxford import check_box
from rmaclib.datasets.types import DatasetError, LabelledImages, Skipped
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import is_line, write_text

_LINE = "`path label` or `path label x1 x2 y1 y2`"
_LABEL_NAMES = ("labels.txt", "landmarks.txt")
_BOX_COLUMNS = ("x1", "y1", "x2", "y2")
MAX_LABEL = 2**31 - 1


class ListEntry(NamedTuple):
    """One line of a list: path or address as written, label from 0, box (x1, y1, x2, y2) or None."""

    name: str
    label: int
    box: Box | None


def read_landmarks_entries(path: str | os.PathLike) -> list[ListEntry]:
    """The lines of a Landmarks list, whether their images are on disk or not (the release lists addresses).

    Lines are `path label` or `path label x1 x2 y1 y2`. A path may contain blanks, but no word of it after the
    first may be a bare number at its end: numbers are counted from the right.
    raises DatasetError naming the line
    """
    return [entry for _, entry in _read_entries(Path(path), [], skip_bad=False)]


def read_landmarks_list(path: str | os.PathLike, root: str | os.PathLike | None = None,
                        skip_bad: bool = False) -> LabelledImages:
    """Read a list of the Landmarks release (Section 3); see read_landmarks_entries for its lines.

    root: the folder that the list's paths start from, the list's own folder by default
    skip_bad: lines that can't be used are left out, see LabelledImages.skipped, instead of being refused
    A file labels.txt or landmarks.txt beside the list names the labels, one a line.
    raises DatasetError: a malformed line, a label without a name, none of the images on disk
    """
    path, skipped = Path(path), []
    entries = _read_entries(path, skipped, skip_bad)
    label_names = _label_names(path, entries, skipped, skip_bad)
    return _labelled(path, path.parent if root is None else Path(root), entries, label_names, skipped)


def write_landmarks_list(path: str | os.PathLike, images: LabelledImages) -> None:
    """Write a list that read_landmarks_list reads back with the same names, labels and boxes.

    The file appears whole or not at all.
    raises InputError when a name can't be written so: line breaks, blanks at an end, a number as last word
    """
    path = Path(path)
    lines = []
    for name, label, box in zip(images.names, images.labels, images.boxes, strict=True):
        entry = ListEntry(name, int(label), None if box is None else tuple(map(float, box)))
        line = _format(entry)
        if not _reads_back(line, entry):
            raise InputError(f"{path}: {name!r} with label {label} and box {box} can't be written as {_LINE}")
        lines.append(line + "\n")
    write_text(path, "".join(lines))


def can_list(name: str) -> bool:
    """Whether write_landmarks_list can write an image of this name."""
    entry = ListEntry(name, 0, None)
    return is_line(name) and _reads_back(_format(entry), entry)


def read_csv(path: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Read a CSV file with a header: column `path` (from the file's folder), optional `label`, x1 y1 x2 y2.

    Labels are numbers from 0, or names, which are then numbered in sorted order; without the column every
    label is 0. Empty box columns mean no box.
    skip_bad: rows that can't be used are left out, see LabelledImages.skipped, instead of being refused
    raises DatasetError: no column `path`, a malformed row, none of the images on disk
    """
    path, skipped, rows = Path(path), [], []
    for row in read_rows(path, ["path"]):
        try:
            if row.problem:
                raise ValueError(row.problem)
            rows.append((row.line, _csv_row(row.fields)))
        except ValueError as error:
            _refuse(skipped, skip_bad, path, row.line, row.fields.get("path", ""), str(error))
    labels, label_names = _csv_labels([label for _, (_, label, _) in rows])
    entries = []
    for (line, (name, _, box)), label in zip(rows, labels, strict=True):
        if label > MAX_LABEL:
            _refuse(skipped, skip_bad, path, line, name, _large_label(label))
        else:
            entries.append((line, ListEntry(name, label, box)))
    return _labelled(path, path.parent, entries, label_names, skipped)


def _refuse(skipped: list[Skipped], skip_bad: bool, path: Path, line: int, name: str, reason: str) -> None:
    """Put a row among those skipped. raises DatasetError, naming the row, when rows may not be skipped"""
    if not skip_bad:
        raise DatasetError(f"{path}:{line}: {reason}")
    skipped.append(Skipped(name, reason, f"{path}:{line}"))


def _read_entries(path: Path, skipped: list[Skipped], skip_bad: bool) -> list[tuple[int, ListEntry]]:
    """(line, entry) of the lines that can be used; the others go to `skipped`, see _refuse."""
    entries = []
    for number, line in read_lines(path):
        try:
            entries.append((number, _parse(line)))
        except ValueError as error:
            _refuse(skipped, skip_bad, path, number, line, f"expected {_LINE}, found {line!r} ({error})")
    if not entries:
        raise DatasetError(f"{path}: expected lines {_LINE}, found none")
    return entries


def _parse(line: str) -> ListEntry:
    fields = line.split()
    numbers = 0
    while numbers < len(fields) - 1 and _is_number(fields[-1 - numbers]):
        numbers += 1
    if numbers not in (1, 5):
        raise ValueError(f"{numbers} numbers at the end")
    name, text, *values = line.rsplit(maxsplit=numbers)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"label {text}")
    label = _whole(text)
    if label > MAX_LABEL:
        raise ValueError(_large_label(label))
    if "\0" in name:
        raise ValueError("a NUL byte in the path")
    if not values:
        return ListEntry(name, label, None)
    x1, x2, y1, y2 = values
    return ListEntry(name, label, check_box((x1, y1, x2, y2)))


def _whole(digits: str) -> int:
    """The number that digits write; of very many, which Python doesn't convert, one that is too large as well."""
    return int(digits) if len(digits.lstrip("0")) <= 20 else 10**20


def _large_label(label: int) -> str:
    return f"label: expected at most {MAX_LABEL}, found {'more digits' if label >= 10**20 else label}"


def _format(entry: ListEntry) -> str:
    numbers = [entry.label]
    if entry.box is not None:
        x1, y1, x2, y2 = entry.box
        numbers += [int(value) if value.is_integer() else value for value in (x1, x2, y1, y2)]
    return " ".join([entry.name, *map(str, numbers)])


def _reads_back(line: str, entry: ListEntry) -> bool:
    try:
        return not {"\n", "\r"} & set(line) and _parse(line.strip()) == entry
    except ValueError:
        return False


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _label_names(path: Path, entries: list[tuple[int, ListEntry]], skipped: list[Skipped],
                 skip_bad: bool) -> tuple[str, ...] | None:
    """Names of the labels, None without a file of them; takes out of `entries` those whose label has no name."""
    for file in (path.with_name(name) for name in _LABEL_NAMES):
        if file.is_file():
            names = tuple(line for _, line in read_lines(file))
            highest = max(entry.label for _, entry in entries)
            if highest >= len(names) and not skip_bad:
                raise DatasetError(f"{file}: expected a name for each label up to {highest} of {path}, "
                                   f"found {len(names)} names")
            for line, entry in entries:
                if entry.label >= len(names):
                    _refuse(skipped, skip_bad, path, line, entry.name, f"label {entry.label} has no name in {file}")
            entries[:] = [(line, entry) for line, entry in entries if entry.label < len(names)]
            return names
    return None


def _labelled(path: Path, root: Path, rows: Sequence[tuple[int, ListEntry]], label_names: tuple[str, ...] | None,
              skipped: Sequence[Skipped]) -> LabelledImages:
    """The entries that have a file, as a collection named after the list."""
    found = [(line, entry) for line, entry in rows if os.path.isfile(root / entry.name)]
    if not found:
        first = f" (first: {rows[0][1].name!r})" if rows else f" ({skipped[0]})" if skipped else ""
        raise DatasetError(f"{path}: expected its images under {root}, found none of {len(rows)}{first}")
    names, labels, boxes = zip(*(entry for _, entry in found), strict=True)
    present = set(names)
    missing = tuple(dict.fromkeys(entry.name for _, entry in rows if entry.name not in present))
    images = LabelledImages(path.stem, root, names, tuple(root / name for name in names), labels, boxes, label_names,
                            missing, skipped=tuple(skipped))
    return images.usable(places=[f"{path}:{line}" for line, _ in found])


def _csv_row(fields: dict[str, str]) -> tuple[str, str, Box | None]:
    """(path, label as written, box) of a row. raises ValueError"""
    name, label = fields["path"], fields.get("label", "0").strip()
    if not name or not is_line(name):
        raise ValueError(f"expected a path, found {name!r}" if name else "expected a path, found an empty field")
    if not label or not is_line(label):
        raise ValueError(f"expected a label, found {label!r}" if label else "expected a label, found an empty field")
    values = [fields.get(column, "").strip() for column in _BOX_COLUMNS]
    if not any(values):
        return name, label, None
    try:
        return name, label, check_box(values)
    except ValueError as error:
        raise ValueError("expected x1, y1, x2, y2 with x1 < x2 and y1 < y2, or all four empty, "
                         f"found {values}") from error


def _csv_labels(texts: Sequence[str]) -> tuple[list[int], tuple[str, ...] | None]:
    if all(text.isascii() and text.isdigit() for text in texts):
        return [_whole(text) for text in texts], None
    names = tuple(sorted(set(texts)))
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[text] for text in texts], names
