"""The overview image: whose images stand where, and which codes are chosen."""

import numpy as np
import pytest

from tavq.metrics.association import AssociatedUnit
from tavq.report.tokenizer.code_cards import CodeCard, Patch
from tavq.report.tokenizer.overview import CODES, LABEL, MARGIN, PATCHES, TILE, choose_cards, draw_overview
from tavq.report.tokenizer.view import Pair, View


def filled(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def card(code: int, word: str, lift: float, patches: int = PATCHES) -> CodeCard:
    found = {"words": [AssociatedUnit(word, lift, 9)]}
    return CodeCard(code, None, 5, 0.1, filled(0), (Patch("a", filled(9)),) * patches, found, None)


def view(reconstruction: int, cards: tuple[CodeCard, ...] = ()) -> View:
    pairs = tuple(Pair(str(value), filled(value), filled(reconstruction)) for value in (40, 80))
    tiles = (filled(0),)
    return View({"test": 2}, pairs, "test", np.ones(1, np.int64), 1.0, (0,), tiles, np.zeros((1, 3), np.uint8), cards,
                (), "", False, 0)  # fmt: skip


def test_each_row_shows_its_own_images() -> None:
    canvas = draw_overview(["one", "two"], [view(120), view(160)])
    centres = [
        [int(canvas[MARGIN + row * (TILE + 4) + TILE // 2, MARGIN + LABEL + column * (TILE + 4) + TILE // 2, 0])
         for column in range(2)]
        for row in range(3)
    ]  # fmt: skip
    assert centres == [[40, 80], [120, 120], [160, 160]]


def test_codes_are_added_below() -> None:
    plain, with_codes = (draw_overview(["one"], [view(120, cards)]) for cards in ((), (card(3, "sky", 2.0),)))
    assert with_codes.shape[0] > plain.shape[0]
    assert (with_codes[plain.shape[0] :] == 9).any()


def test_the_strongest_words_come_first_and_each_once() -> None:
    cards = [card(1, "sky", 2.0), card(2, "sky", 3.0), card(3, "sea", 2.5), card(4, "few patches", 9.0, PATCHES - 1)]
    assert [chosen.code for chosen in choose_cards(cards)] == [2, 3]
    assert len(choose_cards([card(number, f"word {number}", 1.0) for number in range(20)])) == CODES


@pytest.mark.parametrize("count", [1, 12])
def test_it_stays_small(count: int) -> None:
    canvas = draw_overview(["one"] * count, [view(120)] * count)
    assert canvas.shape[1] < 900
