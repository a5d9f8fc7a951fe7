"""Diorama: the landmark collection and benchmarks of the repository, rendered (Sections 3 and 5.1 of the paper).

Monuments built from parts, photographed by a renderer under changing suns, with everything that makes real
collections hard: wrong pictures under a landmark's name, other sides of the thing, look-alikes, occluders. The
pictures are our own, so that tests and the published book may use and show them.

This is no part of the library: reading them (rmaclib.datasets.open_dataset("diorama"), …) needs nothing of it.
Rendering them again, `make diorama`, needs the extra `diorama`.
"""

from generator.contents import Shot, Subject, contents, landmark_names
from generator.render import render

__all__ = ["Shot", "Subject", "contents", "landmark_names", "render"]
