"""Several processes on one machine (gloo) against one."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from learning_pictures import FILES, tiny
from learning_process import trains
from safetensors.torch import load_file
from test_gradients import gradient, some_images, update

from rmaclib.learning import accumulate, read_log, triplet

SCRIPT = Path(__file__).with_name("learning_process.py")


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@pytest.mark.slow
def test_two_processes_equal_one(images, tmp_path):
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT,
                    "trains", images.root, tmp_path], check=True, env=environment(), timeout=110)
    assert len(read_log(tmp_path / "stops/log.csv")) == 3
    network = tiny(dim=6, levels=2).double()
    network.zero_grad()
    single = accumulate(network, some_images(), partial(triplet, tuples=update(), margin=0.3))
    expected = gradient(network)
    for rank in range(2):
        part = load_file(tmp_path / f"{rank}.safetensors")
        assert float((part["gradient"] - expected).norm() / expected.norm()) < 1e-5
        assert torch.allclose(part["descriptors"], single.descriptors)
        assert part["loss"].item() == pytest.approx(single.loss.item())
        assert part["places"].tolist() == [2, 5]  # one in each process's share, known to both

    trains(images, tmp_path / "single")
    for stage in ("ranking", "classification"):
        several, alone = (read_log(folder / stage / "log.csv") for folder in (tmp_path, tmp_path / "single"))
        assert len(several) == len(alone) == 4
        for name, rows, near in (("loss", (1, 2, 3), 1e-2), ("validation", (0, 3), 5e-2)):
            for row in rows:
                assert several[row][name] == pytest.approx(alone[row][name], abs=near)
        assert several[1]["gradient_norm"] == pytest.approx(alone[1]["gradient_norm"], rel=1e-4)
        names = sorted(path.name for path in (tmp_path / stage).iterdir())
        assert names == FILES


@pytest.mark.slow
def test_a_process_that_ends_ends_the_others(images, tmp_path):
    started = [subprocess.Popen([sys.executable, SCRIPT, "dies", images.root, tmp_path], stderr=subprocess.PIPE,
                                env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                                                MASTER_ADDR="localhost", MASTER_PORT="29517"))
               for rank in range(2)]
    try:
        _, error = started[0].communicate(timeout=110)
        assert started[1].wait(timeout=10) == 3
        assert started[0].returncode not in (0, 3) and b"Error" in error
    finally:
        for process in started:
            process.kill()
