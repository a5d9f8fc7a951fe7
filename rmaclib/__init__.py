"""Landmark retrieval with global image descriptors.

The library behind a book that reproduces Gordo, Almazán, Revaud, Larlus, *End-to-end Learning of Deep Visual
Representations for Image Retrieval* (2016).

The public names, each also in the room that it comes from:

    Index           an index of images: build, add, search, save, load
    create_network  R-MAC on a convolutional backbone
    load_network    a trained network from its file
    extract         the descriptors of images, at one or several resolutions
    clean           clean a noisy collection: what shows the same landmark, and where
    train           train a network: classification, ranking, region proposals
    evaluate        mean average precision of a network on a benchmark
    presets         the settings of the paper, of the authors' release, of a laptop
    RmacError       base of all errors that a user can mend

The rooms, by section of the paper:

    Section 3       cleaning (keypoints to boxes), datasets
    Section 4.1     network (R-MAC), network_settings, regions, pooling, backbones, whitening
    Section 4.2     learning (classification, ranking)
    Section 4.3     learning (proposals), proposals (the proposal network)
    Section 4.4     extraction (descriptors at one or several resolutions)
    Section 5       search (expansion, compression, index, re-ranking), ranking
    Section 5.1     evaluation (average precision, protocols, benchmarks), datasets
    All sections    presets, checkpoints, networks (of the package), images, boxes, results, plots, chain_plots, sheet
    Command line    cli, commands; foundation is what every room stands on

Example::

    >>> import rmaclib
    >>> index = rmaclib.Index.build("my_photos")
    >>> len(index.search("query.jpg", k=5))
    5

Importing this package takes no time: what computes, torch above all, is imported when one of these names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmaclib import presets
    from rmaclib.checkpoints import load_network
    from rmaclib.cleaning.pipeline import clean
    from rmaclib.evaluation.benchmark import evaluate
    from rmaclib.extraction.descriptors import extract
    from rmaclib.foundation.errors import RmacError
    from rmaclib.learning import train
    from rmaclib.network import create_network
    from rmaclib.search.index import Index

__version__ = "0.1.0"
__all__ = ["Index", "RmacError", "clean", "create_network", "evaluate", "extract", "load_network", "presets", "train"]

_ROOMS = {  # the same as above, for the interpreter; a test compares the two
    "Index": "search.index", "RmacError": "foundation.errors", "clean": "cleaning.pipeline",
    "create_network": "network", "evaluate": "evaluation.benchmark", "extract": "extraction.descriptors",
    "load_network": "checkpoints", "train": "learning",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name == "presets":
        return import_module("rmaclib.presets")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"rmaclib.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "import_module"})
