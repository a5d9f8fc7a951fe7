"""A real cluster of two worker processes gives the bytes of a local pool, also when one of them is killed."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

distributed = pytest.importorskip("distributed")

from rmaclib import cli  # noqa: E402
from rmaclib.cleaning import CleanSettings, KeypointSettings, clean  # noqa: E402
from rmaclib.datasets import open_collection  # noqa: E402

SETTINGS = CleanSettings(keypoints=KeypointSettings(count=200))


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made:
        yield made


@pytest.fixture(scope="module")
def expected(collection, tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    with ThreadPoolExecutor(2) as pool:
        clean(open_collection(collection / "list.txt"), SETTINGS, out=out, executor=pool, progress=False)
    return graphs(out)


def graphs(folder):
    return {path.name: path.read_bytes() for path in (folder / "graphs").iterdir()}


def test_the_same_bytes_also_when_a_worker_is_killed(cluster, collection, expected, tmp_path, monkeypatch):
    from rmaclib.cleaning import jobs

    monkeypatch.setattr(jobs, "CHUNK", 1)
    monkeypatch.setattr(jobs, "BLOCK", 2)
    images = open_collection(collection / "list.txt")
    with distributed.Client(cluster, set_as_default=False) as client:
        clean(images, SETTINGS, out=tmp_path / "whole", executor=client.get_executor(pure=False), progress=False)
        assert graphs(tmp_path / "whole") == expected

        # Every task takes a while, so that the worker dies in the middle of one.
        client.run(_slow_down)
        victim = next(iter(client.run(os.getpid).values()))
        killed = []

        def kill_when_begun():
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not any(client.processing().values()):
                time.sleep(0.01)
            time.sleep(0.2)
            os.kill(victim, signal.SIGKILL)
            killed.append(any(client.processing().values()))

        killer = threading.Thread(target=kill_when_begun)
        killer.start()
        clean(images, SETTINGS, out=tmp_path / "killed", executor=client.get_executor(pure=False), progress=False)
        killer.join()
        assert killed == [True]
        assert graphs(tmp_path / "killed") == expected


def _slow_down():
    from rmaclib.cleaning import jobs

    real = jobs.extract_keypoints
    jobs.extract_keypoints = lambda path, settings: (time.sleep(0.1), real(path, settings))[1]


def test_the_command_line_runs_on_a_scheduler(cluster, collection, expected, tmp_path):
    arguments = ["clean", collection / "list.txt", "--out", tmp_path, "--scheduler", cluster.scheduler_address,
                 "--keypoints", 200, "--thumbnails", 0]
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert graphs(tmp_path) == expected
