"""What the library tells people while it works: notes, by the logger "rmaclib", and how long something takes."""

import logging

LOGGER = logging.getLogger("rmaclib")


def note(text: str) -> None:
    """Tell something unexpected that stops nothing: a warning of the logger "rmaclib", one line.

    A program that sets up no logging sees it on standard error; the commands print it behind "note:".
    """
    LOGGER.warning("%s", text)


def duration(seconds: float) -> str:
    """A time that is expected, as people say it.

    >>> duration(4), duration(45), duration(600)
    ('a few seconds', 'about 40 s', 'about 10 min')
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"about {seconds / 86400:.1f} days"
