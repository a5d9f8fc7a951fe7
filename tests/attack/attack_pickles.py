"""Pickles that run code, or take all memory or time, when plain pickle reads them.

Those that run code leave a file behind; its name comes first in all of them.
"""

import struct
from pathlib import Path

MARK = "executed"  # the file that shows that code ran


def _text(value: str) -> bytes:
    """Opcode: a short text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _call(module: str, name: str, *arguments: str) -> bytes:
    """Names a function and calls it with texts."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(map(_text, arguments)) + b"tR."


def _stack_call(module: str, name: str, *arguments: str) -> bytes:
    """The same as protocol 4 writes it, which allows dots in names."""
    return b"\x80\x04" + _text(module) + _text(name) + b"\x93(" + b"".join(map(_text, arguments)) + b"tR."


def _array(shape: bytes, kind: str = "f8") -> bytes:
    """An array of a shape, made by numpy.ndarray itself."""
    return b"cnumpy\nndarray\n(" + shape + b"cnumpy\ndtype\n(" + _text(kind) + b"tRtR."


def payloads(folder: Path) -> dict[str, bytes]:
    """What each is called -> its bytes. A run leaves folder/MARK behind."""
    mark = str(folder / MARK)
    shell, code = f"touch '{mark}'", f"open({mark!r}, 'w')"
    return {
        "os.system": _call("os", "system", shell),
        "posix.system": _call("posix", "system", shell),
        "subprocess": _call("subprocess", "getoutput", shell),
        "Popen": b"csubprocess\nPopen\n((" + _text("touch") + _text(mark) + b"ltR.",
        "eval": _call("builtins", "eval", code),
        "exec": _call("builtins", "exec", code),
        "eval of Python 2": _call("__builtin__", "eval", code),
        "open": _call("builtins", "open", mark, "w"),
        "io.open": _call("io", "open", mark, "w"),
        "_io.FileIO": _call("_io", "FileIO", mark, "w"),
        "codecs.open": _call("codecs", "open", mark, "w"),
        "pathlib": _call("pathlib", "Path.touch", mark),
        "import": _call("importlib", "import_module", "antigravity"),
        "pickle in pickle": _call("pickle", "loads", _call("os", "system", shell).decode()),
        "dots in a name": _stack_call("numpy", "ndarray.tofile", mark),
        "dots to builtins": _stack_call("numpy", "core.multiarray.__builtins__.eval", code),
        "dots to os": _stack_call("os", "path.os.system", shell),
        "a module of numpy": _call("numpy.lib.npyio", "save", mark, "x"),
        "numpy.load": _call("numpy", "load", mark),
        "numpy runs a command": _call("numpy.distutils.exec_command", "exec_command", shell),
        "runstring": _call("numpy.testing", "runstring", code),
        "INST": b"(" + _text(shell) + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + _text(shell) + b"o.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n(" + _text(shell) + b"t\x81.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(" + _text("os") + b"tR" + _text("system") + b"tR("
                   + _text(shell) + b"tR.",
        "state that is set": b"cnumpy\nndarray\n((tcnumpy\ndtype\n(" + _text("O") + b"tRtR(" + _text(shell) + b"tb.",
        "torch": _call("torch", "load", mark),
        "hidden behind good data": b"(dX\x06\x00\x00\x00imlist(l" + b"0" + _call("os", "system", shell),
        "an extension": b"\x82\x01.",
        "a persistent name": b"Pos.system\n.",
        "a long text that isn't there": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "long bytes that aren't there": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "a long number that isn't there": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        "a huge number": b"I" + b"9" * 200_000 + b"\n.",
        "a far memo": b"\x80\x02N\x72" + struct.pack("<I", 2**31) + b".",
        "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**38) + b"x.",
        "deep": b"(" * 100_000 + b"l" * 100_000 + b".",
        "many deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "doubling": b"(lp0\n" + b"(g0\ng0\nlp0\n" * 60 + b".",
        "eight gigabytes": _array(b"(J\x00\x00\x00\x40t"),
        "eight terabytes": _array(b"(J\x00\x00\x10\x00J\x00\x00\x10\x00t"),
        "a negative shape": _array(b"(J\xff\xff\xff\xfft"),
        "a long element": _array(b"(K\x01t", "V2000000000"),
        "array of objects": _array(b"(K\x05t", "O"),
        "a slow codec": b"c_codecs\nencode\n(" + _text("".join(map(chr, range(0x4E00, 0x9E00))) * 4)
                        + _text("punycode") + b"tR.",
        "a codec of ours": b"c_codecs\nencode\n(" + _text(shell) + _text("unicode_escape") + b"tR.",
    }


def read_all(folder: str, start: int) -> list[str]:
    """What is wrong about reading each from number `start`.

    It isn't refused by one of our errors that names the file, or code ran. folder/number contains the number of the
    last one that was begun, should the process die. Runs in a child of attack_server.
    """
    import time

    from rmaclib.datasets.layouts.revisited import read_revisited
    from rmaclib.foundation.errors import RmacError

    root, problems = Path(folder), []
    (root / "jpg").mkdir(exist_ok=True)
    (root / "jpg" / "a.jpg").touch()
    file = root / "gnd_roxford5k.pkl"
    for number, (name, data) in enumerate(payloads(root).items()):
        if number < start:
            continue
        (root / "number").write_text(str(number))
        file.write_bytes(data)
        begun = time.monotonic()
        try:
            read_revisited(root)
            problems.append(f"{name}: accepted")
        except RmacError as error:
            if file.name not in str(error):
                problems.append(f"{name}: the error doesn't name the file: {error}")
            if len(str(error)) > 1000:
                problems.append(f"{name}: an error of {len(str(error))} characters")
        except BaseException as error:
            problems.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        if (root / MARK).exists():
            problems.append(f"{name}: RAN")
            (root / MARK).unlink()
        if time.monotonic() - begun > 5:
            problems.append(f"{name}: took {time.monotonic() - begun:.0f} seconds")
    return problems


def read_with_plain_pickle(folder: str) -> list[str]:
    """Names of those that leave their mark when plain pickle reads them; in a child of attack_server."""
    import pickle

    ran = []
    for name, data in payloads(Path(folder)).items():
        if MARK.encode() not in data:
            continue
        try:
            pickle.loads(data)
        except Exception:
            pass
        if (Path(folder) / MARK).exists():
            ran.append(name)
            (Path(folder) / MARK).unlink()
    return ran
