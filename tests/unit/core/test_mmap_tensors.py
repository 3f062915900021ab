"""Safetensors files that are written row by row are those that the library writes whole."""

import resource
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tavq.core.errors import FileError
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter

SHAPES = {"rows": ("<f4", [4, 3]), "bytes": ("u1", [5]), "numbers": ("<i8", [2]), "none": ("<f2", [0, 7])}


def test_rows_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    file = TensorFileWriter(path, SHAPES, {"told": "é"})
    assert file.is_new
    file.write("rows", 2, rows[2:])
    file.write("bytes", 1, np.frombuffer(b"xyz", np.uint8))
    file.write("rows", 0, rows[:1].astype(np.float64))
    file.write("numbers", 1, np.array([-7]))
    file.close()
    rows[1] = 0  # never written
    for found in (load_file(path), MappedTensors(path)):
        np.testing.assert_array_equal(found["rows"], rows)
        assert bytes(found["bytes"]) == b"\0xyz\0"
        assert found["numbers"].tolist() == [0, -7]
        assert found["none"].shape == (0, 7)
    assert MappedTensors(path).metadata == {"told": "é"}


def test_the_same_file_is_continued_and_another_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    first = TensorFileWriter(path, SHAPES, {})
    first.write("numbers", 0, np.array([1, 2]))
    first.close()
    again = TensorFileWriter(path, SHAPES, {})
    assert not again.is_new
    again.write("numbers", 1, np.array([3]))
    again.close()
    assert MappedTensors(path)["numbers"].tolist() == [1, 3]
    path.write_bytes(path.read_bytes()[:-1])
    for shapes in (SHAPES, SHAPES | {"numbers": ("<i8", [3])}):
        other = TensorFileWriter(path, shapes, {})
        other.close()
        assert other.is_new
        assert not MappedTensors(path)["numbers"].any()


def test_a_full_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(FileError, match=r"Could not write .*Free space or choose another path"):
            TensorFileWriter(tmp_path / "a.safetensors", {"rows": ("<f4", [400, 3])}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
