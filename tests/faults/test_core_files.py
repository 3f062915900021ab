"""Full disks, cut files and flipped bits: an error that names the file, and the old file as it was."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tavq.core import files, temporary
from tavq.core.errors import FileError
from tavq.core.mmap_tensors import MappedTensors

# --- killed -----------------------------------------------------------------------------------------------------


def test_the_next_run_removes_what_a_killed_one_left_of_a_new_data_set(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "all" / "out"
    assert start("data", "scenes", out, "--images", 2, die_at=1).wait() == -signal.SIGKILL
    left = [path.name for path in out.parent.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(temporary.TEMP_PREFIX)
    assert start("data", "scenes", out, "--images", 2).wait() == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]


# --- full disk --------------------------------------------------------------------------------------------------

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from tavq.core import files
from tavq.core.errors import FileError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])

def fill(path):
    with files.write_folder(path) as place:
        files.write_bytes(place / "small", b"x")
        files.write_bytes(place / "large", b"x" * 5000)

writes = {
    "bytes": lambda path: files.write_bytes(path, b"x" * 5000),
    "text": lambda path: files.write_text(path, "x" * 5000),
    "json": lambda path: files.write_json(path, ["x"] * 5000),
    "lines": lambda path: files.write_json_lines(path, ["x"] * 5000),
    "tensors": lambda path: files.write_tensors(path, {"a": torch.zeros(5000)}),
    "log": lambda path: files.append_json_line(path, "x" * 5000),
    "folder": fill,
}
for name, write in writes.items():
    try:
        write(folder / name)
    except FileError as error:
        print(name, error)
"""


def test_a_full_disk_is_reported_and_old_files_stay(tmp_path: Path) -> None:
    plain = ("bytes", "text", "json", "lines", "tensors", "log")
    for name in plain:
        (tmp_path / name).write_text('"old"\n')
    with files.write_folder(tmp_path / "folder") as place:
        files.write_text(place / "old", "old")
    run = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stderr == ""
    said = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    for name in (*plain, "folder"):
        assert said[name].startswith(f"Could not write {tmp_path / name}")
        assert said[name].endswith("File too large. Free space or choose another path.")
    assert {name: files.read_json_lines(tmp_path / name) for name in plain} == {name: ["old"] for name in plain}
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((*plain, "folder"))


# --- cut and flipped files --------------------------------------------------------------------------------------

TENSORS = {"table": torch.arange(12.0).view(3, 4), "started": torch.tensor(True), "none": torch.zeros(0, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("broken")
    files.write_tensors(place / "whole.safetensors", TENSORS, {"keys": "[]"})
    np.savez_compressed(place / "whole.npz", a=np.arange(50.0), b=np.ones((2, 2), np.int8))
    files.write_json(place / "whole.json", {"a": [1.5, True], "é": "x"})
    return place


def walk(value: Any) -> None:
    """Touches every number of what a reader gave, as its user would."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value.tolist()
    elif hasattr(value, "values"):
        for item in value.values():
            walk(item)


READERS: dict[str, Callable[[Path], Any]] = {
    "read_tensors": files.read_tensors,
    "MappedTensors": MappedTensors,
    "read_arrays": files.read_arrays,
    "read_json": files.read_json,
}
WHOLE = {
    "read_tensors": "whole.safetensors",
    "MappedTensors": "whole.safetensors",
    "read_arrays": "whole.npz",
    "read_json": "whole.json",
}


@pytest.mark.parametrize("reader", READERS)
def test_every_prefix_of_a_file_is_refused_by_name(folder: Path, reader: str) -> None:
    data = (folder / WHOLE[reader]).read_bytes()
    for size in range(len(data) - 1 if reader == "read_json" else len(data)):  # JSON does not need its last newline
        path = folder / "cut"
        path.write_bytes(data[:size])
        with pytest.raises(FileError, match="cut"):
            walk(READERS[reader](path))


@pytest.mark.parametrize("reader", ["read_tensors", "MappedTensors"])
def test_trailing_bytes_are_refused(folder: Path, reader: str) -> None:
    path = folder / "long"
    path.write_bytes((folder / WHOLE[reader]).read_bytes() + b"\0")
    with pytest.raises(FileError, match="long is not a complete safetensors file"):
        READERS[reader](path)


@pytest.mark.filterwarnings("ignore")  # of zipfile about names that a flip made equal
@pytest.mark.parametrize("reader", READERS)
def test_a_flipped_bit_is_refused_by_name_or_leaves_a_readable_file(folder: Path, reader: str) -> None:
    data = (folder / WHOLE[reader]).read_bytes()
    for place in range(len(data)):
        path = folder / "flipped"
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        with contextlib.suppress(FileError):
            walk(READERS[reader](path))


def test_both_readers_of_tensors_agree_on_every_flipped_header(folder: Path) -> None:
    """Where the mapped reader takes a file, the library's gives the same numbers."""
    data = (folder / WHOLE["read_tensors"]).read_bytes()
    path = folder / "flipped"
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 7)]) + data[place + 1 :])
        try:
            mapped = MappedTensors(path)
        except FileError:
            continue
        whole = files.read_tensors(path)
        assert {name: value.tobytes() for name, value in mapped.items()} == {
            name: value.numpy().tobytes() for name, value in whole.items()
        }


# --- forged headers ---------------------------------------------------------------------------------------------


def forged(header: Any, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


FORGED: dict[str, bytes] = {
    "length 2**64": b"\xff" * 8 + b"{}",
    "length above the file": (100).to_bytes(8, "little") + b"{}",
    "no mapping": forged([1]),
    "not text": forged(b"\xff\xff"),
    "deep": forged(b'{"a":' * 50_000),
    "metadata no mapping": forged({"__metadata__": [1], **entry()}),
    "no entry": forged({"a": None}),
    "text entry": forged({"a": "dtype"}),
    "unknown type": forged(entry("F77")),
    "type of types": forged(entry(["F32"])),
    "huge shape": forged(entry(shape=[2**62, 2**62])),
    "shape beyond 64 bits": forged(entry(shape=[2**70])),
    "empty but huge": forged(entry(shape=[0, 2**63], offsets=[0, 0]), b""),
    "negative shape": forged(entry(shape=[-1, -2])),
    "shape of text": forged(entry(shape="2")),
    "shape of fractions": forged(entry(shape=[2.0])),
    "places swapped": forged(entry(offsets=[8, 0])),
    "negative place": forged(entry(offsets=[-8, 0])),
    "three places": forged(entry(offsets=[0, 4, 8])),
    "place beyond": forged(entry(offsets=[8, 16])),
    "infinite place": forged(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, Infinity]}}'),
    "bytes of no tensor": forged(entry(shape=[1], offsets=[0, 4])),
    "no tensor but bytes": forged({}),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("reader", ["read_tensors", "MappedTensors"])
def test_forged_headers_are_refused_by_name(tmp_path: Path, reader: str, name: str) -> None:
    path = tmp_path / "forged.safetensors"
    path.write_bytes(FORGED[name])
    with pytest.raises(FileError, match=r"forged\.safetensors"):
        READERS[reader](path)


@given(st.binary(max_size=80), st.binary(max_size=16))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_or_read(tmp_path: Path, header: bytes, data: bytes) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(forged(header, data))
    for reader in (files.read_tensors, MappedTensors):
        with contextlib.suppress(FileError):
            walk(reader(path))


def test_a_forged_size_takes_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "forged.safetensors"
    path.write_bytes(forged(entry(shape=[2**34], offsets=[0, 2**36])))
    for reader in (files.read_tensors, MappedTensors):
        with pytest.raises(FileError):
            reader(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
