"""A process that has imported everything and forks a child for each task: a start then costs milliseconds.

Requests come as lines of JSON on standard input, replies go as lines of JSON to standard output. It computes nothing
itself, so that its children inherit no threads. See attack_forks for requests and replies.
"""

import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

_GIGABYTE = 2**30


def main() -> None:
    import cv2  # noqa: F401 - imported here for all children
    import faiss  # noqa: F401
    import timm  # noqa: F401

    import rmaclib.commands
    from rmaclib.extraction import batches

    for module in pkgutil.iter_modules(rmaclib.commands.__path__):
        import_module(f"rmaclib.commands.{module.name}")

    batches.CHUNK = 4  # so that a dozen pictures are several chunks
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(_together(json.loads(line))), file=replies, flush=True)


def _together(tasks: list[dict]) -> list[dict]:
    """Run tasks at the same time, begun at one moment; returns their outcomes."""
    gate, opener = os.pipe()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        children = []
        for number, task in enumerate(tasks):
            place = Path(folder, str(number))
            place.mkdir()
            process = os.fork()
            if process == 0:
                os.close(opener)
                os.read(gate, 1)  # returns when the other end is closed everywhere
                os.close(gate)
                _child(task, place)
            children.append((process, task, place))
        os.close(gate)
        os.close(opener)
        return [_outcome(*child) for child in children]


def _outcome(process: int, task: dict, place: Path) -> dict:
    end, status = time.monotonic() + task["timeout"], None
    while time.monotonic() < end:
        finished, status, usage = os.wait4(process, os.WNOHANG)
        if finished:
            break
        time.sleep(0.003)
    else:
        _kill_session(process)
        _, status, usage = os.wait4(process, 0)
        return {"code": "hang", **_outputs(place)}
    orphans = _orphans(process)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "orphans": orphans, "megabytes": usage.ru_maxrss // 1024, **_outputs(place)}


def _outputs(place: Path) -> dict:
    texts = {name: (place / name).read_text(encoding="utf-8", errors="replace") if (place / name).exists() else ""
             for name in ("stdout", "stderr")}
    notes = {name: json.loads((place / name).read_text()) if (place / name).exists() else None
             for name in ("value", "changes")}
    return {**texts, **notes}


def _orphans(session: int) -> int:
    """Processes that a child has left behind and that don't end by themselves within some seconds; they are ended."""
    end = time.monotonic() + 6
    while (count := len(_session(session))) and time.monotonic() < end:
        time.sleep(0.02)
    if count:
        _kill_session(session)
    return count


def _session(session: int) -> list[int]:
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # After the name in brackets, which may contain anything: state, parent, group, session.
                state, _, _, own_session = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(own_session) == session and state != "Z":
                members.append(int(entry))
    return members


def _kill_session(session: int) -> None:
    for process in _session(session):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _child(task: dict, place: Path) -> None:
    """Do a task and end the process."""
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(task.get("cwd") or place)
        if task.get("one_core"):
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})  # one worker where a command starts some
        if task.get("limited"):
            _limit_memory()
        code = _run(task, place)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit_memory() -> None:
    """Allow this process a gigabyte more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _GIGABYTE,) * 2)


def _run(task: dict, place: Path) -> int:
    killer = None
    if task.get("watched"):
        from attack_killer import Killer

        killer = Killer(task["watched"], task.get("kill"), task.get("after", False), task.get("interrupt", False))
        killer.start()
    try:
        if "function" in task:
            module, name = task["function"].split(":")
            value = getattr(import_module(module), name)(*task["arguments"])
            (place / "value").write_text(json.dumps(value))
            return 0
        return _command(task["arguments"])
    finally:
        if killer:
            (place / "changes").write_text(json.dumps(killer.changes))


def _command(arguments: list[str]) -> int:
    """What `rmac ARGUMENTS` does; its exit code."""
    from rmaclib.__main__ import main

    sys.argv = ["rmac", *(os.fsdecode(os.fsencode(argument)) for argument in arguments)]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
