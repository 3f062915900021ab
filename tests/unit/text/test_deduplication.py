"""Distinct texts get the ids that a dictionary would give them."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tavq.core.errors import FileError
from tavq.text import deduplication
from tavq.text.deduplication import Deduplicator
from tavq.text.splitting import concatenate_texts


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=st.lists(st.lists(st.text("abé", max_size=2), max_size=12), max_size=6),
    bucket=st.integers(1, 40),
)
def test_ids_match_those_of_a_dictionary(
    blocks: list[list[str]], bucket: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplication, "BUCKET", bucket)
    texts = [text for block in blocks for text in block]
    known: dict[str, int] = {}
    expected = [known.setdefault(text, len(known)) for text in texts]
    found = Deduplicator(tmp_path / "work", len(texts))
    for block in blocks:
        found.add(*concatenate_texts(block))
    found.solve()
    assert found.count == len(known)
    np.testing.assert_array_equal(found.ids(0, len(texts)), expected)
    np.testing.assert_array_equal(found.ids(1, 3), expected[1:3])
    found.close()
    assert not (tmp_path / "work").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"Could not write"):
        Deduplicator(tmp_path / "file" / "work", 3)


def test_the_file_of_ids_has_its_space_before_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without space would end the process by SIGBUS; also where the system cannot allocate."""

    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    for allocate in (os.posix_fallocate, unsupported):
        monkeypatch.setattr(os, "posix_fallocate", allocate)
        found = deduplication._create_array(tmp_path / "ids", 300_000)
        assert (found == 0).all()
        assert os.stat(tmp_path / "ids").st_blocks * 512 >= 300_000 * 8


def test_a_disk_without_space_for_the_ids_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(FileError, match=r"Could not write .*ids: No space left"):
        deduplication._create_array(tmp_path / "ids", 10)
