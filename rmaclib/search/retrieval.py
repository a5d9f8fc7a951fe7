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
    """What is done to descriptors before they are ranked (Section 5); nothing by default, the paper's best: 1 and 20.

    qe: neighbours that a query is averaged with, 0 for no query expansion; qe_alpha: see expansion.expand_queries
    dba: neighbours that a database vector is averaged with, 0 for none; dba_alpha: see expansion.augment
    """

    qe: Annotated[int, Field(ge=0)] = 0
    dba: Annotated[int, Field(ge=0)] = 0
    qe_alpha: Annotated[float, Field(ge=0)] = 0.0
    dba_alpha: Annotated[float, Field(ge=0)] | None = None


def search_order(queries: np.ndarray, database: np.ndarray, settings: SearchSettings | None = None,
                 codes: faiss.Index | None = None) -> np.ndarray:
    """Rankings of a database with expansion, augmentation and compression.

    queries: (Q, D), database: (N, D), rows of unit length; codes: trained by compression.train_codes. Then the database
      is coded after its augmentation, each vector brought to unit length, and queries are expanded by decoded vectors
    returns (Q, N) int64, best first
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
