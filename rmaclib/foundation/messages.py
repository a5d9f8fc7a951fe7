"""What the library tells people while it works: notes, through the logger "rmaclib", and expected times."""

import logging

LOGGER = logging.getLogger("rmaclib")


def note(text: str) -> None:
    """Report something unexpected that stops nothing: a warning of the logger "rmaclib".

    A program that sets up no logging sees it on standard error. The commands print it behind "note:".

    Args:
        text: One line.
    """
    LOGGER.warning("%s", text)


def tell(text: str) -> None:
    """Tell what is being done and how long it will take: a line of level INFO, which the commands print."""
    LOGGER.info("%s", text)


def duration(seconds: float) -> str:
    """Write an expected time as people say it.

    >>> duration(4), duration(45), duration(600)
    ('a few seconds', 'about 40 s', 'about 10 min')

    Args:
        seconds: The time, at least 0.

    Returns:
        The rounded time with its unit: seconds, minutes, hours or days.
    """
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"about {seconds / 86400:.1f} days"
