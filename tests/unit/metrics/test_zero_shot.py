"""Zero-shot words: by hand, at chance, and unmoved by how frequent or how near to everything a word is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tavq.metrics.zero_shot import zero_shot_words


def test_the_area_is_that_of_the_pairs() -> None:
    """Two images with opposite scores: standardized, each word has the scores +1 and -1, or 0 where both are equal."""
    images = torch.eye(2)
    words = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    present = torch.tensor([[True, False, False], [False, True, True]])
    own, others = zero_shot_words(images, words, present)
    # first image: word 0 (+1) beats word 1 (-1) and word 2 (0); second: word 1 (+1) and word 2 (0) beat word 0 (-1)
    assert own.value == pytest.approx(1)
    # by the other's words: of the first image words 1 and 2 lose against word 0; of the second, word 0 against both
    assert others.value == pytest.approx(0)
    assert (own.key, others.key) == ("zero_shot_words", "shuffled/zero_shot_words")


def test_ties_count_a_half() -> None:
    own, _ = zero_shot_words(torch.ones(3, 2), torch.ones(4, 2), torch.eye(3, 4).bool())
    assert own.value == pytest.approx(0.5)


def test_a_word_that_is_near_to_every_image_gains_nothing() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(200, 8, generator=draw)
    images[:, 0] = 5  # what all images have in common
    words = torch.randn(10, 8, generator=draw)
    words[:5, 0] = 5  # and the frequent words too
    frequent = torch.tensor([0.9] * 5 + [0.1] * 5)
    present = torch.rand(200, 10, generator=draw) < frequent
    own, _ = zero_shot_words(images, words, present)
    assert own.interval is not None
    assert own.interval[0] < 0.5 < own.interval[1]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_the_value_is_a_probability_or_none(n: int, u: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    present = torch.rand(n, u, generator=draw) < 0.5
    own, _ = zero_shot_words(torch.randn(n, 3, generator=draw), torch.randn(u, 3, generator=draw), present)
    judged = (present.any(1) & ~present.all(1)).any()
    assert (own.value is not None) == bool(judged)
    assert own.value is None or 0 <= own.value <= 1
