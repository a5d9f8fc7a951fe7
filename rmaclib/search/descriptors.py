"""Describing many images (Section 4.4): one or several resolutions, queries with boxes, memory-mapped output.

The list is worked through in chunks. A chunk's images are grouped by shape, so that equal shapes share a
batch, and decoded by threads while others are computed. Each finished chunk is a file; a run that was killed
goes on with the first chunk that has none, and because batches never cross chunks, it gives the same bytes.

On a CPU every thread decodes and computes batches of its own, each on one core: threads that share the work
of one layer would wait for each other at its end, and the longer the more often a decoder interrupts one.
"""

import copy
import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import BeforeValidator
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.checkpoints import fingerprint
from rmaclib.datasets.types import NOT_A_LINE
from rmaclib.errors import InputError
from rmaclib.files import as_line, file_state, is_line
from rmaclib.folding import Folded
from rmaclib.images import RESIZE_THEN_CROP, Box, ImageError, fit, fitted_size, read_image, read_size
from rmaclib.rmac import RMAC, SharedFeatures, Whitening, fit_whitening, l2
from rmaclib.search.descriptor_folder import (
    Chunk,
    Descriptors,
    DescriptorsError,
    Run,
    bad_images,
    descriptors_folder,
    load_descriptors,
    tell_repeated,
)
from rmaclib.settings import Field, as_tuple, settings

__all__ = ["DescribeSettings", "Descriptors", "DescriptorsError", "Extractor", "Workers", "ahead", "describe",
           "describe_image", "descriptors_folder", "image_bar", "images_fingerprint", "in_evaluation",
           "learn_whitening", "load_descriptors", "pick_device"]

CHUNK = 128  # images between two saves
_LARGEST_BATCH = 64
# Pixels a batch may hold. A CPU core is fastest when a layer's output stays in cache and is not paged in anew.
_BATCH_PIXELS = {"cpu": 200_000, "cuda": 16_000_000, "mps": 4_000_000}
_PROBES = 16  # images on which half precision is compared with float32
_PROBE_COSINE = 0.9995  # asked of the probes, so that the images beyond them keep 0.999
_ONE = BeforeValidator(lambda sizes: (sizes,) if isinstance(sizes, int) and not isinstance(sizes, bool) else sizes)


@settings
class DescribeSettings:
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


def describe(network: RMAC | SharedFeatures, paths: Sequence[str | os.PathLike],
             settings: DescribeSettings | None = None, *, names: Sequence[str] | None = None,
             boxes: Sequence[Box | None] | None = None, out: str | os.PathLike | None = None,
             left_out: Sequence[tuple[str, str]] = (), progress: bool = True) -> Descriptors:
    """Describe images in the order given (Sections 4.1 and 4.4). The network stays as and where it is.

    names: one per path (default: the path as given); boxes: one per path, (x1, y1, x2, y2) in pixels of the
      original or None, for queries
    out: folder for descriptors.npy (N × D float32), names.txt, bad.txt and meta.json. A killed run given the
      same arguments again goes on where it was; a finished one is only loaded. Another process that writes to the
      folder is waited for. None: everything in memory.
    left_out: (name, reason) of images that a reader left out, to be listed with the bad ones
    Images that can't be read, and those whose name is no line of UTF-8 text, are left out of vectors and names, and
    listed in `bad` and bad.txt. Of images with the same name, file and box one is taken; `repeated` lists them.
    raises DescriptorsError: `out` has descriptors of other images, settings or network; OutputError: it is not ours,
      can't be written, or its disk has too little space
    """
    settings = settings or DescribeSettings()
    paths = [Path(path) for path in paths]
    names = [os.fspath(path) for path in paths] if names is None else list(names)
    boxes = [None] * len(paths) if boxes is None else list(boxes)
    if not len(paths) == len(names) == len(boxes):
        raise InputError(f"expected as many names and boxes as paths, got {len(paths)} paths, {len(names)} names, "
                         f"{len(boxes)} boxes")
    listed, repeated = _each_once(list(zip(names, paths, boxes, strict=True)))
    tell_repeated(repeated)
    unfit = [*left_out, *((as_line(name), NOT_A_LINE) for name, _, _ in listed if not is_line(name))]
    names = [name for name, _, _ in listed if is_line(name)]
    items = [(path, box) for name, path, box in listed if is_line(name)]
    repeated = tuple(map(as_line, repeated))
    if out is not None:
        return _describe_to_folder(network, items, names, settings, Path(out), progress, unfit, repeated)
    chunks = [chunk for _, chunk in _described(network, items, settings, progress, [False] * _chunk_count(items))]
    reasons = [reason for _, reasons in chunks for reason in reasons]
    good = tuple(name for name, reason in zip(names, reasons, strict=True) if not reason)
    vectors = np.concatenate([chunk[0] for chunk in chunks]) if chunks else np.zeros((0, network.dim), np.float32)
    return Descriptors(vectors, good, (*unfit, *bad_images(names, reasons)), repeated)


def _each_once(listed: Sequence[tuple]) -> tuple[list[tuple], list[str]]:
    """Images (name, path, box) without repetitions, in order, and the names that were repeated, each once."""
    known, repeated = {}, {}
    for name, path, box in listed:
        key = name, path, None if box is None else tuple(box)
        if key in known:
            repeated[name] = None
        known.setdefault(key, (name, path, box))
    return list(known.values()), list(repeated)


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


def describe_image(network: RMAC, image: Image.Image, settings: DescribeSettings | None = None,
                   box: Box | None = None) -> np.ndarray:
    """The descriptor of one RGB picture, (D,) float32 of unit length; always computed in float32. The network stays
    as and where it is; a copy computes where that is not settings.device.

    box: (x1, y1, x2, y2) in pixels of the picture, to be cut out; raises ValueError when it doesn't fit
    """
    settings = settings or DescribeSettings()
    device = pick_device(settings.device)
    pixels = [np.array(fit(image, size, box, settings.crop_order, settings.enlarge)) for size in settings.sizes]
    with torch.inference_mode(), in_evaluation(on_device(network, device)) as placed:
        images = [torch.from_numpy(array).permute(2, 0, 1)[None].to(device) for array in pixels]  # (1, 3, H, W) each
        return _one_descriptor(placed, images)[0].cpu().numpy()


def learn_whitening(network: RMAC, paths: Sequence[str | os.PathLike], settings: DescribeSettings | None = None, *,
                    dim: int | None = None, shrinkage: float = 0.0, progress: bool = True) -> Whitening:
    """Whitening fitted on the region vectors of training images (Section 4.1); never give it a test set.

    Images that can't be read are left out. See rmac.fit_whitening for dim, shrinkage and errors.
    """
    def blocks():
        with Extractor(network, settings or DescribeSettings(), _all_regions) as extractor:
            items = [(Path(path), None) for path in paths]
            extractor.choose_precision(items)
            with image_bar(len(items), progress, "whitening") as bar:
                for chunk in _chunks(items):
                    for indices, vectors in extractor.batches(chunk, {}):
                        bar.update(len(indices))
                        yield vectors.numpy()
    return fit_whitening(blocks(), dim, shrinkage)


# --- chunks ---------------------------------------------------------------------------------------------------

_Item = tuple[Path, Box | None]


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (items[start:start + CHUNK] for start in range(0, len(items), CHUNK))


def _chunk_count(items: Sequence[_Item]) -> int:
    return -(-len(items) // CHUNK)


def _described(network: RMAC, items: Sequence[_Item], settings: DescribeSettings, progress: bool,
               done: Sequence[bool]) -> Iterator[tuple[int, Chunk]]:
    """Yields (number, chunk) of the chunks that are not done."""
    if all(done):
        return
    with Extractor(network, settings, _one_descriptor) as extractor:
        extractor.choose_precision(items)
        with image_bar(len(items), progress, "describing") as bar:
            for number, chunk in enumerate(_chunks(items)):
                if done[number]:
                    bar.update(len(chunk))
                else:
                    yield number, _describe_chunk(extractor, chunk, network.dim, bar)


def _describe_chunk(extractor: "Extractor", chunk: Sequence[_Item], dim: int, bar: tqdm) -> Chunk:
    vectors, bad = np.zeros((len(chunk), dim), np.float32), {}
    for indices, described in extractor.batches(chunk, bad):
        vectors[indices] = described.numpy()
        bar.update(len(indices))
    bar.update(len(bad))
    reasons = [bad.get(index, "") for index in range(len(chunk))]
    return vectors[[not reason for reason in reasons]], reasons


def _describe_to_folder(network: RMAC | SharedFeatures, items: Sequence[_Item], names: Sequence[str],
                        settings: DescribeSettings, folder: Path, progress: bool,
                        unfit: Sequence[tuple[str, str]], repeated: Sequence[str]) -> Descriptors:
    with descriptors_folder(folder) as out:
        made_with = asdict(settings)
        del made_with["device"]  # the machine's, not the descriptors'
        identity = {"network": network_settings(network), "weights": fingerprint(network),
                    "settings": made_with, "images": images_fingerprint(items, names)}
        run = Run(out, identity, [len(chunk) for chunk in _chunks(items)], network.dim)
        if not run.is_finished:
            for number, chunk in _described(network, items, settings, progress, run.done):
                run.save(number, chunk)
            run.finish(names, unfit, repeated)
        return load_descriptors(folder)


def network_settings(network: RMAC | SharedFeatures) -> dict:
    """Settings of a network; of several that share a backbone, those of each by its name."""
    if isinstance(network, SharedFeatures):
        return {name: asdict(part.settings) for name, part in zip(network.names, network.networks, strict=True)}
    return asdict(network.settings)


def images_fingerprint(items: Sequence[_Item], names: Sequence[str]) -> str:
    """Changes when a name, a box or a file (size, time of change) does."""
    digest = hashlib.sha256()
    for (path, box), name in zip(items, names, strict=True):
        numbers = None if box is None else tuple(map(float, box))
        digest.update(repr((name, numbers, file_state(path))).encode())
    return digest.hexdigest()


def image_bar(total: int, progress: bool, what: str) -> tqdm:
    # disable=None: quiet when the output is not a terminal
    return tqdm(total=total, desc=what, unit="image", disable=None if progress else True)


# --- the network's side ---------------------------------------------------------------------------------------


def _one_descriptor(network: RMAC, images: Sequence[Tensor]) -> Tensor:
    """images: one (B, 3, H, W) per size; returns (B, D): the sizes' descriptors, summed and normalised."""
    return l2(torch.stack([network(image).float() for image in images]).sum(0))


def _all_regions(network: RMAC, images: Sequence[Tensor]) -> Tensor:
    """images: one (B, 3, H, W) per size; returns (R, C): region vectors of all images and sizes."""
    return torch.cat([vectors for image in images
                      for vectors in network.region_vectors(network.backbone(image), image.shape[-2:])])


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

    def __init__(self, network: RMAC, settings: DescribeSettings, compute: Callable):
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

    def choose_precision(self, items: Sequence[_Item]) -> None:
        """Settle precision "auto" on the first images. Same list, same machine: same choice, so runs repeat."""
        if self.settings.precision != "auto" or not _multiplies_bfloat16(self.device):
            return
        self.half = all(self._half_is_close(item) for item in items[:_PROBES])

    def _half_is_close(self, item: _Item) -> bool:
        results = []
        for self.half in (False, True):
            results += [vectors for _, vectors in self.batches([item], {})]
        if not results:
            return True  # can't be read: says nothing
        if results[0].shape != results[1].shape:
            return False  # other regions were proposed
        return bool(torch.cosine_similarity(*results, dim=-1).min() >= _PROBE_COSINE)

    def batches(self, items: Sequence[_Item], bad: dict[int, str]) -> Iterator[tuple[list[int], Tensor]]:
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

    def _shapes(self, item: _Item) -> tuple | ImageError:
        path, box = item
        try:
            width, height = read_size(path)
            return tuple(fitted_size(width, height, size, box, self.settings.crop_order, self.settings.enlarge)
                         for size in self.settings.sizes)
        except ImageError as error:
            return error
        except ValueError as error:  # a box that doesn't fit the image
            return ImageError(path, str(error))

    def _work(self, items: Sequence[_Item], batch: list[int]) -> tuple[list[int], Tensor | list, dict[int, str]]:
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
