"""The lift of the codes that a word finds: by hand, with its chance level, and through the aligner."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tavq.metrics.association import PRIOR
from tavq.metrics.word_codes import WordLifts, find_codes, word_code_lift


def test_the_lift_is_that_of_the_counts() -> None:
    # 40 images; word 0 is in the first 20, word 1 in the last 20; code 0 in 15 of word 0's and 5 others, code 1 in all
    words = torch.zeros(40, 2, dtype=torch.bool)
    words[:20, 0] = words[20:, 1] = True
    prominent = torch.zeros(40, 2, dtype=torch.bool)
    prominent[5:25, 0] = True
    prominent[:, 1] = True
    found = torch.tensor([[0], [1]])
    metrics, lifts = word_code_lift(prominent, words, found), WordLifts(prominent, words, found)
    assert lifts.of_codes[0].item() == pytest.approx((15 + PRIOR * 0.5) / ((20 + PRIOR) * 0.5))
    assert lifts.of_codes[1].item() == pytest.approx(1.0)
    metric, chance = metrics
    assert (metric.key, chance.key) == ("word_code_lift", "other_word/word_code_lift")
    assert metric.value == pytest.approx(lifts.mean)
    # the other word's code: code 1 for word 0 (1.0) and code 0 for word 1
    assert chance.value == pytest.approx((1 + (5 + PRIOR * 0.5) / ((20 + PRIOR) * 0.5)) / 2)
    assert metric.interval is not None
    assert metric.interval[0] < metric.value < metric.interval[1]
    ends = lifts.intervals_of_words()
    assert (ends[:, 0] <= lifts.of_codes[:, 0]).all()
    assert (ends[:, 1] >= lifts.of_codes[:, 0]).all()
    assert ends[0, 0] > 1  # word 0 finds a code of its own; code 1 is everywhere
    assert ends[1].tolist() == pytest.approx([1, 1])


def test_words_find_the_used_codes_that_point_their_way() -> None:
    words = torch.eye(4)
    entries = 3 * torch.eye(4)[[2, 0, 1, 3]] + 5  # a common direction, which centring takes away
    used = torch.tensor([True, True, True, True])
    assert find_codes(entries, used, words, 1).tolist() == [[1], [2], [0], [3]]
    unused = torch.tensor([True, False, True, True])
    assert 1 not in find_codes(entries, unused, words, 3)
    assert find_codes(entries, unused, words, 5).shape == (4, 3)


def test_what_all_words_or_all_entries_have_in_common_does_not_decide() -> None:
    """Uncentred, every word would find the entry that points along what the words, or the entries, share."""
    used = torch.tensor([True, True, True])
    words = torch.tensor([[10.0, 1.0, 0.0], [10.0, -1.0, 0.0]])
    entries = torch.tensor([[0.0, 4.0, 0.0], [0.0, -4.0, 0.0], [9.0, 0.0, 0.0]])
    assert find_codes(entries, used, words, 1).tolist() == [[0], [1]]
    # the mean is (0, 8): uncentred the second entry would be nearest to the first word
    shifted = torch.tensor([[1.0, 12.0], [0.5, 4.0], [-1.5, 8.0]])
    assert find_codes(shifted, used, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1).tolist() == [[0], [2]]


@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_the_lift_is_finite_and_of_random_codes_near_one(n: int, k: int, u: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    prominent = torch.rand(n, k, generator=draw) < 0.3
    words = torch.rand(n, u, generator=draw) < 0.5
    found = torch.randint(k, (u, 2), generator=draw)
    metrics = word_code_lift(prominent, words, found)
    assert all(metric.value is not None and 0 <= metric.value < 1 + n / PRIOR for metric in metrics)
    assert WordLifts(prominent, words, found).of_codes.isfinite().all()


def test_without_words_or_images_there_is_no_value() -> None:
    none, one = torch.zeros(5, 0).bool(), torch.ones(1, 1).bool()
    for prominent, words, found in ((torch.ones(5, 3).bool(), none, torch.zeros(0, 0)), (one, one, torch.zeros(1, 1))):
        assert [metric.value for metric in word_code_lift(prominent, words, found.long())] == [None, None]
