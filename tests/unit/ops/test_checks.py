import pytest
import torch

from tavq.core.errors import TrainingError
from tavq.ops.checks import is_finite, require_finite

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", [0, 5, -1])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_value_that_is_not_finite_is_found(dtype: torch.dtype, where: int, value: str) -> None:
    values = torch.zeros(3, 4, dtype=dtype)
    values.view(-1)[where] = float(value)
    assert not is_finite(values)
    assert not is_finite(values.mT)
    with pytest.raises(TrainingError, match="The codes are not finite"):
        require_finite(values, "The codes")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest, -largest, largest], dtype=dtype, requires_grad=True)
    assert is_finite(values)
    assert require_finite(values, "The codes") is values


@pytest.mark.parametrize("values", [torch.empty(0, 4), torch.arange(3), torch.tensor(True)])
def test_nothing_and_whole_numbers_are_finite(values: torch.Tensor) -> None:
    assert is_finite(values)
