"""Several feature maps of one forward pass: the maps of some of a network's layers.

Layers have been joined before: the activations of all layers at a pixel are its hypercolumn (Hariharan et al. 2015);
MS-RMAC aggregates the R-MAC of several layers (Li et al. 2017).

The forward pass is traced with torch.fx down to the requested layers; what has none of them inside stays as it is.
Unlike forward hooks, the traced code may run in several threads at once.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from rmaclib.backbones.weights import BackboneError

LAST = "last"  # the layer that gives a network's own map, the last one
ONE_SIZE = RuntimeError, AssertionError  # raised by networks that take images of one size only
_SIDE = 256  # pixels of the square image with which layers are measured
_NEAR = 5  # names shown for one that isn't there
_tracing = threading.Lock()  # torch.fx replaces methods of all modules meanwhile


class Layer(NamedTuple):
    """A layer whose output is a feature map of a backbone.

    Attributes:
        name: Its dotted name in the network, or "last".
        stride: Pixels per cell of the map.
        channels: C of the map.
    """

    name: str
    stride: int
    channels: int


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Split the name of a backbone into that of the network and those of its layers.

    Args:
        name: NETWORK or NETWORK:LAYER+LAYER…, where a network of timm is timm:NAME.

    Returns:
        The network; the layers, "last" alone where the name has none.

    Raises:
        BackboneError: An empty or repeated layer, or a colon too many.
    """
    parts = name.split(":")
    count = 2 if parts[0] == "timm" else 1
    if len(parts) > count + 1:
        raise BackboneError(f"backbone: expected NETWORK:LAYER+LAYER…, got {name!r}")
    layers = tuple(parts[count].split("+")) if len(parts) > count else (LAST,)
    if "" in layers or len(set(layers)) < len(layers):
        raise BackboneError(f"backbone {name}: expected different layers, joined by '+', got {'+'.join(layers)!r}")
    return ":".join(parts[:count]), layers


def names_of_layers(model: nn.Module, body: nn.Module) -> dict[str, str]:
    """Tell how the layers of a network are called in its convolutional part.

    Args:
        model: The whole network, whose names its users know.
        body: The part of it up to the last map.

    Returns:
        Name in ``model`` → name in ``body``, of every module that is in both.
    """
    inside = {module: name for name, module in body.named_modules()}
    return {name: inside[module] for name, module in model.named_modules() if name and module in inside}


def with_layers(name: str, body: nn.Module, module_names: Mapping[str, str], last: Layer,
                layers: Sequence[str]) -> tuple[nn.Module, tuple[Layer, ...]]:
    """Reduce a network to what is needed for some of its layers.

    Args:
        name: Of the network, for errors.
        body: The network up to its last map.
        module_names: Name of a layer → its name in ``body``.
        last: The last map.
        layers: Names of layers, or "last".

    Returns:
        The module that gives their maps, in this order; and the layers.

    Raises:
        BackboneError: An unknown layer, one whose output is no feature map or is changed behind it, or a network that
            can't be traced.
    """
    graph, nodes = trace(name, body, [module_names[layer] for layer in layers if layer in module_names])
    outputs = []
    for layer in layers:
        node = nodes.get(LAST if layer == LAST else module_names.get(layer, ""))
        if node is None:
            near = get_close_matches(layer, [each for each in module_names if each != layer], _NEAR, 0)
            raise BackboneError(f"backbone {name}: expected layers before its last map, such as {', '.join(near)} "
                                f"(rmac backbones --network {name} lists them), got {layer!r}")
        outputs.append(node)
    order = list(graph.nodes)
    places = [order.index(node) for node in outputs]
    if places != sorted(set(places)):
        raise BackboneError(f"backbone {name}: expected different layers in the order in which they are run, "
                            f"got {'+'.join(layers)}")
    try:
        measured = measure(body, graph, outputs)
    except ONE_SIZE as error:
        raise BackboneError(f"backbone {name}: takes images of one size only ({error})") from error
    for layer, shape in zip(layers, measured, strict=True):
        if isinstance(shape, str):
            raise BackboneError(f"backbone {name}: layer {layer}: {shape}")
    cut_behind(graph, outputs).eliminate_dead_code()
    # Contains the modules of the graph only, under the names that they have in the network.
    return fx.GraphModule(body, graph), tuple(last if layer == LAST else Layer(layer, *shape)
                                              for layer, shape in zip(layers, measured, strict=True))


class _Tracer(fx.Tracer):
    """Enters only the modules that have a requested layer inside, and notes the outputs of the requested layers."""

    def __init__(self, layers: Sequence[str]):
        super().__init__()
        self.layers, self.thread = layers, threading.get_ident()
        self.nodes: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(layer.startswith(f"{module_qualified_name}.") for layer in self.layers)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self.thread:  # a network that is used meanwhile
            return forward(*args, **kwargs)
        output, name = super().call_module(m, forward, args, kwargs), self.path_of_module(m)
        if name in self.layers and isinstance(output, fx.Proxy):
            self.nodes[name] = output.node
        return output


def trace(name: str, body: nn.Module, layers: Sequence[str]) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """Trace a network down to some of its layers.

    Args:
        name: Of the network, for errors.
        body: The network up to its last map.
        layers: Names of modules in it.

    Returns:
        The graph of the forward pass; and the layers that are run in it, with their outputs, of which the last counts
        where a layer is run several times. That of "last" is the network's own output.

    Raises:
        BackboneError: The network can't be traced, because its control flow depends on its values.
    """
    tracer = _Tracer(layers)
    try:
        with _tracing:
            graph = tracer.trace(body)
    except Exception as error:  # what a network does with a symbolic map can raise anything
        raise BackboneError(f"backbone {name}: can't give the maps of {', '.join(layers)} "
                            f"({error or type(error).__name__})") from error
    (last,) = graph.output_node().all_input_nodes
    return graph, tracer.nodes | {LAST: last}


def cut_behind(graph: fx.Graph, outputs: Sequence[fx.Node]) -> fx.Graph:
    """Cut a graph behind the last of some nodes, in place, and let it give their values as a tuple."""
    for node in reversed(list(graph.nodes)):
        if node in outputs:
            break
        graph.erase_node(node)
    graph.output(tuple(outputs))
    return graph


def measure(body: nn.Module, graph: fx.Graph, outputs: Sequence[fx.Node]) -> list[tuple[int, int] | str]:
    """Measure the maps that are the outputs of some nodes.

    Args:
        body: The network.
        graph: Of its forward pass; it is changed.
        outputs: The nodes.

    Returns:
        Of each node (stride in pixels, channels); or why it gives no map that can be used, in words.
    """
    versions = []  # of a tensor: how often it was changed in place
    for node in outputs:
        with graph.inserting_after(node):
            versions.append(graph.call_function(getattr, (node, "_version")))
    probe = fx.GraphModule(body, cut_behind(graph, [*outputs, *versions]))
    modes = {module: module.training for module in probe.modules()}
    try:
        # An image and not the meta device, whose first use takes a network's start from milliseconds to two seconds.
        with torch.inference_mode(False), torch.no_grad():
            values = probe.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [_measured(value, version)
            for value, version in zip(values[:len(outputs)], values[len(outputs):], strict=True)]


def _measured(value: Tensor, version: int) -> tuple[int, int] | str:
    """(stride, channels), or what is wrong; version: before the layers behind it were run."""
    shape = tuple(value.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[2] != shape[3]:
        return f"expected a feature map (B, C, h, w), got {shape} of an image of {_SIDE} × {_SIDE} pixels"
    if value._version != version:
        return "expected a map that stays, got one that the layer behind it changes in place; request that layer"
    return _SIDE // shape[3], shape[1]
