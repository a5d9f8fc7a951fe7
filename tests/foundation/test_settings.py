from typing import Annotated, Literal

import pytest

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, as_tuple, from_mapping, read_yaml, settings


@settings
class Part:
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5


@settings
class Whole:
    """A setting of each kind."""

    sizes: Annotated[tuple[int, ...], as_tuple] = (800,)
    count: Annotated[int, Field(ge=1, le=5_000_000_000)] = 3
    kind: Literal["grid", "both"] = "grid"
    flip: bool = False
    clip: float | None = None
    part: Part = Part()

    def __post_init__(self):
        if self.count == 7:
            raise ValueError("count: expected no seven")


@pytest.mark.parametrize("values, message", [
    ({"count": 2.5}, "count: expected a whole number, got 2.5"), ({"count": 0}, "count: expected at least 1, got 0"),
    ({"count": True}, "count: expected a whole number, got True"), ({"count": 7}, "count: expected no seven"),
    ({"count": 6_000_000_000}, "count: expected at most 5000000000"),
    ({"flip": 1}, "flip: expected true or false, got 1"),
    ({"clip": float("nan")}, "clip: expected a finite number, got nan"), ({"clip": [1]}, "clip: expected a number"),
    ({"clip": "1e-3"}, "write 1.0e-3"), ({"sizes": "512"}, "sizes: expected a list, got '512'"),
    ({"kind": "none"}, "kind: expected one of 'grid' or 'both', got 'none'"), ({"conut": 1}, "unknown setting 'conut'"),
    ({"part": {"ratio": 0.1}}, "part: expected settings of that part"),
])
def test_a_bad_value_names_its_field(values, message):
    with pytest.raises(InputError, match=message):
        Whole(**values)


def test_a_bad_value_by_position_names_its_field():
    assert Whole((512,), 4) == Whole(sizes=(512,), count=4)
    with pytest.raises(InputError, match="sizes: expected a list, got '512'"):
        Whole("512")


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Whole().count = 4


def test_files_are_named(tmp_path):
    file = tmp_path / "s.yml"
    file.write_text("sizes: [1, 2]\npart: {ratio: 0.25}\n")
    given = read_yaml(file) | {"count": 4}
    assert from_mapping(Whole, given) == Whole(sizes=(1, 2), count=4, part=Part(ratio=0.25))
    assert read_yaml(None) == {}
    for text, message in (("part: {ratio: 2}", "s.yml: part: ratio: expected less than 1.0, got 2"),
                          ("part: {ration: 1}", "did you mean 'ratio'"), ("count: x", "s.yml: count: expected"),
                          ("part: 3", "s.yml: part: expected `name: value`, got 3"),
                          ("- 1", "s.yml: expected settings"),
                          ("a: [", "s.yml: expected settings"), ("\0", "s.yml: expected settings")):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            from_mapping(Whole, read_yaml(file), str(file))
    with pytest.raises(InputError, match="nothing.yml: expected settings"):
        read_yaml(tmp_path / "nothing.yml")
    with pytest.raises(InputError, match="settings: expected `name: value`, got 3"):
        from_mapping(Whole, 3)
