"""A sample that does not depend on order or processes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tavq.metrics.sample import BottomKSample

KEYS = [f"{place}.png" for place in range(30)]
ROWS = torch.arange(60.0).view(30, 2)


def filled(places: list[int], most: int) -> BottomKSample:
    sample = BottomKSample(2, most)
    for start in range(0, len(places), 4):
        part = places[start : start + 4]
        sample.update(ROWS[part], [KEYS[place] for place in part])
    return sample


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(30)), cut=st.integers(0, 30), most=st.integers(1, 40))
def test_the_sample_depends_on_neither_order_nor_parts_nor_repeats(order: list[int], cut: int, most: int) -> None:
    whole = filled(list(range(30)), most)
    left = filled(order[:cut] + order[:2], most)
    left.merge(filled(order[cut:], most))
    left.join()
    assert torch.equal(left.features, whole.features)
    assert len(whole.features) == min(30, most)


def test_the_sample_is_independent_of_the_order() -> None:
    kept = filled(list(range(30)), 10).features[:, 0] / 2
    assert 5 < kept.mean() < 24
    assert sorted(kept.tolist()) != list(range(10))
