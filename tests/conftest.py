import os
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs: the first of RMACLIB_DATA, or shared/data beside the checkout."""
    roots = [Path(root) for root in os.environ.get("RMACLIB_DATA", "").split(os.pathsep) if root]
    for root in [*roots, SHARED]:
        if (root / "oxford5k_subset").is_dir():
            return root
    pytest.skip("needs photographs: set RMACLIB_DATA to a folder that holds oxford5k_subset")


@pytest.fixture(scope="session")
def lite0():
    """Off-the-shelf R-MAC, EfficientNet-Lite0, L = 3, on the CPU."""
    from rmaclib.rmac import NetworkSettings, create_network

    return create_network(NetworkSettings("efficientnet_lite0", levels=3))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
