"""Every format that is read: how to make a file, how it is read, and what may be read of the changed file.

All of this runs in children of attack_server, which may crash.
"""

from collections.abc import Callable
from dataclasses import dataclass

import attack_binary as binary
import attack_settings as settings
import attack_texts as texts


@dataclass(frozen=True)
class Format:
    """A format.

    make(material, folder): writes a file
    kinds: pattern of the files that are damaged -> way of attack_mutations
    read(folder): the content, as JSON
    expected(folder): what has to be read of the files as they are now, None when they have to be refused; without it
      only the original content is right
    cases: how many are tried in the whole form
    cost: how much longer than others a case takes
    """

    make: Callable
    kinds: dict[str, str]
    read: Callable
    expected: Callable | None = None
    cases: int = 120
    cost: int = 1


FORMATS: dict[str, Format] = {
    "checkpoint": Format(binary.make_checkpoint, {"network.safetensors": "safetensors"}, binary.read_checkpoint,
                         cases=160),
    "run of training": Format(
        binary.make_training,
        {"out/state.safetensors": "safetensors", "out/run.json": "json", "out/log.csv": "text",
         "out/best.safetensors": "safetensors"},
        binary.read_training, binary.expected_training, cases=120, cost=3),
    "match graph": Format(binary.make_graph, {"graph.npz": "npz"}, binary.read_graph, cases=200),
    "descriptors": Format(
        binary.make_descriptors,
        {"out/descriptors.npy": "binary", "out/names.txt": "text", "out/meta.json": "json"},
        binary.read_descriptors, cases=200),
    "part of descriptors": Format(
        binary.make_chunks, {"out/partial/*.npz": "npz", "out/partial/meta.json": "json"}, binary.read_chunks,
        cases=100, cost=2),
    "marker": Format(binary.make_marker, {"out/.rmac.json": "json"}, binary.read_marker, cases=100),
    "index, flat": Format(
        binary.make_index(40), {"out/*.faiss": "binary", "out/*.txt": "text", "out/meta.json": "json"},
        binary.read_index, cases=150),
    "index, graph": Format(binary.make_index(90), {"out/*.faiss": "binary"}, binary.read_index, cases=80),
    "index, codes": Format(binary.make_index(300), {"out/*.faiss": "binary"}, binary.read_index, cases=80),
    "index of images": Format(
        binary.make_image_index, {"out/meta.json": "json", "out/network.safetensors": "safetensors"},
        binary.read_image_index, cases=80),
    "Landmarks list": Format(
        texts.make_list, {"list.txt": "text", "labels.txt": "text"}, texts.read_list, texts.expected_list, cases=150),
    "CSV list": Format(texts.make_csv, {"list.csv": "text"}, texts.read_csv, texts.expected_csv, cases=150),
    "Oxford ground truth": Format(
        texts.make_oxford, {"gt/*.txt": "text"}, texts.read_oxford, texts.expected_oxford, cases=150),
    "revisited pickle": Format(
        texts.make_revisited(2, False), {"*.pkl": "binary"}, texts.read_revisited, texts.expected_revisited, cases=100),
    "revisited pickle of arrays": Format(
        texts.make_revisited(4, True), {"*.pkl": "binary"}, texts.read_revisited, texts.expected_revisited, cases=100),
    **{f"settings {name}": Format(settings.make_settings(name), {name: "yaml"}, settings.read_settings,
                                  settings.expected_settings, cases=60) for name in settings.SETTINGS},
    "result record": Format(
        settings.make_record, {"record.json": "json"}, settings.read_record, settings.expected_record, cases=120),
}
