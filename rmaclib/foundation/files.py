"""Writing files so that they are complete or unchanged, reading JSON, and telling whether files have changed.

A file is written under a temporary name beside its target, flushed to the disk and renamed when it is complete.
Whatever happens, the target is the old file or the new one. Temporary files of a killed process are removed by the next
process that writes into the same folder.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

from rmaclib.foundation.errors import OutputError, RmacError


def _machine() -> str:
    """Eight hexadecimal digits of this machine or container: within it a process number means one process."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:8]


# A temporary name contains machine, process and a number, so that a file of a process that has ended is recognised.
_HOST = _machine()
_TEMPORARY = re.compile(r"\.rmac-([0-9a-f]{8})-([0-9]+)-[0-9]+(\..*)?")
_numbers = count()
_swept: set[Path] = set()  # folders that this process has cleared of temporary files
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_FULL = "No space left on device"  # the operating system's words, which faiss and safetensors pass on


@contextmanager
def whole_file(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends without an error.

    Args:
        path: The file to write. Its folder is created where there is none.
        durable: Flush the file to the disk before it is renamed, so that a power cut leaves the old file or the new
            one. False suits files that are many and easily made again.

    Yields:
        The temporary path. After an error in the block it is removed and ``path`` is as before.

    Raises:
        OutputError: The folder can't be created or written to, or the disk is full. The text names ``path``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error
    # The suffix stays last: writers choose the format by it.
    temporary = path.with_name(f".rmac-{_HOST}-{os.getpid()}-{next(_numbers)}{path.suffix}")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    except Exception as error:
        if isinstance(error, RmacError) or not _is_write_error(error, temporary, path):
            raise
        reason = _FULL if _FULL in str(error) else getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: can't be written ({reason})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_write_error(error: Exception, temporary: Path, path: Path) -> bool:
    """Whether an error of the block is about writing this file, not about anything else that the block does."""
    if _FULL in str(error):
        return True
    if not isinstance(error, OSError):
        return False
    return error.errno in _WRITE_ERRORS or any(
        name is not None and Path(os.fsdecode(name)) in (temporary, path, path.parent)
        for name in (error.filename, error.filename2))


def _flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems can't flush folders, and say so.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(handle)


def is_line(text: str) -> bool:
    """Tell whether a text, such as a file name, can stand on a line of a UTF-8 file: lists have one name per line.

    Returns:
        False with a NUL byte, a line break, or bytes that aren't UTF-8.
    """
    # The system gives bytes of a file name that aren't UTF-8 as surrogates.
    return not re.search("[\0\n\r\ud800-\udfff]", text)


def as_line(text: str) -> str:
    """Give a text as one line: unchanged where ``is_line`` holds, else in quotes with the other characters escaped."""
    return text if is_line(text) else repr(text)


def is_temporary(name: str) -> bool:
    """Tell whether a name is that of a temporary file: one being written, or one that a killed process left."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path, again: bool = False) -> None:
    """Remove the temporary files in a folder whose process, on this machine, has ended.

    Args:
        folder: The folder; its sub-folders are left alone.
        again: Look again where this process has looked before.
    """
    if not again and folder in _swept:
        return
    _swept.add(folder)
    with os.scandir(folder) as entries:
        abandoned = [entry.path for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))
                     and match[1] == _HOST and not _is_alive(int(match[2]))]
    for path in abandoned:
        Path(path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's process
    return True


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text to a file, complete or not at all, line ends as they are.

    Raises:
        OutputError: The file can't be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Mapping, checksum: bool = False) -> None:
    """Write a dictionary as indented, strict JSON (no NaN), complete or not at all.

    Args:
        path: The file to write.
        value: The dictionary.
        checksum: Add a key "checksum", by which ``read_json`` tells a damaged or changed file.

    Raises:
        OutputError: The file can't be written.
        ValueError: ``value`` contains NaN or infinity.
    """
    if checksum:
        value = {**value, "checksum": _text_checksum(value)}
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike, error: type[RmacError], what: str, checksum: bool = False) -> dict:
    """Read the dictionary in a JSON file and compare its checksum where there is one.

    Args:
        path: The file to read.
        error: The class of the error to raise.
        what: What the file is, for the error, such as "the state of a training run".
        checksum: Whether a checksum is required.

    Returns:
        The dictionary, without its checksum.

    Raises:
        RmacError: Of class ``error``, naming the file: it is missing, can't be read, is no JSON dictionary, or was
            changed since it was written.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path}: expected {what}, found no such file") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}: expected {what} as JSON, it is damaged or can't be read ({problem})") from problem
    if not isinstance(content, dict):
        raise error(f"{path}: expected {what} as a JSON dictionary, found {type(content).__name__}")
    written = content.pop("checksum", None)
    if (checksum or written is not None) and written != _text_checksum(content):
        raise error(f"{path}: expected {what} as it was written, it is damaged or was changed (its checksum differs)")
    return content


def _text_checksum(value: Mapping) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def checksum(path: str | os.PathLike) -> str:
    """Compute the CRC-32 of a file, by which damage is recognised, at more than a gigabyte a second.

    Returns:
        Eight hexadecimal digits.
    """
    value = 0
    with Path(path).open("rb") as file:
        while block := file.read(2**22):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def differences(before: Mapping, wanted: Mapping) -> list[str]:
    """Name the parts in which an earlier run differs from the run that is wanted now.

    Args:
        before: What the earlier run was made with, as read from JSON.
        wanted: What the run now is made with. Only its keys are compared.

    Returns:
        Keys that differ, with both values where they are short. In dictionaries the inner keys are compared, such as
        "settings.lr (0.1, now 0.2)". Empty when both runs are the same.
    """
    wanted, different = json.loads(json.dumps(wanted)), []
    for part, value in wanted.items():
        earlier = before.get(part)
        if isinstance(value, dict) and isinstance(earlier, dict):
            different += [f"{part}.{key}{_both_values(earlier.get(key), inner)}"
                          for key, inner in value.items() if earlier.get(key) != inner]
        elif earlier != value:
            different.append(part + _both_values(earlier, value))
    return different


def _both_values(earlier: object, now: object) -> str:
    """Both values in brackets, or nothing where they are too long to tell a reader anything, as fingerprints are."""
    texts = repr(earlier), repr(now)
    return f" ({texts[0]}, now {texts[1]})" if max(map(len, texts)) <= 40 else ""


def need_space(folder: str | os.PathLike, size: int, what: str) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: A folder on the disk, which need not exist yet.
        size: Bytes needed.
        what: What needs them, for the error, as a plural such as "descriptors".

    Raises:
        OutputError: Fewer than ``size`` bytes are free.
    """
    place = Path(folder).absolute()
    while not os.path.exists(place):
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise OutputError(f"{folder}: {what} need {size / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free")


def files_fingerprint(names: Sequence[str], paths: Sequence[Path],
                      boxes: Sequence[Sequence[float] | None] | None = None) -> str:
    """Compute a digest that changes when a name, the content of a file or a box does.

    The time of a file doesn't count: what was computed from images holds for a copy of them on another machine.

    Args:
        names: A name for each file.
        paths: The files.
        boxes: A box for each file, None for the whole image; without this argument boxes are no part of the digest.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock
        contents = list(pool.map(_content, paths))
    for number, (name, content) in enumerate(zip(names, contents, strict=True)):
        entry: tuple = (name, content)
        if boxes is not None:
            box = boxes[number]
            entry = (name, None if box is None else tuple(map(float, box)), content)
        digest.update(repr(entry).encode())  # repr escapes what UTF-8 can't encode
    return digest.hexdigest()


def _content(path: Path) -> str | None:
    """SHA-256 of a file, None of one that is missing or can't be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            return None
        return _digest(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError:
        return None


@lru_cache(2**17)
def _digest(path: Path, state: tuple[int, ...]) -> str:
    """SHA-256 of a file. A process that asks again for a file in the same state doesn't read it again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
