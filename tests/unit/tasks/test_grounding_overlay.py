"""The image of a found phrase: its frame and its heat map stand where they belong."""

import numpy as np
import pytest

from tavq.tasks.grounding_overlay import COLD, FRAME, GAP, HOT, THROUGH, draw_grounding

GREY = np.full((64, 128, 3), 100, np.uint8)


def red(image: np.ndarray) -> np.ndarray:
    return (image == FRAME).all(axis=2)


def test_a_small_image_is_enlarged_and_framed() -> None:
    found = draw_grounding(GREY, (32.0, 8.0, 64.0, 40.0), None)
    assert found.shape == (192, 384, 3)  # three times
    rows, columns = np.nonzero(red(found))
    assert (rows.min(), rows.max()) == (24 + 1, 24 + 120 - 2)  # inside the white rim
    assert (columns.min(), columns.max()) == (96 + 1, 96 + 192 - 2)
    assert (found[24, 96:288] == 255).all()
    assert (found[60:80, 150:200] == 100).all()


def test_the_heat_lies_over_the_centre_square() -> None:
    heat = np.zeros((2, 4))
    heat[1, 3] = 0.5  # the last patch of the lower row; the warmest is shown hottest
    found = draw_grounding(GREY, (0.0, 0.0, 8.0, 8.0), heat)
    assert found.shape == (192, 384 + GAP + 384, 3)
    right = found[:, 384 + GAP :]
    hot, cold = (np.round(THROUGH * 100 + (1 - THROUGH) * np.array(colour)) for colour in (HOT, COLD))
    assert (right[96:, 96 + 144 : 288] == hot).all()
    assert (right[:96, 96:288] == cold).all()
    assert (right[96:, 96 : 96 + 144] == cold).all()
    assert (right[:, :96] == 178).all()  # pale outside
    assert (right[:, 288:] == 178).all()


@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 0.0, 0.0), (127.9, 63.9, 0.1, 0.1), (-5.0, -5.0, 500.0, 500.0), (10.0, 10.0, 0.4, 30.0)]
)
def test_any_box_is_drawn(box: tuple[float, float, float, float]) -> None:
    found = draw_grounding(GREY, box, np.zeros((4, 4)))
    assert found.dtype == np.uint8
    assert (found[:, :384] != 100).any()


def test_a_large_image_is_brought_down() -> None:
    large = np.full((1000, 3000, 3), 90, np.uint8)
    found = draw_grounding(large, (1500.0, 500.0, 300.0, 300.0), None)
    assert found.shape == (341, 1024, 3)
    rows, columns = np.nonzero(red(found))
    assert columns.min() == 512 + 1
    assert rows.min() == round(500 * 1024 / 3000) + 1
