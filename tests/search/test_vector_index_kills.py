"""Saving an index while something goes wrong: kills, interrupts, errors of the disk."""

import errno
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import faiss
import pytest
from search_vectors import built, numbered, sample

from rmaclib.foundation.errors import OutputError
from rmaclib.search.index_folder import segment_files
from rmaclib.search.vector_index import VectorIndex

KILLED = """
import os, random, signal, sys, time
import numpy as np
from rmaclib.search.vector_index import VectorIndex

folder, kills = sys.argv[1], int(sys.argv[2])
def vectors(first, count):
    # From 1: a vector of zeros has no direction.
    return np.sin(np.arange(first + 1, first + count + 1)[:, None] * np.arange(1.0, 9.0)).astype(np.float32)

def following(state):  # names added, names checked for removal -> the next state
    added, checked = state
    return (added, added) if checked < added else (added + 1 + 37 * added % 50, checked)

def names(state):
    added, checked = state
    return tuple(str(n) for n in range(added) if n % 7 or n >= checked)

def work(state, pipe):
    index = VectorIndex.load(folder) if state != (0, 0) else VectorIndex(8)
    while True:
        new = following(state)
        if new[0] > state[0]:
            index.add(vectors(state[0], new[0] - state[0]), [str(n) for n in range(state[0], new[0])], progress=False)
        else:
            index.remove([str(n) for n in range(state[1], new[1]) if n % 7 == 0])
        index.save(folder)
        state = new
        os.write(pipe, b"%d %d\\n" % state)

chance, state, left_overs = random.Random(0), (0, 0), 0
for kill in range(kills):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        work(state, writing)
    os.close(writing)
    # Every fifth time while it opens the index, else after its first save: a slow machine gets that far too.
    first = os.read(reading, 1) if kill % 5 else b""
    time.sleep(chance.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    announced = (first + os.fdopen(reading, "rb").read()).decode().split("\\n")[:-1]
    if announced:
        state = tuple(map(int, announced[-1].split()))
    if state == (0, 0) and not os.path.exists(folder + "/meta.json"):
        continue
    index = VectorIndex.load(folder)
    assert index.names in (names(state), names(following(state))), (state, len(index))
    state = state if index.names == names(state) else following(state)
    unit = vectors(0, state[0]) / np.linalg.norm(vectors(0, state[0]), axis=1, keepdims=True)
    for segment in index._segments:
        rows = [int(name) for name in segment.names]
        assert np.allclose(segment.index.reconstruct_n(0, len(rows)), unit[rows], atol=1e-6)
    named = {f"{segment.entry.number:06d}" for segment in index._segments} | {"meta"}
    files = [file for file in os.listdir(folder) if file not in (".rmac.json", ".rmac.lock")]
    left_overs += any(file.split(".")[0] not in named for file in files)
print(state[0], left_overs)
"""


def test_killed_50_times_while_adding_and_saving(tmp_path):
    """The folder always opens, in the last state that was announced or the one being saved."""
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "index", "50"], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    added, left_overs = map(int, done.stdout.split())
    assert added > 200 and left_overs >= 3  # some were killed in the middle of a save


class Breakpoints:
    """Raise an error before or after one of the calls by which a save changes the disk."""

    CALLS = ((os, "replace"), (os, "fsync"), (os, "unlink"), (faiss, "write_index"), (Path, "write_text"))

    def __init__(self, monkeypatch, error, after):
        self.error, self.after, self.chosen, self.count = error, after, None, 0
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def watched(self, call):
        def watching(*arguments, **options):
            self.count += 1
            is_chosen = self.count == self.chosen
            if is_chosen and not self.after:
                raise self.error
            result = call(*arguments, **options)
            if is_chosen:
                raise self.error
            return result
        return watching


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_an_interrupt_or_error_anywhere_in_a_save_leaves_an_index(tmp_path, monkeypatch, error, after):
    """The folder has the old state or the new one, and the next save writes the new one."""
    built(5).save(tmp_path / "start")
    breakpoints = Breakpoints(monkeypatch, error, after)
    ended, number = {"old": 0, "new": 0}, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "start", folder)
        index = VectorIndex.load(folder)
        index.add(sample(6, 1), numbered(6, 5))  # merged with the first segment
        breakpoints.chosen, breakpoints.count = number, 0
        with suppress(KeyboardInterrupt, OSError, OutputError):
            index.save(folder)
        reached, breakpoints.chosen = breakpoints.count >= number, None
        state = {5: "old", 11: "new"}[len(VectorIndex.load(folder))]
        index.save(folder)
        assert VectorIndex.load(folder).names == tuple(numbered(11))
        named = {name for segment in index._segments for name in segment_files(segment.entry.number)}
        assert set(os.listdir(folder)) == {".rmac.json", ".rmac.lock", "meta.json", *named}
        if not reached:
            break
        ended[state] += 1
    assert ended["old"] > 5 and ended["new"] > 1, ended
