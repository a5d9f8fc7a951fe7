"""Damage to files: bytes, lines, numbers, values in JSON, arrays in .npz. A seed gives the same damage."""

import io
import json
import re
import struct

import numpy as np

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_NUMBERS = ("-1", "0", "1e30", "nan", "inf", "-inf", "99999999999999999999", "1.5", "2", "0x10", "1_0", "", "٣",
            "true")
_VALUES = (None, True, -1, 0, 1.5, 1e308, 10**20, "", "x", "1", [], [1], [[]], {}, {"x": 1})
_YAML = (".nan", ".inf", "-.inf", "1e-3", "[1]", "{a: 1}", "null", "-1", "1.5", "'512'", "yes", "2000-01-01",
         "!!binary x", "&a [*a]", "0o17", "1:30", "~", "")


def damaged(data: bytes, kind: str, random: np.random.Generator) -> bytes:
    """A file's bytes with one thing changed. kind: "binary", "text", "json", "yaml", "npz" or "safetensors"."""
    ways = _WAYS[kind]
    return ways[random.integers(len(ways))](data, random)


def _place(data: bytes, random, margin: int = 0) -> int:
    """A position, one time in three among the first 256: there is what describes the rest."""
    count = max(1, len(data) - margin)
    return int(random.integers(min(count, 256) if random.random() < 1 / 3 else count))


def _flip(data, random):
    changed = bytearray(data)
    changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _byte(data, random):
    changed = bytearray(data)
    changed[_place(data, random)] = int(random.choice([0, 0x7F, 0x80, 0xFF, 0x0A, int(random.integers(256))]))
    return bytes(changed)


def _cut(data, random):
    return data[:_place(data, random)]


def _hole(data, random):
    start = _place(data, random)
    return data[:start] + data[start + int(random.integers(1, 65)):]


def _insert(data, random):
    start = _place(data, random)
    return data[:start] + random.bytes(int(random.integers(1, 17))) + data[start:]


def _repeat(data, random):
    start = _place(data, random)
    block = data[start:start + int(random.integers(1, 129))]
    return data[:start] + block + data[start:]


def _zeros(data, random):
    start = _place(data, random)
    block = data[start:start + int(random.integers(1, 513))]
    return data[:start] + bytes(len(block)) + data[start + len(block):]


def _more(data, random):
    return data + random.bytes(int(random.integers(1, 65)))


def _nothing(data, random):
    return b""


def _swap_lines(data, random):
    lines = data.split(b"\n")
    first, second = random.integers(len(lines), size=2)
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _repeat_line(data, random):
    lines = data.split(b"\n")
    number = int(random.integers(len(lines)))
    return b"\n".join(lines[:number + 1] + lines[number:])


def _drop_line(data, random):
    lines = data.split(b"\n")
    del lines[int(random.integers(len(lines)))]
    return b"\n".join(lines)


def _number(data, random, numbers=_NUMBERS):
    text = data.decode("utf-8", "surrogateescape")
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return _flip(data, random)
    match = matches[int(random.integers(len(matches)))]
    changed = text[:match.start()] + str(random.choice(numbers)) + text[match.end():]
    return changed.encode("utf-8", "surrogateescape")


def _word(data, random):
    """Insert bytes that are no UTF-8, the end of a line, a NUL or a blank."""
    start = _place(data, random)
    wrong = [b"\xff\xfe", b"\x00", b"\r\n", b"\n", b"\t", b" ", "é".encode("latin-1"), b"\xef\xbb\xbf", b"\xe2\x80\xa8"]
    return data[:start] + wrong[int(random.integers(len(wrong)))] + data[start:]


def _yaml_value(data, random):
    lines = data.decode().split("\n")
    number = int(random.choice([place for place, line in enumerate(lines) if ":" in line]))
    key = lines[number].rpartition(":")[0]
    lines[number] = f"{key}: {random.choice(_YAML)}"
    return "\n".join(lines).encode()


def _json(data, random):
    content = json.loads(data)
    return json.dumps(_json_changed(content, random)).encode()


def _json_changed(content, random):
    """A JSON value with one value in it replaced, removed, or under another key."""
    places = list(_places(content))
    container, key = places[int(random.integers(len(places)))]
    if container is None:
        return _VALUES[int(random.integers(len(_VALUES)))]
    way = random.random()
    if way < 0.15:
        del container[key]
    elif way < 0.25 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif way < 0.4 and isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] = container[key] + int(random.choice([-1, 1, 1000]))
    else:
        container[key] = _VALUES[int(random.integers(len(_VALUES)))]
    return content


def _places(content, container=None, key=None):
    yield container, key
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in list(inner):
        yield from _places(value, content, name)


def _npz(data, random):
    """A whole archive with changed arrays."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    name = str(random.choice(sorted(arrays)))
    if name == "meta" and random.random() < 0.7:
        content = _json_changed(json.loads(arrays["meta"].tobytes()), random)
        arrays["meta"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    else:
        array = arrays.pop(name)
        way = int(random.integers(9))
        if way:
            arrays[name] = _array_changed(array, way)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _array_changed(array: np.ndarray, way: int) -> np.ndarray:
    if not array.ndim:
        return [array, np.array("x"), array[None], np.float32(2), np.array(None, "S1"), np.array([]), np.array(-1),
                array.astype("S1"), np.array(2**40)][way]
    if array.dtype.kind in "US":
        return [array, array[:-1], np.concatenate([array, array]), np.zeros(len(array)), array[None], array[:0],
                array.astype("S"), np.array("x"), np.arange(len(array))][way]
    if way in (4, 5) and array.size:
        array = array.copy()
        array.flat[0] = np.nan if array.dtype.kind == "f" else -7 if array.dtype.kind == "i" else 255
        return array
    return [array, array[:-1] if len(array) else np.zeros(3), np.concatenate([array, array[:1]]) if len(array)
            else array[None], array.astype(np.complex64), array[None], array[:0], array.astype("U8"),
            np.float32(1.5), array.astype(np.float16).reshape(-1)][way]


def _header(data, random):
    """A .safetensors file with a whole header that was changed."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = header.get("__metadata__", {})
    if random.random() < 0.7 and metadata:
        key = str(random.choice(sorted(metadata)))
        try:
            inner = json.loads(metadata[key])
        except ValueError:
            inner = metadata[key]
        metadata[key] = json.dumps(_json_changed(inner, random)) if isinstance(inner, dict | list) else str(
            random.choice(_NUMBERS))
        if random.random() < 0.2:
            del metadata[key]
    else:
        header = _json_changed(header, random)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[end:]


_BYTES = [_flip, _flip, _byte, _cut, _hole, _insert, _repeat, _zeros, _more, _nothing]
_LINES = [_flip, _byte, _cut, _hole, _insert, _repeat, _swap_lines, _repeat_line, _drop_line, _word, _number, _number,
          _nothing]
_WAYS = {
    "binary": _BYTES,
    "text": _LINES,
    "json": [*_LINES, *[_json] * 10],
    "yaml": [*_LINES, *[_yaml_value] * 10],
    "npz": [*_BYTES, *[_npz] * 10],
    "safetensors": [*_BYTES, *[_header] * 8],
}
