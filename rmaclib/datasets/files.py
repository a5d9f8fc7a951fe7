"""Finding image files and reading lines of text: what all layouts share. No image is opened here."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.datasets.types import NOT_A_LINE, DatasetError, Skipped
from rmaclib.foundation.files import as_line, is_line
from rmaclib.foundation.folders import is_output
from rmaclib.foundation.messages import note

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_IMAGE_FOLDERS = ("jpg", "images", "png")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sub-folders included, in byte order of their relative paths.

    Files are known by their extension (EXTENSIONS, in any case). Hidden files and folders are skipped, and folders
    that this library wrote (folders.is_output); links to folders are followed, a folder met again is not entered
    again.
    raises DatasetError: no such folder, one that this library wrote, a folder that can't be read, or no image
    """
    return find_images(folder)[0]


def find_images(folder: str | os.PathLike) -> tuple[list[Path], tuple[Skipped, ...]]:
    """Image files as list_images gives them, and what has an image's name and is none: links to nothing, pipes."""
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder}: expected a folder, found {'a file' if os.path.exists(folder) else 'nothing'}")
    if is_output(folder):
        raise DatasetError(f"{folder}: expected photographs, found the output folder of a run; its pictures are copies")
    named, entered = [], {folder.resolve()}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        enter = []
        for name in sorted(folders):
            target = Path(here, name).resolve()
            if not name.startswith(".") and target not in entered and not is_output(target):
                entered.add(target)
                enter.append(name)
        folders[:] = enter  # os.walk goes on with what is left in the list
        named += [Path(here, name) for name in files
                  if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]
    named.sort(key=lambda path: os.fsencode(path.relative_to(folder).as_posix()))
    images = [path for path in named if os.path.isfile(path)]
    skipped = tuple(Skipped(path.relative_to(folder).as_posix(), _no_file(path))
                    for path in named if not os.path.isfile(path))
    if not images:
        only = f" but {skipped[0]}" if skipped else ""
        raise DatasetError(f"{folder}: expected images ({' '.join(EXTENSIONS)}), found none{only}")
    return images, skipped


def _no_file(path: Path) -> str:
    return "a link to a file that isn't there" if path.is_symlink() else "no regular file"


def _refuse(error: OSError) -> None:
    # Going on would silently give a smaller data set.
    raise DatasetError(f"{error.filename}: can't read this folder ({error.strerror})") from error


def image_folder(root: Path) -> Path:
    """Where a benchmark keeps its images: jpg/, images/ or png/ under the root, else the root itself."""
    return next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), root)


def images_by_stem(folder: Path) -> dict[str, Path]:
    """File name without extension → file, sub-folders flattened, sorted by name; warns of names that can't be used.

    raises DatasetError when two files would have the same name
    """
    by_stem: dict[str, Path] = {}
    paths, skipped = find_images(folder)
    note_skipped(folder, [*skipped, *(Skipped(str(path), NOT_A_LINE) for path in paths if not is_line(path.stem))])
    for path in paths:
        if not is_line(path.stem):
            continue
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise DatasetError(f"{path}: expected one file named {path.stem!r}, found {other} as well")
    return dict(sorted(by_stem.items()))


def note_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Tell of files that are left out of a benchmark."""
    if skipped:
        note(f"{as_line(str(folder))}: {len(skipped)} files left out: {'; '.join(map(str, skipped[:3]))}")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without surrounding blanks) of every line that isn't blank.

    Windows line ends and a byte order mark are tolerated.
    raises DatasetError when the file is missing, can't be read or isn't UTF-8 text
    """
    # Not splitlines(): it also splits at characters that may stand in a name or an address.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _text(path: Path) -> str:
    """A file's text. raises DatasetError"""
    try:
        if path.exists() and not path.is_file():
            raise DatasetError(f"{path}: expected a text file, found {'a folder' if path.is_dir() else 'a device'}")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = error.object[:error.start].count(b"\n") + 1
        raise DatasetError(f"{path}:{line}: expected UTF-8 text, found {error}") from error
    except ValueError as error:
        raise DatasetError(f"{str(path)!r}: expected the path of a text file ({error})") from error


class Row(NamedTuple):
    """A row of a CSV file: its line, its fields by column, and why it can't be used, "" when it can."""

    line: int
    fields: dict[str, str]
    problem: str


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """Rows of a CSV file with a header; rows with too many or too few fields have a problem.

    raises DatasetError naming file and line: unreadable, columns that are missing or there twice, broken quotes
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows = []
    try:
        header = next(reader, [])
        for column in needed:
            if header.count(column) != 1:
                times = f"{header.count(column)} of them in " if header.count(column) else ""
                raise DatasetError(f"{path}:1: expected a column `{column}`, found {times}{header or 'no header'}")
        for fields in reader:
            if fields:
                problem = "" if len(fields) == len(header) else f"expected {len(header)} fields, found {len(fields)}"
                rows.append(Row(reader.line_num, dict(zip(header, fields, strict=False)), problem))
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num}: expected CSV, found {error}") from error
    return rows
