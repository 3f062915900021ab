"""One image of what runs learned: reconstructions of held-out images, and codes with their patches and words."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tavq.report.tokenizer.code_cards import CodeCard
from tavq.report.tokenizer.view import View

WIDTH = 820
MARGIN = 16
LABEL = 100
"""Pixels of the column that names the rows."""

TILE = 96
PATCH = 48
CODES = 6
PATCHES = 5
WORDS = 4
INK, FAINT, PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)


def draw_overview(names: Sequence[str], views: Sequence[View]) -> UInt8[np.ndarray, "y x 3"]:
    """Held-out images above their reconstructions by each run, then codes of the last run.

    The codes are those with the strongest association to a word, one code a word.

    Args:
        names: what the rows are called, one for each view.
        views: what each run makes of the same images.
    """
    tiles = min(len(views[0].pairs), (WIDTH - LABEL - 2 * MARGIN) // TILE)
    cards = choose_cards(views[-1].cards)
    top_height = MARGIN + (1 + len(views)) * (TILE + 4) + MARGIN
    card_rows = (len(cards) + 1) // 2
    height = top_height + (36 + card_rows * (PATCH + 12) if cards else 0) + MARGIN
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    rows = [("original", [pair.original for pair in views[0].pairs])]
    rows += [(name, [pair.reconstruction for pair in view.pairs]) for name, view in zip(names, views, strict=True)]
    for row, (name, images) in enumerate(rows):
        y = MARGIN + row * (TILE + 4)
        pen.text((MARGIN, y + TILE // 2), name, INK, _font(14), anchor="lm")
        for column, image in enumerate(images[:tiles]):
            canvas.paste(_resized(image, TILE), (MARGIN + LABEL + column * (TILE + 4), y))
    if cards:
        title = f"Codes of {names[-1]}: where each was chosen, and the words it co-occurs with"
        pen.text((MARGIN, top_height + 8), title, INK, _font(15), anchor="lm")
    for number, card in enumerate(cards):
        x = MARGIN + (number % 2) * (WIDTH // 2)
        y = top_height + 36 + (number // 2) * (PATCH + 12)
        _draw_card(canvas, pen, card, x, y)
    return np.asarray(canvas)


def choose_cards(cards: Sequence[CodeCard]) -> list[CodeCard]:
    """The cards with the highest lift of a word, each with a first word of its own."""
    chosen: dict[str, CodeCard] = {}
    for card in sorted(cards, key=_lift, reverse=True):
        words = _words(card)
        if words and len(card.patches) >= PATCHES:
            chosen.setdefault(words[0], card)
    return list(chosen.values())[:CODES]


def _lift(card: CodeCard) -> float:
    words = (card.associated or {}).get("words", [])
    return max((unit.lift for unit in words), default=0.0)


def _words(card: CodeCard) -> list[str]:
    words = (card.associated or {}).get("words", [])
    return [unit.unit for unit in words[:WORDS]]


def _draw_card(canvas: Image.Image, pen: ImageDraw.ImageDraw, card: CodeCard, x: int, y: int) -> None:
    for number, patch in enumerate(card.patches[:PATCHES]):
        canvas.paste(_resized(patch.image, PATCH), (x + number * (PATCH + 3), y))
    left = x + PATCHES * (PATCH + 3) + 6
    pen.text((left, y + 2), f"code {card.code}", FAINT, _font(12), anchor="la")
    for line, word in enumerate(_words(card)[:2]):
        pen.text((left, y + 18 + 17 * line), word, INK, _font(14), anchor="la")


def _resized(image: UInt8[np.ndarray, "y x 3"], side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
