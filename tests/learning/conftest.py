import pytest
from learning_pictures import pictures


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """25 pictures of 5 landmarks."""
    return pictures(tmp_path_factory.mktemp("pictures"))
