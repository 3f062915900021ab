"""Batches that cross to a device: the same to the bit, on a GPU one ahead, and no step earlier or later than alone."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
from pretend_device import CUDA, USUAL, Notes, Stream, label, pretend, put
from pretend_operators import count_operators
from torch import Tensor

from tavq.core.errors import DataError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import TrainingLoader
from tavq.data.prefetch import prefetch
from tavq.data.transforms import to_float

Make = Callable[..., Path]
CPU = torch.device("cpu")
EVERY = torch.arange(256, dtype=torch.uint8)


@dataclass(frozen=True)
class Numbered:
    number: Tensor
    name: str


class Source:
    """Counts what was read; fails at a number, if it is told to."""

    def __init__(self, count: int, fails: int | None = None) -> None:
        self.count, self.fails = count, fails
        self.read = 0
        self.closed = False

    def batches(self) -> Generator[Numbered, None, None]:
        try:
            for number in range(self.count):
                if number == self.fails:
                    raise DataError("broken")
                self.read += 1
                yield Numbered(torch.tensor([number]), str(number))
        finally:
            self.closed = True


def on_gpu(tensor: Tensor) -> Tensor:
    """The tensor as one that the usual stream of the GPU copied."""
    return tensor.to(CUDA, non_blocking=True)


def assert_clean(notes: Notes) -> None:
    assert not notes.mixes, notes.mixes


def test_a_cpu_reads_nothing_ahead() -> None:
    source = Source(4)
    found = prefetch(source.batches(), CPU)
    for number in range(4):
        batch = next(found)
        assert (int(batch.number), batch.name, source.read) == (number, str(number), number + 1)
    assert next(found, None) is None


def test_a_gpu_reads_one_ahead() -> None:
    source = Source(4)
    with pretend(count_operators) as notes:
        found = prefetch(source.batches(), CUDA)
        for number in range(4):
            batch = next(found)
            assert label(batch.number) == "cuda"
            assert (batch.name, source.read) == (str(number), min(number + 2, 4))
            assert notes.waits.total() == 0
            assert (batch.number + 0).device == CUDA
            assert batch.number.cpu().tolist() == [number]
            notes.waits.clear()
        assert next(found, None) is None
        assert_clean(notes)


def test_the_pretended_gpu_finds_streams_that_do_not_wait() -> None:
    """Else the test above could not fail."""
    with pretend(count_operators) as notes:
        side = torch.cuda.Stream(CUDA)
        with torch.cuda.stream(side):
            copied = on_gpu(torch.ones(3))
        copied + 1
        assert "has not waited" in next(iter(notes.mixes))
        notes.mixes.clear()
        USUAL.wait_stream(side)
        copied + 1
        assert "given away" in next(iter(notes.mixes))
        notes.mixes.clear()
        copied.record_stream(Stream.current)
        copied + 1
        assert_clean(notes)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_what_reading_ahead_raises_is_raised_in_its_turn(device: torch.device) -> None:
    with pretend(count_operators):
        found = prefetch(Source(4, fails=2).batches(), device)
        assert [next(found).name for _ in range(2)] == ["0", "1"]
        with pytest.raises(DataError, match="broken"):
            next(found)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_closing_ends_what_is_read_from(device: torch.device) -> None:
    source = Source(4)
    with pretend(count_operators):
        found = prefetch(source.batches(), device)
        next(found)
        assert not source.closed
        found.close()
    assert source.closed


def test_bytes_become_the_same_floats_everywhere() -> None:
    expected = EVERY.float() / 127.5 - 1
    assert torch.equal(to_float(EVERY), expected)
    # as a GPU would do it: a number is turned into its reciprocal there, a tensor is not
    assert torch.equal(EVERY.float().div_(torch.tensor([127.5])).sub_(1), expected)
    assert not torch.equal(EVERY.float() * torch.tensor(1 / 127.5) - 1, expected)
    with pretend(count_operators) as notes:
        found = to_float(on_gpu(put(EVERY.clone(), "cpu")))
        assert (found.device, found.dtype) == (CUDA, torch.float32)
        assert torch.equal(found.cpu(), expected)
        assert_clean(notes)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_on_a_gpu_gives_the_batches_of_a_cpu(make: Make, workers: int) -> None:
    dataset, config = FolderDataset(make(7)), DataConfig(size=16, crop_scale=0.5, workers=workers)
    expected = list(islice(TrainingLoader(dataset, config, 3, 0), 6))
    for consumed in (0, 3, 9):
        with pretend(count_operators) as notes:
            loader = TrainingLoader(dataset, config, 3, 0, None, consumed, device=CUDA)
            for done, batch in enumerate(expected[consumed // 3 :], 1):
                found = next(loader)
                assert loader.consumed == consumed + 3 * done  # not what was read ahead
                assert found.images.device == CUDA
                assert found.keys == batch.keys
                assert torch.equal(found.images.cpu(), batch.images)
            loader.close()
            assert_clean(notes)


def test_images_cross_as_bytes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed = []
    monkeypatch.setattr("tavq.data.prefetch.to_device", lambda batch, device: crossed.append(batch.images) or batch)
    next(TrainingLoader(FolderDataset(make(7)), DataConfig(size=16), 3, 0))
    assert [images.dtype for images in crossed] == [torch.uint8]


def test_a_fault_ahead_costs_the_step_before_nothing(make: Make) -> None:
    folder = make(6)
    dataset, config = FolderDataset(folder), DataConfig(size=16, fault_budget=0)
    order = [batch.keys[0] for batch in islice(TrainingLoader(dataset, config, 1, 0), 6)]
    (folder / order[2]).write_bytes(b"broken")
    with pretend(count_operators):
        loader = TrainingLoader(FolderDataset(folder), config, 1, 0, device=CUDA)
        assert [next(loader).keys[0] for _ in range(2)] == order[:2]
        assert not loader.faults
        with pytest.raises(DataError, match="fault_budget is 0"):
            next(loader)
