"""Rendering Diorama: one task a subject, in any executor, picture by picture; a killed run goes on."""

import csv
import io
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from generator.contents import (
    EDITION,
    GOOD,
    HOLIDAYS,
    JUNK,
    OK,
    TEST,
    TRAIN,
    Shot,
    contents,
    is_validation,
    landmark_names,
)
from generator.copies import box_in_copy, copied
from generator.studio import TRUTH, Studio
from rmaclib.datasets.layouts.lists import write_landmarks_list
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.files import whole_file, write_json, write_text

LARGE, AGAIN = 24_000, 0.75  # bytes of a large file, and the quality of its second compression over the first
_CORNERS = ("x1", "y1", "x2", "y2")
_NOTES = ".truth"  # beside the pictures while they are made
MARKER = "diorama.json"  # written last: where it is, the folder is whole


def render(
    out: Path,
    seed: int = 0,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    only: Sequence[str] | None = None,
    progress: bool = True,
) -> dict:
    """Render the data set into a folder: pictures, lists, ground truth.

    out: train/ (Landmarks lists), test/ (Oxford layout), holidays/, each with its truth.csv, which no method
      reads; diorama.json
    executor: any; by default a pool of `workers` processes (the machine's cores)
    only: paths to render, and no lists then; everything by default
    A picture that is there is kept, so a killed run goes on where it was, and a whole folder costs nothing.
    returns: what diorama.json says, {} as long as the folder isn't whole
    raises ImportError without Mitsuba; ValueError: unknown paths, or a folder that holds pictures of another seed or
      edition
    """
    out = Path(out)
    shots = contents(seed)
    unknown = sorted(set(only or ()) - {shot.path for shot in shots})
    if unknown:
        raise ValueError(f"no such picture in Diorama: {', '.join(unknown[:5])}")
    about = _check_folder(out, seed)
    wanted = [shot for shot in shots if only is None or shot.path in only]
    by_path = {shot.path: shot for shot in shots}
    originals = {shot.source for shot in wanted if shot.copy} - {shot.path for shot in wanted}
    wanted += [by_path[path] for path in sorted(originals)]
    # Until the folder is whole, a picture counts with its note only: what it shows goes into truth.csv and lists.
    missing = [shot for shot in wanted if not ((out / shot.path).is_file() and (about or _note(out, shot).is_file()))]
    tasks = defaultdict(list)
    for shot in missing:
        if not shot.copy:
            tasks[shot.subject].append(shot)
    # Long tasks first, so that no worker is left with one at the end.
    ordered = sorted(tasks.values(), key=len, reverse=True)
    pool = executor or ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with tqdm(
        total=len(wanted),
        initial=len(wanted) - len(missing),
        desc="render",
        unit="image",
        disable=None if progress else True,
    ) as bar:
        try:
            futures = {pool.submit(_render_subject, group, out): group for group in ordered}
            for future in as_completed(futures):
                future.result()
                bar.update(len(futures[future]))
            for shot in missing:
                if shot.copy:
                    _render_copy(shot, by_path[shot.source], out)
                    bar.update()
        finally:
            if executor is None:
                pool.shutdown(cancel_futures=True)
    if only is None and not about:
        about = _finish(out, shots, seed)
    if about:
        shutil.rmtree(out / _NOTES, ignore_errors=True)
    return about


def _check_folder(out: Path, seed: int) -> dict:
    """What diorama.json says of a whole folder, else {}; in that case the folder is marked with edition and seed."""
    mark, wanted = out / _NOTES / "made", f"edition {EDITION}, seed {seed}"
    if (out / MARKER).is_file():
        about = json.loads((out / MARKER).read_text(encoding="utf-8"))
        made = f"edition {about['edition']}, seed {about['seed']}"
    else:
        about, made = {}, mark.read_text() if mark.is_file() else wanted
    if made != wanted:
        raise ValueError(f"{out}: expected pictures of {wanted}, found some of {made}")
    if not about:
        write_text(mark, wanted)
    return about


def _note(out: Path, shot: Shot) -> Path:
    return out / _NOTES / (shot.path.replace("/", "__") + ".json")


def _render_subject(shots: Sequence[Shot], out: Path) -> None:
    """All wanted pictures of one subject: it is built once."""
    studio = Studio(shots[0].subject)
    for shot in shots:
        pixels, film, truth = studio.make(shot)
        with whole_file(out / shot.path) as temporary:
            publish(Image.fromarray(pixels), temporary, film.quality)
        write_json(_note(out, shot), truth)


def _render_copy(shot: Shot, original: Shot, out: Path) -> None:
    """A picture that is made of another one, which is there."""
    rng = np.random.default_rng([shot.seed, 53])
    with Image.open(out / original.path) as image:
        pixels = np.asarray(image.convert("RGB"))
    place_name = Path(shot.path).parent.name.split("_")[0]
    copy, place = copied(rng, shot.copy, pixels, place_name)
    truth = json.loads(_note(out, original).read_text(encoding="utf-8"))
    box = truth["x1"] != "" and box_in_copy(
        tuple(truth[corner] for corner in _CORNERS), place, truth["width"], truth["height"]
    )
    truth |= dict(zip(_CORNERS, box or [""] * 4, strict=True))
    truth |= {"profile": shot.copy, "copy_of": original.path.removeprefix(f"{shot.part}/"), "grade": ""}
    with whole_file(out / shot.path) as temporary:
        publish(Image.fromarray(copy), temporary, int(rng.integers(45, 75)))
    write_json(_note(out, shot), truth)


def publish(picture: Image.Image, path: Path, quality: int) -> None:
    """Save a picture as the web would have it: what is large is compressed once more, as sites do that pass it on."""
    picture.save(path, quality=quality, optimize=True, progressive=True)
    if path.stat().st_size > LARGE:
        with Image.open(path) as saved:
            again = saved.copy()
        again.save(path, quality=round(AGAIN * quality), optimize=True, progressive=True)


# ---- lists


def _finish(out: Path, shots: Sequence[Shot], seed: int) -> dict:
    """Write lists and ground truth; then the marker."""
    truth = {shot.path: json.loads(_note(out, shot).read_text(encoding="utf-8")) for shot in shots}
    names = landmark_names(seed)
    labels = names[: 1 + max(shot.label for shot in shots if shot.part == TRAIN)]
    write_text(out / "train" / "landmarks.txt", "".join(name + "\n" for name in labels))
    for part, wanted in (("train", False), ("val", True)):
        chosen = [shot for shot in shots if shot.part == TRAIN and is_validation(shot) == wanted]
        paths = [shot.path.removeprefix("train/") for shot in chosen]
        root = out / "train"
        write_landmarks_list(
            root / f"annotation_full_{part}.txt",
            LabelledImages(
                part,
                root,
                tuple(paths),
                tuple(root / path for path in paths),
                tuple(shot.label for shot in chosen),
                (None,) * len(paths),
            ),
        )
    _oxford_files(out / "test" / "gt", [shot for shot in shots if shot.part == TEST], truth, names[len(labels) :])
    for part in (TRAIN, TEST, HOLIDAYS):
        rows = [{**truth[shot.path], "path": shot.path.removeprefix(f"{part}/")} for shot in shots if shot.part == part]
        write_text(out / part / "truth.csv", _csv(rows))
    about = {
        "name": "Diorama",
        "edition": EDITION,
        "seed": seed,
        "licence": "CC0-1.0",
        "images": {part: sum(shot.part == part for shot in shots) for part in (TRAIN, TEST, HOLIDAYS)},
        "bytes": sum((out / shot.path).stat().st_size for shot in shots),
    }
    write_json(out / MARKER, about)
    return about


def _oxford_files(folder: Path, shots: Sequence[Shot], truth: dict[str, dict], names: Sequence[str]) -> None:
    """The queries of each landmark, and for each the same lists of good, ok and junk pictures."""
    for label, name in enumerate(names):
        mine = [shot for shot in shots if shot.label == label]
        stems = {grade: [Path(shot.path).stem for shot in mine if shot.wanted == grade] for grade in (GOOD, OK, JUNK)}
        queries = [shot for shot in mine if shot.query]
        for number, shot in enumerate(queries, 1):
            box = " ".join(str(truth[shot.path][corner]) for corner in _CORNERS)
            write_text(folder / f"{name}_{number}_query.txt", f"{Path(shot.path).stem} {box}\n")
            for grade, listed in stems.items():
                write_text(folder / f"{name}_{number}_{grade}.txt", "".join(stem + "\n" for stem in listed))


def _csv(rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, TRUTH, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row[name] for name in TRUTH} for row in rows)
    return text.getvalue()
