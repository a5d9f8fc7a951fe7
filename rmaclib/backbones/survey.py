"""The layers of a network that give feature maps, and the time that an image takes up to each of them."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import fx, nn

from rmaclib.backbones import make_network
from rmaclib.backbones.folding import Folded
from rmaclib.backbones.layers import LAST, Layer, cut_behind, measure, names_of_layers, trace

_EXPANSION = "expansion"  # of the blocks of EfficientNet-Lite


class TimedLayer(NamedTuple):
    """A layer, and the time up to it.

    Attributes:
        layer: What a name of a backbone can request.
        seconds: From the image to its map, on one core.
    """

    layer: Layer
    seconds: float


def survey(name: str, height: int, width: int, rounds: int) -> list[TimedLayer]:
    """List layers of a network that give feature maps: its children, the members of its sequences, expansions.

    Others can be requested by their names all the same, such as a sequence, which stands for its last member.

    Args:
        name: A network, as for ``create_backbone`` without layers. Its weights are random.
        height: Of the image whose time is taken, in pixels.
        width: The same.
        rounds: How often it is taken, after a first time that doesn't count.

    Returns:
        The layers in the order in which they are run, "last" at the end.

    Raises:
        BackboneError: An unmodule_names network, or one that can't be traced.
    """
    model, body, last, _, _ = make_network(name, pretrained=False)
    module_names = names_of_layers(model, body)
    body = Folded(body.eval()).copy  # as descriptors are extracted
    inside = {layer: module_names[layer] for layer in _listed(model) if layer in module_names}
    graph, nodes = trace(name, body, list(inside.values()))
    run = {layer: nodes[of_body] for layer, of_body in inside.items() if nodes.get(of_body, nodes[LAST]) != nodes[LAST]}
    order = {node: place for place, node in enumerate(graph.nodes)}
    names = sorted(run, key=lambda layer: order[run[layer]])
    shapes = measure(body, graph, [*(run[layer] for layer in names), nodes[LAST]])
    layers = [Layer(layer, *shape) for layer, shape in zip(names, shapes, strict=False) if not isinstance(shape, str)]
    # Traced again, for measuring has changed the graph.
    graph, nodes = trace(name, body, list(inside.values()))
    outputs = [nodes[inside[layer.name]] for layer in layers]
    seconds = _seconds(body, graph, [*outputs, nodes[LAST]], (height, width), rounds)
    return [TimedLayer(*row) for row in zip([*layers, last], seconds, strict=True)]


def _listed(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of a network's children, of the members of its sequences in place of these, and of expansions."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _listed(child, f"{prefix}{name}.")
            continue
        if hasattr(child, _EXPANSION):
            yield f"{prefix}{name}.{_EXPANSION}"
        yield f"{prefix}{name}"


@torch.inference_mode()
def _seconds(body: nn.Module, graph: fx.Graph, outputs: Sequence[fx.Node], size: tuple[int, int],
             rounds: int) -> list[float]:
    """Median time from an image to the value of each node, on one core, as extraction computes an image."""
    clocks = []
    for node in outputs:
        with graph.inserting_after(node):
            clocks.append(graph.call_function(time.perf_counter))
    timed = fx.GraphModule(body, cut_behind(graph, clocks)).eval()
    image = torch.rand(1, 3, *size).contiguous(memory_format=torch.channels_last)
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds + 1):  # the first pays for what the others find ready
            started = time.perf_counter()
            times.append([clock - started for clock in timed(image)])
    finally:
        torch.set_num_threads(threads)
    return np.median(times[1:], axis=0).tolist()
