"""The codes that a word finds in the aligned space, with what images say about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tavq.data.folder import FolderDataset
from tavq.inspection.entries import Lexicon
from tavq.metrics.word_codes import FOUND, WordLifts, find_codes
from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import cell
from tavq.report.tokenizer.code_cards import Patch, Survey
from tavq.report.tokenizer.sections import note, section, table

WORDS = "words"

SHOWN = 16
"""Words on a page: the most frequent ones of the images that it reads."""

WORD_PATCHES = 3
"""Patches of each code that a word finds."""


@dataclass(frozen=True)
class FoundCode:
    """A code that a word finds, with the lift of the code by the word."""

    code: int
    lift: float
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class WordCard:
    """A word, the codes that it finds, and the mean of their lifts with its 95 % interval over images."""

    word: str
    images: int
    codes: tuple[FoundCode, ...]
    lift: float
    interval: tuple[float, float]


@torch.no_grad()
def make_word_cards(survey: Survey, store: Lexicon, dataset: FolderDataset, shown: int = SHOWN) -> list[WordCard]:
    """The most frequent words of the surveyed images with the codes that they find; empty if no word is aligned.

    All frequent words compete for the centre of the text; see `metrics.word_codes.find_codes`.

    Args:
        survey: of the level that words are aligned with, over images with text.
        store: has the vectors of words.
        dataset: has the images.
        shown: how many words.
    """
    aligner, counted = survey.tokenizer.aligner, survey.cooccurrences
    names, present = counted.list_frequent(WORDS)
    texts, vectors = store.vocabulary(WORDS)
    if aligner is None or not names or len(counted.codes) < 2:
        return []
    entries = aligner.embed_entries(survey.tokenizer.quantizer.lookup_entries(survey.codebook), WORDS)
    assert entries is not None, "the survey is of a level that words are aligned with"
    rows = {text: row for row, text in enumerate(texts)}
    candidates = torch.from_numpy(np.asarray(vectors[[rows[name] for name in names]], np.float32))
    found = find_codes(entries.cpu(), counted.find_used(len(entries)), candidates)[:shown]
    codes, columns = found.unique(return_inverse=True)
    prominent = torch.from_numpy(counted.find_prominent(codes.tolist()))
    lifts = WordLifts(prominent, torch.from_numpy(present[:, :shown]), columns)
    cards = []
    for row, ends in enumerate(lifts.intervals_of_words().tolist()):
        pairs = zip(found[row].tolist(), lifts.of_codes[row].tolist(), strict=True)
        shown_codes = [FoundCode(code, lift, survey.crop_patches(code, dataset)[:WORD_PATCHES]) for code, lift in pairs]
        mean = float(lifts.of_codes[row].mean())
        cards.append(WordCard(names[row], int(present[:, row].sum()), tuple(shown_codes), mean, (ends[0], ends[1])))
    return cards


def render_words(found: Mapping[str, tuple[Sequence[WordCard], str]]) -> Markup | None:
    """The section of the words; None if no run has any.

    Args:
        found: the cards of each run by its name, and the level that words are aligned with.
    """
    shown = {name: (cards, level) for name, (cards, level) in found.items() if cards}
    if not shown:
        return None
    about = (
        f"For each word the {FOUND} codes that are nearest to it in the aligned space, nearest first, each with "
        "patches where the encoder's feature is closest to the code. They are codes of the level that words are "
        "aligned with. The lift says how many times likelier a code is prominent in images whose text has the word "
        "than in all images; 1 is chance. Small print: 95 % intervals over these images. The words are the most "
        "frequent ones; none was chosen by its result."
    )
    heads = ["word", "images", "codes that it finds", "mean lift"]
    parts: list[Markup | None] = []
    for name, (cards, level) in shown.items():
        parts.append(tag("h3", f"{name}, level “{level}”"))
        parts.append(table(heads, [_render_row(card) for card in cards], numbers=[1, 3]))
    return section("words", "Codes that a word finds", note(about), *parts)


def _render_row(card: WordCard) -> list[Markup]:
    codes = [
        tag(
            "span",
            *(img(patch.image, f"code {code.code} in {patch.key}") for patch in code.patches),
            tag("small", f" {code.code} ×{code.lift:.1f}"),
            class_="found",
        )
        for code in card.codes
    ]
    low, high = card.interval
    lift = cell(f"×{card.lift:.2f}", f"{low:.2f} – {high:.2f}")
    return [tag("th", card.word, scope="row"), tag("td", f"{card.images}", class_="number"), tag("td", *codes), lift]
