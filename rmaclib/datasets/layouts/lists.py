"""Lists of labelled images: the text format of the Landmarks release (Section 3), and CSV.

The Landmarks lists write a box as `x1 x2 y1 y2`; everywhere else it is (x1, y1, x2, y2). Only this module knows the
order on disk.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.boxes import Box, check_box
from rmaclib.datasets.files import read_lines, read_rows
from rmaclib.datasets.types import DatasetError, LabelledImages, Skipped
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import is_line, write_text

_LINE = "`path label` or `path label x1 x2 y1 y2`"
_LABEL_NAMES = ("labels.txt", "landmarks.txt")
_BOX_COLUMNS = ("x1", "y1", "x2", "y2")
MAX_LABEL = 2**31 - 1


class ListEntry(NamedTuple):
    """One line of a list.

    Attributes:
        name: Path or address, as in the list.
        label: From 0.
        box: (x1, y1, x2, y2) in pixels, or None.
    """

    name: str
    label: int
    box: Box | None


def read_landmarks_entries(path: str | os.PathLike) -> list[ListEntry]:
    """Read the lines of a Landmarks list, whether their images are on disk or not (the release lists addresses).

    Lines are ``path label`` or ``path label x1 x2 y1 y2``. Numbers are counted from the right: a path may contain
    blanks, but its last word must not be a number, except where it is the only word.

    Args:
        path: The list.

    Returns:
        Its lines.

    Raises:
        DatasetError: The list can't be read, is empty, or has a malformed line; the text names the line.
    """
    return [entry for _, entry in _read_entries(Path(path), [], skip_bad=False)]


def read_landmarks_list(path: str | os.PathLike, root: str | os.PathLike | None = None,
                        skip_bad: bool = False) -> LabelledImages:
    """Read a list of the Landmarks release (Section 3); its lines are as in ``read_landmarks_entries``.

    A file labels.txt or landmarks.txt beside the list names the labels, one per line.

    Args:
        path: The list.
        root: The folder that the list's paths start from; by default the folder of the list.
        skip_bad: Leave out lines that can't be used, see ``LabelledImages.skipped``, instead of raising.

    Returns:
        The images that have a file.

    Raises:
        DatasetError: A malformed line, a label without a name, or none of the images on disk.
    """
    path = Path(path)
    skipped: list[Skipped] = []
    entries = _read_entries(path, skipped, skip_bad)
    label_names = _label_names(path, entries, skipped, skip_bad)
    return _labelled(path, path.parent if root is None else Path(root), entries, label_names, skipped)


def write_landmarks_list(path: str | os.PathLike, images: LabelledImages) -> None:
    """Write a list that ``read_landmarks_list`` reads with the same names, labels and boxes, complete or not at all.

    Args:
        path: The file to write.
        images: The images.

    Raises:
        InputError: A name can't be written: it has line breaks, blanks at an end, or a number as its last word.
        OutputError: The file can't be written.
    """
    path = Path(path)
    lines = []
    for name, label, box in zip(images.names, images.labels, images.boxes, strict=True):
        entry = ListEntry(name, int(label), None if box is None else _floats(box))
        line = _format(entry)
        if not _reads_back(line, entry):
            raise InputError(f"{path}: {name!r} with label {label} and box {box} can't be written as {_LINE}")
        lines.append(line + "\n")
    write_text(path, "".join(lines))


def _floats(box: Box) -> Box:
    x1, y1, x2, y2 = map(float, box)
    return x1, y1, x2, y2


def can_list(name: str) -> bool:
    """Tell whether ``write_landmarks_list`` can write an image of this name."""
    entry = ListEntry(name, 0, None)
    return is_line(name) and _reads_back(_format(entry), entry)


def read_csv(path: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Read a CSV file with a header: column ``path`` and optionally ``label``, ``x1``, ``y1``, ``x2``, ``y2``.

    Paths start from the folder of the file. Labels are numbers from 0, or names, which are numbered in sorted order;
    without the column every label is 0. Empty box columns mean no box.

    Args:
        path: The CSV file.
        skip_bad: Leave out rows that can't be used, see ``LabelledImages.skipped``, instead of raising.

    Returns:
        The images that have a file.

    Raises:
        DatasetError: No column ``path``, a malformed row, or none of the images on disk.
    """
    path = Path(path)
    skipped: list[Skipped] = []
    rows: list[tuple[int, str, str, Box | None]] = []
    for row in read_rows(path, ["path"]):
        try:
            if row.problem:
                raise ValueError(row.problem)
            rows.append((row.line, *_csv_row(row.fields)))
        except ValueError as error:
            _reject(skipped, skip_bad, path, row.line, row.fields.get("path", ""), str(error))
    labels, label_names = _csv_labels([label for _, _, label, _ in rows])
    entries = []
    for (line, name, _, box), label in zip(rows, labels, strict=True):
        if label > MAX_LABEL:
            _reject(skipped, skip_bad, path, line, name, _large_label(label))
        else:
            entries.append((line, ListEntry(name, label, box)))
    return _labelled(path, path.parent, entries, label_names, skipped)


def _reject(skipped: list[Skipped], skip_bad: bool, path: Path, line: int, name: str, reason: str) -> None:
    """Add a row to those skipped; raises DatasetError, naming the row, unless rows may be skipped."""
    if not skip_bad:
        raise DatasetError(f"{path}:{line}: {reason}")
    skipped.append(Skipped(name, reason, f"{path}:{line}"))


def _read_entries(path: Path, skipped: list[Skipped], skip_bad: bool) -> list[tuple[int, ListEntry]]:
    """(line number, entry) of the lines that can be used; the others are added to ``skipped``, see _reject."""
    entries = []
    for number, line in read_lines(path):
        try:
            entries.append((number, _parse(line)))
        except ValueError as error:
            _reject(skipped, skip_bad, path, number, line, f"expected {_LINE}, found {line!r} ({error})")
    if not entries:
        raise DatasetError(f"{path}: expected lines {_LINE}, found none")
    return entries


def _parse(line: str) -> ListEntry:
    """The entry of a line. Raises ValueError with the reason when it can't be used."""
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
    """The number that digits write; 10^20 for very many digits, which Python doesn't convert."""
    return int(digits) if len(digits.lstrip("0")) <= 20 else 10**20


def _large_label(label: int) -> str:
    return f"label: expected at most {MAX_LABEL}, found {'more digits' if label >= 10**20 else label}"


def _format(entry: ListEntry) -> str:
    numbers: list[float] = [entry.label]
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
    """Names of the labels, None without a file of them; entries whose label has no name are removed."""
    for file in (path.with_name(name) for name in _LABEL_NAMES):
        if file.is_file():
            names = tuple(line for _, line in read_lines(file))
            highest = max(entry.label for _, entry in entries)
            if highest >= len(names) and not skip_bad:
                raise DatasetError(f"{file}: expected a name for each label up to {highest} of {path}, "
                                   f"found {len(names)} names")
            for line, entry in entries:
                if entry.label >= len(names):
                    _reject(skipped, skip_bad, path, line, entry.name, f"label {entry.label} has no name in {file}")
            entries[:] = [(line, entry) for line, entry in entries if entry.label < len(names)]
            return names
    return None


def _labelled(path: Path, root: Path, entries: Sequence[tuple[int, ListEntry]], label_names: tuple[str, ...] | None,
              skipped: Sequence[Skipped]) -> LabelledImages:
    """The entries that have a file, as a collection named after the list."""
    present = [(line, entry) for line, entry in entries if os.path.isfile(root / entry.name)]
    if not present:
        first = f" (first: {entries[0][1].name!r})" if entries else f" ({skipped[0]})" if skipped else ""
        raise DatasetError(f"{path}: expected its images under {root}, found none of {len(entries)}{first}")
    names, labels, boxes = zip(*(entry for _, entry in present), strict=True)
    on_disk = set(names)
    missing = tuple(dict.fromkeys(entry.name for _, entry in entries if entry.name not in on_disk))
    images = LabelledImages(path.stem, root, names, tuple(root / name for name in names), labels, boxes, label_names,
                            missing, skipped=tuple(skipped))
    return images.usable(places=[f"{path}:{line}" for line, _ in present])


def _csv_row(fields: dict[str, str]) -> tuple[str, str, Box | None]:
    """(path, label as text, box) of a row. Raises ValueError with the reason when it can't be used."""
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
    """(labels, their names or None) of the texts of the column ``label``."""
    if all(text.isascii() and text.isdigit() for text in texts):
        return [_whole(text) for text in texts], None
    names = tuple(sorted(set(texts)))
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[text] for text in texts], names
