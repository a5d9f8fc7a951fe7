"""The one writer of files, the one reader of JSON, and how to tell that files changed.

A file is written under a temporary name beside its target, flushed to the disk and renamed when it is whole: whatever
happens, the target is the old file or the new one. What a killed process leaves behind is removed by the next one that
writes into the same folder.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from rmaclib.foundation.errors import OutputError, RmacError


def _machine() -> str:
    """Eight digits for this machine, or this container of it: where a process number means the same process."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:8]


# Machine, process, number: whose file it is can be told when that process is gone.
_HOST = _machine()
_TEMPORARY = re.compile(r"\.rmac-([0-9a-f]{8})-([0-9]+)-[0-9]+(\..*)?")
_numbers = count()
_swept: set[Path] = set()  # folders in which this process has looked for left-overs
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_FULL = "No space left on device"  # the operating system's words, which faiss and safetensors pass on


@contextmanager
def whole_file(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` when the block ends well and is removed when not.

    durable: flushed to the disk before it is renamed, so that a power cut leaves the old file or the new one; False
      for files that are many and easily made again
    raises OutputError, naming `path`: a folder that can't be made or written, a full disk
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
        if isinstance(error, RmacError) or not _is_of_writing(error, temporary, path):
            raise
        reason = _FULL if _FULL in str(error) else getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: can't be written ({reason})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_of_writing(error: Exception, temporary: Path, path: Path) -> bool:
    if _FULL in str(error):
        return True
    if not isinstance(error, OSError):
        return False
    return error.errno in _OF_WRITING or any(
        name is not None and Path(os.fsdecode(name)) in (temporary, path, path.parent)
        for name in (error.filename, error.filename2))


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk itself."""
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
    """Whether a text, such as a file name, is one line that UTF-8 can hold: lists of names have one a line."""
    # A file name that is no valid text comes from the system with surrogates in it.
    return not re.search("[\0\n\r\ud800-\udfff]", text)


def as_line(text: str) -> str:
    """The text itself where it is a line, else with what is none of it escaped, in quotes."""
    return text if is_line(text) else repr(text)


def is_temporary(name: str) -> bool:
    """Whether a file name is that of a file being written, or left over by a killed process."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep(folder: Path, again: bool = False) -> None:
    """Remove the temporary files in a folder whose process, on this machine, is gone.

    again: also where this process has looked before
    """
    if not again and folder in _swept:
        return
    _swept.add(folder)
    with os.scandir(folder) as entries:
        left_over = [entry.path for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))
                     and match[1] == _HOST and not _is_alive(int(match[2]))]
    for path in left_over:
        Path(path).unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text whole, line ends as they are."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value: Mapping, checksum: bool = False) -> None:
    """Write a dictionary as strict JSON (no NaN) whole, readable by people.

    checksum: with a key "checksum" more, so that read_json sees when the file was changed or damaged
    """
    if checksum:
        value = {**value, "checksum": _text_checksum(value)}
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike, error: type[RmacError], what: str, checksum: bool = False) -> dict:
    """The dictionary in a JSON file, without its checksum, which is compared where there is one.

    what: the file is, for the error, such as "the state of a training run"; checksum: there has to be one
    raises `error`, naming the file: missing, unreadable, no JSON, no dictionary, changed since it was written
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
    """CRC-32 of a file's bytes, eight hexadecimal digits: tells a damaged file, at more than a gigabyte a second."""
    value = 0
    with Path(path).open("rb") as file:
        while block := file.read(2**22):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def differences(found: Mapping, wanted: Mapping) -> list[str]:
    """What a finished or killed run was made with otherwise than is wanted now: names of the parts that differ, of
    dictionaries their keys with both values, such as "settings.lr (0.1, now 0.2)". Both are as read from JSON; keys of
    `wanted` count. Empty when it is the same run."""
    wanted, different = json.loads(json.dumps(wanted)), []
    for part, value in wanted.items():
        before = found.get(part)
        if isinstance(value, dict) and isinstance(before, dict):
            different += [f"{part}.{key}{_both(before.get(key), inner)}"
                          for key, inner in value.items() if before.get(key) != inner]
        elif before != value:
            different.append(part + _both(before, value))
    return different


def _both(before, now) -> str:
    """Both values, where people can read them: fingerprints say nothing."""
    texts = [repr(value) for value in (before, now)]
    return f" ({texts[0]}, now {texts[1]})" if max(map(len, texts)) <= 40 else ""


def need_space(folder: str | os.PathLike, size: int, what: str) -> None:
    """raises OutputError when the disk of a folder, which need not be there yet, has fewer than `size` bytes free."""
    place = Path(folder).absolute()
    while not os.path.exists(place):
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise OutputError(f"{folder}: {what} need {size / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free")


def file_state(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change in nanoseconds) of a file, to tell when it changes; None for a missing one, which counts
    as changed when it appears."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def files_fingerprint(names: Sequence[str], paths: Sequence[Path], details: Sequence[tuple] | None = None) -> str:
    """Changes when a name, a file (size, time of change) or one of the details of each file does."""
    digest = hashlib.sha256()
    for name, path, more in zip(names, paths, details or [()] * len(names), strict=True):
        digest.update(repr((name, *more, file_state(path))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
