"""Files that are no text: how to make each in a folder, and how it is read. Runs in children of attack_server.

make_…(material, folder) writes it; read_…(folder) returns its content, as JSON.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np


def digest(*parts) -> str:
    value = hashlib.sha256()
    for part in parts:
        value.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, default=list).encode())
    return value.hexdigest()


# --- networks and training ------------------------------------------------------------------------------------------


def make_checkpoint(material: Path, folder: Path) -> None:
    shutil.copy(material / "network.safetensors", folder)


def read_checkpoint(folder: Path):
    from rmaclib.checkpoints import fingerprint, load_network

    network = load_network(folder / "network.safetensors")
    return [fingerprint(network), asdict(network.settings)]


_STOPPED_AFTER = 1  # updates


class _Stopped(BaseException):
    pass


def _train(material: Path, out: Path, stop: bool):
    from rmaclib.checkpoints import load_network
    from rmaclib.datasets import open_collection
    from rmaclib.foundation.settings import from_mapping, read_yaml
    from rmaclib.learning import RankingSettings, train_ranking

    def watch(rows):
        if stop and rows[-1]["update"] == _STOPPED_AFTER:
            raise _Stopped

    given = read_yaml(material / "training.yml") | {"updates": 2, "size": 64, "device": "cpu"}
    settings = from_mapping(RankingSettings, given, "training.yml")
    images = open_collection(str(material / "photos"))
    return train_ranking(load_network(material / "network.safetensors"), images, settings, out=out,
                         validation=images, progress=False, watch=watch)


def make_training(material: Path, folder: Path) -> None:
    """A run that stopped in the middle, and the result of a whole run."""
    try:
        _train(material, folder / "out", stop=True)
    except _Stopped:
        pass
    shutil.copytree(folder / "out", folder / "whole" / "out")
    shutil.copy(folder / "material", folder / "whole")
    (folder / "whole.json").write_text(json.dumps(read_training(folder / "whole")))
    shutil.rmtree(folder / "whole")


def read_training(folder: Path):
    from rmaclib.checkpoints import fingerprint

    trained = _train(_material(folder), folder / "out", stop=False)
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in trained.history]
    return [fingerprint(trained.network), trained.best_update, rows, sorted(trained.bad)]


def expected_training(folder: Path):
    """A whole run's, with the rows of the stopped run as they are in the file now: log.csv has no checksum."""
    reading = json.loads((folder / "whole.json").read_text())
    columns = [*reading[2][0], "seconds"]
    try:
        header, *lines = (folder / "out" / "log.csv").read_bytes().decode().split("\n")[:-1]
        rows = [[float(value) if value else None for value in line.split(",")] for line in lines]
        rows = [dict(zip(columns, row, strict=True)) for row in rows]
    except ValueError:
        return None
    if header != ",".join(columns) or [row["update"] for row in rows] != list(range(_STOPPED_AFTER + 1)):
        return None
    if not all(math.isfinite(value) for row in rows for value in row.values() if value is not None):
        return None
    for row in rows:
        del row["seconds"]
    reading[2][:len(rows)] = rows
    return reading


def _material(folder: Path) -> Path:
    return Path((folder / "material").read_text())


# --- cleaning -------------------------------------------------------------------------------------------------------


def make_graph(material: Path, folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from rmaclib.cleaning import CleanSettings, KeypointSettings, clean
    from rmaclib.datasets import open_collection

    clean(open_collection(str(material / "photos")), CleanSettings(KeypointSettings(count=200, size=160)),
          out=folder / "run", report=False, executor=ThreadPoolExecutor(1), progress=False)
    graphs = sorted((folder / "run").rglob("*.npz"))
    shutil.move(graphs[1], folder / "graph.npz")
    shutil.rmtree(folder / "run")


def read_graph(folder: Path):
    from rmaclib.cleaning import CleanSettings, load_graph, select

    graph = load_graph(folder / "graph.npz")
    selection = select(graph, CleanSettings())
    # Texts may be others: an archive that is whole says of itself what they are.
    texts = [[type(text).__name__ for text in part] for part in (graph.names, graph.reasons)]
    return [texts, digest(graph.sizes, graph.pairs, graph.inliers, graph.affines, graph.rectangles),
            digest(selection.component, selection.boxes)]


# --- descriptors and indexes ----------------------------------------------------------------------------------------


def _extract(material: Path, out: Path):
    from rmaclib.checkpoints import load_network
    from rmaclib.datasets import open_collection
    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.extraction.descriptors import extract

    paths = open_collection(str(material / "photos")).paths[:11]
    return extract(load_network(material / "network.safetensors"), paths,
                   ExtractionSettings((64,), precision="float32", device="cpu"), out=out, progress=False)


def make_descriptors(material: Path, folder: Path) -> None:
    _extract(material, folder / "out")


def read_descriptors(folder: Path):
    from rmaclib.extraction.folder import load_descriptors

    loaded = load_descriptors(folder / "out")
    return [list(loaded.vectors.shape), digest(np.asarray(loaded.vectors, np.float32)), loaded.names, loaded.bad]


def make_chunks(material: Path, folder: Path) -> None:
    """Descriptors of a run that stopped in its last chunk."""
    from rmaclib.extraction import descriptors

    plain, pieces = np.savez, []

    def stops(*arguments, **arrays):
        pieces.append(1)
        if len(pieces) == 3:
            raise _Stopped
        plain(*arguments, **arrays)

    descriptors.np.savez = stops
    try:
        _extract(material, folder / "out")
    except _Stopped:
        pass
    finally:
        descriptors.np.savez = plain


def read_chunks(folder: Path):
    descriptors = _extract(_material(folder), folder / "out")
    return [digest(np.asarray(descriptors.vectors)), descriptors.names, descriptors.bad]


def make_marker(material: Path, folder: Path) -> None:
    from rmaclib.foundation.folders import output_folder

    with output_folder(folder / "out", "index") as out:
        out.will_write(["000001.txt", "000001.faiss", "meta.json"])


def read_marker(folder: Path):
    from rmaclib.foundation.folders import output_folder

    with output_folder(folder / "out", "index") as out:
        return sorted(out.listed())


def _vectors(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)


def make_index(count: int) -> Callable:
    def make(material: Path, folder: Path) -> None:
        from rmaclib.search.structures import StructureLimits
        from rmaclib.search.vector_index import VectorIndex

        # A few hundred vectors get the structures of many thousands.
        index = VectorIndex(16, {"made": "here"}, StructureLimits(60, 100))
        index.add(_vectors(count), [f"picture {number}.jpg" for number in range(count)], progress=False)
        index.remove(["picture 3.jpg"])
        index.save(folder / "out")
    return make


def read_index(folder: Path):
    from rmaclib.search.vector_index import VectorIndex

    index = VectorIndex.load(folder / "out")
    return [index.names, index.about, index.dim, index.search(_vectors(5), 7)]


def make_image_index(material: Path, folder: Path) -> None:
    from rmaclib.checkpoints import load_network
    from rmaclib.datasets import open_collection
    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.search.index import Index

    Index.build(list(open_collection(str(material / "photos")).paths[:5]),
                load_network(material / "network.safetensors"),
                ExtractionSettings((64,), precision="float32", device="cpu"), out=folder / "out", progress=False)


def read_image_index(folder: Path):
    from rmaclib.checkpoints import fingerprint
    from rmaclib.search.index import Index

    index = Index.load(folder / "out")
    return [index.vectors.names, fingerprint(index.network), asdict(index.settings)]
