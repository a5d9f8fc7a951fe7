import pytest


@pytest.fixture
def make(tmp_path):
    """Writes empty files of some names, and gives their folder."""
    def write(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path
    return write
