"""Write the data of the retrieval explorer: feature maps of some queries, whitenings, descriptors of the database.

    python book/explorer/make.py _build/embedded/explorer --untrained efficientnet_lite0 --trained NETWORK

The pictures are those of Diorama, which the library renders. explorer.js beside this file reads what is written here:
data.js, thumbnails.jpg, and the query pictures.
"""

import argparse
import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image, ImageOps

from rmaclib.checkpoints import open_network
from rmaclib.datasets import RetrievalDataset, open_collection, open_dataset
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.resolutions import combine
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.images import fit, read_image
from rmaclib.network import RMAC, NetworkSettings, SharedFeatures
from rmaclib.search.compression import CodeSettings, train_codes

LEVELS = (1, 2, 3)
SIZES = (160, 224, 320)  # longer sides in pixels; one resolution is the middle one
DIMS = 128  # of a descriptor: a whitening to few dimensions keeps the page small
CODES = (32, 16, 8)  # bytes of a code
QUERIES = 24
SHEET = 72  # pixels of a thumbnail
WHITENING_IMAGES = 400
POSITIVE = ("good", "ok")


class Blobs:
    """Arrays of one type, one after the other, each with a name."""

    def __init__(self, dtype: type):
        self.dtype, self.arrays, self.starts, self.length = dtype, [], {}, 0

    def add(self, name: str, array: np.ndarray) -> None:
        self.arrays.append(np.ascontiguousarray(array, self.dtype).ravel())
        self.starts[name] = self.length
        self.length += self.arrays[-1].size

    def packed(self) -> str:
        data = b"".join(array.tobytes() for array in self.arrays)
        return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def as_int8(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as 8-bit integers, and the scale of each: (N, D) int8 and (N,) with values ≈ integers × scale."""
    scale = np.maximum(np.abs(values).max(1), 1e-12) / 127
    return np.rint(values / scale[:, None]).astype(np.int8), scale


def rewhitened(network: RMAC, paths: list[Path], size: int) -> dict[int, RMAC]:
    """Networks of 1 to 3 levels on one backbone, with one whitening to few dimensions."""
    settings = NetworkSettings(network.backbone.name, levels=max(LEVELS))
    whitening = learn_whitening(RMAC(settings, network.backbone).eval(), paths, _at(size), dim=DIMS, progress=False)
    return {levels: RMAC(settings, network.backbone).set_whitening(whitening).change(levels=levels).eval()
            for levels in LEVELS}


def _at(size: int) -> ExtractionSettings:
    return ExtractionSettings((size,), precision="float32")


def write(data: RetrievalDataset, training: list[Path], networks: Mapping[str, RMAC], out: Path,
          queries: int = QUERIES, sizes: Sequence[int] = SIZES) -> None:
    """Write the explorer's data of a data set.

    Args:
        data: Whose pictures may be published.
        training: Images that whitenings and codebooks are learned on.
        networks: Name -> network of one feature map; its backbone is used, with a whitening of its own.
        out: The folder.
        queries: How many of the data set's queries, at most, each of another landmark while these last.
        sizes: Three longer sides in pixels.
    """
    out.mkdir(parents=True, exist_ok=True)
    by_landmark: dict[str, list] = {}
    for query in data.queries:
        by_landmark.setdefault(query.name.rpartition("_")[0], []).append(query)
    turn = sorted((place, name, query) for name, of_one in by_landmark.items() for place, query in enumerate(of_one))
    chosen = [query for _, _, query in turn[:queries]]
    index = {name: number for number, name in enumerate(data.names)}
    about = {"dims": DIMS, "sizes": list(sizes), "single": 1, "levels": list(LEVELS), "codes": list(CODES),
             "images": list(data.names), "queries": [], "shapes": [], "starts": []}
    for number, query in enumerate(chosen):
        picture = read_image(query.path)
        picture.save(out / f"query_{number}.jpg", quality=85)
        about["queries"].append({
            "name": query.name, "image": index[query.image], "file": f"query_{number}.jpg", "width": picture.width,
            "height": picture.height, "box": list(query.box) if query.box else None,
            "positives": sorted(index[name] for grade in POSITIVE for name in query.relevance.get(grade, ())),
            "junk": sorted(index[name] for name in query.relevance.get("junk", ()))})
    about["sheet"] = _thumbnails(data.paths, out / "thumbnails.jpg")
    int8, float32 = Blobs(np.int8), Blobs(np.float32)
    for name, network in networks.items():
        of_levels = rewhitened(network, training, sizes[1])
        about["channels"] = network.backbone.layers[0].channels
        _queries(name, of_levels[1], chosen, about, int8)
        fc, scale = as_int8(of_levels[1].fc.weight.detach().numpy())
        int8.add(f"fc_{name}", fc)
        float32.add(f"scale_{name}", scale)
        float32.add(f"shift_{name}", of_levels[1].shift.detach().numpy())
        shared = SharedFeatures({str(levels): of_one for levels, of_one in of_levels.items()})
        by_size = [shared.split(extract(shared, data.paths, _at(size), names=data.names, progress=False).vectors)
                   for size in sizes]
        for levels in LEVELS:
            of_sizes = [vectors[str(levels)] for vectors in by_size]
            int8.add(f"database_{name}_single_{levels}", as_int8(of_sizes[about["single"]])[0])
            int8.add(f"database_{name}_several_{levels}", as_int8(combine(of_sizes))[0])
        described = np.asarray(extract(of_levels[2], training, _at(sizes[1]), progress=False).vectors)
        for code_size in CODES:
            quantizer = train_codes(described, CodeSettings("pq", code_size)).pq
            words, scale = as_int8(faiss.vector_to_array(quantizer.centroids)[None])  # of each part its 256 words
            int8.add(f"codebook_{name}_{code_size}", words)
            float32.add(f"codebook_scale_{name}_{code_size}", scale)
    about["starts"] = [*int8.starts.items(), *float32.starts.items()]
    content = {"about": about, "bytes": {"int8": int8.packed(), "float32": float32.packed()}}
    text = json.dumps(content, separators=(",", ":"))
    (out / "data.js").write_text(f"window.explorerData = {text};\n", encoding="utf-8")


def _queries(name: str, network: RMAC, queries: list, about: dict, int8: Blobs) -> None:
    """Add the feature maps of the queries' whole pictures, a cell's channels together."""
    shapes = []
    for number, query in enumerate(queries):
        of_query = []
        for place, size in enumerate(about["sizes"]):
            pixels = torch.from_numpy(np.array(fit(read_image(query.path), size))).permute(2, 0, 1)[None]
            with torch.inference_mode():
                features = network.backbone.maps(pixels)[0][0]  # (C, rows, columns)
            cells = features.permute(1, 2, 0).numpy()  # (rows, columns, C)
            # Region vectors are normalised, so that the scale of a map doesn't matter.
            int8.add(f"map_{name}_{number}_{place}", as_int8(cells.reshape(1, -1))[0])
            of_query.append(list(features.shape[1:]))
        shapes.append(of_query)
    about["shapes"] = shapes


def _thumbnails(paths: tuple[Path, ...], file: Path) -> dict:
    """Write all pictures, small, on one sheet."""
    columns = math.ceil(math.sqrt(len(paths)))
    sheet = Image.new("RGB", (columns * SHEET, math.ceil(len(paths) / columns) * SHEET))
    for number, path in enumerate(paths):
        small = ImageOps.fit(read_image(path), (SHEET, SHEET))
        sheet.paste(small, (number % columns * SHEET, number // columns * SHEET))
    sheet.save(file, quality=60, optimize=True)
    return {"side": SHEET, "columns": columns}


def main() -> None:
    """Write the explorer's data of Diorama."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--untrained", required=True, help="a backbone, such as efficientnet_lite0")
    parser.add_argument("--trained", required=True, help="a network with the same one, such as those of notebook 03")
    parser.add_argument("--sizes", type=int, nargs=3, default=SIZES,
                        help="longer sides in pixels (default: 160 224 320)")
    options = parser.parse_args()
    networks = {name: open_network(getattr(options, name)) for name in ("untrained", "trained")}
    training = training_sample(open_collection("diorama_train"), WHITENING_IMAGES)
    write(open_dataset("diorama"), training, networks, options.out, sizes=options.sizes)


if __name__ == "__main__":
    main()
