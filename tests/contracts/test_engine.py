"""However a batch is divided, by processes equally or not, and by parts within one, two steps give the same result."""

from pathlib import Path

import pytest
import torch
from processes import run_as
from safetensors.torch import load_file
from torch import Tensor

from tavq.interfaces import aligners, codebooks, quantizers
from tavq.tasks.base import tasks

pytestmark = pytest.mark.slow  # starts processes that train

WAYS = {1: ("whole", "accumulated", "recomputed"), 2: ("whole", "recomputed"), 3: ("accumulated",)}
"""What a number of processes does; of three, one has fewer samples than the others."""

DIVISIONS = [(1, "accumulated"), (2, "whole"), (3, "accumulated")]
KINDS = {"codebook": codebooks, "quantizer": quantizers, "aligner": aligners, "task": tasks}
CONTRASTS = ["ta with contrast", "ta with contrast of samples"]
NAMES = [*(f"{kind} {name}" for kind, names in KINDS.items() for name in names), *CONTRASTS]
TOLERANCE = {"rtol": 2e-3, "atol": 2e-5}
"""Sums of another order round otherwise; the second step starts from what the first has made of it."""

Runs = dict[tuple[int, int], dict[str, Tensor]]


@pytest.fixture(scope="module")
def runs(chosen: list[str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The results of each process by (processes, rank)."""
    folder = tmp_path_factory.mktemp("engine")
    for world, ways in WAYS.items():
        run_as(world, Path(__file__).with_name("one_engine_process.py"), folder, ",".join(ways), ",".join(chosen))
    return {(world, rank): load_file(folder / f"{world}-{rank}.safetensors") for world in WAYS for rank in range(world)}


def of(run: dict[str, Tensor], name: str, way: str) -> dict[str, Tensor]:
    """What one kind of training gave in one way."""
    prefix = f"{name}|{way}|"
    return {key.removeprefix(prefix): value for key, value in run.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("world", "way"), DIVISIONS)
def test_a_divided_batch_trains_like_a_whole_one(runs: Runs, world: int, way: str, name: str) -> None:
    whole, divided = of(runs[1, 0], name, "whole"), of(runs[world, 0], name, way)
    assert {key for key in whole if key.startswith("gradient/")}
    assert divided.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(divided[key], value, **TOLERANCE, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_all_processes_have_the_same_weights(runs: Runs, name: str) -> None:
    """Bit for bit: otherwise they would part over many steps."""
    for world, way in DIVISIONS[1:]:
        first = of(runs[world, 0], name, way)
        assert first
        for rank in range(1, world):
            other = of(runs[world, rank], name, way)
            assert [key for key, value in first.items() if not torch.equal(value, other[key])] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", [1, 2])
def test_recomputed_activations_change_no_bit(runs: Runs, world: int, name: str) -> None:
    whole, again = of(runs[world, 0], name, "whole"), of(runs[world, 0], name, "recomputed")
    assert whole
    assert [key for key, value in whole.items() if not torch.equal(value, again[key])] == []
