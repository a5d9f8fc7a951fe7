"""rmac backbones."""

from typing import Annotated

import typer
from rich.table import Table

from rmaclib.commands import options
from rmaclib.commands.common import command_group, results, say, telling

app = command_group()
_DEFAULT = "efficientnet_lite0"
_HEIGHT, _WIDTH, _ROUNDS = 384, 512, 5  # pixels of the image whose time is taken, and how often


@app.command("backbones")
def backbones_command(
    network: Annotated[str | None, typer.Option(
        callback=options.text, help=f"A backbone, such as resnet50 or timm:NAME.  [default: {_DEFAULT}, and the names "
                                    "of all]")] = None,
) -> None:
    """List the layers of a backbone whose feature maps can be used.

    Examples:

    - `rmac backbones`

    - `rmac backbones --network resnet50`

    - `rmac index photos --network efficientnet_lite0:blocks.5.0.expansion+last --out photos.index`

    Each layer is listed with the stride of its map in pixels, its channels, and the milliseconds from an image of
    512 × 384 pixels to the map. `last` is the last layer, which the name of a backbone alone stands for. A sequence of
    layers can be requested too, and stands for its last member: layer3 of resnet50 is layer3.5.
    """
    with telling("loading PyTorch"):
        from rmaclib.backbones import NAMES
        from rmaclib.backbones.layers import split_name
        from rmaclib.backbones.survey import survey
        from rmaclib.results import machine

    if network is None:
        results.print(f"backbones: {', '.join(NAMES)}", soft_wrap=True)
    name, _ = split_name(network or _DEFAULT)
    with telling(f"measuring {name}"):
        layers = survey(name, _HEIGHT, _WIDTH, _ROUNDS)
    table = Table("layer", title=name)
    for heading in ("stride", "channels", "ms"):
        table.add_column(heading, justify="right")
    for layer, seconds in layers:
        table.add_row(layer.name, str(layer.stride), str(layer.channels), f"{1000 * seconds:.1f}")
    results.print(table)
    say(f"ms: one image at a time on one core; median of {_ROUNDS}; {machine()}")
