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
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.backbones.folding import Folded
from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.images import RESIZE_THEN_CROP, ImageError, fit, fitted_size, read_image, read_size
from rmaclib.network import RMAC, SharedFeatures

CHUNK = 128  # images between two saves
_LARGEST_BATCH = 64
# Pixels a batch may hold. A CPU core is fastest when a layer's output stays in cache and is not paged in anew.
_BATCH_PIXELS = {"cpu": 200_000, "cuda": 16_000_000, "mps": 4_000_000}
_PROBES = 16  # images on which half precision is compared with float32
_PROBE_COSINE = 0.9995  # asked of the probes, so that the images beyond them keep 0.999
_ONE = BeforeValidator(lambda sizes: (sizes,) if isinstance(sizes, int) and not isinstance(sizes, bool) else sizes)
Item = tuple[Path, Box | None]


@settings
class ExtractionSettings:
    """How images are described. The default is the paper's single resolution.

    sizes: longer sides in pixels; descriptors of several sizes are summed and normalised (Section 4.4)
    enlarge: also resize images up whose longer side is under a size
    crop_order: of query boxes, see images.fit
    precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware multiplies it and the
      first images keep a cosine of 0.9995 to float32, else float32
    device: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device name
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), as_tuple, _ONE] = (800,)
    enlarge: bool = False
    crop_order: Literal["resize-then-crop", "crop-then-resize"] = RESIZE_THEN_CROP
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"


def pick_device(device: str = "auto") -> torch.device:
    """The torch device of a `device` setting. raises InputError when nothing can be computed on it."""
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
def in_evaluation(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode within the block; every module is as it was behind it."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield network.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def on_device(network: RMAC | SharedFeatures, device: torch.device) -> RMAC | SharedFeatures:
    """The network where it is on that device already, else a copy there."""
    devices = {tensor.device for tensor in network.state_dict().values()}
    # torch.device("cuda") is not equal to the first one, "cuda:0", though the same.
    if devices == {torch.empty(0, device=device).device}:
        return network
    return copy.deepcopy(network).to(device)


def chunks_of(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start:start + CHUNK] for start in range(0, len(items), CHUNK))


def chunk_count(items: Sequence[Item]) -> int:
    return -(-len(items) // CHUNK)


def image_bar(total: int, progress: bool, what: str) -> tqdm:
    # disable=None: quiet when the output is not a terminal
    return tqdm(total=total, desc=what, unit="image", disable=None if progress else True)


class Workers(ThreadPoolExecutor):
    """Threads beside a network: on a CPU each computes, on one core; elsewhere they only read.

    on_cpu: whether they compute; torch's own number of threads comes back when the pool ends
    """

    def __init__(self, count: int, on_cpu: bool):
        self.torch_threads = torch.get_num_threads()
        super().__init__(count, initializer=torch.set_num_threads if on_cpu else None, initargs=(1,) * on_cpu)

    def __exit__(self, *error) -> None:
        self.shutdown(cancel_futures=True)
        torch.set_num_threads(self.torch_threads)  # the workers' setting reaches parts of torch that all share


class Extractor:
    """Runs a network over images: groups by shape, decodes ahead, computes on the device."""

    def __init__(self, network: RMAC, settings: ExtractionSettings, compute: Callable):
        self.settings, self.compute = settings, compute
        self.device = pick_device(settings.device)
        self.on_cpu = self.device.type == "cpu"
        # A copy: the network may be one that is being trained, whose weights have to stay as and where they are.
        with in_evaluation(network):
            self.network = Folded(network).copy.to(self.device, memory_format=torch.channels_last)
        self.half = settings.precision == "bfloat16"
        # On a CPU one more than cores: some always wait for a file.
        self.workers = torch.get_num_threads() + 1 if self.on_cpu else min(8, os.cpu_count() or 1)
        self.pool = Workers(self.workers, self.on_cpu)

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *error) -> None:
        self.pool.__exit__(*error)

    def choose_precision(self, items: Sequence[Item]) -> None:
        """Settle precision "auto" on the first images. Same list, same machine: same choice, so runs repeat."""
        if self.settings.precision != "auto" or not _multiplies_bfloat16(self.device):
            return
        self.half = all(self._half_is_close(item) for item in items[:_PROBES])

    def _half_is_close(self, item: Item) -> bool:
        results = []
        for self.half in (False, True):
            results += [vectors for _, vectors in self.batches([item], {})]
        if not results:
            return True  # can't be read: says nothing
        if results[0].shape != results[1].shape:
            return False  # other regions were proposed
        return bool(torch.cosine_similarity(*results, dim=-1).min() >= _PROBE_COSINE)

    def batches(self, items: Sequence[Item], bad: dict[int, str]) -> Iterator[tuple[list[int], Tensor]]:
        """Yields (indices into items, result on the CPU) batch by batch; notes in `bad` why an image is left out."""
        groups = defaultdict(list)
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
                yield indices, result if self.on_cpu else self._run(result)

    def _split(self, shapes: tuple, indices: list[int]) -> Iterator[list[int]]:
        pixels = max(width * height for width, height in shapes)
        size = max(1, min(_LARGEST_BATCH, _BATCH_PIXELS.get(self.device.type, 200_000) // pixels))
        return (indices[start:start + size] for start in range(0, len(indices), size))

    def _shapes(self, item: Item) -> tuple | ImageError:
        path, box = item
        try:
            width, height = read_size(path)
            return tuple(fitted_size(width, height, size, box, self.settings.crop_order, self.settings.enlarge)
                         for size in self.settings.sizes)
        except ImageError as error:
            return error
        except ValueError as error:  # a box that doesn't fit the image
            return ImageError(path, str(error))

    def _work(self, items: Sequence[Item], batch: list[int]) -> tuple[list[int], Tensor | list, dict[int, str]]:
        """Decodes a batch, and on a CPU computes it: (indices of the good, their result or pixels, errors)."""
        indices, pixels, errors = [], [], {}
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
    def _run(self, pixels: list[list[np.ndarray]]) -> Tensor:
        images = [torch.from_numpy(np.stack(same_size)).to(self.device).permute(0, 3, 1, 2)  # (B, 3, H, W) uint8
                  for same_size in zip(*pixels, strict=True)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.compute(self.network, images).float().cpu()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def ahead(jobs: Iterator[Future], count: int) -> Iterator[Future]:
    """Yields from `jobs` with the next `count` already started."""
    started = deque(islice(jobs, count))
    while started:
        yield started.popleft()
        started.extend(islice(jobs, 1))
