"""Settings under a name: those of the paper, of its authors' release, and for a laptop.

    >>> from rmaclib import presets
    >>> presets.paper.values("search")
    {'qe': 1, 'dba': 20}
    >>> presets.paper.settings("extraction").sizes
    (550, 800, 1050)

A preset is data: each value has a mark that says how sure it is, and a line that says where it comes from. A setting
that a preset doesn't name keeps the default of its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple

from rmaclib.foundation.settings import from_mapping, one_of
from rmaclib.networks import DEFAULT

__all__ = ["MARKS", "PRESETS", "SECTIONS", "Entry", "Preset", "Value", "authors_release", "laptop", "paper", "preset"]

Mark = Literal["V", "S", "R", "ours"]
MARKS: dict[Mark, str] = {
    "V": "verified: in the abstract, in the authors' releases, or in a benchmark's official files",
    "S": "secondary: quoted by somebody else's text or code",
    "R": "reasoned: our value, where the paper leaves it open or we could not verify what it says",
    "ours": "our choice",
}
# The class of each section is named, not imported: most of them need torch.
_CLASSES = {
    "cleaning": ("rmaclib.cleaning.settings", "CleanSettings"),
    "network": ("rmaclib.network", "NetworkSettings"),
    "classification": ("rmaclib.learning.classification", "ClassificationSettings"),
    "ranking": ("rmaclib.learning.ranking", "RankingSettings"),
    "proposals": ("rmaclib.learning.proposals", "ProposalSettings"),
    "extraction": ("rmaclib.extraction.batches", "ExtractionSettings"),
    "search": ("rmaclib.search.retrieval", "SearchSettings"),
}
SECTIONS = tuple(_CLASSES)


class Value(NamedTuple):
    """A setting's value.

    Attributes:
        value: What the setting is set to.
        mark: How sure it is, see ``MARKS``.
        source: One line: where it comes from, or why it was chosen.
    """

    value: Any
    mark: Mark
    source: str


class Entry(NamedTuple):
    """A line of a preset's table; ``name`` is the setting, with dots where settings are nested."""

    section: str
    name: str
    value: Any
    mark: Mark
    source: str


@dataclass(frozen=True)
class Preset:
    """Settings of all sections under a name.

    Attributes:
        name: As on the command line.
        about: One line.
        sections: Section → name of the setting (dots where settings are nested) → ``Value``. Those of the network are
            of an untrained network, made from the name of a backbone.
        trained: Name of the trained network of the package that stands for that; None where there is none.
    """

    name: str
    about: str
    sections: Mapping[str, Mapping[str, Value]]
    trained: str | None = None

    @property
    def backbone(self) -> str:
        """The untrained network."""
        return self.sections["network"]["backbone"].value

    @property
    def default_network(self) -> str:
        """The network that commands use where none is named."""
        return self.trained or self.backbone

    def values(self, section: str) -> dict[str, Any]:
        """The values of a section, as a settings file would give them.

        Args:
            section: One of ``SECTIONS``.

        Returns:
            Setting → value; nested settings are dictionaries. Empty where the preset leaves the defaults.

        Raises:
            InputError: There is no such section.
        """
        one_of("section", section, SECTIONS)
        nested: dict[str, Any] = {}
        for name, entry in self.sections.get(section, {}).items():
            *parts, last = name.split(".")
            inner = nested
            for part in parts:
                inner = inner.setdefault(part, {})
            inner[last] = entry.value
        return nested

    def settings(self, section: str, over: Mapping[str, Any] | None = None, source: str = "settings") -> Any:
        """The settings object of a section, such as ``RankingSettings``.

        Args:
            section: One of ``SECTIONS``.
            over: Settings that go before those of the preset, as YAML gives them.
            source: Where ``over`` comes from, for errors.

        Returns:
            An object of the section's settings class.

        Raises:
            InputError: There is no such section, or a setting that can't be used; the message begins with ``source``.
        """
        values = _merged(self.values(section), over or {})
        module, name = _CLASSES[section]
        return from_mapping(getattr(import_module(module), name), values, source)

    def table(self) -> list[Entry]:
        """All values with their marks and sources, section by section."""
        return [Entry(section, name, *entry) for section in SECTIONS
                for name, entry in self.sections.get(section, {}).items()]


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested dictionaries as one; the values of ``over`` win."""
    merged = dict(under)
    for name, value in over.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


_NOT_GIVEN = "no value that we could verify"
_RELEASE = "the authors' Caffe release"
_SGD = {
    "optimizer": Value("sgd", "R", "customary for such networks"),
    "lr": Value(1e-3, "R", "customary with this momentum"),
    "momentum": Value(0.9, "R", "customary with SGD"),
    "weight_decay": Value(5e-5, "R", "customary: weak, as the weights are already trained"),
    "schedule": Value("step", "R", "one drop to a tenth, the simplest"),
    "drop_at": Value(0.5, "R", "half way, the simplest"),
    "warmup": Value(0, "R", "none"),
    "updates": Value(4096, "R", _NOT_GIVEN),
    "evaluate_every": Value(64, "R", f"{_NOT_GIVEN}; as often as the pool is drawn"),
}
_NETWORK = {
    "backbone": Value("resnet101", "V", _RELEASE),
    "levels": Value(2, "V", "trained with L = 2, the authors' release notes"),
    "pooling": Value("max", "V", f"{_RELEASE}: max pooling of each region"),
    "dim": Value(2048, "V", f"{_RELEASE}: a fully connected layer 2048 -> 2048"),
    "regions": Value("grid", "V", "the printed results are those of the rigid grid"),
}
_EXTRACTION = {
    "sizes": Value((550, 800, 1050), "V", "multi-resolution: the descriptors of three longer sides are summed"),
    "crop_order": Value("resize-then-crop", "V", "a query is resized whole, then its box is cut"),
}
_SEARCH = {
    "qe": Value(1, "V", "query expansion, headline setting"),
    "dba": Value(20, "V", "database-side augmentation, headline setting"),
}

paper = Preset("paper", "The paper's settings; they need a GPU.", {
    "cleaning": {
        "keypoints.detector": Value("sift", "S", "SIFT and Hessian-affine are named; SIFT needs no further package"),
        "keypoints.size": Value(512, "R", _NOT_GIVEN),
        "keypoints.count": Value(1000, "R", _NOT_GIVEN),
        "exhaustive": Value(1_000_000, "R", "all pairs of a class are compared, however large it is"),
        "matching.ratio": Value(0.8, "R", "Lowe's (2004)"),
        "verification.tolerance": Value(0.011, "R", "5 pixels of 448"),
        "verification.min_inliers": Value(10, "R", _NOT_GIVEN),
        "verification.caption": Value(0.0, "R", "no rule for captions is known"),
        "verification.marks": Value(False, "R", "no rule for watermarks is known"),
        "graph.threshold": Value(10, "R", f"that of the verified pairs; {_NOT_GIVEN}"),
        "graph.conductance": Value(0.0, "R", "components stay whole"),
        "graph.largest": Value(1, "R", "the largest component"),
        "graph.min_matches": Value(1, "R", "being in the component is enough"),
        "boxes.merge": Value("median", "R", "the geometric median (Vardi and Zhang 2000)"),
        "boxes.alpha": Value(0.1, "R", f"a small step; {_NOT_GIVEN}"),
        "boxes.tolerance": Value(0.001, "R", "half a pixel of 512"),
    },
    "network": {
        **_NETWORK,
        "grid": Value("exact", "R", "the grid of Tolias et al.; how it is rounded is left open"),
        "proposals": Value(256, "R", "many: their number costs little beside the backbone"),
    },
    "classification": {
        **_SGD,
        "lr": Value(1e-3, "R", f"{_NOT_GIVEN} for this stage; that of the ranking"),
        "batch": Value(64, "R", _NOT_GIVEN),
        "shorter": Value((256, 512), "R", "scales at which crops show parts and wholes"),
        "side": Value(224, "R", "that of the ImageNet training"),
        "fit": Value(20_000, "R", f"how the new layer starts is left open; {_NOT_GIVEN}"),
        "size": Value(512, "R", f"of the validation, {_NOT_GIVEN}"),
    },
    "ranking": {
        **_SGD,
        "loss": Value("triplet", "V", "the abstract; its margin is the default of RankingSettings (R)"),
        "triplets": Value(64, "R", "several times a usual batch; the gradient takes the memory of few images"),
        "pool": Value(5000, "R", "enough for hard negatives of every landmark"),
        "hardest": Value(25, "R", "the hardest alone are often errors of labels"),
        "refresh": Value(64, "R", "the network changes slowly"),
        "size": Value(800, "V", "trained with S = 800, the authors' release notes"),
    },
    "proposals": {
        **_SGD,
        "images": Value(16, "R", _NOT_GIVEN),
        "size": Value(800, "R", f"{_NOT_GIVEN} for this stage; that of the ranking"),
    },
    "extraction": _EXTRACTION,
    "search": _SEARCH,
})

authors_release = Preset("authors_release", "The authors' Caffe package; it has no cleaning and no training.", {
    "network": {**_NETWORK, "grid": Value("pixel", "V", f"{_RELEASE}: computed in image pixels")},
    "extraction": _EXTRACTION,
    "search": _SEARCH,
})


def _quick(lr: float, why: str, updates: int, warmup: int, evaluate_every: int, save_every: int) -> dict[str, Value]:
    """What the stages of the laptop's preset have in common."""
    return {
        "optimizer": Value("adamw", "ours", "that of the recorded runs on photographs (notebook 03)"),
        "lr": Value(lr, "ours", why),
        "weight_decay": Value(1e-4, "ours", "that of the recorded runs on photographs (notebook 03)"),
        "schedule": Value("cosine", "ours", "that of the recorded runs on photographs (notebook 03)"),
        "updates": Value(updates, "ours", "rmac train measures how many there is time for"),
        "warmup": Value(warmup, "ours", "an eighth of the updates, 16 at most"),
        "evaluate_every": Value(evaluate_every, "ours", "eight validations"),
        "save_every": Value(save_every, "ours", "sixteen saved states"),
    }


_SMALL_IMAGES = "small: a training takes minutes on a processor"
_CHOSEN = "chosen by validation on photographs (notebook 03)"
laptop = Preset("laptop", "Minutes on a processor; the defaults of the commands, beside a trained network.", {
    "cleaning": {
        "keypoints.detector": Value("sift", "ours", "needs no further package"),
        "keypoints.size": Value(512, "ours", "small enough for a processor"),
        "keypoints.count": Value(1000, "ours", "the time grows with its square"),
        "exhaustive": Value(500, "ours", "larger classes are matched on shortlists"),
        "matching.ratio": Value(0.8, "ours", "Lowe's (2004)"),
        "verification.tolerance": Value(0.011, "ours", "5 pixels of 448"),
        "verification.min_inliers": Value(10, "ours", "compared with others in notebook 02"),
        "verification.caption": Value(0.1, "ours", "captions match in images that show different things"),
        "verification.marks": Value(True, "ours", "watermarks match in images that show different things"),
        "graph.threshold": Value(10, "ours", "compared with others in notebook 02"),
        "graph.conductance": Value(0.02, "ours", "separates parts that few inliers join (notebook 02)"),
        "graph.largest": Value(1, "ours", "as in the preset paper"),
        "graph.min_matches": Value(1, "ours", "as in the preset paper"),
        "boxes.merge": Value("extent", "ours", "overlaps more with the annotated boxes (notebook 02)"),
        "boxes.alpha": Value(0.1, "ours", "as in the preset paper"),
        "boxes.tolerance": Value(0.001, "ours", "half a pixel of 512"),
    },
    "network": {
        "backbone": Value("efficientnet_lite0", "ours", "fast on a processor; its weights come with a package"),
        "levels": Value(3, "ours", "off the shelf, more levels than the paper's 2 (notebook 01)"),
        "grid": Value("exact", "ours", "rational arithmetic: a tie is a tie"),
        "pooling": Value("max", "ours", "as in the preset paper"),
        "dim": Value(None, "ours", "no whitening: it needs training images"),
        "regions": Value("grid", "ours", "proposals need a network that was trained to make them"),
        "proposals": Value(32, "ours", "notebook 04 compares their number"),
    },
    "classification": {
        **_quick(1e-4, _CHOSEN, updates=64, warmup=8, evaluate_every=8, save_every=4),
        "batch": Value(32, "ours", _SMALL_IMAGES),
        "side": Value(160, "ours", _SMALL_IMAGES),
        "shorter": Value((160, 256), "ours", _SMALL_IMAGES),
        "fit": Value(2000, "ours", _SMALL_IMAGES),
        "size": Value(320, "ours", _SMALL_IMAGES),
    },
    "ranking": {
        **_quick(1e-4, "five times that of the recorded runs: there are few updates", updates=32, warmup=4,
                 evaluate_every=4, save_every=2),
        "size": Value(320, "ours", _SMALL_IMAGES),
        "triplets": Value(16, "ours", "small: an update takes seconds on a processor"),
        "pool": Value(1500, "ours", "a small collection whole"),
        "refresh": Value(8, "ours", "four pools"),
    },
    "proposals": {
        **_quick(1e-3, _CHOSEN, updates=256, warmup=16, evaluate_every=32, save_every=16),
        "images": Value(16, "ours", "as in the paper's preset"),
        "size": Value(320, "ours", _SMALL_IMAGES),
    },
    "extraction": {
        "sizes": Value((512,), "ours", "small enough for a processor"),
        "crop_order": Value("resize-then-crop", "ours", "as in the preset paper"),
    },
    "search": {
        "qe": Value(0, "ours", "no query expansion"),
        "dba": Value(0, "ours", "no database-side augmentation"),
    },
}, trained=DEFAULT)

PRESETS: dict[str, Preset] = {each.name: each for each in (laptop, paper, authors_release)}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: There is no such preset; the message lists those there are.
    """
    one_of("preset", name, tuple(PRESETS))
    return PRESETS[name]
