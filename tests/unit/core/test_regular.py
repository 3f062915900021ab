"""A pipe, a device or a folder in the place of a file ends in one error: nothing waits, nothing fills the memory."""

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core import files
from tavq.core.errors import DataError, FileError
from tavq.core.files import read_arrays
from tavq.core.jsonl import LineReader, iter_raw_lines
from tavq.core.mmap_tensors import MappedTensors
from tavq.data.csv_metadata import read_rows
from tavq.data.folder import FolderDataset, iter_records

READERS: dict[str, Callable[[Path], Any]] = {
    "bytes": files.read_bytes,
    "text": files.read_text,
    "lines": lambda path: next(files.read_lines(path)),
    "json": files.read_json,
    "json lines": files.read_json_lines,
    "tensors": files.read_tensors,
    "tensor": lambda path: files.tensor_names(path),
    "arrays": read_arrays,
    "sha256": files.sha256,
    "raw lines": lambda path: next(iter_raw_lines(path, 100)),
    "one line": lambda path: LineReader(100).read(path, 0),
    "mapped": MappedTensors,
    "csv": lambda path: list(read_rows(path)),
}


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "zero": link_to("/dev/zero"),
    "random": link_to("/dev/urandom"),
    "null": link_to("/dev/null"),
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": link_to("gone"),
}


def within(seconds: float, call: Callable[[], Any]) -> BaseException | None:
    """The error that a call ends with; a call that waits for ever fails the test."""
    caught: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            caught.append(None)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert caught, "it waits"
    return caught[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_file_is_refused_by_name(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "odd.csv"
    KINDS[kind](path)
    error = within(5, lambda: READERS[reader](path))
    assert isinstance(error, FileError), error
    assert "odd.csv" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "train/metadata.jsonl", "long_text.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
@pytest.mark.parametrize("read", [FolderDataset, lambda folder: list(iter_records(folder))])
def test_a_data_set_with_one_is_read_or_refused(
    image_folder: Path, read: Callable[[Path], Any], kind: str, name: str
) -> None:
    if name != "long_text.jsonl":
        (image_folder / "metadata.jsonl").unlink()
    (image_folder / name).parent.mkdir(exist_ok=True)
    KINDS[kind](image_folder / name)
    error = within(10, lambda: read(image_folder))
    assert error is None or (isinstance(error, FileError | DataError) and name in str(error))


def test_a_pipe_of_the_shell_is_read() -> None:
    code = (
        "import sys; from pathlib import Path; from tavq.core import files; print(files.read_json(Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    found = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{code}' <(echo '[1, 2]')"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert found.stdout == "[1, 2]\n", found.stderr


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_npz_bomb_is_refused_unpacked(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", method) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (150_000_000,)})
        for _ in range(150):
            file.write(bytes(1_000_000))
    with pytest.raises(FileError, match=r"bomb\.npz .* would unpack from [0-9,]+ to 150,000,\d+ bytes"):
        read_arrays(tmp_path / "bomb.npz")


def test_packed_weights_are_read(tmp_path: Path) -> None:
    weights = {"zeros": np.zeros(1_000_000, np.float32), "random": np.random.default_rng(0).normal(size=1000)}
    np.savez_compressed(tmp_path / "a.npz", **weights)
    found = read_arrays(tmp_path / "a.npz")
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
