"""What cleaning writes for people and later stages: the clean list, tables, and a page with thumbnails.

Files in the folder of a run, beside ``graphs/``:

- ``annotation_clean.txt``, the clean list in the Landmarks release's format, with paths from this folder;
  ``labels.txt``, the names of its labels
- ``images.csv``: every image, kept or why not; ``landmarks.csv``: every class
- ``settings.json``: the settings
- ``report.html`` with ``thumbnails/``
"""

import csv
import html
import io
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import ImageDraw
from tqdm import tqdm

from rmaclib.boxes import Box
from rmaclib.cleaning.folder import (
    IMAGE_TABLE,
    LABELS,
    LANDMARK_TABLE,
    LIST,
    PAGE,
    SETTINGS,
    cleaning_folder,
    list_name,
    thumbnail_name,
)
from rmaclib.cleaning.settings import CleanSettings
from rmaclib.cleaning.types import Cleaned, Landmark
from rmaclib.datasets import write_landmarks_list
from rmaclib.foundation.files import as_line, whole_file, write_json, write_text
from rmaclib.foundation.folders import OutputFolder
from rmaclib.foundation.settings import whole_number
from rmaclib.images import ImageError, read_image, resize_longer

IMAGE_COLUMNS = ("path", "label", "landmark", "component", "reason", "edges", "inliers", "x1", "y1", "x2", "y2")
LANDMARK_COLUMNS = ("label", "landmark", "images", "kept", "share", "unreadable", "pairs", "edges", "rejected",
                    "rounds", "converged")
_THUMBNAIL = 128  # longer side in pixels
_BOX_COLOUR = (255, 220, 0)
NO_FILE = "no file"

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .15em .8em .15em 0; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
figure {{ display: inline-block; margin: 3px; vertical-align: top; width: 132px; font-size: 11px; line-height: 1.2 }}
figure img {{ display: block; border: 2px solid #009e73 }} .dropped img {{ border-color: #d55e00 }}
figcaption {{ overflow-wrap: anywhere }} h2 {{ margin: 1.6em 0 .2em }} p {{ margin: .3em 0 }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def image_table(cleaned: Cleaned, threshold: int) -> list[dict]:
    """The table of images.

    Args:
        cleaned: What cleaning gave.
        threshold: Inliers that an edge needs.

    Returns:
        A row for each image of the collection, with IMAGE_COLUMNS. ``component`` is 0 for the largest, and empty for
        a dropped image, with the ``reason``. ``edges`` counts the image's verified pairs of at least ``threshold``
        inliers, ``inliers`` is the most of any of its pairs, weaker ones included. The last rows are images that
        were left out before: with the reason, "no file" for a missing file.
    """
    rows = []
    for landmark in cleaned.landmarks:
        graph, selection = landmark.graph, landmark.selection
        edges = np.bincount(graph.pairs[graph.inliers >= threshold].ravel(), minlength=len(graph.names))
        most = np.zeros(len(graph.names), int)
        np.maximum.at(most, graph.pairs, graph.inliers[:, None])
        for number, name in enumerate(graph.names):
            kept = selection.component[number] >= 0
            box = [round(float(value), 2) for value in selection.boxes[number]] if kept else [""] * 4
            rows.append(dict(zip(IMAGE_COLUMNS, (
                name, landmark.label, landmark.name, int(selection.component[number]) if kept else "",
                selection.reasons[number], int(edges[number]), int(most[number]), *box), strict=True)))
    empty = dict.fromkeys(IMAGE_COLUMNS, "")
    left_out = [(name, NO_FILE) for name in cleaned.source.missing]
    left_out += [(entry.name, entry.reason) for entry in cleaned.source.skipped]
    return rows + [{**empty, "path": as_line(name), "reason": reason} for name, reason in left_out]


def landmark_table(cleaned: Cleaned, threshold: int) -> list[dict]:
    """The table of landmarks.

    Args:
        cleaned: What cleaning gave.
        threshold: Inliers that an edge needs.

    Returns:
        A row for each landmark, with LANDMARK_COLUMNS; a label that has a name but no image has 0 images. ``pairs``
        were compared, ``edges`` have at least ``threshold`` inliers, ``rejected`` counts by reason the pairs with
        enough matches and no edge. ``rounds`` and ``converged`` tell about the diffusion of the boxes.
    """
    by_label = {landmark.label: landmark for landmark in cleaned.landmarks}
    names = dict(enumerate(map(as_line, cleaned.source.label_names or ())))
    empty = {**dict.fromkeys(LANDMARK_COLUMNS, ""), "images": 0, "kept": 0}
    return [_landmark_row(by_label[label], threshold) if label in by_label
            else {**empty, "label": label, "landmark": names[label]}
            for label in sorted(by_label.keys() | names.keys())]


def write_report(cleaned: Cleaned, settings: CleanSettings, out: str | os.PathLike, thumbnails: int = 12,
                 progress: bool = True) -> Path:
    """Write the clean list, tables and page into the folder of a run.

    Args:
        cleaned: What cleaning gave.
        settings: What it was made with.
        out: Folder of the run.
        thumbnails: Pictures on the page of each landmark's kept and of its dropped images, at most; 0 for none.
        progress: Whether to show a bar.

    Returns:
        The page.

    Raises:
        OutputError: The folder can't be written or isn't a cleaning run's.
        InputError: A negative number of thumbnails.
    """
    whole_number("thumbnails", thumbnails, 0)
    with cleaning_folder(out) as folder:
        chosen = {(landmark.label, number): thumbnail_name(landmark.label, number)
                  for landmark in cleaned.landmarks for group in _groups(landmark, thumbnails).values()
                  for number in group}
        labels = [LABELS] if cleaned.clean.label_names else []
        folder.will_write([LIST, *labels, IMAGE_TABLE, LANDMARK_TABLE, SETTINGS, PAGE, *chosen.values()])
        folder.remove(folder.listed("thumbnails").difference(chosen.values()))
        return _write(cleaned, settings, folder, thumbnails, progress)


def _write(cleaned: Cleaned, settings: CleanSettings, folder: OutputFolder, thumbnails: int, progress: bool) -> Path:
    threshold, kept = settings.graph.threshold, cleaned.clean
    images, landmarks = image_table(cleaned, threshold), landmark_table(cleaned, threshold)
    write_landmarks_list(folder / LIST, replace(kept, names=tuple(list_name(path, folder.path)
                                                                  for path in kept.paths)))
    if kept.label_names:
        # A line for each, whatever its text, so that the number of a line is the label.
        write_text(folder / LABELS, "".join(f"{' '.join(as_line(name).split()) or number}\n"
                                            for number, name in enumerate(kept.label_names)))
    write_text(folder / IMAGE_TABLE, _csv(IMAGE_COLUMNS, images))
    write_text(folder / LANDMARK_TABLE, _csv(LANDMARK_COLUMNS, landmarks))
    write_json(folder / SETTINGS, asdict(settings))
    sections = [_summary(cleaned, images, landmarks)]
    for landmark in tqdm(cleaned.landmarks, desc="report", unit="class", disable=None if progress else True):
        sections.append(_section(cleaned, landmark, folder, thumbnails))
    title = html.escape(f"Cleaning {as_line(cleaned.source.name)}")
    with whole_file(folder / PAGE, durable=False) as temporary:
        temporary.write_text(_PAGE.format(title=title, body="\n".join(sections)), encoding="utf-8", newline="\n")
    return folder / PAGE


def _landmark_row(landmark: Landmark, threshold: int) -> dict:
    graph, selection = landmark.graph, landmark.selection
    kept = int((selection.component >= 0).sum())
    rejected = "; ".join(f"{reason}: {count}" for reason, count in graph.rejected.items())
    return dict(zip(LANDMARK_COLUMNS, (
        landmark.label, landmark.name, len(graph.names), kept, round(kept / len(graph.names), 4),
        int((graph.sizes == 0).all(1).sum()), graph.compared, int((graph.inliers >= threshold).sum()), rejected,
        selection.rounds, selection.converged), strict=True))


def _csv(columns: Sequence[str], rows: Sequence[dict]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _summary(cleaned: Cleaned, images: Sequence[dict], landmarks: Sequence[dict]) -> str:
    kept, whole = len(cleaned.clean.names), len(cleaned.source.names)
    reasons: dict[str, int] = {}
    for row in images:
        if row["reason"]:
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    lines = [f"<p>{kept:,} of {whole:,} images kept ({kept / max(whole, 1):.1%}).</p>",
             "<table><tr><th>dropped because</th><th>images</th></tr>"]
    lines += [f"<tr><td>{html.escape(reason)}</td><td>{count:,}</td></tr>"
              for reason, count in sorted(reasons.items(), key=lambda item: -item[1])]
    lines.append("</table><p></p><table><tr><th>landmark</th><th>images</th><th>kept</th><th>share</th></tr>")
    for row in landmarks:
        share = f"{row['share']:.0%}" if row["images"] else ""
        name = html.escape(row["landmark"])
        lines.append(f'<tr><td><a href="#{row["label"]}">{name}</a></td><td>{row["images"]}</td>'
                     f"<td>{row['kept']}</td><td>{share}</td></tr>")
    return "\n".join([*lines, "</table>"])


def _groups(landmark: Landmark, thumbnails: int) -> dict[str, np.ndarray]:
    """Numbers of the kept and of the dropped images of a landmark that are on the page."""
    kept = landmark.selection.component >= 0
    # Spread over the class: the first images of a search result are the best ones.
    return {group: chosen[np.linspace(0, len(chosen) - 1, min(thumbnails, len(chosen))).astype(int)]
            for group, chosen in (("kept", np.flatnonzero(kept)), ("dropped", np.flatnonzero(~kept)))}


def _section(cleaned: Cleaned, landmark: Landmark, folder: OutputFolder, thumbnails: int) -> str:
    kept = landmark.selection.component >= 0
    parts = [f'<h2 id="{landmark.label}">{html.escape(landmark.name)}</h2>',
             f"<p>{kept.sum()} of {len(kept)} images kept.</p>"]
    for group, chosen in _groups(landmark, thumbnails).items():
        figures = [_figure(cleaned, landmark, number, folder) for number in chosen]
        parts.append(f'<div class="{group}">{"".join(figures)}</div>')
    return "\n".join(parts)


def _figure(cleaned: Cleaned, landmark: Landmark, number: int, folder: OutputFolder) -> str:
    index, selection = landmark.images[number], landmark.selection
    file = thumbnail_name(landmark.label, number)
    kept = selection.component[number] >= 0
    drawn = _thumbnail(cleaned.source.paths[index], selection.boxes[number] if kept else None, folder / file)
    caption = html.escape(Path(cleaned.source.names[index]).name)
    if not kept:
        caption += f": {html.escape(selection.reasons[number])}"
    picture = f'<img src="{file}" alt="">' if drawn else ""
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(path: Path, box: Box | None, target: Path) -> bool:
    """Write a thumbnail with its box; False when the image can't be read."""
    try:
        image = read_image(path)
    except ImageError:
        return False
    small = resize_longer(image, _THUMBNAIL)
    if box is not None:
        scale = small.width / image.width
        ImageDraw.Draw(small).rectangle([value * scale for value in box], outline=_BOX_COLOUR, width=2)
    with whole_file(target, durable=False) as temporary:
        small.save(temporary, quality=85)
    return True
