"""Checkpoints of other projects: tensors and nothing else, and a file that says what it was made from."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.conversion import Origin, read_checkpoint, read_converted, write_converted
from tavq.core.errors import FileError
from tavq.core.files import read_tensors, write_tensors

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "none": torch.zeros(0)}
ORIGIN = Origin("kind", {"weights": "ab" * 32})


class Runs:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_both_layouts_of_torch_are_read(tmp_path: Path, zipped: bool, nested: bool) -> None:
    value = {"state_dict": TENSORS, "epoch": 3} if nested else TENSORS
    torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "x.pth")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(found[name], tensor)


def test_nothing_in_a_checkpoint_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.save({"a": torch.zeros(1), "b": Runs(ran)}, tmp_path / "zip.pth")
    torch.save({"a": Runs(ran)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": Runs(ran)}))
    for name in ("zip.pth", "old.pth", "plain.pkl"):
        with pytest.raises(FileError, match=rf"{name} is not a checkpoint of tensors alone \(\w+\); no other kind"):
            read_checkpoint(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FileError, match=r"x (is not a checkpoint|does not hold tensors by name)"):
        read_checkpoint(tmp_path / "x")


def test_other_values_are_refused(tmp_path: Path) -> None:
    for value in ({"a": 1}, {}, [torch.zeros(1)], {3: torch.zeros(1)}, torch.zeros(1)):
        torch.save(value, tmp_path / "x")
        with pytest.raises(FileError, match="does not hold tensors by name"):
            read_checkpoint(tmp_path / "x")
    with pytest.raises(FileError, match="There is no file"):
        read_checkpoint(tmp_path / "none")


def test_a_converted_file_says_where_it_is_from(tmp_path: Path) -> None:
    write_converted(tmp_path / "x", TENSORS, ORIGIN)
    tensors, origin = read_converted(tmp_path / "x")
    assert origin == ORIGIN
    assert tensors["a.weight"].tolist() == TENSORS["a.weight"].tolist()
    write_converted(tmp_path / "y", dict(reversed(TENSORS.items())), ORIGIN)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    write_converted(tmp_path / "x", TENSORS, ORIGIN)
    content = bytearray((tmp_path / "x").read_bytes())
    content[-3] ^= 64
    (tmp_path / "x").write_bytes(content)
    assert read_tensors(tmp_path / "x").keys() == TENSORS.keys()
    with pytest.raises(FileError, match="x was altered"):
        read_converted(tmp_path / "x")


def test_a_file_that_nothing_was_converted_to_has_no_origin(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", TENSORS)
    assert read_converted(tmp_path / "x")[1] == Origin()
    write_tensors(tmp_path / "x", TENSORS, {"origin": "[]"})
    with pytest.raises(FileError, match="The origin in"):
        read_converted(tmp_path / "x")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(FileError, match=r"would unpack from [\d,]+ to 50,000,000 bytes"):
        read_checkpoint(path)
