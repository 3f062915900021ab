"""Drawn scenes with all that any recipe reads, for runs on a GPU that is not there."""

from pathlib import Path

import pytest

from tavq.cli import run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set with its text store."""
    folder = tmp_path_factory.mktemp("device") / "scenes"
    assert run(["data", "scenes", str(folder), "--images", "16", "--size", "32"]) == 0
    assert run(["text", str(folder), "--full-text", "--word-graph", "--min-count", "1"]) == 0
    return folder
