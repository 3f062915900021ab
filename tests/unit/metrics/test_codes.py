"""Usage of a codebook, counted by hand."""

import math

import pytest
import torch

from tavq.core.errors import UsageError
from tavq.metrics.codes import CodeUsage, UsageLog


def test_usage_perplexity_dead_and_top_entries_by_hand() -> None:
    usage = CodeUsage((8,))
    usage.update(torch.tensor([[[3, 3], [3, 3]], [[5, 5], [0, 1]]]))
    result = usage.compute(top=3)
    entropy = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25) + 2 * 0.125 * math.log(0.125))
    assert result["usage"] == 0.5
    assert result["dead"] == 4
    assert result["perplexity"] == pytest.approx(math.exp(entropy))
    assert result["top_entries"] == [[3, 0.5], [5, 0.25], [0, 0.125]]


def test_equal_use_of_all_entries_has_the_size_as_perplexity() -> None:
    usage = CodeUsage((16,))
    usage.update(torch.arange(16).view(1, 4, 4))
    assert usage.compute()["perplexity"] == pytest.approx(16)
    assert usage.compute()["dead"] == 0


def test_a_collapsed_codebook_has_perplexity_one_and_one_top_entry() -> None:
    usage = CodeUsage((16,))
    usage.update(torch.full((2, 4, 4), 7))
    result = usage.compute()
    assert result == {"usage": 1 / 16, "perplexity": 1.0, "dead": 15, "top_entries": [[7, 1.0]]}


def test_equally_frequent_entries_stand_in_order() -> None:
    usage = CodeUsage((2000,))
    usage.update(torch.arange(2000).flip(0).view(1, 40, 50))
    assert [entry for entry, _ in usage.compute(top=5)["top_entries"]] == [0, 1, 2, 3, 4]


def test_nothing_seen_is_no_number() -> None:
    assert CodeUsage((4,)).compute() == {"usage": 0.0, "perplexity": None, "dead": 4, "top_entries": []}


@pytest.mark.parametrize("index", [-1, 4])
def test_indices_outside_the_codebook_are_refused(index: int) -> None:
    with pytest.raises(UsageError, match="do not fit a codebook of 4 entries"):
        CodeUsage((4,)).update(torch.tensor([[[0, index]]]))


def test_processes_add_up() -> None:
    left, right = CodeUsage((4,)), CodeUsage((4,))
    left.update(torch.tensor([[[0, 1]]]))
    right.update(torch.tensor([[[1, 2]]]))
    left.merge(right)
    assert left.state.tolist() == [1, 2, 1, 0]


ENTRIES = torch.tensor([[0.0, 0], [0, 3], [4, 3], [4, 9]])


def test_what_a_log_tells_of_the_codebook_by_hand() -> None:
    log = UsageLog((4,))
    log.add(torch.tensor([[[0, 0], [1, 1]]]))
    even = log.take(ENTRIES)
    assert (even["codebook/usage"], even["codebook/perplexity"]) == (0.5, pytest.approx(2))
    assert (even["codebook/dead"], even["codebook/positions"]) == (2, 4)
    log.add(torch.tensor([[[2, 2], [2, 2]]]))  # the counts of the first call are gone
    alone = log.take(ENTRIES)
    assert (alone["codebook/usage"], alone["codebook/perplexity"]) == (0.25, pytest.approx(1))
    log.add(torch.tensor([[[0, 0], [0, 3]]]))
    assert log.take(ENTRIES)["codebook/perplexity"] == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_the_codebook_is_looked_at_as_it_is_then() -> None:
    found = UsageLog((4,)).take(ENTRIES)
    # nearest others at 3, 3, 4 and 6; torch's median is the lower of the middle two
    assert found["codebook/spacing"] == pytest.approx(3 / 2**0.5)
    assert found["codebook/scale"] == pytest.approx(((9 + 16 + 9 + 16 + 81) / 8) ** 0.5)
    assert "codebook/spacing" not in UsageLog((4,)).take(ENTRIES[:1])  # of a single entry there is none
