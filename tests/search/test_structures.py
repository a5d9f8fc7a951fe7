import pytest
from search_vectors import built

from rmaclib.search.structures import StructureLimits, cells, choose_structure


def test_structures_by_size_say_why():
    assert [choose_structure(count).name for count in (1, 50_000, 50_001, 200_000, 200_001, 10**6)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf-pq", "ivf-pq"]
    assert "2,000 are at most 50,000" in choose_structure(2000).reason
    assert "32 of 2048 cells" in choose_structure(10**6).reason
    assert "flat: every vector is compared" in str(built(3)) and str(built(3)).startswith("3 vectors of 16 dimensions")


def test_other_limits():
    limits = StructureLimits(10, 20)
    assert [choose_structure(count, limits).name for count in (10, 11, 20, 21)] == ["flat", "hnsw", "hnsw", "ivf-pq"]
    assert "21 are more than 20" in choose_structure(21, limits).reason
    with pytest.raises(ValueError, match="flat_up_to: expected at least 0"):
        StructureLimits(-1)


def test_cells_are_the_power_of_two_nearest_to_twice_the_root():
    assert [cells(count) for count in (10_000, 250_000, 10**6)] == [256, 1024, 2048]
