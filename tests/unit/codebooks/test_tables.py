"""Initial values and restarts of tables, the fixed table, and codebooks in several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from tavq.codebooks.ema import EMACodebook
from tavq.codebooks.fixed import FixedCodebook
from tavq.codebooks.tables import replace_rows, sample_restarts
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.core.files import read_tensors, write_tensors
from tavq.interfaces import Codebook, Loss, codebooks, sum_losses
from tavq.quantizers.nearest import NearestQuantizer


def test_unused_entries_restart_at_different_features() -> None:
    features = torch.arange(12.0).view(6, 2)
    restarts = sample_restarts(torch.tensor([0.5, 3.0, 0.9, 1.0]), 1.0, features)
    assert restarts is not None
    assert restarts.restarted.tolist() == [True, False, True, False]
    values = restarts.put_into(torch.zeros(4, 2))
    assert values[[1, 3]].tolist() == [[0, 0], [0, 0]]
    assert (
        len({tuple(value) for value in values[[0, 2]].tolist()} & {tuple(feature) for feature in features.tolist()})
        == 2
    )


def test_no_more_entries_restart_than_there_are_features() -> None:
    found = sample_restarts(torch.zeros(10), 1.0, torch.tensor([[1.0], [2.0]]))
    assert found is not None
    assert found.restarted.tolist() == [True] * 2 + [False] * 8
    assert sorted(found.put_into(torch.zeros(10, 1))[:2].flatten().tolist()) == [1.0, 2.0]


def test_nothing_restarts_where_all_are_used_or_it_is_off() -> None:
    assert sample_restarts(torch.ones(3), 1.0, torch.ones(5, 2)) is None
    assert sample_restarts(torch.zeros(3), 0.0, torch.ones(5, 2)) is None


def test_a_replaced_table_leaves_the_old_one_as_it_was() -> None:
    table = torch.zeros(3, 2)
    assert replace_rows(table, torch.tensor([1]), torch.ones(1, 2)).tolist() == [[0, 0], [1, 1], [0, 0]]
    assert not table.any()


def test_running_means_start_from_features() -> None:
    codebook = EMACodebook(EMACodebook.Config(entries=4, width=2, init="features"))
    features = torch.arange(16.0).view(8, 2)
    codebook.init_from_features(features)
    assert {tuple(row) for row in codebook().tolist()} <= {tuple(row) for row in features.tolist()}
    assert torch.equal(codebook.sums, codebook())
    assert codebook.counts.tolist() == [1.0] * 4


def test_running_means_have_no_codebook_loss_and_keep_the_values_of_a_pass() -> None:
    codebook = EMACodebook(EMACodebook.Config(entries=4, width=2))
    features, used = torch.randn(2, 2, 3, 3).requires_grad_(), codebook()
    before, scores = used.clone(), features.flatten(2).transpose(1, 2) @ used.T
    made = NearestQuantizer(NearestQuantizer.Config(), codebook.config)(features, codebook, update=True)
    assert list(made.losses) == ["quantizer/commitment"]
    assert not torch.equal(codebook(), before)
    (sum_losses(made.losses) + scores.sum()).backward()  # needs the table as it was
    assert torch.equal(used, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": [2], "width": 2, "words": ["one"]}, "1 words name 2 entries"),
        ({"sizes": [], "width": 2}, "sizes"),
        ({"sizes": [0], "width": 2}, "sizes"),
    ],
)
def test_a_fixed_table_refuses_what_does_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(FixedCodebook.Config, settings, "test")


def test_a_fixed_table_has_parts_of_different_size_and_words() -> None:
    config = FixedCodebook.Config(sizes=(1, 2), width=3, words=("red", "cat", "dog"))
    codebook = FixedCodebook(config)
    assert (config.parts, codebook.size, codebook.words[2]) == (2, 3, "dog")
    assert not list(codebook.parameters())
    assert list(codebook.state_dict()) == ["table"]


# --- several processes ------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "learned": {"name": "learned", "restart": 1.0, "init": "features", "redraw_until": 2},
    "ema": {"name": "ema", "restart": 1.0, "init": "features", "decay": 0.9},
    "probrandom": {"name": "anchored", "anchor": "probrandom", "contrastive": 1.0},
    "l2": {"name": "anchored", "anchor": "probrandom", "distance": "l2"},
    "closest": {"name": "anchored", "anchor": "closest"},
    "random": {"name": "anchored", "anchor": "random", "parts": 2},
    "small pool": {"name": "anchored", "anchor": "random", "entries": 60},
}


def trained(settings: dict[str, Any], rank: int, processes: int) -> dict[str, Tensor]:
    """The state after three steps on this process's share of the batches."""
    cls = codebooks[settings["name"]]
    torch.manual_seed(0)
    codebook: Codebook = cls(cls.Config.model_validate({"entries": 12, "width": 3, **settings}))
    for step in range(3):
        features = torch.randn(40, 3, generator=torch.Generator().manual_seed(step)).chunk(processes)[rank]
        torch.manual_seed(100 * step + rank)  # only the first process's random state may count
        for part in range(len(codebook.sizes)):
            codebook.init_from_features(features, part)
            losses = codebook.update(features, torch.arange(len(features)) % 5, part)
            losses.setdefault("codebook/none", Loss(torch.zeros(()), 0.0))
    return {**codebook.state_dict(), "loss": sum_losses(losses).detach()}


def process(rank: int, processes: int, meeting: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    states = {case: trained(settings, rank, processes) for case, settings in CASES.items()}
    flat = {f"{case}/{key}": value for case, state in states.items() for key, value in state.items()}
    write_tensors(Path(folder) / f"{rank}.safetensors", flat)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.start_processes(process, (2, str(folder / "meeting"), str(folder)), nprocs=2, start_method="fork")
    return [read_tensors(folder / f"{rank}.safetensors") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_with_the_state_of_one(several: list[dict[str, Tensor]], case: str) -> None:
    alone = trained(CASES[case], 0, 1)
    for key, value in alone.items():
        first, second = (states[f"{case}/{key}"] for states in several)
        assert torch.equal(first, second), key
        torch.testing.assert_close(first, value)
