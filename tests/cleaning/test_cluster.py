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

SETTINGS = CleanSettings(keypoints=KeypointSettings(count=200))


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as made:
        yield made


@pytest.fixture(scope="module")
def expected(collection, tmp_path_factory):
    out = tmp_path_factory.mktemp("local")
    with ThreadPoolExecutor(2) as pool:
        run(collection, out, pool)
    return graphs(out)


def run(collection, out, executor):
    clean(collection / "list.txt", SETTINGS, out=out, report=False, executor=executor, progress=False)


def graphs(folder):
    return {path.name: path.read_bytes() for path in (folder / "graphs").iterdir()}


def test_the_same_bytes_also_when_a_worker_is_killed(cluster, collection, expected, tmp_path):
    with distributed.Client(cluster, set_as_default=False) as client:
        run(collection, tmp_path / "whole", client.get_executor(pure=False))
        assert graphs(tmp_path / "whole") == expected

        # A worker that is stopped keeps the tasks that it is given, so that it dies in the middle of one.
        address, victim = next(iter(client.run(os.getpid).items()))
        os.kill(victim, signal.SIGSTOP)
        tasks = []

        def kill_when_it_has_a_task():
            deadline = time.monotonic() + 20
            while not tasks and time.monotonic() < deadline:
                tasks.extend(client.processing()[address])
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill_when_it_has_a_task)
        killer.start()
        run(collection, tmp_path / "killed", client.get_executor(pure=False))
        killer.join()
        assert tasks and graphs(tmp_path / "killed") == expected


def test_the_command_line_runs_on_a_scheduler(cluster, collection, expected, tmp_path):
    arguments = ["clean", collection / "list.txt", "--out", tmp_path, "--scheduler", cluster.scheduler_address,
                 "--keypoints", 200, "--thumbnails", 0]
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert graphs(tmp_path) == expected
