"""Trained networks that come with the package: for each a .safetensors file, and a model card beside it.

``make train-release`` trains them; ``checkpoints.open_network`` and ``--network`` of the commands take their names.
"""

from pathlib import Path

NAMES = ("landmarks_lite0",)
DEFAULT = NAMES[0]  # where no network is named


def network_file(name: str) -> Path | None:
    """Find the file of a network that comes with the package.

    Args:
        name: One of ``NAMES``.

    Returns:
        The file; None for any other name.
    """
    return Path(__file__).with_name(f"{name}.safetensors") if name in NAMES else None
