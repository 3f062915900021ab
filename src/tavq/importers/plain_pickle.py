"""Reading plain values from a Python pickle without Python's unpickler, so that nothing in the file can run.

A pickle is a small program. Only the instructions that build dicts, lists, tuples, strings, bytes, numbers, booleans
and None are executed here; any other one, above all those that name a function, is an error.
"""

import codecs
import contextlib
import io
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tavq.core.errors import FileError
from tavq.core.files import read_bytes

MAX_BYTES = 200_000_000
KEYS = (str, bytes, int, float, bool, type(None))
"""Types of dict keys; not tuples, because hashing deeply nested tuples can take forever."""

VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
GETS = {"GET", "BINGET", "LONG_BINGET"}
IGNORED = {"PROTO", "FRAME"}
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle file of any protocol that holds plain values only.

    Raises FileError if it holds objects or functions, is truncated, or is larger than 200 MB.
    """
    if path.exists() and path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are allowed.")
    return parse_plain_pickle(read_bytes(path), str(path))


def parse_plain_pickle(data: bytes, source: str) -> Any:
    """Parse the bytes of a pickle; errors call it `source`."""
    builder = _Builder()
    try:
        for name, argument, offset in _read_instructions(io.BytesIO(data)):
            if name == "STOP":
                return builder.result()
            builder.execute(name, argument, offset)
    except _NotPlainError as error:
        raise FileError(f"{source} {error}.") from error
    except Exception as error:  # an invalid pickle may make its instructions raise anything
        raise FileError(f"{source} is not a valid pickle: {str(error)[:200] or type(error).__name__}.") from error
    raise FileError(f"{source} is not a valid pickle: it does not end.")


def _read_instructions(file: io.BytesIO) -> Iterator[tuple[str, Any, int]]:
    """Yield the name, the argument and the offset of each instruction, with the strings of Python 2 as text.

    `pickletools.genops` takes the bytes of these strings for Latin-1, or refuses those beyond ASCII.
    """
    while code := file.read(1):
        offset = file.tell() - 1
        instruction = OPCODES.get(code)
        if instruction is None:
            raise ValueError(f"byte {offset} is not an instruction")
        if instruction.name == "STRING":
            yield instruction.name, _decode_bytes(_read_quoted(file)), offset
            continue
        argument = instruction.arg.reader(file) if instruction.arg is not None else None
        if instruction.name in ("BINSTRING", "SHORT_BINSTRING"):
            argument = _decode_bytes(str(argument).encode("latin-1"))
        yield instruction.name, argument, offset


def _read_quoted(file: io.BytesIO) -> bytes:
    """The bytes of a string of protocol 0, which is a line with a quoted and escaped literal."""
    line = file.readline()
    literal = line.rstrip(b"\n").strip()
    if not line.endswith(b"\n") or len(literal) < 2 or literal[:1] not in (b"'", b'"') or literal[-1:] != literal[:1]:
        raise ValueError("a string is not quoted")
    return codecs.escape_decode(literal[1:-1])[0]


def _decode_bytes(data: bytes) -> str:
    """UTF-8, which nearly all files of today are; else Windows-1252, and Latin-1 where that has no character."""
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    return data.decode("latin-1")


class _NotPlainError(Exception):
    """An instruction that does more than build plain values."""


class _Builder:
    """The stack machine that executes the instructions; whatever one of them lacks raises an error."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.others: dict[str, Callable[[], None]] = {
            "MARK": self._mark,
            "EMPTY_LIST": lambda: self.stack.append([]),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "LIST": lambda: self._push(self._since_mark()),
            "TUPLE": lambda: self._push(tuple(self._since_mark())),
            "DICT": lambda: self._push(_add_pairs({}, self._since_mark())),
            "APPEND": lambda: self._extend([self.stack.pop()]),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._set(self._last(2)),
            "SETITEMS": lambda: self._set(self._since_mark()),
            "MEMOIZE": lambda: self.memo.update({len(self.memo): self.stack[-1]}),
        }

    def execute(self, name: str, argument: Any, offset: int | None) -> None:
        """Execute one instruction."""
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
        elif name not in IGNORED:
            raise _NotPlainError(
                f"holds more than plain values ({name} at byte {offset}); only dicts, lists, tuples, strings and "
                "numbers are read, so that no file can run code"
            )

    def result(self) -> Any:
        """The one value that is left on the stack."""
        if len(self.stack) != 1 or self.outer_stacks:
            raise ValueError("it ends before its value is complete")
        return self.stack[0]

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.outer_stacks.pop()
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
            raise ValueError("it appends to something that is not a list")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise ValueError("it sets keys of something that is not a dict")
        _add_pairs(target, values)


def _add_pairs(target: dict[Any, Any], values: list[Any]) -> dict[Any, Any]:
    """Add key, value, key, value, ... to the dict."""
    for key, value in zip(values[::2], values[1::2], strict=True):
        if type(key) not in KEYS:
            raise ValueError(f"a dict key is a {type(key).__name__}")
        target[key] = value
    return target
