"""Every format that is read: how to make one, how it is read, and what a reading of the changed file may say.

All of this runs in children of attack_server, which may crash.
"""

import csv
import hashlib
import io
import json
import math
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

import numpy as np
import yaml


@dataclass(frozen=True)
class Format:
    """make(material, folder) writes it; kinds: pattern of the files that are damaged -> way of attack_mutations

    read(folder): what is in it, as JSON; expected(folder): what a reading of the files as they are now has to be equal
      to, None when they have to be refused; without it only the old reading is right
    cases: how many are tried in the whole form; cost: how much longer than others one takes
    """

    make: Callable
    kinds: dict[str, str]
    read: Callable
    expected: Callable | None = None
    cases: int = 120
    cost: int = 1


def digest(*parts) -> str:
    value = hashlib.sha256()
    for part in parts:
        value.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, default=list).encode())
    return value.hexdigest()


# --- networks and training ------------------------------------------------------------------------------------------


def _make_checkpoint(material: Path, folder: Path) -> None:
    shutil.copy(material / "network.safetensors", folder)


def _read_checkpoint(folder: Path):
    from rmaclib.checkpoints import fingerprint, load_checkpoint

    network = load_checkpoint(folder / "network.safetensors")
    return [fingerprint(network), asdict(network.settings)]


_STOPPED_AFTER = 1  # updates


class _Stopped(BaseException):
    pass


def _train(material: Path, out: Path, stop: bool):
    from rmaclib.checkpoints import load_checkpoint
    from rmaclib.datasets import open_collection
    from rmaclib.learning import TrainSettings, train
    from rmaclib.settings import read_settings

    def watch(rows):
        if stop and rows[-1]["update"] == _STOPPED_AFTER:
            raise _Stopped

    settings = read_settings(TrainSettings, material / "training.yml", {"updates": 2, "size": 64, "device": "cpu"})
    images = open_collection(str(material / "photos"))
    return train(load_checkpoint(material / "network.safetensors"), images, settings, out=out, validation=images,
                 progress=False, watch=watch)


def _make_training(material: Path, folder: Path) -> None:
    try:
        _train(material, folder / "out", stop=True)
    except _Stopped:
        pass


def _read_training(folder: Path):
    from rmaclib.checkpoints import fingerprint

    trained = _train(_material(folder), folder / "out", stop=False)
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in trained.history]
    return [fingerprint(trained.network), trained.best_update, rows, sorted(trained.bad)]


def _make_log(material: Path, folder: Path) -> None:
    """As _make_training, with what a whole run gives."""
    _make_training(material, folder)
    shutil.copytree(folder / "out", folder / "whole" / "out")
    shutil.copy(folder / "material", folder / "whole")
    (folder / "whole.json").write_text(json.dumps(_read_training(folder / "whole")))
    shutil.rmtree(folder / "whole")


def _expected_log(folder: Path):
    """A whole run's, with the rows as far as the run had come as they are in the file now: numbers are not signed."""
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


def _make_graph(material: Path, folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from rmaclib.cleaning import CleanSettings, KeypointSettings, clean
    from rmaclib.datasets import open_collection

    clean(open_collection(str(material / "photos")), CleanSettings(KeypointSettings(count=200, size=160)),
          out=folder / "run", executor=ThreadPoolExecutor(1), progress=False)
    graphs = sorted((folder / "run").rglob("*.npz"))
    shutil.move(graphs[1], folder / "graph.npz")
    shutil.rmtree(folder / "run")


def _read_graph(folder: Path):
    from rmaclib.cleaning import CleanSettings, load_graph, select

    graph = load_graph(folder / "graph.npz")
    selection = select(graph, CleanSettings())
    # Texts may be others: an archive that is whole says of itself what they are.
    texts = [[type(text).__name__ for text in part] for part in (graph.names, graph.reasons)]
    return [texts, digest(graph.sizes, graph.pairs, graph.inliers, graph.affines, graph.rectangles),
            digest(selection.component, selection.boxes)]


# --- descriptors and indexes ----------------------------------------------------------------------------------------


def _described(material: Path, out: Path):
    from rmaclib.checkpoints import load_checkpoint
    from rmaclib.datasets import open_collection
    from rmaclib.search.descriptors import DescribeSettings, describe

    paths = open_collection(str(material / "photos")).paths[:11]
    return describe(load_checkpoint(material / "network.safetensors"), paths,
                    DescribeSettings((64,), precision="float32", device="cpu"), out=out, progress=False)


def _make_descriptors(material: Path, folder: Path) -> None:
    _described(material, folder / "out")


def _read_descriptors(folder: Path):
    from rmaclib.search.descriptors import load_descriptors

    loaded = load_descriptors(folder / "out")
    return [list(loaded.vectors.shape), digest(np.asarray(loaded.vectors, np.float32)), loaded.names, loaded.bad]


def _make_chunks(material: Path, folder: Path) -> None:
    """Descriptors of a run that stopped in its last chunk."""
    from rmaclib.search import descriptors

    plain, pieces = np.savez, []

    def stops(*arguments, **arrays):
        pieces.append(1)
        if len(pieces) == 3:
            raise _Stopped
        plain(*arguments, **arrays)

    descriptors.np.savez = stops
    try:
        _described(material, folder / "out")
    except _Stopped:
        pass
    finally:
        descriptors.np.savez = plain


def _read_chunks(folder: Path):
    described = _described(_material(folder), folder / "out")
    return [digest(np.asarray(described.vectors)), described.names, described.bad]


def _make_marker(material: Path, folder: Path) -> None:
    from rmaclib.folders import output_folder

    with output_folder(folder / "out", "index") as out:
        out.will_write(["000001.txt", "000001.faiss", "meta.json"])


def _read_marker(folder: Path):
    from rmaclib.folders import output_folder

    with output_folder(folder / "out", "index") as out:
        return sorted(out.listed())


def _vectors(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)


def _make_index(count: int) -> Callable:
    def make(material: Path, folder: Path) -> None:
        from rmaclib.search import vector_index

        # Small numbers choose the structures of large ones.
        vector_index.FLAT_UP_TO, vector_index.HNSW_UP_TO = 60, 100
        index = vector_index.VectorIndex(16, {"made": "here"})
        index.add(_vectors(count), [f"picture {number}.jpg" for number in range(count)], progress=False)
        index.remove(["picture 3.jpg"])
        index.save(folder / "out")
    return make


def _read_index(folder: Path):
    from rmaclib.search.vector_index import VectorIndex

    index = VectorIndex.load(folder / "out")
    return [index.names, index.about, index.dim, index.search(_vectors(5), 7)]


def _make_image_index(material: Path, folder: Path) -> None:
    from rmaclib.checkpoints import load_checkpoint
    from rmaclib.datasets import open_collection
    from rmaclib.search.descriptors import DescribeSettings
    from rmaclib.search.index import Index

    Index.build(list(open_collection(str(material / "photos")).paths[:5]),
                load_checkpoint(material / "network.safetensors"),
                DescribeSettings((64,), precision="float32", device="cpu"), out=folder / "out", progress=False)


def _read_image_index(folder: Path):
    from rmaclib.checkpoints import fingerprint
    from rmaclib.search.index import Index

    index = Index.load(folder / "out")
    return [index.vectors.names, fingerprint(index.network), asdict(index.settings)]


# --- lists and ground truth -----------------------------------------------------------------------------------------

_NAMES = [f"a/{number} b.jpg" for number in range(8)] + ["plain.jpg", "é.jpg"]


def _lines(path: Path) -> list[str] | None:
    """Lines that aren't blank; None for a file that is no UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    # As text is read: three kinds of line ends.
    return [line.strip() for line in re.split("\r\n|\r|\n", text) if line.strip()]


def _make_files(folder: Path, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _make_list(material: Path, folder: Path) -> None:
    _make_files(folder, _NAMES)
    lines = [f"{name} {number % 3}" + (f" {10 + number} 100 20.5 {90 - number}" if number % 2 else "")
             for number, name in enumerate(_NAMES)]
    (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "labels.txt").write_text("tower\nbridge\nold town\n")


def _collection(images) -> list:
    rows = {(name, int(label), box and tuple(map(float, box)))
            for name, label, box in zip(images.names, images.labels, images.boxes, strict=True)}
    return [sorted(rows, key=repr), images.label_names]


def _read_list(folder: Path):
    from rmaclib.datasets.lists import read_landmarks_list

    return _collection(read_landmarks_list(folder / "list.txt"))


def _expected_list(folder: Path):
    """What each line says by itself; None when one says nothing."""
    lines, names = _lines(folder / "list.txt"), _lines(folder / "labels.txt")
    if not lines or names is None:
        return None
    rows = set()
    for line in lines:
        words, numbers = line.split(), 0
        while numbers < len(words) - 1 and _is_number(words[-1 - numbers]):
            numbers += 1
        if numbers not in (1, 5):
            return None
        name, label, *box = line.rsplit(maxsplit=numbers)
        if not re.fullmatch("[0-9]+", label) or int(label) >= len(names):
            return None
        if box:
            x1, x2, y1, y2 = map(float, box)
            if not (math.isfinite(x1 + x2 + y1 + y2) and x1 < x2 and y1 < y2):
                return None
            box = x1, y1, x2, y2
        if _is_file(folder / name):
            rows.add((name, int(label), tuple(box) or None))
    return [sorted(rows, key=repr), tuple(names)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _make_csv(material: Path, folder: Path) -> None:
    _make_files(folder, _NAMES)
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "x1", "y1", "x2", "y2"))
        for number, name in enumerate(_NAMES):
            table.writerow((name, ["tower", "old, town"][number % 2], *([5, 6.5, 70, 80] if number % 2 else [""] * 4)))


def _read_csv(folder: Path):
    from rmaclib.datasets.lists import read_csv

    return _collection(read_csv(folder / "list.csv"))


def _expected_csv(folder: Path):
    try:
        text = (folder / "list.csv").read_bytes().decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    if not rows or "path" not in rows[0] or any(len(row) != len(rows[0]) for row in rows):
        return None
    rows = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    labels = [row["label"].strip() for row in rows] if "label" in (rows or [{}])[0] else None
    numbered = labels is None or all(re.fullmatch("[0-9]+", label) for label in labels)
    names = None if numbered else tuple(sorted(set(labels)))
    found = set()
    for number, row in enumerate(rows):
        label = 0 if labels is None else int(labels[number]) if numbered else names.index(labels[number])
        box = [row.get(corner, "").strip() for corner in ("x1", "y1", "x2", "y2")]
        if any(box):
            if not all(map(_is_number, box)):
                return None
            x1, y1, x2, y2 = box = tuple(map(float, box))
            if not (math.isfinite(sum(box)) and x1 < x2 and y1 < y2):
                return None
        if _is_file(folder / row["path"]):
            found.add((row["path"], label, box if any(box) else None))
    return [sorted(found, key=repr), names] if found else None


_IMAGES = [f"{place}_{number}" for place in ("tower", "bridge") for number in range(5)]
_GRADES = ("good", "ok", "junk")


def _make_oxford(material: Path, folder: Path) -> None:
    _make_files(folder / "jpg", [f"{name}.jpg" for name in _IMAGES])
    (folder / "gt").mkdir()
    for place in ("tower", "bridge"):
        names = [name for name in _IMAGES if name.startswith(place)]
        (folder / "gt" / f"{place}_1_query.txt").write_text(f"oxc1_{names[0]} 10.5 20 300 400.25\n")
        for grade, part in zip(_GRADES, (names[:2], names[2:4], names[4:]), strict=True):
            (folder / "gt" / f"{place}_1_{grade}.txt").write_text("".join(f"{name}\n" for name in part))


def _queries(dataset) -> list:
    return sorted([query.name, query.image, list(query.box), {grade: sorted(names) for grade, names in
                                                              sorted(query.relevance.items())}]
                  for query in dataset.queries)


def _read_oxford(folder: Path):
    from rmaclib.datasets.oxford import read_oxford

    return _queries(read_oxford(folder))


def _expected_oxford(folder: Path):
    queries = []
    for path in sorted((folder / "gt").glob("*_query.txt")):
        name, lines = path.name.removesuffix("_query.txt"), _lines(path)
        if not lines or len(lines) != 1 or len(lines[0].split()) != 5:
            return None
        image, *box = lines[0].split()
        lists = {grade: _lines(folder / "gt" / f"{name}_{grade}.txt") for grade in _GRADES}
        if not all(map(_is_number, box)) or None in lists.values():
            return None
        if any(len(line.split()) != 1 for names in lists.values() for line in names):
            return None
        positive = {*lists["good"], *lists["ok"]}
        x1, y1, x2, y2 = map(float, box)
        if positive & set(lists["junk"]) or not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
            return None
        image = image.removeprefix("oxc1_")
        if image in _IMAGES:
            queries.append([name, image, [x1, y1, x2, y2],
                            {grade: sorted(set(names) & set(_IMAGES)) for grade, names in sorted(lists.items())}])
    return queries or None


def _make_revisited(protocol: int, arrays: bool) -> Callable:
    def make(material: Path, folder: Path) -> None:
        _make_files(folder / "jpg", [f"{name}.jpg" for name in _IMAGES])

        def listed(numbers):
            return np.array(numbers, np.int64) if arrays else list(numbers)

        truths = [{"bbx": np.array([10.0, 20, 300, 400]) if arrays else [10.0, 20.0, 300.0, 400.0],
                   "easy": listed([1, 2]), "hard": listed([3]), "junk": listed([4])}, 
                  {"bbx": [1.5, 2.0, 30.0, 40.0], "easy": listed([6]), "hard": listed([7, 8]), "junk": listed([])}]
        content = {"imlist": _IMAGES, "qimlist": [_IMAGES[0], _IMAGES[5]], "gnd": truths}
        with (folder / "gnd_roxford5k.pkl").open("wb") as file:
            pickle.dump(content, file, protocol=protocol)
    return make


def _read_revisited(folder: Path):
    from rmaclib.datasets.revisited import read_revisited

    return _queries(read_revisited(folder))


class _Plain(pickle.Unpickler):
    def find_class(self, module, name):
        if module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(name)


def _expected_revisited(folder: Path):
    try:
        content = _Plain(io.BytesIO((folder / "gnd_roxford5k.pkl").read_bytes()), encoding="latin1").load()
        images, queries = content["imlist"], []
        for image, truth in zip(content["qimlist"], content["gnd"], strict=True):
            grades = {grade: sorted({images[number] for number in truth[grade]} & set(_IMAGES))
                      for grade in ("easy", "hard", "junk")}
            queries.append([image, image, [float(value) for value in truth["bbx"]], grades])
        return sorted(query for query in queries if query[1] in _IMAGES)
    except Exception:
        return None


# --- settings and records -------------------------------------------------------------------------------------------

_SETTINGS = {
    "train.yml": "triplets: 16\nlr: 0.0001\nsize: 320\nmargin: 0.2\nflip: true\noptimizer: adamw\nclip: null\nwarmup: 3\n",
    "classify.yml": "batch: 8\nshorter: [200, 256]\nside: 192\nlr: 0.001\nupdates: 100\n",
    "propose.yml": "images: 4\nanchors: 5\nhidden: 64\nseed: 3\n",
    "clean.yml": "keypoints: {count: 500, size: 512}\ngraph:\n  threshold: 12\n  conductance: 0.02\n  largest: 1\n"
                 "exhaustive: 300\nneighbours: 50\n",
}


def _make_settings(name: str) -> Callable:
    def make(material: Path, folder: Path) -> None:
        (folder / name).write_text(_SETTINGS[name])
    return make


def _settings_class(name: str):
    from rmaclib import learning
    from rmaclib.cleaning import CleanSettings

    return {"train.yml": learning.TrainSettings, "classify.yml": learning.ClassifySettings,
            "propose.yml": learning.ProposeSettings, "clean.yml": CleanSettings}[name]


def _read_settings(folder: Path):
    from rmaclib.settings import read_settings

    path = next(path for path in folder.iterdir() if path.name in _SETTINGS)
    return asdict(read_settings(_settings_class(path.name), path))


def _expected_settings(folder: Path):
    """The defaults, with what the file says over them, where it says numbers, texts and lists of the right kind."""
    path = next(path for path in folder.iterdir() if path.name in _SETTINGS)
    try:
        content = yaml.safe_load(path.read_bytes().decode())
        return _over(_settings_class(path.name), {} if content is None else content)
    except Exception:
        return None


def _over(kind, content: dict) -> dict:
    plain = asdict(kind())
    result = dict(plain)
    for field in fields(kind):
        if field.name not in content:
            continue
        value, default = content.pop(field.name), plain[field.name]
        if isinstance(default, dict):
            part = field.default_factory if field.default_factory is not MISSING else type(field.default)
            result[field.name] = _over(type(part()), value)
            continue
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise ValueError("no setting is negative or without end")
        if value is not None and default is not None and not _is_alike(value, default):
            raise TypeError("another kind of value")
        result[field.name] = tuple(value) if isinstance(value, list) else value
    if content:
        raise KeyError(str(content))
    return result


def _is_alike(value, default) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, list) if isinstance(default, tuple | list) else isinstance(value, type(default))


def _make_record(material: Path, folder: Path) -> None:
    record = {"key": "01_rmac/photos/baseline", "value": 0.617, "unit": "mAP", "protocol": "oxford",
              "dataset": {"name": "photos", "counts": {"images": 1053, "queries": 55}}, "settings": {"levels": 3},
              "seed": 0, "versions": {"python": "3.11.7"}, "commit": "f35a220d0dd2", "seconds": 12.5,
              "machine": "2 cores", "date": "2026-11-24", "notebook": "01_rmac", "profile": "photos"}
    (folder / "record.json").write_text(json.dumps(record, indent=2))


def _read_record(folder: Path):
    from rmaclib.results import load_result

    return asdict(load_result(folder / "record.json"))


def _expected_record(folder: Path):
    texts = {"key", "unit", "protocol", "commit", "machine", "date", "notebook", "profile"}
    try:
        record = json.loads((folder / "record.json").read_bytes().decode())
        kinds = {**dict.fromkeys(texts, str), "value": int | float | str, "dataset": dict, "settings": dict,
                 "seed": int | None, "versions": dict, "seconds": int | float}
        if record.keys() != kinds.keys() or any(not isinstance(record[key], kind) or isinstance(record[key], bool)
                                                for key, kind in kinds.items()):
            return None
        return record
    except Exception:
        return None


FORMATS: dict[str, Format] = {
    "checkpoint": Format(_make_checkpoint, {"network.safetensors": "safetensors"}, _read_checkpoint, cases=160),
    "state of training": Format(_make_training, {"out/state.safetensors": "safetensors"}, _read_training, cases=60,
                                cost=6),
    "run of training": Format(_make_training, {"out/run.json": "json"}, _read_training, cases=50, cost=6),
    "log of training": Format(_make_log, {"out/log.csv": "text"}, _read_training, _expected_log, 50, 6),
    "best network of training": Format(_make_training, {"out/best.safetensors": "safetensors"}, _read_training,
                                       cases=40, cost=6),
    "match graph": Format(_make_graph, {"graph.npz": "npz"}, _read_graph, cases=200),
    "descriptors": Format(_make_descriptors, {"out/descriptors.npy": "binary", "out/names.txt": "text",
                                              "out/meta.json": "json"}, _read_descriptors, cases=200),
    "part of descriptors": Format(_make_chunks, {"out/partial/*.npz": "npz", "out/partial/meta.json": "json"},
                                  _read_chunks, cases=100, cost=2),
    "marker": Format(_make_marker, {"out/.rmac.json": "json"}, _read_marker, cases=100),
    "index, flat": Format(_make_index(40), {"out/*.faiss": "binary", "out/*.txt": "text", "out/meta.json": "json"},
                          _read_index, cases=150),
    "index, graph": Format(_make_index(90), {"out/*.faiss": "binary"}, _read_index, cases=80),
    "index, codes": Format(_make_index(300), {"out/*.faiss": "binary"}, _read_index, cases=80),
    "index of images": Format(_make_image_index, {"out/meta.json": "json", "out/network.safetensors": "safetensors"},
                              _read_image_index, cases=80),
    "Landmarks list": Format(_make_list, {"list.txt": "text", "labels.txt": "text"}, _read_list, _expected_list, 150),
    "CSV list": Format(_make_csv, {"list.csv": "text"}, _read_csv, _expected_csv, 150),
    "Oxford ground truth": Format(_make_oxford, {"gt/*.txt": "text"}, _read_oxford, _expected_oxford, 150),
    "revisited pickle": Format(_make_revisited(2, False), {"*.pkl": "binary"}, _read_revisited, _expected_revisited,
                               100),
    "revisited pickle of arrays": Format(_make_revisited(4, True), {"*.pkl": "binary"}, _read_revisited,
                                         _expected_revisited, 100),
    **{f"settings {name}": Format(_make_settings(name), {name: "yaml"}, _read_settings, _expected_settings, 60)
       for name in _SETTINGS},
    "result record": Format(_make_record, {"record.json": "json"}, _read_record, _expected_record, 120),
}
