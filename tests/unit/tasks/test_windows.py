"""Windows in larger grids by hand."""

import pytest
import torch

from tavq.tasks.base import TokenLayout
from tavq.tasks.windows import crop_window, overlapping_windows, paste_window, window_around


def grid(height: int, width: int, parts: int = 1) -> TokenLayout:
    return TokenLayout(height=height, width=width, sizes=(1000,) * parts)


def test_a_window_is_centred_on_its_position_and_stays_inside() -> None:
    """A window of 4 x 3 in 7 x 5: row 2 and column 1 of it are its middle."""
    whole, own = grid(7, 5), grid(4, 3)
    assert [window_around(y, 0, whole, own)[0] for y in range(7)] == [0, 0, 0, 1, 2, 3, 3]
    assert [window_around(0, x, whole, own)[1] for x in range(5)] == [0, 0, 1, 2, 2]
    assert {window_around(y, x, own, own) for y in range(4) for x in range(3)} == {(0, 0)}


@pytest.mark.parametrize(
    ("whole", "own", "tops"),
    [(4, 4, [0]), (5, 4, [0, 1]), (6, 4, [0, 2]), (9, 4, [0, 2, 4, 5]), (3, 1, [0, 1, 2]), (7, 3, [0, 1, 2, 3, 4])],
)
def test_windows_overlap_by_half_and_cover_the_grid(whole: int, own: int, tops: list[int]) -> None:
    assert [top for top, _ in overlapping_windows(grid(whole, own), grid(own, own))] == tops
    assert [left for _, left in overlapping_windows(grid(own, whole), grid(own, own))] == tops
    every = overlapping_windows(grid(whole, 4), grid(own, 2))
    assert every == [(top, left) for top in tops for left in (0, 1, 2)]


@pytest.mark.parametrize("parts", [1, 2])
def test_pasting_a_cropped_window_restores_it(parts: int) -> None:
    whole, own = grid(3, 5, parts), grid(2, 3, parts)
    tokens = torch.arange(2 * whole.length).view(2, -1)
    found = crop_window(tokens, whole, own, (1, 2))
    places = [parts * (5 * y + x) + part for y in (1, 2) for x in (2, 3, 4) for part in range(parts)]
    assert found.tolist() == [places, [whole.length + place for place in places]]
    before = tokens.clone()
    after = paste_window(tokens, whole, -found, own, (1, 2))
    assert torch.equal(tokens, before)
    assert (after != tokens).nonzero()[:, 1].tolist() == places * 2
    assert torch.equal(crop_window(after, whole, own, (1, 2)), -found)
