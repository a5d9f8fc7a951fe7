import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# An example may take as long as it takes: on a machine that is busy otherwise, a deadline says nothing about the code.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs: the first of RMACLIB_DATA, or shared/data beside the checkout."""
    roots = [Path(root) for root in os.environ.get("RMACLIB_DATA", "").split(os.pathsep) if root]
    for root in [*roots, SHARED]:
        if (root / "oxford5k_subset").is_dir():
            return root
    pytest.skip("needs photographs: set RMACLIB_DATA to a folder that contains oxford5k_subset")


@pytest.fixture(scope="session")
def little(tmp_path_factory) -> Path:
    """A folder in the Oxford layout, cut from Diorama: three landmarks, two queries each, four distractors."""
    from rmaclib.datasets import open_dataset

    whole, root = open_dataset("diorama"), tmp_path_factory.mktemp("little") / "test"
    path = dict(zip(whole.names, whole.paths, strict=True))
    landmarks = sorted({query.name.rsplit("_", 1)[0] for query in whole.queries})[:3]
    chosen = [name for name in whole.names if name.startswith("diorama_")][:4]
    (root / "gt").mkdir(parents=True)
    for landmark in landmarks:
        queries = [query for query in whole.queries if query.name.startswith(landmark)][:2]
        relevance = queries[0].relevance
        kept = {"good": {query.image for query in queries} | set(sorted(relevance["good"])[:2]),
                "ok": set(sorted(relevance["ok"])[:2]), "junk": set(sorted(relevance["junk"])[:1])}
        chosen += set().union(*kept.values())
        for number, query in enumerate(queries, 1):
            corners = " ".join(f"{value:g}" for value in query.box)
            (root / "gt" / f"{landmark}_{number}_query.txt").write_text(f"{query.image} {corners}\n")
            for grade, names in kept.items():
                (root / "gt" / f"{landmark}_{number}_{grade}.txt").write_text("".join(f"{n}\n" for n in sorted(names)))
    (root / "jpg").mkdir()
    for name in chosen:
        shutil.copy(path[name], root / "jpg")
    return root


@pytest.fixture(scope="session")
def lite0():
    """Off-the-shelf R-MAC, EfficientNet-Lite0, L = 3, on the CPU."""
    from rmaclib.network import NetworkSettings, create_network

    return create_network(NetworkSettings("efficientnet_lite0", levels=3))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def noted(caplog):
    """A block in which the library is expected to note something: a line that a pattern matches."""
    @contextmanager
    def expecting(match: str):
        caplog.clear()
        yield
        assert any(re.search(match, line) for line in caplog.messages), caplog.messages

    return expecting
