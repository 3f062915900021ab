"""Two processes with half a batch each update every registered codebook like one process with the whole batch."""

from pathlib import Path

import pytest
import torch
from processes import run_alone_and_as_two
from safetensors.torch import load_file
from torch import Tensor

from tavq.interfaces import codebooks, quantizers

pytestmark = pytest.mark.slow  # starts processes that train

PARTS = [f"{kind}/{name}" for kind, names in (("codebook", codebooks), ("quantizer", quantizers)) for name in names]

Runs = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The results of one process, and of the first and the second of two."""
    folder = tmp_path_factory.mktemp("processes")
    run_alone_and_as_two(Path(__file__).with_name("one_process.py"), folder)
    alone, first, second = (load_file(folder / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    return alone, first, second


def of(run: dict[str, Tensor], part: str, kind: str) -> dict[str, Tensor]:
    """A part's values of one kind: `state`, `indices` or `losses`."""
    prefix = f"{part}/{kind}/"
    return {key.removeprefix(prefix): value for key, value in run.items() if key.startswith(prefix)}


def is_random(part: str) -> bool:
    kind, name = part.split("/")
    return kind == "quantizer" and quantizers[name].stochastic


@pytest.mark.parametrize("part", PARTS)
def test_both_processes_end_with_the_same_state(runs: Runs, part: str) -> None:
    _, first, second = (of(run, part, "state") for run in runs)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize("part", PARTS)
def test_two_processes_end_with_the_state_of_one(runs: Runs, part: str) -> None:
    alone, first, _ = (of(run, part, "state") for run in runs)
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("part", PARTS)
def test_two_processes_have_the_indices_and_losses_of_one(runs: Runs, part: str) -> None:
    if is_random(part):
        pytest.skip("declared: samples noise for each position")
    alone, first, second = (of(run, part, "indices") for run in runs)
    for key, value in alone.items():
        assert torch.equal(torch.cat([first[key], second[key]]), value), key
    alone, first, second = (of(run, part, "losses") for run in runs)
    for key, value in alone.items():
        torch.testing.assert_close((first[key] + second[key]) / 2, value, rtol=1e-4, atol=1e-6, msg=key)


def test_a_flag_of_one_process_reaches_all(runs: Runs) -> None:
    """A signal to one process must end all after the same step; otherwise the others would wait forever."""
    for run in runs:
        assert bool(run["any/told_by_one"])
        assert not bool(run["any/told_by_none"])
