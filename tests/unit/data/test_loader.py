"""The loaders: order, resume, workers, processes, text and unreadable images."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tavq.core.errors import DataError, FileError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.texts import collate_text
from tavq.data.transforms import to_uint8
from tavq.data.workers import explain_dead_workers
from tavq.interfaces import FULL_TEXT, FULL_TEXT_IDS, GRANULARITIES, POOLED, Batch

Make = Callable[..., Path]
SIXTEEN = DataConfig(size=16)


class FakeText:
    """Image i has i % 3 words, one phrase and no sentence; image 4 is unknown."""

    width = 2

    def __contains__(self, key: str) -> bool:
        return key != "images/4.png"

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        number = int(Path(key).stem)
        return {
            "words": np.full((number % 3, 2), number, np.float16),
            "phrases": np.full((1, 2), 10 + number, np.float32),
            "sentences": np.empty((0, 2), np.float32),
        }

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        return [], np.empty((0, 2), np.float32)


class WholeText(FakeText):
    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        number = int(Path(key).stem)
        count = 1 + number % 3
        whole = {"full_text": np.ones((count, 2), np.float32), "full_text/ids": 7 + np.arange(count)}
        return {**super().vectors(key), **whole, "pooled": np.full(2, number, np.float32)}


def take(count: int, folder: Path, config: DataConfig = SIXTEEN, **options: object) -> list[Batch]:
    loader = TrainingLoader(FolderDataset(folder), config, **{"batch": 3, "seed": 0, **options})
    batches = list(islice(loader, count))
    loader.close()
    return batches


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(map(same_batch, first, second))


def same_batch(a: Batch, b: Batch) -> bool:
    return a.keys == b.keys and same_value(a.images, b.images) and same_value(a.text, b.text)


def same_value(a: object, b: object) -> bool:
    """Equal to the bit, whether tensors, dataclasses of tensors or None."""
    if is_dataclass(a) and type(a) is type(b):
        return all(same_value(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a is None and b is None


def numbers(batches: list[Batch]) -> list[int]:
    """The number of each image, which its pixels and its key both say."""
    seen = [int(to_uint8(image)[0, 0, 0]) for batch in batches for image in batch.images]
    assert seen == [int(Path(key).stem) for batch in batches for key in batch.keys]
    return seen


def test_each_epoch_holds_every_image_once_in_its_own_order(make: Make) -> None:
    seen = numbers(take(7, make(7)))  # 21 samples: three epochs, batches across the borders
    epochs = [seen[:7], seen[7:14], seen[14:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_batches_are_floats_in_range_and_full(make: Make) -> None:
    for batch in take(4, make(7)):
        assert batch.images.shape == (3, 3, 16, 16)
        assert batch.images.dtype == torch.float32
        assert -1 <= batch.images.min() <= batch.images.max() <= 1
        assert batch.text is None


def test_the_seed_decides(make: Make) -> None:
    folder = make(7)
    assert same(take(5, folder), take(5, folder))
    assert numbers(take(3, folder)) != numbers(take(3, folder, seed=1))


def test_a_batch_may_be_larger_than_the_data_set(make: Make) -> None:
    seen = numbers(take(1, make(3), batch=8))
    assert sorted(seen[:3]) == sorted(seen[3:6]) == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(make: Make, workers: int) -> None:
    folder = make(7)
    config = DataConfig(size=16, crop_scale=0.5)
    assert same(take(6, folder, config), take(6, folder, config.model_copy(update={"workers": workers})))


class LoggedText(WholeText):
    """Writes down which process looks up which text."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {key}\n")
        return super().vectors(key)


def test_workers_look_up_the_text(make: Make, tmp_path: Path) -> None:
    folder, log = make(7), tmp_path / "log"
    batches = {}
    for workers in (0, 2):
        text = LoggedText(log)
        loader = TrainingLoader(
            FolderDataset(folder), DataConfig(size=16, workers=workers), batch=3, seed=0, text=text, consumed=2
        )
        log.write_text("")  # to see which tables there are, the loader itself looked up one image
        batches[workers] = list(islice(loader, 6))
        loader.close()
        processes = {line.split()[0] for line in log.read_text().splitlines()}
        assert (str(os.getpid()) in processes, len(processes)) == ((True, 1) if workers == 0 else (False, 2))
    assert all(batch.text is not None and batch.text.pooled is not None for batch in batches[0])
    assert same(batches[0], batches[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_with_text_is_the_same_with_workers(make: Make, workers: int) -> None:
    dataset = FolderDataset(make(7))
    alone = list(EvaluationLoader(dataset, SIXTEEN, batch=3, text=WholeText()))
    again = list(EvaluationLoader(dataset, DataConfig(size=16, workers=workers), batch=3, text=WholeText()))
    tables = (*GRANULARITIES, FULL_TEXT, FULL_TEXT_IDS, POOLED)
    expected = [collate_text(WholeText(), batch.keys, tables) for batch in alone]
    assert same(alone, again)
    assert all(same_value(batch.text, text) for batch, text in zip(alone, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_text_source_is_the_same_in_a_worker(make: Make, workers: int) -> None:
    class Broken(FakeText):
        def vectors(self, key: str) -> Mapping[str, np.ndarray]:
            if key == "images/5.png":
                raise FileError("the store was altered")
            return super().vectors(key)

    loader = EvaluationLoader(FolderDataset(make(7)), DataConfig(size=16, workers=workers), batch=3, text=Broken())
    with pytest.raises(FileError, match=r"^the store was altered$"):
        list(loader)


def test_resume_at_every_sample_equals_an_undisturbed_run(make: Make) -> None:
    folder = make(5)
    whole = take(16, folder, batch=1)
    for consumed in range(16):
        assert same(whole[consumed:], take(16 - consumed, folder, batch=1, consumed=consumed))


def test_consumed_counts_what_was_handed_out_not_what_was_read_ahead(make: Make) -> None:
    dataset = FolderDataset(make(7))
    loader = TrainingLoader(dataset, DataConfig(size=16, workers=1), batch=6, seed=0, consumed=4, rank=1, world=3)
    assert loader.consumed == 4
    next(loader)
    next(loader)
    assert loader.consumed == 16
    loader.close()


@pytest.mark.parametrize("size", [4, 5])
def test_processes_share_one_stream(make: Make, size: int) -> None:
    folder = make(7)
    whole = take(4, folder, batch=size)
    parts = [take(4, folder, batch=size, rank=rank, world=2) for rank in (0, 1)]
    for batch, left, right in zip(whole, *parts, strict=True):
        assert batch.keys == left.keys + right.keys
        assert torch.equal(batch.images, torch.cat([left.images, right.images]))


def test_augmentation_belongs_to_the_epoch_and_the_image(make: Make) -> None:
    folder = make(5)
    views: dict[int, list[tuple[int, ...]]] = {}
    for number, image in zip(
        numbers(batches := take(40, folder, batch=5)), (i for b in batches for i in b.images), strict=True
    ):
        views.setdefault(number, []).append(tuple(to_uint8(image)[1, 0].tolist()))
    assert all(len(set(seen)) > 3 for seen in views.values())  # 5 places times 2 sides, over 40 epochs
    assert len({tuple(seen) for seen in views.values()}) == 5  # and no image copies another's draws


def test_no_global_random_number_is_drawn(make: Make) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(3, make(5))
    take(2, make(5), DataConfig(size=16, workers=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_gives_its_place_to_the_next_of_the_epoch(make: Make, workers: int) -> None:
    folder = make(6)
    order = numbers(take(6, folder, batch=1))
    (folder / f"images/{order[2]}.png").write_bytes(b"broken")
    (folder / f"images/{order[5]}.png").unlink()
    loader = TrainingLoader(FolderDataset(folder), DataConfig(size=16, workers=workers), batch=1, seed=0)
    seen = numbers(list(islice(loader, 6)))
    assert seen == [order[0], order[1], order[3], order[3], order[4], order[0]]
    list(islice(loader, 12))
    loader.close()
    assert [fault.where for fault in loader.faults] == [f"images/{order[2]}.png", f"images/{order[5]}.png"]
    assert "not an image" in loader.faults[0].reason
    assert loader.faults[1].reason == "no such file or directory"


def test_more_faults_than_the_budget_stop_the_work(make: Make) -> None:
    folder = make(6)
    for number in range(3):
        (folder / f"images/{number}.png").write_bytes(b"broken")
    assert len(take(6, folder, DataConfig(size=16, fault_budget=3))) == 6
    with pytest.raises(DataError, match=r"3 of 6 images .*fault_budget is 2.*images/\d.png: it is not an image"):
        take(6, folder, DataConfig(size=16, fault_budget=2))


@pytest.mark.parametrize("count", [1, 6])
def test_no_readable_image_at_all(make: Make, count: int) -> None:
    folder = make(count)
    for number in range(count):
        (folder / f"images/{number}.png").unlink()
    with pytest.raises(DataError, match=f"{count} of {count} images"):
        take(1, folder)
    with pytest.raises(DataError, match=f"{count} of {count} images"):
        list(EvaluationLoader(FolderDataset(folder), SIXTEEN, batch=2))


def test_text_is_padded_and_masked(make: Make) -> None:
    (batch,) = EvaluationLoader(FolderDataset(make(6)), SIXTEEN, batch=6, text=FakeText())
    assert batch.text is not None
    words, phrases, sentences = batch.text.words, batch.text.phrases, batch.text.sentences
    assert words.mask.tolist() == [[False] * 2, [True, False], [True] * 2, [False] * 2, [False] * 2, [True] * 2]
    assert words.vectors[:, :, 0].tolist() == [[0, 0], [1, 0], [2, 2], [0, 0], [0, 0], [5, 5]]
    assert words.vectors.dtype == torch.float32
    assert phrases.mask[:, 0].tolist() == [True, True, True, True, False, True]
    assert sentences.vectors.shape == (6, 1, 2)
    assert not sentences.mask.any()
    assert batch.text.full_text is None


def test_whole_text_is_there_even_in_a_batch_without_text(make: Make) -> None:
    batches = list(EvaluationLoader(FolderDataset(make(5)), SIXTEEN, batch=4, text=WholeText()))
    wholes = [batch.text.full_text for batch in batches if batch.text is not None]
    assert [whole.mask.sum(1).tolist() for whole in wholes if whole is not None] == [[1, 2, 3, 1], [0]]
    ids = [whole.ids.tolist() for whole in wholes if whole is not None and whole.ids is not None]
    assert ids == [[[7, 0, 0], [7, 8, 0], [7, 8, 9], [7, 0, 0]], [[0]]]
    pooled = [batch.text.pooled[:, 1].tolist() for batch in batches if batch.text is not None]
    assert pooled == [[0, 1, 2, 3], [0]]


def test_text_of_another_data_set_is_refused(make: Make) -> None:
    class Foreign(FakeText):
        def __contains__(self, key: str) -> bool:
            return False

    with pytest.raises(UsageError, match=r"contains none of the 3 images .*'images/0.png'"):
        TrainingLoader(FolderDataset(make(3)), SIXTEEN, batch=2, seed=0, text=Foreign())


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_passes_once_in_order_over_the_centres(make: Make, workers: int) -> None:
    loader = EvaluationLoader(FolderDataset(make(7)), DataConfig(size=16, workers=workers), batch=3)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert numbers(batches) == list(range(7))
    assert to_uint8(batches[0].images)[0, 1, 0].tolist() == [10 * column for column in range(2, 18)]
    assert same(batches, list(loader))
    assert numbers(list(EvaluationLoader(loader.dataset, SIXTEEN, batch=3, limit=4))) == [0, 1, 2, 3]


def test_processes_share_the_batches_of_an_evaluation(make: Make) -> None:
    dataset = FolderDataset(make(11))
    alone = [batch.keys for batch in EvaluationLoader(dataset, SIXTEEN, batch=3)]
    for world in (2, 3, 5):
        parts = [
            [batch.keys for batch in EvaluationLoader(dataset, SIXTEEN, 3, None, None, rank, world)]
            for rank in range(world)
        ]
        assert sorted(keys for part in parts for keys in part) == sorted(alone)  # no image twice, none left out
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    some = [batch.keys for rank in (0, 1) for batch in EvaluationLoader(dataset, SIXTEEN, 3, None, 4, rank, 2)]
    assert some == [*alone[:1], alone[1][:1]]


def test_evaluation_leaves_unreadable_images_out(make: Make) -> None:
    folder = make(5)
    for number in (0, 2, 3):
        (folder / f"images/{number}.png").write_bytes(b"broken")
    loader = EvaluationLoader(FolderDataset(folder), SIXTEEN, batch=2)
    assert [batch.keys for batch in loader] == [("images/1.png",), ("images/4.png",)]
    list(loader)
    assert [fault.where for fault in loader.faults] == ["images/0.png", "images/2.png", "images/3.png"]


def test_a_worker_that_is_killed_is_explained(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("tavq.data.workers.load_image", die)
    with pytest.raises(DataError, match="data loading worker died"):
        take(1, make(5), DataConfig(size=16, workers=1))


@pytest.mark.parametrize("error", [RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
                                   ConnectionResetError(104, "Connection reset by peer")])  # fmt: skip
def test_a_dead_worker_is_named_however_torch_notices_it(error: Exception) -> None:
    with pytest.raises(DataError, match="A data loading worker died"), explain_dead_workers():
        raise error
    with pytest.raises(BrokenPipeError), explain_dead_workers():  # of the terminal, perhaps
        raise BrokenPipeError


@pytest.mark.parametrize("workers", [1, 3])
def test_evaluation_meets_the_same_faults_with_workers(make: Make, workers: int) -> None:
    folder = make(9)
    for number in (1, 2, 7):
        (folder / f"images/{number}.png").write_bytes(b"broken")
    found = []
    for count in (0, workers):
        loader = EvaluationLoader(FolderDataset(folder), SIXTEEN.model_copy(update={"workers": count}), batch=2)
        found.append(([(batch.keys, batch.images.tolist()) for batch in loader], loader.faults))
    assert found[0] == found[1]
    allowed = DataConfig(size=16, workers=workers, fault_budget=2)
    with pytest.raises(DataError, match=r"3 of 9 images .* the fault_budget is 2"):
        list(EvaluationLoader(FolderDataset(folder), allowed, batch=2))


def test_the_signal_that_follows_a_dead_worker_is_no_second_error() -> None:
    """A worker's pipe ends before the system tells of its end, and torch raises at both."""

    def tell(number: int, frame: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    def lose() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        raise ConnectionResetError("Connection reset by peer")

    before = signal.signal(signal.SIGALRM, tell)
    try:
        with pytest.raises(DataError, match="A data loading worker died"), explain_dead_workers():
            lose()
        time.sleep(0.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_pass_that_is_left_ends_its_workers(make: Make) -> None:
    others = {*multiprocessing.active_children()}  # of fixtures of other tests
    batches = iter(EvaluationLoader(FolderDataset(make(9)), DataConfig(size=16, workers=2), batch=1))
    next(batches)
    assert len({*multiprocessing.active_children()} - others) == 2
    del batches
    assert {*multiprocessing.active_children()} <= others
