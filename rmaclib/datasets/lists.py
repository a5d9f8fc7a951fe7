"""Lists of labelled images: the text format of the Landmarks release (Section 3), and CSV.

The Landmarks lists write a box as `x1 x2 y1 y2`; everywhere else it is (x1, y1, x2, y2). This module is the
only one that knows the order on disk.
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.datasets.files import read_lines
from rmaclib.datasets.oxford import check_box
from rmaclib.datasets.types import Box, DatasetError, LabelledImages
from rmaclib.files import write_text

_LINE = "`path label` or `path label x1 x2 y1 y2`"
_LABEL_NAMES = ("labels.txt", "landmarks.txt")
_BOX_COLUMNS = ("x1", "y1", "x2", "y2")


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
    path = Path(path)
    entries = []
    for number, line in read_lines(path):
        try:
            entries.append(_parse(line))
        except ValueError as error:
            raise DatasetError(f"{path}:{number}: expected {_LINE}, found {line!r} ({error})") from error
    if not entries:
        raise DatasetError(f"{path}: expected lines {_LINE}, found none")
    return entries


def read_landmarks_list(path: str | os.PathLike, root: str | os.PathLike | None = None) -> LabelledImages:
    """Read a list of the Landmarks release (Section 3); see read_landmarks_entries for its lines.

    root: the folder that the list's paths start from, the list's own folder by default
    A file labels.txt or landmarks.txt beside the list names the labels, one a line.
    raises DatasetError: a malformed line, a label without a name, none of the images on disk
    """
    path = Path(path)
    entries = read_landmarks_entries(path)
    return _labelled(path, path.parent if root is None else Path(root), entries, _label_names(path, entries))


def write_landmarks_list(path: str | os.PathLike, images: LabelledImages) -> None:
    """Write a list that read_landmarks_list reads back with the same names, labels and boxes.

    The file appears whole or not at all.
    raises ValueError when a name can't be written so: line breaks, blanks at an end, a number as last word
    """
    path = Path(path)
    lines = []
    for name, label, box in zip(images.names, images.labels, images.boxes, strict=True):
        entry = ListEntry(name, int(label), None if box is None else tuple(map(float, box)))
        line = _format(entry)
        if not _reads_back(line, entry):
            raise ValueError(f"{path}: {name!r} with label {label} and box {box} can't be written as {_LINE}")
        lines.append(line + "\n")
    write_text(path, "".join(lines))


def read_csv(path: str | os.PathLike) -> LabelledImages:
    """Read a CSV file with a header: column `path` (from the file's folder), optional `label`, x1 y1 x2 y2.

    Labels are numbers from 0, or names, which are then numbered in sorted order; without the column every
    label is 0. Empty box columns mean no box.
    raises DatasetError: no column `path`, a malformed row, none of the images on disk
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise DatasetError(f"{path}:1: expected a column `path`, "
                                   f"found {reader.fieldnames or 'no header'}")
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: expected CSV in UTF-8, found {error}") from error
    for number, row in rows:
        if not row["path"] or None in row or None in row.values():
            raise DatasetError(f"{path}:{number}: expected a path and {len(reader.fieldnames)} fields, "
                               f"found {list(row.values())}")
    labels, label_names = _csv_labels(path, rows)
    entries = [ListEntry(row["path"], label, _csv_box(path, number, row))
               for (number, row), label in zip(rows, labels, strict=True)]
    return _labelled(path, path.parent, entries, label_names)


def _parse(line: str) -> ListEntry:
    fields = line.split()
    numbers = 0
    while numbers < len(fields) - 1 and _is_number(fields[-1 - numbers]):
        numbers += 1
    if numbers not in (1, 5):
        raise ValueError(f"{numbers} numbers at the end")
    name, label, *values = line.rsplit(maxsplit=numbers)
    if not (label.isascii() and label.isdigit()):
        raise ValueError(f"label {label}")
    if not values:
        return ListEntry(name, int(label), None)
    x1, x2, y1, y2 = values
    return ListEntry(name, int(label), check_box((x1, y1, x2, y2)))


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


def _label_names(path: Path, entries: Sequence[ListEntry]) -> tuple[str, ...] | None:
    for file in (path.with_name(name) for name in _LABEL_NAMES):
        if file.is_file():
            names = tuple(line for _, line in read_lines(file))
            highest = max(entry.label for entry in entries)
            if highest >= len(names):
                raise DatasetError(f"{file}: expected a name for each label up to {highest} of {path}, "
                                   f"found {len(names)} names")
            return names
    return None


def _labelled(path: Path, root: Path, entries: Sequence[ListEntry],
              label_names: tuple[str, ...] | None) -> LabelledImages:
    """The entries that have a file, as a collection named after the list."""
    found = [entry for entry in entries if (root / entry.name).is_file()]
    if not found:
        raise DatasetError(f"{path}: expected its images under {root}, found none of {len(entries)}"
                           + (f" (first: {entries[0].name!r})" if entries else ""))
    names, labels, boxes = zip(*found, strict=True)
    present = set(names)
    return LabelledImages(path.stem, root, names, tuple(root / name for name in names), labels, boxes,
                          label_names, tuple(entry.name for entry in entries if entry.name not in present))


def _csv_labels(path: Path, rows: Sequence[tuple[int, dict]]) -> tuple[list[int], tuple[str, ...] | None]:
    if not rows or "label" not in rows[0][1]:
        return [0] * len(rows), None
    texts = [row["label"].strip() for _, row in rows]
    if "" in texts:
        raise DatasetError(f"{path}:{rows[texts.index('')][0]}: expected a label, found an empty field")
    if all(text.isascii() and text.isdigit() for text in texts):
        return [int(text) for text in texts], None
    names = tuple(sorted(set(texts)))
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[text] for text in texts], names


def _csv_box(path: Path, number: int, row: dict) -> Box | None:
    values = [row.get(column, "").strip() for column in _BOX_COLUMNS]
    if not any(values):
        return None
    try:
        return check_box(values)
    except ValueError as error:
        raise DatasetError(f"{path}:{number}: expected x1, y1, x2, y2 with x1 < x2 and y1 < y2, or all four "
                           f"empty, found {values}") from error
