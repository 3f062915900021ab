"""Box metrics by hand and on random boxes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tavq.core.errors import DataError
from tavq.metrics.grounding import GroundingScores, iou
from tavq.metrics.record import by_key


def of(a: list[float], b: list[float]) -> float:
    return float(iou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1),
        ([0, 0, 10, 10], [5, 0, 10, 10], 50 / 150),
        ([2, 3, 4, 6], [4, 5, 6, 2], 4 / (24 + 12 - 4)),  # overlap from (4, 5) to (6, 7)
        ([2, 3, 4, 6], [3, 4, 2, 2], 4 / 24),  # inside
        ([100, 200, 10, 10], [105, 205, 10, 10], 25 / 175),  # far from the origin, where corners differ from sizes
        ([0, 0, 10, 10], [10, 0, 10, 10], 0),  # touching
        ([0, 0, 10, 10], [20, 20, 1, 1], 0),
        ([0, 0, 10, 10], [5, 5, 0, 3], 0),
        ([5, 5, 0, 0], [5, 5, 0, 0], 0),
        ([5, 5, -3, -3], [0, 0, 10, 10], 0),
    ],
)
def test_iou_by_hand(a: list[float], b: list[float], expected: float) -> None:
    assert of(a, b) == pytest.approx(expected)


NUMBER = st.floats(-1e4, 1e4, allow_nan=False, width=32)
SIDE = st.floats(0.125, 1e4, allow_nan=False, width=32)
BOX = st.tuples(NUMBER, NUMBER, SIDE, SIDE).map(list)


@settings(max_examples=100, deadline=None)
@given(a=BOX, b=BOX, x=st.integers(-99, 99), scale=st.sampled_from([0.5, 2.0, 4.0]))
def test_iou_properties_of_random_boxes(a: list[float], b: list[float], x: int, scale: float) -> None:
    found = of(a, b)
    assert 0 <= found <= 1 + 1e-12
    assert of(b, a) == found
    assert of(a, a) == pytest.approx(1)
    assert of([n * scale for n in a], [n * scale for n in b]) == pytest.approx(found, abs=1e-9)
    swapped = [[box[i] for i in (1, 0, 3, 2)] for box in (a, b)]
    assert of(*swapped) == pytest.approx(found)
    both = iou(torch.tensor([a, b, a], dtype=torch.float64), torch.tensor([b, b, a], dtype=torch.float64))
    assert both[0] == found  # its company in a batch changes nothing


def scored(boxes: list[tuple[list[float], list[float]]], images: list[str | None] | None = None) -> GroundingScores:
    scores = GroundingScores()
    for number, (box, truth) in enumerate(boxes):
        scores.add(f"{number:03}", box, truth, images[number] if images else None)
    return scores


def test_scores_by_hand() -> None:
    whole = [0.0, 0.0, 10.0, 10.0]
    cases = [
        (whole, whole),
        ([0.0, 0.0, 5.0, 10.0], whole),
        ([0.0, 0.0, 5.01, 10.0], whole),
        ([0.0, 0.0, 0.0, 9.0], whole),
    ]
    result = scored(cases).compute()
    assert result["per_phrase"]["001"] == 0.5  # not larger than a half: wrong
    found = by_key(result["metrics"])
    assert found["accuracy@0.5"].value == 2 / 4
    assert found["mean_iou"].value == pytest.approx((1 + 0.5 + 0.501 + 0) / 4)
    assert (result["phrases"], result["boxes_without_area"], result["intervals"]["over"]) == (4, 1, "phrases")
    assert scored(cases, ["a", "a", "b", "b"]).compute()["intervals"]["over"] == "images"


@settings(max_examples=10, deadline=None)
@given(boxes=st.lists(st.tuples(BOX, BOX), min_size=1, max_size=6), cut=st.integers(0, 6), seed=st.randoms())
def test_scores_depend_on_neither_order_nor_parts(boxes: list, cut: int, seed: object) -> None:
    whole, left, right = scored(boxes), GroundingScores(), GroundingScores()
    rows = list(enumerate(boxes))
    seed.shuffle(rows)  # type: ignore[attr-defined]
    for place, (number, (box, truth)) in enumerate(rows):
        (left if place < cut else right).add(f"{number:03}", box, truth)
    left.merge(right)
    assert left.compute() == whole.compute()


def test_invalid_input_is_refused() -> None:
    scores = GroundingScores()
    with pytest.raises(DataError, match="No boxes were given"):
        scores.compute()
    with pytest.raises(DataError, match=r"The box of 'a' is .*; four numbers below"):
        scores.add("a", [0, 0, float("nan"), 1], [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"The box of 'a' is"):
        scores.add("a", [0, 0, 1], [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"The true box of 'a' is .*width and height must be above 0"):
        scores.add("a", [0, 0, 1, 1], [0, 0, 0, 1])
