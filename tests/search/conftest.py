import shutil

import pytest


@pytest.fixture
def pictures(little, tmp_path):
    return sorted(shutil.copytree(little / "jpg", tmp_path / "my photos").iterdir())
