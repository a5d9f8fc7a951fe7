"""Ranking a database with all that Section 5 adds: augmentation, query expansion, compression."""

from typing import Annotated

import faiss
import numpy as np

from rmaclib.foundation.settings import Field, settings
from rmaclib.ranking import rank
from rmaclib.search.compression import decode, fill, rank_codes
from rmaclib.search.expansion import augment, expand_queries


@settings
class SearchSettings:
    """What is done to descriptors before they are ranked (Section 5).

    By default nothing. The paper's best results have ``qe=1`` and ``dba=20``.

    Attributes:
        qe: Neighbours that a query is averaged with; 0 for no query expansion.
        dba: Neighbours that a database vector is averaged with; 0 for no database-side augmentation.
        qe_alpha: Power of the weights, see :func:`rmaclib.search.expansion.expand_queries`.
        dba_alpha: Power of the weights, None for weights by rank, see :func:`rmaclib.search.expansion.augment`.
    """

    qe: Annotated[int, Field(ge=0)] = 0
    dba: Annotated[int, Field(ge=0)] = 0
    qe_alpha: Annotated[float, Field(ge=0)] = 0.0
    dba_alpha: Annotated[float, Field(ge=0)] | None = None


def search_order(queries: np.ndarray, database: np.ndarray, settings: SearchSettings | None = None,
                 codes: faiss.Index | None = None) -> np.ndarray:
    """Rank a database for each query, with augmentation, query expansion and compression.

    The order of the steps: the database is augmented, then coded (each vector ℓ2-normalised); queries are expanded
    with vectors of that database, decoded from their codes where there are codes.

    Args:
        queries: (Q, D), ℓ2-normalised.
        database: (N, D), ℓ2-normalised.
        settings: Nothing by default.
        codes: Trained by :func:`rmaclib.search.compression.train_codes`; None for no compression.

    Returns:
        (Q, N) int64 row numbers of the database, best first.
    """
    settings = settings or SearchSettings()
    if settings.dba:
        database = augment(database, settings.dba, settings.dba_alpha)
    if codes is not None:
        filled = fill(codes, database)
        if settings.qe:
            queries = expand_queries(queries, decode(filled), settings.qe, settings.qe_alpha)
        return rank_codes(filled, queries)
    if settings.qe:
        queries = expand_queries(queries, database, settings.qe, settings.qe_alpha)
    return rank(queries, database, similarity="dot" if settings.dba else "cosine")
