"""The error of training."""


class LearningError(RuntimeError):
    """Training that can't begin or go on; the text says what happened and what to try."""
