"""Tar files from strangers, in memory that does not grow."""

import tarfile
import tracemalloc
from pathlib import Path

import pytest

from tavq.core.errors import DataError
from tavq.data import tars
from tavq.data.tars import iter_members


def test_a_stream_keeps_no_list_of_its_members(tmp_path: Path) -> None:
    path = tmp_path / "many.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(4000):
            archive.addfile(tarfile.TarInfo(f"{number:06d}.txt"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in iter_members(path)) == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # with the list 3 MB


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, big = tmp_path / "in.tar", tmp_path / "big"
    big.write_bytes(b"0123456789")
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"odd{kind!r}")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.add(big, "big")
    assert [(member.name, member.size, member.read()) for member in iter_members(path)] == [("big", 10, b"0123456789")]
    monkeypatch.setattr(tars, "MAX_IMAGE_FILE", 9)
    with pytest.raises(DataError, match=r"in\.tar: 'big' has 10 bytes; at most 9 are allowed"):
        [member.read() for member in iter_members(path)]
