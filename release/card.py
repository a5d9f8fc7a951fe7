"""Write the model card that is installed beside the network: book/network.md with the recorded numbers in it.

    python release/card.py

The page of the book has the same text; there each number has a tooltip.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from result_role import format_value  # noqa: E402

from rmaclib.foundation.files import write_text  # noqa: E402
from rmaclib.networks import DEFAULT, network_file  # noqa: E402
from rmaclib.results import load_result  # noqa: E402

_SOURCES = {"mitchell2019": "(Mitchell et al. 2019)", "revaud2019": "(Revaud et al. 2019)",
            "tan2019": "(Tan and Le 2019)"}


def card() -> str:
    """The text of the model card.

    Raises:
        FileNotFoundError: A number that isn't recorded.
    """
    text = (ROOT / "book" / "network.md").read_text(encoding="utf-8")
    text = re.sub(r"```\{plot\}.*?```\n\n", "", text, flags=re.DOTALL)  # the table above it has the same numbers
    text = re.sub(r"\{result\}`([^`]+)`", lambda found: _value(found[1]), text)
    text = re.sub(r"\{cite\}`([^`]+)`", lambda found: _SOURCES[found[1]], text)
    return re.sub(r"\[([^]]+)\]\([a-z_]+\.md\)", r"\1", text)  # the other pages are not beside it


def _value(key: str) -> str:
    return format_value(load_result(ROOT / "data" / "results" / f"{key}.json"))


if __name__ == "__main__":
    file = network_file(DEFAULT)
    assert file
    write_text(file.with_suffix(".md"), card())
