import numpy as np
import pytest

from rmaclib.ranking import normalise_rows, rank
from rmaclib.search.compression import CodeSettings, decode, fill, rank_codes, train_codes
from rmaclib.search.expansion import augment, expand_queries
from rmaclib.search.retrieval import SearchSettings, search_order


def test_search_order_does_one_step_after_the_other():
    rng = np.random.default_rng(0)
    queries, database = (normalise_rows(rng.normal(size=(count, 32)) + 0.3) for count in (5, 300))
    np.testing.assert_array_equal(search_order(queries, database), rank(queries, database))
    augmented = augment(database, 4)
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(dba=4)),
                                  rank(queries, augmented, similarity="dot"))
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(2, 4)),
                                  rank(expand_queries(queries, augmented, 2), augmented, similarity="dot"))
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(qe=2, qe_alpha=3.0)),
                                  rank(expand_queries(queries, database, 2, 3.0), database))
    codes = train_codes(database, CodeSettings("pq", 8))
    filled = fill(codes, augmented)
    expanded = expand_queries(queries, decode(filled), 2)
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(2, 4), codes),
                                  rank_codes(filled, expanded))
    with pytest.raises(ValueError, match="dba: expected at least 0, got -2"):
        SearchSettings(dba=-2)
