"""The errors of training."""

from collections.abc import Sequence

from rmaclib.foundation.errors import RmacError


class LearningError(RmacError, RuntimeError):
    """Training that can't begin or go on; the text says what happened and what to try."""


class UnreadableError(RuntimeError):
    """Images of an update can't be read.

    Attributes:
        places: Their positions in the update.
    """

    def __init__(self, places: Sequence[int]):
        super().__init__(f"images {list(places)} of the update can't be read")
        self.places = list(places)


def diverged(update: int, what: str, lr: float) -> LearningError:
    """Create the error of a training that has diverged.

    Args:
        update: The update in which it was noticed; 0 is the validation before the first.
        what: What is wrong, with its value.
        lr: The learning rate of the settings.

    Returns:
        The error; its text says what to try.
    """
    if update == 0:
        return LearningError(f"before the first update: {what}; the network that was given can't be trained")
    return LearningError(f"update {update}: training has diverged, {what}; try a smaller learning rate (lr, now "
                         f"{lr:g}), a longer warmup, or clip, in another folder. The last good state and the best "
                         "network are kept")
