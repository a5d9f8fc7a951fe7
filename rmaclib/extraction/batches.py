"""A network run over images in batches (Section 4.4): grouped by shape, decoded ahead, computed on a device.

On a CPU every thread decodes and computes batches of its own, each on one core: threads that share the work
of one layer would wait for each other at its end, and the longer the more often a decoder interrupts one.
"""

import copy
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Annotated, Generic, Literal, TypeVar

import numpy as np
import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.backbones.folding import Folded
from rmaclib.extraction.images import Item
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.images import ImageError, fit, fitted_size, read_image, read_size

CHUNK = 128  # images between two saves
_LARGEST_BATCH = 64
# Pixels of a batch. A CPU core is fastest when a layer's output stays in cache and is not paged in anew.
_BATCH_PIXELS = {"cpu": 200_000, "cuda": 16_000_000, "mps": 4_000_000}
_PROBES = 16  # images on which half precision is compared with float32
_PROBE_COSINE = 0.9995  # that the probes have to keep, so that the images beyond them keep 0.999
_SIZE_AS_TUPLE = BeforeValidator(
    lambda sizes: (sizes,) if isinstance(sizes, int) and not isinstance(sizes, bool) else sizes)

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result", Tensor, tuple[Tensor, ...])
Shapes = tuple[tuple[int, int], ...]  # (width, height) of an image at each of the sizes


@settings
class ExtractionSettings:
    """How descriptors are extracted. The default is the paper's single resolution.

    Attributes:
        sizes: Longer sides in pixels; the descriptors of several sizes are summed and ℓ2-normalised (Section 4.4).
        enlarge: Also resize images up whose longer side is shorter than a size.
        crop_order: Whether a query is resized before its box is cut out or behind it, see ``images.fit``.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware multiplies it and the
            descriptors of the first images keep a cosine of 0.9995 to those of float32, else float32.
        device: "auto" (CUDA, else Apple's MPS, else the CPU), or a torch device name.
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), as_tuple, _SIZE_AS_TUPLE] = (800,)
    enlarge: bool = False
    crop_order: Literal["resize-then-crop", "crop-then-resize"] = "resize-then-crop"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"


def pick_device(device: str = "auto") -> torch.device:
    """Find the torch device of a ``device`` setting.

    Raises:
        InputError: Nothing can be computed on it.
    """
    if device != "auto":
        try:
            torch.ones(1, device=device).item()
            return torch.device(device)
        except (RuntimeError, AssertionError, ImportError, TypeError) as error:
            raise InputError(f"device: {device!r} can't be used here ({str(error).splitlines()[0]})") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def in_evaluation(network: Network) -> Iterator[Network]:
    """Put a network into evaluation mode within the block; behind it every module is in the mode that it had."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield network.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def on_device(network: Network, device: torch.device) -> Network:
    """Give the network itself where it is on the device already, else a copy on the device."""
    devices = {tensor.device for tensor in network.state_dict().values()}
    # torch.device("cuda") is not equal to the first one, "cuda:0", though the same.
    if devices == {torch.empty(0, device=device).device}:
        return network
    return copy.deepcopy(network).to(device)


def chunks_of(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Split a list of images into chunks of CHUNK."""
    return (items[start:start + CHUNK] for start in range(0, len(items), CHUNK))


def chunk_count(items: Sequence[Item]) -> int:
    """Count the chunks of a list of images."""
    return -(-len(items) // CHUNK)


def image_bar(total: int, progress: bool, what: str) -> tqdm:
    """Open a progress bar of images, quiet unless ``progress`` is set and the output is a terminal."""
    return tqdm(total=total, desc=what, unit="image", disable=None if progress else True)  # None: on a terminal only


class Workers(ThreadPoolExecutor):
    """Threads beside a network: on a CPU each of them computes, on one core; elsewhere they only read.

    Args:
        count: Number of threads.
        on_cpu: Whether they compute. torch's own number of threads is restored when the pool ends.
    """

    def __init__(self, count: int, on_cpu: bool):
        self.torch_threads = torch.get_num_threads()
        super().__init__(count, initializer=partial(torch.set_num_threads, 1) if on_cpu else None)

    def __exit__(self, *error: object) -> None:
        self.shutdown(cancel_futures=True)
        torch.set_num_threads(self.torch_threads)  # the workers' setting reaches parts of torch that all share


class Extractor(Generic[Network, Result]):
    """Runs a network over images: groups them by shape, decodes ahead, computes on the device.

    A context manager: it ends its threads behind the block.

    Args:
        network: Stays as and where it is; a copy computes.
        settings: Sizes, precision and device.
        compute: Called with the copy and, for each size, a batch (B, 3, H, W) uint8 of the same images; returns a
            tensor whose first axis are the images, or any tensor or tensors that ``batches`` is to yield.

    Attributes:
        half: Whether it computes in bfloat16.
    """

    def __init__(self, network: Network, settings: ExtractionSettings,
                 compute: Callable[[Network, Sequence[Tensor]], Result]):
        self.settings = settings
        self.compute: Callable[[Network, Sequence[Tensor]], Result] = compute
        self.device = pick_device(settings.device)
        self.on_cpu = self.device.type == "cpu"
        # A copy: the network may be one that is being trained, whose weights have to stay as and where they are.
        with in_evaluation(network):
            self.network = Folded(network).copy.to(self.device).to(memory_format=torch.channels_last)
        self.half = settings.precision == "bfloat16"
        # On a CPU one more than cores: some always wait for a file.
        self.workers = torch.get_num_threads() + 1 if self.on_cpu else min(8, os.cpu_count() or 1)
        self.pool = Workers(self.workers, self.on_cpu)

    def __enter__(self) -> "Extractor[Network, Result]":
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.__exit__(*error)

    def choose_precision(self, items: Sequence[Item]) -> None:
        """Settle precision "auto" on the first images: the same list gives the same choice on a machine."""
        if self.settings.precision == "auto" and multiplies_bfloat16(self.device):
            self.half = self.half_is_close(items)

    def half_is_close(self, items: Sequence[Item]) -> bool:
        """Whether results in bfloat16 keep a cosine of 0.9995 to those in float32, on the first images of a list."""
        before = self.half
        try:
            return all(map(self._half_is_close, items[:_PROBES]))
        finally:
            self.half = before

    def _half_is_close(self, item: Item) -> bool:
        results = []
        for self.half in (False, True):
            results += [(vectors,) if isinstance(vectors, Tensor) else vectors
                        for _, vectors in self.batches([item], {})]
        if not results:
            return True  # can't be read: says nothing
        pairs = list(zip(*results, strict=True))
        if any(full.shape != half.shape for full, half in pairs):
            return False  # other regions were proposed
        return all(torch.cosine_similarity(full, half, dim=-1).min() >= _PROBE_COSINE for full, half in pairs)

    def batches(self, items: Sequence[Item], bad: dict[int, str]) -> Iterator[tuple[list[int], Result]]:
        """Compute images batch by batch, in any order.

        Args:
            items: Files and boxes.
            bad: Gets the reason for each image that is left out, by its index into ``items``.

        Yields:
            Indices into ``items``, and their result on the CPU.
        """
        groups: dict[Shapes, list[int]] = defaultdict(list)
        for index, shapes in enumerate(self.pool.map(self._shapes, items)):
            if isinstance(shapes, ImageError):
                bad[index] = str(shapes)
            else:
                groups[shapes].append(index)
        plan = [batch for shapes, indices in groups.items() for batch in self._split(shapes, indices)]
        jobs = (self.pool.submit(self._work, items, batch) for batch in plan)
        for future in ahead(jobs, self.workers + 1):
            indices, result, errors = future.result()
            bad.update(errors)
            if indices:
                yield indices, self._run(result) if isinstance(result, list) else result

    def _split(self, shapes: Shapes, indices: list[int]) -> Iterator[list[int]]:
        """Images of the same shapes in batches that suit the device."""
        pixels = max(width * height for width, height in shapes)
        size = max(1, min(_LARGEST_BATCH, _BATCH_PIXELS.get(self.device.type, 200_000) // pixels))
        return (indices[start:start + size] for start in range(0, len(indices), size))

    def _shapes(self, item: Item) -> Shapes | ImageError:
        """(width, height) of an image at each size, read from its header."""
        path, box = item
        try:
            width, height = read_size(path)
            return tuple(fitted_size(width, height, size, box, self.settings.crop_order, self.settings.enlarge)
                         for size in self.settings.sizes)
        except ImageError as error:
            return error
        except ValueError as error:  # a box that doesn't fit the image
            return ImageError(path, str(error))

    def _work(self, items: Sequence[Item],
              batch: list[int]) -> tuple[list[int], Result | list[list[np.ndarray]], dict[int, str]]:
        """Decode a batch, and on a CPU compute it: (indices of the good, their result or pixels, errors)."""
        indices: list[int] = []
        pixels: list[list[np.ndarray]] = []  # of each image, at each size
        errors: dict[int, str] = {}
        for index in batch:
            path, box = items[index]
            try:
                image = read_image(path)
            except ImageError as error:
                errors[index] = str(error)
                continue
            indices.append(index)
            pixels.append([np.asarray(fit(image, size, box, self.settings.crop_order, self.settings.enlarge))
                           for size in self.settings.sizes])
        return indices, self._run(pixels) if indices and self.on_cpu else pixels, errors

    @torch.inference_mode()
    def _run(self, pixels: list[list[np.ndarray]]) -> Result:
        images = [torch.from_numpy(np.stack(same_size)).to(self.device).permute(0, 3, 1, 2)  # (B, 3, H, W) uint8
                  for same_size in zip(*pixels, strict=True)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return _on_cpu(self.compute(self.network, images))


def _on_cpu(result: Result) -> Result:
    """In float32, on the CPU."""
    if isinstance(result, Tensor):
        return result.float().cpu()
    return tuple(part.float().cpu() for part in result)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bfloat16: emulated, it would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def ahead(jobs: Iterator[Future], count: int) -> Iterator[Future]:
    """Yield futures in order, with the next ``count`` already started."""
    started = deque(islice(jobs, count))
    while started:
        yield started.popleft()
        started.extend(islice(jobs, 1))
