import json

import faiss
import pytest
from search_vectors import DIM, SMALL_LIMITS, as_version_1, built, sample

from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.vector_index import VectorIndex


def test_a_file_that_faiss_would_crash_on_is_refused(tmp_path):
    """Without checksums (version 1): another index, of the right size in bytes or not, behind the right name."""
    for count, structure in ((90, "flat"), (900, "hnsw"), (2500, "ivf-pq")):
        folder = tmp_path / structure
        built(count, limits=SMALL_LIMITS).save(folder)
        as_version_1(folder)
        assert len(VectorIndex.load(folder)) == count
        meta = json.loads((folder / "meta.json").read_text())
        for other in (faiss.IndexFlatL2(DIM), faiss.IndexFlatIP(DIM + 1), faiss.IndexLSH(DIM, 8),
                      faiss.IndexHNSWFlat(DIM, 4), faiss.index_factory(DIM, "IVF4,Flat")):
            vectors = sample(count, dim=other.d)
            other.train(vectors)
            other.add(vectors)
            faiss.write_index(other, str(folder / "000001.faiss"))
            meta["segments"][0]["bytes"][0] = (folder / "000001.faiss").stat().st_size
            (folder / "meta.json").write_text(json.dumps(meta))
            with pytest.raises(SearchIndexError, match=r"000001.faiss: expected .* it is damaged"):
                VectorIndex.load(folder)
