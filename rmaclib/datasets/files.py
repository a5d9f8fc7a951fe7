"""Finding image files and reading lines of text: what all layouts share. No image is opened here."""

import os
from collections.abc import Iterator
from pathlib import Path

from rmaclib.datasets.types import DatasetError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_IMAGE_FOLDERS = ("jpg", "images", "png")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Image files under a folder, sub-folders included, in byte order of their relative paths.

    Files are known by their extension (EXTENSIONS, in any case). Hidden files and folders are skipped; links
    to folders are followed, a folder met again is not entered again.
    raises DatasetError: no such folder, a folder that can't be read, or no image
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder, found {'a file' if folder.exists() else 'nothing'}")
    found, entered = [], {folder.resolve()}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        enter = []
        for name in sorted(folders):
            target = Path(here, name).resolve()
            if not name.startswith(".") and target not in entered:
                entered.add(target)
                enter.append(name)
        folders[:] = enter  # os.walk goes on with what is left in the list
        found += [Path(here, name) for name in files
                  if not name.startswith(".") and name.lower().endswith(EXTENSIONS)]
    # A link to a file that is gone is not an image.
    found = [path for path in found if path.is_file()]
    if not found:
        raise DatasetError(f"{folder}: expected images ({' '.join(EXTENSIONS)}), found none")
    return sorted(found, key=lambda path: os.fsencode(path.relative_to(folder).as_posix()))


def _refuse(error: OSError) -> None:
    # Going on would silently give a smaller data set.
    raise DatasetError(f"{error.filename}: can't read this folder ({error.strerror})") from error


def image_folder(root: Path) -> Path:
    """Where a benchmark keeps its images: jpg/, images/ or png/ under the root, else the root itself."""
    return next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), root)


def images_by_stem(folder: Path) -> dict[str, Path]:
    """File name without extension → file, sub-folders flattened, sorted by name.

    raises DatasetError when two files would have the same name
    """
    by_stem: dict[str, Path] = {}
    for path in list_images(folder):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise DatasetError(f"{path}: expected one file named {path.stem!r}, found {other} as well")
    return dict(sorted(by_stem.items()))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without surrounding blanks) of every line that isn't blank.

    Windows line ends and a byte order mark are tolerated.
    raises DatasetError when the file is missing or isn't UTF-8 text
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected UTF-8 text, found {error}") from error
    # Not splitlines(): it also splits at characters that may stand in a name or an address.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()
