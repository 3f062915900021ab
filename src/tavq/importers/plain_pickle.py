"""Plain values out of a Python pickle, without Python's unpickler: nothing in the file can ever run.

A pickle is a small program. Of its instructions only those that build dicts, lists, tuples, texts, bytes, numbers,
truth values and None are followed here; any other one, above all those that name a function, ends the reading.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tavq.core.errors import FileError
from tavq.core.files import read_bytes

MAX_BYTES = 200_000_000
KEYS = (str, bytes, int, float, bool, type(None))
"""Kinds of keys of a dict; not tuples, since the hash of tuples within tuples can take for ever."""

VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
SILENT = {"PROTO", "FRAME"}


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle file of any protocol that holds plain values only.

    Raises FileError for any other file: one with objects or functions in it, one cut short, one over 200 MB.
    """
    if path.exists() and path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path} holds {path.stat().st_size} bytes; pickles here stay below {MAX_BYTES}.")
    return parse_plain_pickle(read_bytes(path), str(path))


def parse_plain_pickle(data: bytes, source: str) -> Any:
    """The value of the bytes of a pickle; `source` names it in errors."""
    builder = _Builder()
    try:
        for opcode, argument, place in pickletools.genops(data):
            if opcode.name == "STOP":
                return builder.result()
            builder.follow(opcode.name, argument, place)
    except _NotPlainError as error:
        raise FileError(f"{source} {error}.") from error
    except Exception as error:  # of bytes that are no pickle: whatever the instruction found no room for
        raise FileError(f"{source} is not a whole pickle: {str(error)[:200] or type(error).__name__}.") from error
    raise FileError(f"{source} is not a whole pickle: it does not end.")


class _NotPlainError(Exception):
    """An instruction that does more than build plain values."""


class _Builder:
    """The stack on which the instructions work. What they find missing raises, and is told as a broken file."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.others: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "LIST": lambda: self._push(self._since_mark()),
            "TUPLE": lambda: self._push(tuple(self._since_mark())),
            "DICT": lambda: self._push(_with_pairs({}, self._since_mark())),
            "APPEND": lambda: self._extend([self.stack.pop()]),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._set(self._last(2)),
            "SETITEMS": lambda: self._set(self._since_mark()),
            "MEMOIZE": lambda: self.memo.update({len(self.memo): self.stack[-1]}),
        }

    def follow(self, name: str, argument: Any, place: int | None) -> None:
        """Does what one instruction says."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self.stack.append(tuple(self._last(TUPLES[name])))
        elif name in PUTS:
            self.memo[argument] = self.stack[-1]
        elif name in GETS:
            self.stack.append(self.memo[argument])
        elif name in self.others:
            self.others[name]()
        elif name not in SILENT:
            raise _NotPlainError(
                f"holds more than plain values ({name} at byte {place}); only dicts, lists, tuples, texts and numbers "
                "are read, so that no file can run anything"
            )

    def result(self) -> Any:
        """The one value that is left."""
        if len(self.stack) != 1 or self.below:
            raise ValueError("it ends before its value is whole")
        return self.stack[0]

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def _last(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) < count:
            raise ValueError("the stack is empty")
        del self.stack[-count:]
        return values

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("elements are added to what is no list")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise ValueError("keys are set in what is no dict")
        _with_pairs(target, values)


def _with_pairs(target: dict[Any, Any], values: list[Any]) -> dict[Any, Any]:
    """The dict with key, value, key, value, ... added."""
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) not in KEYS:
            raise ValueError(f"the key of a dict is a {type(key).__name__}")
        target[key] = value
    return target
