"""Plain values come out of every protocol as Python itself reads them; nothing else comes out, and nothing runs."""

import contextlib
import os
import pickle
import pickletools
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.core.errors import FileError
from tavq.importers import plain_pickle
from tavq.importers.plain_pickle import parse_plain_pickle, read_plain_pickle

keys = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
plain = st.recursive(
    st.one_of(keys, st.integers(-(2**200), 2**200), st.binary(min_size=250, max_size=300)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys, inner, max_size=5),
    ),
    max_leaves=20,
)


@given(plain, st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_every_plain_value_comes_back(value: Any, protocol: int) -> None:
    found = parse_plain_pickle(pickle.dumps(value, protocol), "it")
    assert found == value
    assert repr(found) == repr(value)  # kinds too: True is not 1


def no_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return all(no_bytes(part) for pair in value.items() for part in pair)
    return all(map(no_bytes, value)) if isinstance(value, list | tuple) else not isinstance(value, bytes)


@given(plain.filter(no_bytes), st.integers(0, 2))
def test_old_protocols(value: Any, protocol: int) -> None:
    """Python 3 writes bytes there as a call, which is refused; Python 2 wrote its texts as below."""
    assert repr(parse_plain_pickle(pickle.dumps(value, protocol), "it")) == repr(value)


def test_what_python_2_wrote() -> None:
    """A list of a reference, by the instructions of Python 2's text protocol: (lp0, (dp1, S'...' and 5L."""
    data = b"(lp0\n(dp1\nS'split'\np2\nS'testA'\np3\nsS'ann_id'\np4\nI42\nsS'big'\nL5L\nsS'same'\ng3\nsS'on'\nI01\nsa."
    assert parse_plain_pickle(data, "it") == [{"split": "testA", "ann_id": 42, "big": 5, "same": "testA", "on": True}]
    assert parse_plain_pickle(b"\x80\x02]q\x00U\x03redq\x01a.", "it") == ["red"]


@pytest.mark.parametrize("text", ["caf\u00e9", "it\u2019s", "\u732b", "a 'b' \"c\"", "tab\tline\n", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_the_byte_strings_of_python_2_are_text(text: str, encoding: str) -> None:
    """Each instruction that Python 2 wrote a `str` with; most projects' strings are UTF-8, some older ones are not."""
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return
    literal = b"'" + data.replace(b"'", b"\\'").replace(b"\t", b"\\t").replace(b"\n", b"\\n") + b"'"
    forms = [b"S" + literal + b"\n.", b"U" + bytes([len(data)]) + data + b".", b"T" + len(data).to_bytes(4, "little")]
    forms[2] += data + b"."
    forms.append(b"S'" + "".join(f"\\x{byte:02x}" for byte in data).encode() + b"'\n.")
    assert [parse_plain_pickle(form, "it") for form in forms] == [text] * 4


def test_shared_parts_are_shared() -> None:
    part = [1]
    first, second = parse_plain_pickle(pickle.dumps([part, part]), "it")
    assert first is second


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_runs(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"split": Harm(tmp_path / "harmed")}], protocol))
    with pytest.raises(FileError, match=r"refs\(unc\)\.p holds more than plain values \((STACK_)?GLOBAL at byte \d+\)"):
        read_plain_pickle(path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "value", [{1, 2}, frozenset(), np.float64(1), complex(1), range(3), bytearray(b"x"), print, Path]
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_objects_are_refused(value: Any, protocol: int) -> None:
    with pytest.raises(FileError, match="more than plain values"):
        parse_plain_pickle(pickle.dumps([value], protocol), "it")


def test_every_instruction_is_known_or_refused() -> None:
    builder = plain_pickle._Builder()
    known = {
        *plain_pickle.VALUES,
        *plain_pickle.CONSTANTS,
        *plain_pickle.TUPLES,
        *plain_pickle.PUTS,
        *plain_pickle.GETS,
    }
    known |= {*plain_pickle.IGNORED, *builder.others, "STOP"}
    names = {opcode.name for opcode in pickletools.opcodes}
    assert known < names
    assert names - known == {
        "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID",
        "EXT1", "EXT2", "EXT4", "POP", "POP_MARK", "DUP", "EMPTY_SET", "ADDITEMS", "FROZENSET", "BYTEARRAY8",
        "NEXT_BUFFER", "READONLY_BUFFER",
    }  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.text(string.printable, max_size=60).map(str.encode)))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    with contextlib.suppress(FileError):
        parse_plain_pickle(data, "it")


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL), st.data())
def test_truncated_and_damaged_pickles(value: Any, protocol: int, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps(value, protocol))
    place = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(FileError):
        parse_plain_pickle(bytes(whole[:place]), "it")
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(FileError):
        parse_plain_pickle(bytes(whole), "it")


@pytest.mark.parametrize(
    "data",
    [b".", b"]]." , b"(.", b"(K\x01.", b"K\x01K\x02a.", b"]K\x01K\x02s.", b"}(K\x01u.", b"h\x05.", b"K\x01\x86.",
     b"}]K\x01s.", b"\x8a\x7f\x01.", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.", b"I" + b"9" * 5000 + b"\n.",
     b"t.", b"u.", b"a."],
)  # fmt: skip
def test_wrong_programs(data: bytes) -> None:
    with pytest.raises(FileError, match="it is not a valid pickle"):
        parse_plain_pickle(data, "it")


def test_keys_that_take_forever_are_refused() -> None:
    """Tuples within tuples, of which each holds the one before twice: the hash of the last takes 2 to the 60 steps."""
    data = b"}K\x01" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60)) + b"K\x02s."
    with pytest.raises(FileError, match="a dict key is a tuple"):
        parse_plain_pickle(data, "it")


def test_missing_or_too_long_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="Could not read"):
        read_plain_pickle(tmp_path / "refs(unc).p")
    (tmp_path / "long.p").write_bytes(pickle.dumps([0] * 100))
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 50)
    with pytest.raises(FileError, match="at most 50 are allowed"):
        read_plain_pickle(tmp_path / "long.p")
