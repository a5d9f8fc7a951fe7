"""Lists of images and ground truth: how to make each in a folder, how it is read, its content by a rule of its own.

make_…(material, folder) writes it; read_…(folder) returns its content, as JSON; expected_…(folder) what has to be read
of the files as they are now, None when they have to be refused. Runs in children of attack_server.
"""

import csv
import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

_NAMES = [f"a/{number} b.jpg" for number in range(8)] + ["plain.jpg", "é.jpg"]


def _lines(path: Path) -> list[str] | None:
    """Lines that aren't blank; None for a file that is no UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    # As text is read: three kinds of line ends.
    return [line.strip() for line in re.split("\r\n|\r|\n", text) if line.strip()]


def make_files(folder: Path, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def make_list(material: Path, folder: Path) -> None:
    make_files(folder, _NAMES)
    lines = [f"{name} {number % 3}" + (f" {10 + number} 100 20.5 {90 - number}" if number % 2 else "")
             for number, name in enumerate(_NAMES)]
    (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "labels.txt").write_text("tower\nbridge\nold town\n")


def _collection(images) -> list:
    rows = {(name, int(label), box and tuple(map(float, box)))
            for name, label, box in zip(images.names, images.labels, images.boxes, strict=True)}
    return [sorted(rows, key=repr), images.label_names]


def read_list(folder: Path):
    from rmaclib.datasets.layouts.lists import read_landmarks_list

    return _collection(read_landmarks_list(folder / "list.txt"))


def expected_list(folder: Path):
    """The content of each line by itself; None when a line has none."""
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


def make_csv(material: Path, folder: Path) -> None:
    make_files(folder, _NAMES)
    with (folder / "list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "x1", "y1", "x2", "y2"))
        for number, name in enumerate(_NAMES):
            table.writerow((name, ["tower", "old, town"][number % 2], *([5, 6.5, 70, 80] if number % 2 else [""] * 4)))


def read_csv(folder: Path):
    from rmaclib.datasets.layouts.lists import read_csv

    return _collection(read_csv(folder / "list.csv"))


def expected_csv(folder: Path):
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
    entries = set()
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
            entries.add((row["path"], label, box if any(box) else None))
    return [sorted(entries, key=repr), names] if entries else None


_IMAGES = [f"{place}_{number}" for place in ("tower", "bridge") for number in range(5)]
_GRADES = ("good", "ok", "junk")


def make_oxford(material: Path, folder: Path) -> None:
    make_files(folder / "jpg", [f"{name}.jpg" for name in _IMAGES])
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


def read_oxford(folder: Path):
    from rmaclib.datasets.layouts.oxford import read_oxford

    return _queries(read_oxford(folder))


def expected_oxford(folder: Path):
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


def make_revisited(protocol: int, arrays: bool) -> Callable:
    def make(material: Path, folder: Path) -> None:
        make_files(folder / "jpg", [f"{name}.jpg" for name in _IMAGES])

        def listed(numbers):
            return np.array(numbers, np.int64) if arrays else list(numbers)

        ground_truth = [{"bbx": np.array([10.0, 20, 300, 400]) if arrays else [10.0, 20.0, 300.0, 400.0],
                         "easy": listed([1, 2]), "hard": listed([3]), "junk": listed([4])},
                        {"bbx": [1.5, 2.0, 30.0, 40.0],
                         "easy": listed([6]), "hard": listed([7, 8]), "junk": listed([])}]
        content = {"imlist": _IMAGES, "qimlist": [_IMAGES[0], _IMAGES[5]], "gnd": ground_truth}
        with (folder / "gnd_roxford5k.pkl").open("wb") as file:
            pickle.dump(content, file, protocol=protocol)
    return make


def read_revisited(folder: Path):
    from rmaclib.datasets.layouts.revisited import read_revisited

    return _queries(read_revisited(folder))


class _Plain(pickle.Unpickler):
    def find_class(self, module, name):
        if module.split(".")[0] in ("numpy", "_codecs"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(name)


def expected_revisited(folder: Path):
    try:
        content = _Plain(io.BytesIO((folder / "gnd_roxford5k.pkl").read_bytes()), encoding="latin1").load()
        images, queries = content["imlist"], []
        for image, grades_of in zip(content["qimlist"], content["gnd"], strict=True):
            grades = {grade: sorted({images[number] for number in grades_of[grade]} & set(_IMAGES))
                      for grade in ("easy", "hard", "junk")}
            queries.append([image, image, [float(value) for value in grades_of["bbx"]], grades])
        return sorted(query for query in queries if query[1] in _IMAGES)
    except Exception:
        return None
