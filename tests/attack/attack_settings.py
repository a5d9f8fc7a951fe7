"""Settings in YAML and result records: how to make them, how they are read, and their content by a rule of its own.

See attack_texts.
"""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import yaml

SETTINGS = {
    "train.yml": "triplets: 16\nlr: 0.0001\nsize: 320\nmargin: 0.2\nflip: true\noptimizer: adamw\nclip: null\n"
                 "warmup: 3\n",
    "classify.yml": "batch: 8\nshorter: [200, 256]\nside: 192\nlr: 0.001\nupdates: 100\n",
    "propose.yml": "images: 4\nanchors: 5\nhidden: 64\nseed: 3\n",
    "clean.yml": "keypoints: {count: 500, size: 512}\ngraph:\n  threshold: 12\n  conductance: 0.02\n  largest: 1\n"
                 "exhaustive: 300\nneighbours: 50\n",
}


def make_settings(name: str) -> Callable:
    def make(material: Path, folder: Path) -> None:
        (folder / name).write_text(SETTINGS[name])
    return make


def _settings_class(name: str):
    from rmaclib import learning
    from rmaclib.cleaning import CleanSettings

    return {"train.yml": learning.RankingSettings, "classify.yml": learning.ClassificationSettings,
            "propose.yml": learning.ProposalSettings, "clean.yml": CleanSettings}[name]


def read_settings(folder: Path):
    from rmaclib.foundation.settings import from_mapping, read_yaml

    path = next(path for path in folder.iterdir() if path.name in SETTINGS)
    return asdict(from_mapping(_settings_class(path.name), read_yaml(path), str(path)))


def expected_settings(folder: Path):
    """The defaults, with what the file says over them, where it says numbers, texts and lists of the right kind."""
    path = next(path for path in folder.iterdir() if path.name in SETTINGS)
    try:
        content = yaml.safe_load(path.read_bytes().decode())
        return _over(_settings_class(path.name), {} if content is None else content)
    except Exception:
        return None


# Settings whose default depends on another setting: on which, and how.
_FOLLOWING = {"lr": ("optimizer", {"sgd": 1e-3, "adamw": 1e-5}),
              "margin": ("loss", {"triplet": 0.1, "contrastive": 0.7})}


def _over(kind, content: dict) -> dict:
    plain, given = asdict(kind()), dict(content)
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
        result[field.name] = (tuple(value) if isinstance(value, list) else
                              float(value) if isinstance(default, float) and value is not None else value)
    if content:
        raise KeyError(str(content))
    for name, (other, values) in _FOLLOWING.items():
        if other in result and given.get(name) is None:
            result[name] = values.get(result[other])
    return result


def _is_alike(value, default) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, list) if isinstance(default, tuple | list) else isinstance(value, type(default))


def make_record(material: Path, folder: Path) -> None:
    record = {"key": "01_rmac/photos/baseline", "value": 0.617, "unit": "mAP", "protocol": "oxford",
              "dataset": {"name": "photos", "counts": {"images": 1053, "queries": 55}}, "settings": {"levels": 3},
              "seed": 0, "versions": {"python": "3.11.7"}, "commit": "f35a220d0dd2", "seconds": 12.5,
              "machine": "2 cores", "date": "2026-11-24", "notebook": "01_rmac", "profile": "photos"}
    (folder / "record.json").write_text(json.dumps(record, indent=2))


def read_record(folder: Path):
    from rmaclib.results import load_result

    return asdict(load_result(folder / "record.json"))


def expected_record(folder: Path):
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
