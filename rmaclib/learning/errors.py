"""The errors of training."""

from collections.abc import Sequence

from rmaclib.errors import RmacError


class LearningError(RmacError, RuntimeError):
    """Training that can't begin or go on; the text says what happened and what to try."""


class UnreadableError(RuntimeError):
    """Images of an update can't be read; places: their positions in it."""

    def __init__(self, places: Sequence[int]):
        super().__init__(f"images {list(places)} of the update can't be read")
        self.places = list(places)
