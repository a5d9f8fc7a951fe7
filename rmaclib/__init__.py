"""rmaclib: landmark retrieval with global image descriptors.

The library behind a book that reproduces Gordo, Almazán, Revaud, Larlus, "End-to-end Learning of Deep
Visual Representations for Image Retrieval" (2016). Each module names the section of the paper it covers.
"""

__version__ = "0.1.0"
