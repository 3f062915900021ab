"""Usage of a codebook, counted by hand."""

import math

import pytest
import torch

from tavq.core.errors import UsageError
from tavq.metrics.codes import CodeUsage, Surprisal, UsageLog


def test_usage_perplexity_dead_and_top_entries_by_hand() -> None:
    usage = CodeUsage((8,))
    usage.update(torch.tensor([[[3, 3], [3, 3]], [[5, 5], [0, 1]]]))
    entropy = -(0.5 * math.log(0.5) + 0.25 * math.log(0.25) + 2 * 0.125 * math.log(0.125))
    assert usage.usage == 0.5
    assert usage.dead == 4
    assert usage.perplexity == pytest.approx(math.exp(entropy))
    assert usage.top_entries(3) == [(3, 0.5), (5, 0.25), (0, 0.125)]
    found = {metric.key: metric.value for metric in usage.compute("middle")}
    assert found == {"usage_middle": 0.5, "perplexity_middle": usage.perplexity, "dead_middle": 4}


def test_equal_use_of_all_entries_has_the_size_as_perplexity() -> None:
    usage = CodeUsage((16,))
    usage.update(torch.arange(16).view(1, 4, 4))
    assert usage.perplexity == pytest.approx(16)
    assert usage.dead == 0


def test_a_collapsed_codebook_has_perplexity_one_and_one_top_entry() -> None:
    usage = CodeUsage((16,))
    usage.update(torch.full((2, 4, 4), 7))
    assert (usage.usage, usage.perplexity, usage.dead) == (1 / 16, 1.0, 15)
    assert usage.top_entries() == [(7, 1.0)]


def test_equally_frequent_entries_are_in_index_order() -> None:
    usage = CodeUsage((2000,))
    usage.update(torch.arange(2000).flip(0).view(1, 40, 50))
    assert [entry for entry, _ in usage.top_entries(5)] == [0, 1, 2, 3, 4]


def test_without_images_values_are_none() -> None:
    nothing = CodeUsage((4,))
    assert (nothing.usage, nothing.perplexity, nothing.dead, nothing.top_entries()) == (0.0, None, 4, [])


@pytest.mark.parametrize("index", [-1, 4])
def test_indices_outside_the_codebook_are_refused(index: int) -> None:
    with pytest.raises(UsageError, match="do not fit a codebook of 4 entries"):
        CodeUsage((4,)).update(torch.tensor([[[0, index]]]))


def test_several_processes_count_as_one() -> None:
    left, right = CodeUsage((4,)), CodeUsage((4,))
    left.update(torch.tensor([[[0, 1]]]))
    right.update(torch.tensor([[[1, 2]]]))
    left.merge(right)
    assert left.state.tolist() == [1, 2, 1, 0]


ENTRIES = torch.tensor([[0.0, 0], [0, 3], [4, 3], [4, 9]])


def test_logged_codebook_values_by_hand() -> None:
    log = UsageLog((4,))
    log.add(torch.tensor([[[0, 0], [1, 1]]]))
    even = log.flush(ENTRIES)
    assert (even["codebook/usage"], even["codebook/perplexity"]) == (0.5, pytest.approx(2))
    assert (even["codebook/dead"], even["codebook/positions"]) == (2, 4)
    log.add(torch.tensor([[[2, 2], [2, 2]]]))  # the counts of the first call are gone
    alone = log.flush(ENTRIES)
    assert (alone["codebook/usage"], alone["codebook/perplexity"]) == (0.25, pytest.approx(1))
    log.add(torch.tensor([[[0, 0], [0, 3]]]))
    assert log.flush(ENTRIES)["codebook/perplexity"] == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_codebook_values_are_those_at_the_time_of_logging() -> None:
    found = UsageLog((4,)).flush(ENTRIES)
    # nearest others at 3, 3, 4 and 6; torch's median is the lower of the middle two
    assert found["codebook/spacing"] == pytest.approx(3 / 2**0.5)
    assert found["codebook/scale"] == pytest.approx(((9 + 16 + 9 + 16 + 81) / 8) ** 0.5)
    assert "codebook/spacing" not in UsageLog((4,)).flush(ENTRIES[:1])  # of a single entry there is none


def surprises(indices: torch.Tensor, sizes: tuple[int, ...]) -> tuple[CodeUsage, Surprisal]:
    usage = CodeUsage(sizes)
    usage.update(indices)
    found = Surprisal(usage)
    found.update([f"{i:03}" for i in range(len(indices))], indices)
    return usage, found


def test_surprise_by_hand() -> None:
    """One image with only entry 0 (three of four positions in total), one with both entries."""
    _, found = surprises(torch.tensor([[[0, 0]], [[0, 1]]]), (3,))
    assert found.records["000"] == [pytest.approx(-math.log(3 / 4))]
    assert found.records["001"] == [pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)]


@pytest.mark.parametrize(("sizes", "parts"), [((64,), ()), ((16, 48), (2,))])
def test_the_interval_of_the_perplexity_contains_it_and_is_over_images(
    sizes: tuple[int, ...], parts: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)

    def sample(count: int) -> torch.Tensor:
        """Images that repeat few entries each, so that an image and not a position is the unit."""
        drawn = [torch.randint(size, (count, 2), generator=generator) ** 2 // size for size in sizes]
        return torch.stack(drawn, dim=2).repeat_interleave(8, dim=1).view(count, 4, 4, *parts)

    usage, found = surprises(sample(400), sizes)
    ends = found.interval()
    assert ends is not None
    assert ends[0] < usage.perplexity < ends[1]
    others = torch.tensor([surprises(sample(400), sizes)[0].perplexity for _ in range(60)])
    assert ends[1] - ends[0] == pytest.approx(2 * 1.96 * others.std().item(), rel=0.35)


def test_one_image_has_no_interval() -> None:
    assert surprises(torch.tensor([[[0, 1]]]), (2,))[1].interval() is None
    assert Surprisal(CodeUsage((2,))).interval() is None
