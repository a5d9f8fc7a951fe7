"""Diorama: a landmark collection and its benchmarks, rendered by the library itself (Sections 3 and 5.1).

Monuments built from parts, photographed by a renderer under changing suns, with everything that makes real
collections hard: wrong pictures under a landmark's name, other sides of the thing, look-alikes, occluders. The
pictures are the library's own, so that tests and the published book may use and show them.

Reading them (`open_dataset("diorama")`, …) needs nothing; rendering them again needs the extra `diorama`.
"""

from rmaclib.datasets.diorama.contents import Shot, Subject, contents, landmark_names
from rmaclib.datasets.diorama.render import render

__all__ = ["Shot", "Subject", "contents", "landmark_names", "render"]
