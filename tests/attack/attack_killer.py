"""Counts the operations by which a process changes a folder, and kills the process at one of them.

Python announces every open, rename, removal and new folder to audit hooks before it happens, whoever calls it; only
os.fsync has to be replaced. Files that C code writes are not announced, but they are temporary ones: their flush and
their rename are.
"""

import os
import signal
import sys
import threading

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> places among its arguments of paths, each with the place of the folder's handle that it starts from.
_CHANGES = {"os.rename": ((0, 2), (1, 3)), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.mkdir": ((0, 2),),
            "os.truncate": ((0, None),), "os.link": ((1, 3),), "os.symlink": ((1, 2),), "shutil.rmtree": ((0, None),)}


class Killer:
    """Counts changes under a folder; at number `at`, from 1, the process dies.

    at: None only counts; after: dies as soon as the change is made, not before; interrupt: is interrupted, as by
    Ctrl-C, in place of dying: what is done about that runs too
    """

    def __init__(self, folder: str, at: int | None, after: bool, interrupt: bool):
        self.folder, self.at, self.after = os.path.join(os.path.realpath(folder), ""), at, after
        self.interrupt = interrupt
        self.count, self.changes = 0, []
        self._lock = threading.Lock()

    def start(self) -> None:
        sys.addaudithook(self._heard)
        flush = os.fsync

        def fsync(handle):
            self._change("os.fsync", os.readlink(f"/proc/self/fd/{getattr(handle, 'fileno', lambda: handle)()}"))
            flush(handle)

        os.fsync = fsync

    def _heard(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITING and not isinstance(path, int):
                self._change(event, path)
        elif event in _CHANGES:
            for path, start in _CHANGES[event]:
                if not isinstance(arguments[path], int):
                    self._change(event, arguments[path], -1 if start is None else arguments[start])

    def _change(self, event: str, path, start: int = -1) -> None:
        path = os.fsdecode(path)
        if start >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{start}"), path)
        # Not resolved: what is being removed may be a link.
        path = os.path.abspath(path)
        if not path.startswith(self.folder) or path.endswith(".lock"):
            return
        with self._lock:
            self.count += 1
            self.changes.append(f"{event} {os.path.basename(path)}")
            if self.count != self.at:
                return
        if self.interrupt:
            signal.raise_signal(signal.SIGINT)
            return
        if not self.after:
            _die()
        # The first thing that Python does once the change is made.
        sys.setprofile(lambda *_: _die())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
