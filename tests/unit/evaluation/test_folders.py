"""Folders of images that are compared: how much of them is in memory at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tavq.data import loader
from tavq.data.images import save_png
from tavq.evaluation.folders import BATCH, FolderComparison, ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        save_png(tmp_path / f"{number}.png", np.full((20, 30, 3), 40 * number, np.uint8))
    return tmp_path


@pytest.mark.parametrize(("size", "pixels"), [(None, 600), (16, 256)])
@pytest.mark.parametrize("paired", [False, True])
def test_a_batch_holds_few_large_images(
    folder: Path, size: int | None, pixels: int, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Counted(ImageFolder):
        def read_batches(self, batches: Sequence[Sequence[str]]) -> Iterator[torch.Tensor]:
            for images in super().read_batches(batches):
                read.append(len(images))
                yield images

    def count_read(limit: int) -> list[int]:
        monkeypatch.setattr(loader, "BATCH_PIXELS", limit)
        read.clear()
        comparison = FolderComparison(Counted(folder, size=size), Counted(folder, size=size), [])
        (comparison.read_pairs if paired else comparison.read)(lambda done, total: None)
        return read if paired else read[2:]  # without pairs the first of each is read to compare their sizes

    twice = (lambda counts: [count for count in counts for _ in range(2)]) if paired else (lambda counts: counts * 2)
    assert count_read(2 * pixels) == twice([2, 2, 1])
    assert count_read(pixels - 1) == twice([1] * 5)
    assert count_read(BATCH * pixels) == twice([5])
