"""Options are checked before anything is opened: option, what is expected, what came; exit code 2."""

import os
from typing import get_args

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from rmaclib import backbones, cli, network_settings, presets
from rmaclib.commands import evaluate, options
from rmaclib.evaluation import PROTOCOLS
from rmaclib.images import CROP_ORDERS, RESIZE_THEN_CROP

EXTRACT = ("extract", "{here}", "--out", "{here}/new")
INDEX = ("index", "{here}", "--out", "{here}/new")
EVALUATE = ("evaluate", "{here}")
SEARCH = ("search", "{here}", "{here}/file.txt")
PROPOSE = ("propose", "{here}", "--network", "x.safetensors")
LONG = 300 * "n"  # letters: more than a file system takes

REFUSED = [
    *(((*command, "--size", value), "--size", value) for command in (EXTRACT, INDEX, EVALUATE, PROPOSE)
      for value in ("0", "-3")),
    *(((*command, *option), option[0], option[1]) for command in (EXTRACT, INDEX, EVALUATE) for option in (
        ("--levels", "0"), ("--levels", "1000000000"), ("--dim", "0"), ("--shrinkage", "nan"), ("--shrinkage", "1.5"),
        ("--whiten-images", "-5"), ("--proposals", "0"), ("--seed", "-1"), ("--device", "meta"), ("--grid", "round"))),
    (SEARCH + ("--k", "0"), "--k", "0"),
    (SEARCH + ("--rerank", "-1"), "--rerank", "-1"),
    (PROPOSE + ("--k", "0"), "--k", "0"),
    *((SEARCH + ("--box", value), "--box", value)
      for value in ("0,0,inf,inf", "nan,0,1,1", "1,2,3", "5,5,5,9", "a,b,c,d", "1,2,3,4,5")),
    (SEARCH + ("--device", "cuda:x"), "--device", "cuda:x"),
    (SEARCH + ("--out", "{here}/n.txt"), "--out", "n.txt"),
    (SEARCH + ("--out", "{here}"), "--out", "{here}"),
    (SEARCH + ("--out", ""), "--out", "''"),
    (SEARCH + ("--out", "{here}/file.txt/n.png"), "--out", "file.txt"),
    *((command + ("--out", f"{{here}}/{name}"), "--out", shown) for command in (
        ("extract", "{here}"), ("index", "{here}"), ("evaluate", "{here}"), ("clean", "{here}"), SEARCH, PROPOSE)
      for name, shown in (("o\udcff.png", "o\\udcff.png"), ("o\0.png", "o\\x00.png"), ("a\nb.png", "a\\nb.png"))),
    *((("clean", "{here}", "--out", "{here}/new", "--settings", f"{{here}}/{name}"), "--settings", "no file")
      for name in (LONG, "loop", "s\0")),
    (INDEX + ("--seed", "5000000000"), "--seed", "0..4294967295"),
    (PROPOSE + ("--picture", "{here}/n.gif"), "--picture", "n.gif"),
    (PROPOSE + ("--out", "{here}"), "--out", "{here}"),
    *(((command, "{here}", "--out", value), "--out", shown) for command in ("extract", "index", "evaluate")
      for value, shown in (("", "''"), ("{here}/file.txt", "a file"), ("{here}/file.txt/x", "file.txt"))),
    *((EVALUATE + option, option[0], option[1]) for option in (
        ("--qe", "-1"), ("--dba", "-1"), ("--pq", "0"), ("--protocol", "paris"), ("--distractors", ""))),
    (EVALUATE + ("--multires", "--size", "64", "--size", "96"), "--multires", "64, 96"),
    (("extract", "", "--out", "{here}/new"), "images", "''"),
    (("evaluate", ""), "dataset", "''"),
    (EXTRACT + ("--network", " "), "--network", "' '"),
]


@pytest.mark.parametrize("arguments, option, got", REFUSED, ids=lambda value: " ".join(value) if isinstance(
    value, tuple) else value)
def test_an_option_is_refused_by_name(tmp_path, monkeypatch, arguments, option, got):
    monkeypatch.setenv("COLUMNS", "1000")  # one line
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    arguments = [argument.format(here=tmp_path) for argument in arguments]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2, result.output
    assert option in result.stderr and got.format(here=tmp_path) in result.stderr
    assert "expected" in result.stderr or "one of" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "loop"]


@pytest.mark.parametrize("name", [LONG, f"{LONG}/x", "loop", "loop/x"])
def test_a_path_that_the_system_refuses_is_told_by_who_writes(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    for check in (options.output_folder, options.output_file, options.output_picture, options.output_sheet):
        assert str(check(tmp_path / name)).startswith(str(tmp_path / name))


def test_a_folder_that_may_not_be_looked_into(tmp_path, monkeypatch):
    """As for a user who isn't root: whose folder it isn't."""
    def stat(path, **options):
        if "closed/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return whole_stat(path, **options)

    whole_stat = os.stat
    monkeypatch.setattr(os, "stat", stat)
    assert options.output_folder(tmp_path / "closed" / "x" / "y") == tmp_path / "closed" / "x" / "y"


def test_a_picture_without_a_format_is_a_png():
    assert str(options.output_picture("out/n")) == str(options.output_sheet("out/n")) == "out/n.png"
    assert str(options.output_sheet("n.JPG")) == "n.JPG"


def test_the_defaults_in_the_help_are_those_of_the_presets():
    assert options.defaults("extraction", "sizes") == "  [default: 512; paper: 550, 800, 1050]"
    assert options.defaults("network", "dim", "no whitening", "x") == "  [default: no whitening; paper: 2048; x]"
    assert options.defaults("network", "grid") == "  [default: exact; authors_release: pixel]"
    assert options.defaults("search", "qe") == "  [default: 0; paper: 1]"
    assert options.defaults("network", "pooling") == "  [default: max]"
    assert get_args(get_args(options.Preset)[0]) == tuple(presets.PRESETS)
    # These two have no such text: rmac train has them too.
    assert {preset.values("network")["regions"] for preset in presets.PRESETS.values()} == {"grid"}
    assert presets.laptop.values("network")["proposals"] == 32


def test_the_words_are_the_librarys():
    """They are repeated in options, which doesn't load torch."""
    def literals(option):
        kind = get_args(option)[0]
        return [word for part in (get_args(kind) if type(None) in get_args(kind) else [kind])
                if part is not type(None) for word in get_args(part)]

    assert literals(options.Grid) == list(network_settings.GRIDS)
    assert literals(options.Pooling) == list(network_settings.POOLINGS)
    assert literals(options.Regions) == list(network_settings.REGIONS)
    assert literals(options.CropOrder) == list(CROP_ORDERS) and CROP_ORDERS[0] == RESIZE_THEN_CROP
    assert get_args(evaluate.Protocol) == tuple(PROTOCOLS)
    assert options.BACKBONES.replace("timm:NAME", "timm:<name>") == ", ".join(backbones.NAMES)
    formats = Figure().canvas.get_supported_filetypes()
    assert all(kind.removeprefix(".") in formats for kind in options.PICTURES)
