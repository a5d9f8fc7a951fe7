"""Extraction: a trained network run over many images (Section 4.4).

- ``descriptors``: ``extract`` gives one descriptor of each image, at one or several resolutions, in memory or in a
  folder that a killed run goes on with; ``extract_image`` gives that of a picture in memory.
- ``resolutions``: the paper's resolutions, and descriptors of several resolutions combined.
- ``whitening``: a PCA-whitening fitted to the region vectors of training images (Section 4.1).
- ``proposals``: region proposals and feature maps of many images (Section 4.3).
- ``folder``: descriptors on disk, read with ``load_descriptors``; ``run`` writes them chunk by chunk.
- ``images``: which images are given, each once.
- ``batches``: ``ExtractionSettings``, and the network run over images in batches.

``folder``, ``images``, ``resolutions`` and ``run`` need no torch.
"""
