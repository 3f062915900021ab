"""Packed indices come back as they were, from any place and of any number of entries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.token_folder import packing
from tavq.token_folder.packing import PADDING, bits_per_index, bytes_per_image, index_type, pack, unpack

ENTRIES = st.one_of(st.integers(1, 2000), st.sampled_from([255, 256, 257, 65535, 65536, 65537, 1 << 26, 1 << 31]))


def padded(packed: np.ndarray) -> np.ndarray:
    return np.concatenate([packed.reshape(-1), np.zeros(PADDING, np.uint8)])


@given(
    entries=st.lists(ENTRIES, min_size=1, max_size=4),
    positions=st.integers(1, 70),
    images=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
    chunk=st.sampled_from([8, 64, 1 << 18]),
)
def test_any_indices_come_back(entries: list[int], positions: int, images: int, seed: int, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.integers(0, size, (images, positions)) for size in entries], 2)
    packed = pack(indices, entries)
    assert packed.shape == (images, bytes_per_image(positions, entries))
    starts = np.arange(images) * packed.shape[1]
    order = rng.permutation(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK", chunk)
        for chosen in (np.arange(images), order, order[:1]):
            found = unpack(padded(packed), starts[chosen], positions, entries)
            assert found.dtype == index_type(entries)
            np.testing.assert_array_equal(found, indices[chosen])


@pytest.mark.parametrize(("entries", "bits"), [(1, 1), (2, 1), (3, 2), (1024, 10), (1025, 11), (1 << 31, 31)])
def test_an_index_takes_the_bits_of_the_largest_entry(entries: int, bits: int) -> None:
    assert bits_per_index(entries) == bits


def test_bits_are_in_the_order_that_the_docstring_states() -> None:
    [packed] = pack(np.array([[[5, 1], [3, 0], [6, 1]]]), (7, 2))
    # 5, 3 and 6 as three bits each from the lowest bit on, then 1, 0, 1 in a byte of their own
    assert packed.tolist() == [0b10_011_101, 0b1, 0b101]
