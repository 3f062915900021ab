"""One of several captions of an image at each step: drawn by seed, epoch and image, in training only."""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tavq.core.caption_keys import caption_key, describe_key
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.texts import CaptionKeys
from tavq.interfaces import Batch

Make = Callable[..., Path]
SIXTEEN = DataConfig(size=16)
COUNTS = {0: 5, 1: 3, 2: 0, 3: 1, 4: 2, 5: 5, 6: 4}


class Captions:
    """Caption j of image i has the one word (i, j). Caption 0 of image 4 and 2 of image 6 are unusable."""

    width, each_caption = 2, True

    def __contains__(self, key: str) -> bool:
        name, _, number = key.partition("\n")
        image, caption = int(Path(name).stem), int(number or 0)
        return caption < COUNTS[image] and (image, caption) not in ((4, 0), (6, 2))

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        name, _, number = key.partition("\n")
        own = np.array([[int(Path(name).stem), int(number or 0)]], np.float32)
        return {"words": own, "phrases": own[:0], "sentences": own}

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        return [], np.empty((0, 2), np.float32)


class Joined(Captions):
    each_caption = False

    def __contains__(self, key: str) -> bool:
        return "\n" not in key


@pytest.fixture
def folder(make: Make) -> Path:
    return make(7, {image: {"captions": [f"text {j}" for j in range(count)]} for image, count in COUNTS.items()})


def read(batches: list[Batch]) -> list[tuple[int, int]]:
    """The image and the caption that each sample got; (-1, -1) for a sample without text."""
    found = []
    for batch in batches:
        assert batch.text is not None
        for key, mask, words in zip(batch.keys, batch.text.words.mask, batch.text.words.vectors, strict=True):
            image, caption = (int(value) for value in words[0]) if mask.any() else (-1, -1)
            assert image in (int(Path(key).stem), -1)
            found.append((image, caption))
    return found


def take(count: int, folder: Path, text: Captions, config: DataConfig = SIXTEEN, **options: int) -> list[Batch]:
    loader = TrainingLoader(FolderDataset(folder), config, **{"batch": 3, "seed": 0, **options}, text=text)
    batches = list(islice(loader, count))
    loader.close()
    return batches


def test_training_reads_every_usable_caption_and_nothing_else(folder: Path) -> None:
    seen = set(read(take(7 * 20, folder, Captions())))
    usable = {(image, caption) for image, count in COUNTS.items() for caption in range(count)}
    assert seen == usable - {(4, 0), (6, 2)} | {(-1, -1)}  # image 2 has none


def test_draws_are_even(folder: Path) -> None:
    keys = CaptionKeys(FolderDataset(folder), Captions())
    drawn = [keys.draw(0, seed, epoch) for seed in range(20) for epoch in range(50)]
    counts = [drawn.count(caption_key("images/0.png", number)) for number in range(5)]
    assert sum(counts) == 1000
    assert all(150 < count < 250 for count in counts)


def test_the_seed_and_the_epoch_decide(folder: Path) -> None:
    first = read(take(14, folder, Captions()))
    assert first == read(take(14, folder, Captions()))
    assert first[:7] != first[7:14]
    assert sorted(image for image, _ in first[:7]) == sorted(image for image, _ in first[7:14])
    keys = CaptionKeys(FolderDataset(folder), Captions())
    assert len({tuple(keys.draw(index, seed, 0) for index in range(7)) for seed in range(10)}) > 3


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_the_same(folder: Path, workers: int) -> None:
    config = SIXTEEN.model_copy(update={"workers": workers})
    assert read(take(6, folder, Captions(), config)) == read(take(6, folder, Captions()))


def test_resuming_draws_what_an_undisturbed_run_draws(folder: Path) -> None:
    whole = read(take(10, folder, Captions()))
    for done in range(10):
        assert read(take(10 - done, folder, Captions(), consumed=3 * done)) == whole[3 * done :]


def test_two_processes_draw_what_one_draws(folder: Path) -> None:
    whole = read(take(4, folder, Captions(), batch=4))
    halves = [read(take(4, folder, Captions(), batch=4, rank=rank, world=2)) for rank in (0, 1)]
    joined = [pair for step in range(4) for half in halves for pair in half[2 * step : 2 * step + 2]]
    assert joined == whole


def test_evaluation_reads_the_first_usable_caption(folder: Path) -> None:
    batches = list(EvaluationLoader(FolderDataset(folder), SIXTEEN, 3, Captions()))
    assert read(batches) == [(0, 0), (1, 0), (-1, -1), (3, 0), (4, 1), (5, 0), (6, 0)]


def test_a_source_that_joins_captions_is_read_by_the_images_own_keys(folder: Path) -> None:
    assert {caption for _, caption in read(take(14, folder, Joined()))} == {0}
    keys = CaptionKeys(FolderDataset(folder), Joined())
    assert [keys.draw(0, seed, 3) for seed in range(9)] == ["images/0.png"] * 9
    assert CaptionKeys(FolderDataset(folder), None).first(2) == "images/2.png"


def test_keys_of_captions_are_described_by_their_image() -> None:
    assert [describe_key(caption_key("a.png", number)) for number in (0, 1)] == ["a.png", "a.png, caption 2"]
