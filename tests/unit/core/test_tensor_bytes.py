"""The bytes of a safetensors file are the library's own, for every type, shape and name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from tavq.core.tensor_bytes import DTYPES, file_chunks

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


def make(dtype: torch.dtype, shape: list[int]) -> Tensor:
    return (torch.arange(int(torch.tensor(shape).prod())) % 2).reshape(shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type(dtype: torch.dtype) -> None:
    tensors = {"b": make(dtype, [2, 3]), "a": make(dtype, [3])}
    assert b"".join(file_chunks(tensors)) == save(tensors)


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(list(DTYPES)), SHAPES), max_size=6), st.booleans())
def test_mixtures(parts: dict[str, tuple[torch.dtype, list[int]]], described: bool) -> None:
    parts.pop("__metadata__", None)
    tensors = {name: make(dtype, shape) for name, (dtype, shape) in parts.items()}
    metadata = {"format": 'pt "é"\n'} if described else None
    data = b"".join(file_chunks(tensors, metadata))
    assert data == save(tensors, metadata)
    assert {name: tuple(value.shape) for name, value in load(data).items()} == {
        name: tuple(value.shape) for name, value in tensors.items()
    }


def test_the_memory_of_tensors_is_not_copied() -> None:
    tensor = torch.zeros(5, 7)
    _, chunk = file_chunks({"a": tensor})
    assert np.frombuffer(chunk, np.uint8).ctypes.data == tensor.data_ptr()


def test_tensors_that_are_not_contiguous() -> None:
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    assert b"".join(file_chunks({"a": tensor})) == save({"a": tensor.detach().contiguous()})


@pytest.mark.parametrize("value", [torch.tensor(7).expand(1), torch.as_strided(torch.tensor([9]), (1, 1), (0, 0))])
def test_a_single_number_with_any_stride(value: torch.Tensor) -> None:
    assert b"".join(file_chunks({"a": value})) == save({"a": value.clone()})
