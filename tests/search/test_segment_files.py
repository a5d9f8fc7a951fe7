import resource

import faiss
import pytest
from search_vectors import SMALL_LIMITS, as_version_1, built, numbered, sample

from rmaclib.foundation.errors import OutputError
from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.vector_index import VectorIndex


@pytest.mark.parametrize("file", ["000001.faiss", "000001.txt"])
def test_a_changed_bit_is_noticed(tmp_path, file):
    """One bit of a vector or a name: still a valid file, of another content."""
    built(5).save(tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[-2] ^= 1
    (tmp_path / file).write_bytes(data)
    with pytest.raises(SearchIndexError, match=f"{file}: is damaged or was changed"):
        VectorIndex.load(tmp_path)


def test_sizes_in_a_file_are_not_believed(tmp_path):
    """In version 1, without checksums: faiss would allocate terabytes, or count for hours."""
    for count, structure in ((90, "flat"), (900, "hnsw"), (2500, "ivf-pq")):
        folder = tmp_path / structure
        built(count, limits=SMALL_LIMITS).save(folder)
        as_version_1(folder)
        data = (folder / "000001.faiss").read_bytes()
        places = [place for place in range(len(data)) if data.startswith(count.to_bytes(8, "little"), place)]
        assert places
        for place in places:
            (folder / "000001.faiss").write_bytes(data[:place] + (2**40).to_bytes(8, "little") + data[place + 8:])
            with pytest.raises(SearchIndexError, match="000001.faiss: .* damaged"):
                VectorIndex.load(folder)


def test_an_addition_that_cannot_be_written_leaves_the_old_state(tmp_path, monkeypatch):
    index = built(5)
    index.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*arguments):
        raise RuntimeError("write error in out.faiss: 0 != 64 (No space left on device)")

    monkeypatch.setattr(faiss, "write_index", full)
    index.add(sample(9, 1), numbered(9, 5))
    with pytest.raises(OutputError, match=r"000002.faiss: can't be written \(No space left on device\)"):
        index.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    index.save(tmp_path)
    assert len(VectorIndex.load(tmp_path)) == 14


def test_an_error_in_writing_the_last_bytes_is_raised(tmp_path):
    """Too few bytes for a buffer to be written before the file is closed."""
    built(5).save(tmp_path)
    index = VectorIndex.load(tmp_path)
    index.add(sample(50, 1), numbered(50, 5))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises((OSError, OutputError)):
            index.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert VectorIndex.load(tmp_path).names == tuple(numbered(5))
    index.save(tmp_path)
    assert VectorIndex.load(tmp_path).names == tuple(numbered(55))
