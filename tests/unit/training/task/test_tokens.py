"""The training data of tasks: tokens encoded once per stamp, in an order that does not depend on the processes."""

import os
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_device import CUDA, pretend
from pretend_operators import count_operators

from tavq.core.errors import DataError, FileError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.records import Fault
from tavq.tasks.base import GenerationBatch, TokenLayout
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.task.token_cache import find_cached_tokens
from tavq.training.task.tokens import (
    FrozenTokenizer,
    TokenBatches,
    TokenTable,
    encode_split,
    join_tables,
    load_or_encode,
)

KEYS = tuple(f"images/{number}.png" for number in range(7))


def table(sides: int = 2, given: bool = False) -> TokenTable:
    """Tokens are 100 image + 10 orientation + position; those of the condition are larger by 1,000."""
    tokens = torch.arange(7)[:, None, None] * 100 + torch.arange(sides)[:, None] * 10 + torch.arange(3)
    return TokenTable(tokens.int(), KEYS, (), tokens.int() + 1000 if given else None)


class Text:
    """One word per image with an even number: the number."""

    width = 1

    def __contains__(self, key: str) -> bool:
        return int(Path(key).stem) % 2 == 0

    def vectors(self, key: str) -> dict[str, Any]:
        row = np.full((1, 1), int(Path(key).stem), np.float32)
        return {"words": row, "phrases": row, "sentences": row}

    def vocabulary(self, granularity: str) -> Any:
        raise AssertionError("the test needs no vocabulary")


class Captions(Text):
    """Three captions of each image, kept apart; caption j of image i is the word 10 i + j."""

    each_caption = True

    def __contains__(self, key: str) -> bool:
        return int(key.partition("\n")[2] or 0) < 3

    def vectors(self, key: str) -> dict[str, Any]:
        name, _, number = key.partition("\n")
        row = np.full((1, 1), 10 * int(Path(name).stem) + int(number or 0), np.float32)
        return {"words": row, "phrases": row, "sentences": row}


@pytest.fixture
def dataset(shared_images: Path) -> FolderDataset:
    found = FolderDataset(shared_images, "train")
    assert [record.file_name for record in found][:7] == list(KEYS)
    return found


def batches(dataset: FolderDataset, count: int, batch: int = 4, **changes: Any) -> list[GenerationBatch]:
    made = TokenBatches(changes.pop("table", table()), dataset, batch, changes.pop("seed", 3), **changes)
    return [next(made) for _ in range(count)]


def rows(found: list[GenerationBatch]) -> list[list[int]]:
    return torch.cat([codes.tokens for codes in found]).tolist()


def epochs(found: list[list[int]]) -> list[list[int]]:
    """The first token of each sample, by epoch."""
    return [[row[0] for row in found[start : start + 7]] for start in range(0, len(found), 7)]


def words(found: list[GenerationBatch]) -> list[tuple[int, int]]:
    """The image and the caption of each sample."""
    drawn = [int(word) for codes in found for word in codes.text.words.vectors.flatten()]
    assert [number // 10 for number in drawn] == [row[0] // 100 for row in rows(found)]
    return [divmod(number, 10) for number in drawn]


def test_a_caption_is_drawn_in_each_epoch(dataset: FolderDataset) -> None:
    several = [replace(record, captions=("a", "b", "c")) for record in dataset]
    apart = dataset.subset(several)
    found = words(batches(apart, 70, text=Captions()))
    assert set(found) == {(image, caption) for image in range(7) for caption in range(3)}
    assert words(batches(apart, 70, text=Captions())) == found
    resumed = words(batches(apart, 65, text=Captions(), consumed=20))
    assert resumed == found[20:]
    second = words(batches(apart, 17, 4, text=Captions(), rank=1, world=2))
    assert second == [pair for step in range(17) for pair in found[4 * step + 2 : 4 * step + 4]]


# --- batches --------------------------------------------------------------------------------------------------------


def test_each_epoch_has_every_image_once_and_in_another_order(dataset: FolderDataset) -> None:
    found = rows(batches(dataset, 7))  # 28 samples of 7 images, whose epochs end within batches
    order = [[token // 100 for token in epoch] for epoch in epochs(found)]
    assert [sorted(epoch) for epoch in order] == [list(range(7))] * 4
    assert len({tuple(epoch) for epoch in order}) == 4
    other = epochs(rows(batches(dataset, 7, seed=4)))
    assert order != [[token // 100 for token in epoch] for epoch in other]


def test_tokens_belong_to_their_keys_and_to_one_orientation(dataset: FolderDataset) -> None:
    for codes in batches(dataset, 7, table=table(given=True)):
        assert codes.tokens.dtype == torch.int64
        assert codes.condition is not None
        assert codes.condition.tolist() == (codes.tokens + 1000).tolist()  # the map is mirrored with its image
        for key, row in zip(codes.keys, codes.tokens.tolist(), strict=True):
            assert key == KEYS[row[0] // 100]
            assert row == [row[0], row[0] + 1, row[0] + 2]
    assert batches(dataset, 1)[0].condition is None


def test_each_epoch_flips_another_half_of_the_images(dataset: FolderDataset) -> None:
    found = rows(batches(dataset, 70, batch=7))
    sides = Counter(row[0] // 10 % 10 for row in found)
    assert 190 < sides[0] < 300  # of 490, deviation 11
    assert sides.keys() == {0, 1}
    by_image: dict[int, list[int]] = {}
    for row in found:
        by_image.setdefault(row[0] // 100, []).append(row[0] // 10 % 10)
    assert len({tuple(sides) for sides in by_image.values()}) == 7
    assert rows(batches(dataset, 7)) == rows(batches(dataset, 7))
    other = rows(batches(dataset, 70, batch=7, seed=4))
    assert [sorted(epoch) for epoch in epochs(found)] != [sorted(epoch) for epoch in epochs(other)]
    assert {row[0] // 10 % 10 for row in rows(batches(dataset, 7, table=table(sides=1)))} == {0}


def test_two_processes_together_have_one_processes_batches(dataset: FolderDataset) -> None:
    alone = rows(batches(dataset, 6, batch=4))
    first, second = (batches(dataset, 6, batch=4, rank=rank, world=2) for rank in (0, 1))
    together = [part for pair in zip(first, second, strict=True) for part in pair]
    assert rows(together) == alone
    assert [key for codes in together for key in codes.keys] == [
        key for codes in batches(dataset, 6) for key in codes.keys
    ]


def test_batches_continue_after_the_consumed_samples(dataset: FolderDataset) -> None:
    alone = batches(dataset, 6)
    assert rows(batches(dataset, 3, consumed=12)) == rows(alone[3:])
    made = TokenBatches(table(), dataset, 4, 3, consumed=4, rank=1, world=2)
    assert next(made).tokens.tolist() == rows(alone)[6:8]
    assert made.consumed == 8  # of both processes
    assert iter(made) is made
    made.close()


def test_a_batch_has_the_text_of_its_images(dataset: FolderDataset) -> None:
    for codes in batches(dataset, 4, text=Text()):
        assert codes.text is not None
        for place, key in enumerate(codes.keys):
            number = int(Path(key).stem)
            there = number % 2 == 0
            assert bool(codes.text.words.mask[place].any()) == there
            assert float(codes.text.words.vectors[place].sum()) == (number if there else 0)
    assert batches(dataset, 1)[0].text is None


class LoggedText(Text):
    """Writes down which process looks up which text; one of them is damaged, if it is told so."""

    def __init__(self, log: Path, damaged: str = "") -> None:
        self.log, self.damaged = log, damaged

    def vectors(self, key: str) -> dict[str, Any]:
        if key == self.damaged:
            raise FileError("the store was altered")
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {key}\n")
        return super().vectors(key)


def test_workers_look_up_the_same_text(dataset: FolderDataset, tmp_path: Path) -> None:
    found, log = {}, tmp_path / "log"
    for workers in (0, 2):
        made = TokenBatches(table(), dataset, 4, 3, LoggedText(log), consumed=4, workers=workers)
        log.write_text("")  # to see which tables there are, one text was looked up already
        found[workers] = [next(made) for _ in range(5)]
        assert made.consumed == 24  # not what is looked up ahead
        made.close()
        processes = {line.split()[0] for line in log.read_text().splitlines()}
        assert (str(os.getpid()) in processes, len(processes)) == ((True, 1) if workers == 0 else (False, 2))
    for alone, batch in zip(found[0], found[2], strict=True):
        assert alone.keys == batch.keys
        assert alone.text is not None
        assert batch.text is not None
        assert torch.equal(alone.text.words.vectors, batch.text.words.vectors)
        assert torch.equal(alone.text.words.mask, batch.text.words.mask)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_text_is_one_line_from_a_worker_too(dataset: FolderDataset, tmp_path: Path, workers: int) -> None:
    text = LoggedText(tmp_path / "log", "images/6.png")
    made = TokenBatches(table(), dataset, 7, 3, text, workers=workers)
    with pytest.raises(FileError, match=r"^the store was altered$"):
        next(made)


def test_text_crosses_to_a_gpu_ahead(dataset: FolderDataset) -> None:
    expected = batches(dataset, 3, text=Text())
    with pretend(count_operators) as notes:
        made = TokenBatches(table(), dataset, 4, 3, Text(), device=CUDA)
        for batch in expected:
            found = next(made).text
            assert found is not None
            assert batch.text is not None
            assert found.words.vectors.device == CUDA
            assert torch.equal(found.words.vectors.cpu(), batch.text.words.vectors)
        assert not notes.mixes


# --- the table ------------------------------------------------------------------------------------------------------


def tokenizer(parts: int = 1) -> Tokenizer:
    torch.manual_seed(0)
    net = {"channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": False}
    codebook = {"name": "learned", "entries": 12, "width": 6, "parts": parts}
    quantizer = {"name": "product" if parts > 1 else "nearest"}
    made = Tokenizer(TokenizerConfig.model_validate({"net": net, "codebook": codebook, "quantizer": quantizer})).eval()
    with torch.no_grad():
        for parameter in made.codebook.parameters():
            parameter.normal_()
    return made


@pytest.mark.parametrize("parts", [1, 2])
def test_a_split_is_encoded_with_its_mirror_images(dataset: FolderDataset, parts: int) -> None:
    made, config = tokenizer(parts), DataConfig(size=16)
    layout = TokenLayout(height=4, width=4, sizes=made.codebook.sizes)
    frozen = FrozenTokenizer(made, {}, 16, layout, "maps")
    seen: list[int] = []
    found = encode_split(frozen, dataset, config, True, torch.device("cpu"), seen.append)
    [batch] = EvaluationLoader(dataset, config, 32)
    assert found.keys == batch.keys == tuple(record.file_name for record in dataset)
    assert found.tokens.shape == (10, 2, 16 * parts)
    assert found.tokens.dtype == torch.int32
    assert seen == [10]
    assert torch.equal(found.tokens[:, 0].long(), layout.to_tokens(made.encode(batch.images)))
    assert torch.equal(found.tokens[:, 1].long(), layout.to_tokens(made.encode(batch.images.flip(3))))
    assert not torch.equal(found.tokens[:, 0], found.tokens[:, 1])
    plain = encode_split(frozen, dataset, config, False, torch.device("cpu"))
    assert torch.equal(plain.tokens, found.tokens[:, :1])
    assert plain.condition is None


def test_images_without_a_map_are_skipped() -> None:
    maps = TokenTable(table().tokens[[5, 1]] + 1000, (KEYS[5], KEYS[1]), ())
    found = join_tables(table(), maps)
    assert found.keys == (KEYS[1], KEYS[5])  # in the order of the images
    assert found.condition is not None
    assert found.tokens[:, 0, 0].tolist() == [100, 500]
    assert found.condition[:, 1, 2].tolist() == [1112, 1512]
    with pytest.raises(DataError, match="No image can be read together with its segmentation"):
        join_tables(table(), TokenTable(maps.tokens, ("x", "y"), ()))


@pytest.mark.parametrize("given", [False, True])
def test_tokens_are_encoded_once_per_stamp(tmp_path: Path, given: bool) -> None:
    path, made = tmp_path / "tokens.safetensors", []

    def make() -> TokenTable:
        made.append(1)
        return table(given=given)

    first = load_or_encode(path, "a", make)
    again = load_or_encode(path, "a", make)
    assert len(made) == 1
    assert again.keys == first.keys == KEYS
    assert torch.equal(again.tokens, first.tokens)
    assert again.tokens.dtype == torch.int32
    if given:
        assert again.condition is not None
        assert torch.equal(again.condition, table(given=True).condition)
    else:
        assert again.condition is None
    load_or_encode(path, "b", make)  # another tokenizer, data set, size or flip
    assert len(made) == 2
    load_or_encode(path, "b", make)
    assert len(made) == 2
    load_or_encode(path, "a", make)
    assert len(made) == 3


def test_a_damaged_token_cache_is_encoded_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens.safetensors"
    load_or_encode(path, "a", table)
    path.write_bytes(path.read_bytes()[:40])
    assert load_or_encode(path, "a", table).keys == KEYS

    def fail() -> TokenTable:
        raise AssertionError("it was written whole")

    assert load_or_encode(path, "a", fail).keys == KEYS


def test_another_run_takes_the_tokens_that_one_has_kept(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file of the first run is gone; of images that changed, or from a damaged file, it takes none."""
    monkeypatch.setenv("TAVQ_CACHE", str(tmp_path / "cache"))
    data, made, said = FolderDataset(image_folder, "train"), [], list[str]()

    def load(run: str, stamp: str = "a", faults: tuple[Fault, ...] = ()) -> TokenTable:
        def make() -> TokenTable:
            made.append(run)
            return replace(table(), faults=faults)

        find = partial(find_cached_tokens, stamp, data, torch.device("cpu"))
        return load_or_encode(tmp_path / run / "tokens.safetensors", stamp, make, find, said.append)

    first = load("one")
    assert torch.equal(load("two").tokens, first.tokens)
    [kept] = (tmp_path / "cache/tokens").iterdir()
    assert said == [
        f"The tokens of the images are kept for other runs in {kept}.",
        f"The tokens of the images are those that an earlier run kept in {kept}.",
    ]
    load("three", "b")
    load("four", "c", faults=(Fault("x.png", "cut", "train", costs_image=True),))
    load("five", "c")  # it may accept fewer faults, so it looks itself
    assert made == ["one", "three", "four", "five"]
    kept.write_bytes(kept.read_bytes()[:60])
    load("six")
    file = data.path(data[0].file_name)
    os.utime(file, ns=(1, 1))
    load("seven")
    load("eight")
    assert made[4:] == ["six", "seven"]
    file.unlink()
    load("nine")
    assert made[6:] == ["nine"]
