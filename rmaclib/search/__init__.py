"""Searching descriptors (Section 5 of the paper).

- ``index``: an index of images, :class:`rmaclib.search.index.Index`: build, add, search, save, load.
- ``expansion``: query expansion and database-side augmentation.
- ``compression``: shorter descriptors, by PCA and by codes of a few bytes.
- ``retrieval``: a ranking with all of these, as an evaluation needs it.
- ``reranking``: the first neighbours in a new order, by geometric verification.
- ``vector_index``: the nearest of many vectors. They are in ``segments``, and the ``structures`` of segments say how
  they are searched. ``segment_files`` and ``index_folder`` write and read the files, ``faiss_checks`` finds damage.
- ``distractors``: synthetic descriptors, to measure an index at any size.

Importing this package loads none of them: some need torch, faiss or OpenCV.
"""
