"""What a training step needs on a GPU without making the CPU wait for it.

The CPU runs ahead of a GPU and tells it what to do next. Where it asks for a value, it waits until all that was asked
before is done, and the GPU then idles until it hears of more. So a step reads one value, whether all is finite; the
functions here replace operations that read others: how many elements are True, the largest index, a count of calls.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@lru_cache(maxsize=256)
def constant(
    numbers: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.int64
) -> Shaped[Tensor, " n"]:
    """Numbers as a tensor on a device, copied to it once."""
    with torch.inference_mode(False):  # the first caller may be in inference mode, and a later one in training
        return torch.tensor(numbers, device=device, dtype=dtype)


def count_each(indices: Int[Tensor, " n"], k: int) -> Int[Tensor, " k"]:
    """How often each of the indices 0 to k - 1 occurs; torch.bincount reads the largest index first."""
    one = torch.ones((1,), dtype=torch.int64, device=indices.device)
    return one.new_zeros(k).scatter_add_(0, indices, one.expand_as(indices))


def select_rows(chosen: Bool[Tensor, " n"]) -> Int[Tensor, " r"]:
    """Indices of the rows that are True; on a GPU of all rows, so that the caller must make the others do nothing."""
    if chosen.device.type == "cpu":
        return chosen.nonzero()[:, 0]
    return torch.arange(len(chosen), device=chosen.device)


class HostCounts:
    """What a small buffer of counts holds, known to the CPU without reading the buffer in every step.

    The buffer goes into checkpoints. It is read again where others have changed it since, by loading one, say.
    """

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._seen: tuple[Tensor, int] | None = None

    def of(self, buffer: Int[Tensor, " n"]) -> list[int]:
        """The counts that `buffer` holds."""
        if self._seen is None or self._seen[0] is not buffer or self._seen[1] != buffer._version:
            self._counts = buffer.tolist()
            self._seen = (buffer, buffer._version)
        return self._counts

    def set(self, buffer: Int[Tensor, " n"], position: int, count: int) -> None:
        """Set one count, in the buffer and here."""
        counts = self.of(buffer)
        buffer[position].fill_(count)  # assigning a number would copy it from the CPU
        counts[position], self._seen = count, (buffer, buffer._version)
