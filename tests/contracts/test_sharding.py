"""Two processes that share out the weights of a task train every registered task as two that hold all of them do."""

from pathlib import Path

import pytest
import torch
from processes import run_as
from safetensors.torch import load_file
from torch import Tensor

from tavq.tasks.base import tasks

pytestmark = pytest.mark.slow  # starts processes that train

NAMES = [*tasks, "grounding-supervised"]


@pytest.fixture(scope="module")
def results(chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("sharding")
    run_as(2, Path(__file__).with_name("one_sharded_process.py"), folder, ",".join(chosen))
    return load_file(folder / "results.safetensors")


def find(results: dict[str, Tensor], way: str, name: str) -> dict[str, Tensor]:
    prefix = f"{way}:{name}:"
    return {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}


def is_refused(whole: dict[str, Tensor], sharded: dict[str, Tensor]) -> bool:
    """Whether the task was not sharded, which must be so for tasks without blocks and for no others."""
    refused = set(sharded) == {"refused"}
    assert refused != bool(whole["blocks"])
    return refused


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_weights_and_averages_have_the_same_bits(results: dict[str, Tensor], name: str, precision: str) -> None:
    whole, sharded = (find(results, f"{precision}-None-{way}", name) for way in ("whole", "sharded"))
    if is_refused(whole, sharded):
        return
    assert whole.keys() == sharded.keys()
    assert len(whole) > 20
    for key, value in whole.items():
        if key.startswith("norm/"):  # the sum over parts has another order
            torch.testing.assert_close(sharded[key], value, rtol=1e-5, atol=0)
        else:
            assert torch.equal(sharded[key], value), key


@pytest.mark.parametrize("name", NAMES)
def test_clipped_gradients_agree_to_the_rounding_of_their_norm(results: dict[str, Tensor], name: str) -> None:
    """The clipped gradients differ by a relative 1e-7, which Adam's first steps amplify."""
    whole, sharded = (find(results, f"fp32-0.1-{way}", name) for way in ("whole", "sharded"))
    if is_refused(whole, sharded):
        return
    free = find(results, "fp32-None-whole", name)
    averaged = [key for key in whole if key.startswith("ema/") and "weight" in key]
    assert averaged
    assert not any(torch.equal(whole[key], free[key]) for key in averaged)
    for key, value in whole.items():
        torch.testing.assert_close(sharded[key], value, rtol=1e-4, atol=1e-4, msg=key)
