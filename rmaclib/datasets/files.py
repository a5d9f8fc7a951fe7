"""What the readers of all layouts share: finding image files, reading lists, checking queries. No image is opened."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.datasets.types import NOT_A_LINE, DatasetError, Query, Skipped
from rmaclib.foundation.files import as_line, is_line
from rmaclib.foundation.folders import is_output
from rmaclib.foundation.messages import note

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_IMAGE_FOLDERS = ("jpg", "images", "png")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """List the image files in a folder and its sub-folders.

    An image file is told by its extension, upper or lower case (``EXTENSIONS``). Hidden files and folders are skipped,
    and so are output folders of this library. Links to folders are followed; no folder is entered twice.

    Args:
        folder: The folder.

    Returns:
        Their paths, in byte order of the paths from the folder.

    Raises:
        DatasetError: No such folder, an output folder of this library, a folder that can't be read, or no image.
    """
    return find_images(folder)[0]


def find_images(folder: str | os.PathLike) -> tuple[list[Path], tuple[Skipped, ...]]:
    """List image files as ``list_images`` does, and tell what was skipped.

    Args:
        folder: The folder.

    Returns:
        The paths, and what has the extension of an image but is no file: links to missing files, pipes.

    Raises:
        DatasetError: As ``list_images``.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise DatasetError(f"{folder}: expected a folder, found {'a file' if os.path.exists(folder) else 'nothing'}")
    if is_output(folder):
        raise DatasetError(f"{folder}: expected photographs, found the output folder of a run; its pictures are copies")
    candidates, entered = [], {folder.resolve()}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        enter = []
        for name in sorted(folders):
            target = Path(here, name).resolve()
            if not name.startswith(".") and target not in entered and not is_output(target):
                entered.add(target)
                enter.append(name)
        folders[:] = enter  # os.walk goes on with what is left in the list
        candidates += [Path(here, name) for name in files
                       if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]
    candidates.sort(key=lambda path: os.fsencode(path.relative_to(folder).as_posix()))
    images = [path for path in candidates if os.path.isfile(path)]
    skipped = tuple(Skipped(path.relative_to(folder).as_posix(), _no_file(path))
                    for path in candidates if not os.path.isfile(path))
    if not images:
        only = f" but {skipped[0]}" if skipped else ""
        raise DatasetError(f"{folder}: expected images ({' '.join(EXTENSIONS)}), found none{only}")
    return images, skipped


def _no_file(path: Path) -> str:
    return "a link to a file that isn't there" if path.is_symlink() else "no regular file"


def _raise(error: OSError) -> None:
    # Going on would give a smaller data set without a word.
    raise DatasetError(f"{error.filename}: can't read this folder ({error.strerror})") from error


def image_folder(root: Path) -> Path:
    """Find the images of a benchmark: in jpg/, images/ or png/ under its root, else in the root itself."""
    return next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), root)


def images_by_stem(folder: Path) -> dict[str, Path]:
    """List image files by name, without extensions and sub-folders; a note tells of names that can't be used.

    Args:
        folder: The folder.

    Returns:
        Name → file, sorted by name.

    Raises:
        DatasetError: As ``list_images``, or two files have the same name.
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
    """Note which files are left out of a benchmark."""
    if skipped:
        note(f"{as_line(str(folder))}: {len(skipped)} files left out: {'; '.join(map(str, skipped[:3]))}")


def with_image_files(root: Path, queries: Sequence[Query], lost: Sequence[tuple[str, str]]) -> tuple[Query, ...]:
    """Check that a benchmark has queries, and note which were left out because their images have no file.

    Args:
        root: Folder of the benchmark.
        queries: Queries whose images have a file.
        lost: (query, image) of the others.

    Returns:
        The queries.

    Raises:
        DatasetError: There are none.
    """
    if not queries:
        raise DatasetError(f"{root}: expected the query images, found none of {len(lost)}"
                           + (f" (first: {lost[0][1]!r})" if lost else ""))
    if lost:
        note(f"{root}: {len(lost)} queries left out, their images are missing: "
             + ", ".join(f"{name} ({image})" for name, image in lost))
    return tuple(queries)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file that aren't blank. Windows line ends and a byte order mark are accepted.

    Args:
        path: The file.

    Yields:
        (line number from 1, line without surrounding blanks).

    Raises:
        DatasetError: The file is missing, can't be read or isn't UTF-8 text.
    """
    # Not splitlines(): it also splits at characters that a name or an address may contain.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


def _text(path: Path) -> str:
    """The text of a file."""
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
    """A row of a CSV file.

    Attributes:
        line: Its line number, from 1.
        fields: Column → text.
        problem: Why it can't be used; "" when it can.
    """

    line: int
    fields: dict[str, str]
    problem: str


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """Read a CSV file with a header.

    Args:
        path: The file.
        needed: Columns that it must have, each once.

    Returns:
        The rows; those with too many or too few fields have a ``problem``.

    Raises:
        DatasetError: The file can't be read, a column is missing or there twice, or quotes aren't closed. The text
            names file and line.
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
