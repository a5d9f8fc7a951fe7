"""Requests to attack_server: commands and functions, each in a process of its own that may be killed, hang or crash."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120  # that a command may take
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    code: exit code, minus a signal's number, or "hang"; value: what a function returned
    changes: the operations on the disk that were counted; orphans: processes that it left behind
    """

    code: int | str
    stdout: str
    stderr: str
    value: object = None
    changes: list[str] | None = None
    orphans: int = 0
    megabytes: int = 0

    def problem(self, *codes: int) -> str:
        """What is wrong about an ending with one of the given exit codes expected; "" when nothing is."""
        if self.code not in codes:
            return f"exit code {self.code}, expected {' or '.join(map(str, codes))}: {self.last_line()}"
        if "Traceback" in self.stderr:
            return f"a traceback: {self.last_line()}"
        if self.orphans:
            return f"{self.orphans} processes left behind"
        if self.code == 1 and not self.error():
            return f"no line that begins with error: {self.last_line()}"
        return ""

    def error(self) -> str:
        """The line in which a command gives its error, "" without one."""
        return next((line for line in self.stderr.splitlines() if line.startswith("error:")), "")

    def last_line(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line.strip()] or ["(no output)"]
        return lines[-1][:300]


class Forks:
    """The server, started when it is made and ended by close()."""

    def __init__(self, folder: Path):
        here = Path(__file__).parent
        paths = [str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "COLUMNS": "200", "PYTHONHASHSEED": "0",
                       "PYTHONPATH": os.pathsep.join(path for path in paths if path), "MPLBACKEND": "agg"}
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen([sys.executable, str(here / "attack_server.py")], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment)
        if self._process.stdout.readline() != '"ready"\n':
            raise RuntimeError("the server didn't start:\n" + Path(self._log.name).read_text())

    def together(self, *tasks: dict) -> list[Outcome]:
        """Outcomes of tasks done at the same time; see command() and function()."""
        self._process.stdin.write(json.dumps([{"timeout": SECONDS, **task} for task in tasks]) + "\n")
        self._process.stdin.flush()
        return [Outcome(**outcome) for outcome in json.loads(self._process.stdout.readline())]

    def rmac(self, *arguments, **options) -> Outcome:
        return self.together(command(*arguments, **options))[0]

    def call(self, function: str, *arguments, **options) -> Outcome:
        return self.together({"function": function, "arguments": arguments, **options})[0]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._log.close()


def command(*arguments, **options) -> dict:
    """A command of rmac as a task.

    Options: timeout in seconds; watched: folder whose changes are counted; kill: number of the change at which it dies,
    after: as soon as that is made, interrupt: Ctrl-C in place of that; cwd; limited: to a gigabyte of memory; one_core
    """
    return {"arguments": [str(argument) for argument in arguments], **options}
