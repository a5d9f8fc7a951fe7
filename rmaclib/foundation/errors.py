"""Errors that a user can correct: the command line shows them as one line.

Every other exception is a bug and shows its traceback.
"""


class RmacError(Exception):
    """Base of all errors of this library. The text says what was expected, what came, and in which file."""


class InputError(RmacError, ValueError):
    """A setting, an option or an argument that can't be used; the text names it."""


class NotFiniteError(InputError):
    """Values of a network that are NaN or infinite; the text says which."""


class OutputError(RmacError, RuntimeError):
    """A file or folder that can't be written; the text names it and says what to do."""


class MissingPackageError(RmacError, ImportError):
    """An optional package that isn't installed; the text names it and says what needs it."""
