"""Early layers of a backbone that keep their weights while the others learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from torch import nn

from rmaclib.backbones import Backbone
from rmaclib.foundation.errors import InputError

_SHOWN = 5  # names of layers in an error


def early_parameters(backbone: Backbone, layer: str) -> list[nn.Parameter]:
    """List the parameters of a backbone's layers up to and including one.

    Args:
        backbone: The backbone.
        layer: Dotted name of a module, such as "blocks.3" in efficientnet_lite0. The layers before it are those that
            the network registers before it.

    Returns:
        The parameters.

    Raises:
        InputError: There is no such layer; the text names some.
    """
    modules = dict(backbone.body.named_modules())  # those behind the last map may be missing
    layers = {name: modules[inside] for name, inside in backbone.module_names.items() if inside in modules}
    if layer not in layers:
        near = get_close_matches(layer, layers, _SHOWN, 0)
        raise InputError(f"frozen: expected a layer of {backbone.name}, such as {', '.join(near)}, got {layer!r}")
    parameters: list[nn.Parameter] = []
    reached = False
    for name, module in layers.items():
        if name == layer:
            reached = True
        elif reached and not name.startswith(f"{layer}."):
            break
        if not layer.startswith(f"{name}."):  # what the layer is a part of goes on behind it
            parameters += module.parameters(recurse=False)
    return parameters


@contextmanager
def frozen_layers(backbone: Backbone, layer: str | None) -> Iterator[None]:
    """Let the early layers of a backbone require no gradient, until the block ends.

    Args:
        backbone: The backbone.
        layer: The last of them (``early_parameters``); None: all layers learn.

    Raises:
        InputError: There is no such layer.
    """
    early = [] if layer is None else [each for each in early_parameters(backbone, layer) if each.requires_grad]
    for parameter in early:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in early:
            parameter.requires_grad_()
