"""Presets: every value is a setting that exists, with a mark and a source."""

import subprocess
import sys

import pytest

from rmaclib import presets
from rmaclib.cleaning import CleanSettings
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.resolutions import resolutions
from rmaclib.foundation.errors import InputError
from rmaclib.learning import ClassificationSettings, ProposalSettings, RankingSettings
from rmaclib.network import NetworkSettings
from rmaclib.search.retrieval import SearchSettings

CLASSES = {"cleaning": CleanSettings, "network": NetworkSettings, "classification": ClassificationSettings,
           "ranking": RankingSettings, "proposals": ProposalSettings, "extraction": ExtractionSettings,
           "search": SearchSettings}
ALL = pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=lambda preset: preset.name)


def reached(settings, name):
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


@ALL
@pytest.mark.parametrize("section", presets.SECTIONS)
def test_every_section_of_every_preset_is_settings(preset, section):
    settings = preset.settings(section)
    assert type(settings) is CLASSES[section]
    for entry in preset.table():
        if entry.section == section:
            assert reached(settings, entry.name) == entry.value


@ALL
def test_every_value_has_a_mark_and_a_source(preset):
    table = preset.table()
    assert table and sorted({entry.section for entry in table}) == sorted(preset.sections)
    for entry in table:
        assert entry.mark in presets.MARKS and entry.source and "\n" not in entry.source
        assert (entry.mark == "ours") == (preset is presets.laptop), entry
        if "no value" in entry.source or "left open" in entry.source:
            assert entry.mark == "R", entry


def test_the_papers_values():
    paper = presets.paper
    assert paper.settings("network") == NetworkSettings("resnet101", 2, "exact", "max", 2048, "grid", proposals=256)
    ranking = paper.settings("ranking")
    assert (ranking.triplets, ranking.lr, ranking.size, ranking.hardest, ranking.margin) == (64, 1e-3, 800, 25, 0.1)
    classification = paper.settings("classification")
    assert classification.shorter == (256, 512) and classification.side == 224
    assert paper.settings("extraction").sizes == resolutions(800) == (550, 800, 1050)
    assert paper.settings("search") == SearchSettings(qe=1, dba=20)
    boxes = paper.settings("cleaning").boxes
    assert (boxes.alpha, boxes.merge) == (0.1, "median")


def test_the_authors_release_is_verified_whole():
    table = presets.authors_release.table()
    assert {entry.mark for entry in table} == {"V"}
    assert {entry.section for entry in table} == {"network", "extraction", "search"}
    assert presets.authors_release.settings("network").grid == "pixel"


def test_the_laptops_settings_are_the_defaults():
    assert presets.laptop.settings("cleaning") == CleanSettings()
    assert presets.laptop.settings("search") == SearchSettings()
    assert presets.laptop.settings("network") == NetworkSettings("efficientnet_lite0", levels=3)
    assert presets.laptop.settings("extraction") == ExtractionSettings((512,))


def test_settings_over_those_of_a_preset():
    over = {"graph": {"threshold": 15}, "keypoints": {"size": 640}}
    settings = presets.paper.settings("cleaning", over)
    assert settings.graph.threshold == 15 and settings.graph.conductance == 0 and settings.keypoints.size == 640
    assert presets.paper.settings("cleaning").graph.threshold == 10  # the preset itself stays
    with pytest.raises(InputError, match="^my.yml: graph: .*treshold.* did you mean 'threshold'"):
        presets.paper.settings("cleaning", {"graph": {"treshold": 15}}, "my.yml")
    with pytest.raises(InputError, match="^my.yml: graph: .*got 5"):
        presets.paper.settings("cleaning", {"graph": 5}, "my.yml")


def test_names_that_are_not_there():
    with pytest.raises(InputError, match="preset: expected one of laptop, paper, authors_release, got 'gordo'"):
        presets.preset("gordo")
    with pytest.raises(InputError, match="section: expected one of cleaning, .* got 'training'"):
        presets.paper.values("training")


def test_a_preset_is_data():
    code = ("import sys; from rmaclib import presets; presets.paper.table(); presets.laptop.settings('cleaning'); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
