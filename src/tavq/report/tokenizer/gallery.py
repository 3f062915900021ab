"""Sections with images: reconstructions, samples over training, the codebook, and what its codes mean."""

from collections.abc import Sequence

import numpy as np

from tavq.core.errors import DataError
from tavq.data.images import load_image
from tavq.interfaces import GRANULARITIES
from tavq.report.html.charts import histogram
from tavq.report.html.images import img, sheet
from tavq.report.html.markup import Markup, tag
from tavq.report.run import Run
from tavq.report.tokenizer.code_cards import CodeCard
from tavq.report.tokenizer.sections import note, section
from tavq.report.tokenizer.similarity import render_similarity
from tavq.report.tokenizer.view import View

GRIDS = 4
"""Number of sample grids shown, evenly spaced over the run."""

# --- images ---------------------------------------------------------------------------------------------------


def render_pairs(view: View) -> Markup:
    """Images next to their reconstructions."""
    figures = [
        tag(
            "figure",
            img(pair.original, "original"),
            img(pair.reconstruction, "reconstruction"),
            tag("figcaption", pair.key, title=pair.key),
            class_="pair",
        )
        for pair in view.pairs
    ]
    about = (
        f"Left: the image; right: its reconstruction from the codes alone. {describe_choice(view.pairs_split)}, "
        "not picked by hand."
    )
    return section("images", "Images and their reconstruction", note(about), tag("div", *figures, class_="pairs"))


def describe_choice(split: str) -> str:
    """Which images of a split are shown, and whether training used them."""
    if split == "train":
        return "Images of the training split (the data set has no other), evenly spaced over it"
    return f"Held-out images, evenly spaced over the split “{split}”"


def render_progress(run: Run) -> Markup | None:
    """Sample grids from the start of training to its end."""
    grids = run.samples()
    if not grids:
        return None
    last = len(grids) - 1
    chosen = sorted({round(index * last / max(GRIDS - 1, 1)) for index in range(GRIDS)})
    figures = []
    for step, path in (grids[index] for index in chosen):
        try:
            image = load_image(path)
        except DataError:  # one damaged image must not cost the page
            continue
        caption = tag("figcaption", f"step {step:,}")
        figures.append(tag("figure", img(image, f"samples of step {step}", exact=False), caption, class_="progress"))
    title, about = (
        "Reconstruction over training",
        "Upper row: the images; lower row: their reconstruction at that step.",
    )
    if run.is_task:
        condition = ", with the first half of the tokens given" if run.task.task.completion else ""
        title = "Samples"
        about = f"Upper row: images decoded from their own tokens; lower row: what the task generated{condition}."
    return section("progress", title, note(about), *figures)


# --- codebook ---------------------------------------------------------------------------------------------------


def render_codebook(view: View) -> Markup:
    """All entries as images and colours, and how often they are used."""
    figures = tag("div", *render_codebook_figures(view), class_="book")
    return section("codebook", "Codebook", note(describe_usage(view)), figures)


def describe_usage(view: View) -> str:
    """Usage and perplexity in a sentence."""
    used, size = int((view.counts > 0).sum()), len(view.counts)
    return (
        f"{used:,} of {size:,} entries ({used / size:.1%}) were chosen at least once on {view.images:,} images "
        f"({describe_splits(view)}); perplexity {view.perplexity:,.1f}."
    )


def describe_splits(view: View) -> str:
    """The number of images of each split."""
    return ", ".join(f"{count:,} {split}" for split, count in view.splits.items())


def render_codebook_figures(view: View, colour: int = 0) -> list[Markup]:
    """A sheet of decoded entries, a colour map, two histograms of usage, and the cosines between codes."""
    count = len(view.tiles)
    columns = next(width for width in (8, 16, 32) if width * width >= count or width == 32)
    part = "Every entry" if count == len(view.counts) else f"The {count:,} most used of {len(view.counts):,} entries"
    squares = [np.full((6, 6, 3), 0, np.uint8) + view.colours[code] for code in view.order[:count]]
    counts = [int(view.counts[code]) for code in view.order]
    unused = count - int((view.counts > 0).sum())
    about_unused = f" The last {unused:,} were never chosen here." if unused > 0 else ""
    return [
        tag(
            "figure",
            img(sheet(list(view.tiles), columns), "each entry decoded alone", exact=True),
            tag("figcaption", f"{part} decoded alone, most used first.{about_unused}"),
        ),
        tag(
            "figure",
            img(sheet(squares, columns), "entries coloured by their principal components", exact=True),
            tag(
                "figcaption",
                "The same entries in the same order; similar colours mean nearby entries (three principal components).",
            ),
        ),
        histogram("How often each entry was chosen", counts, "entries, most used first", colour=colour),
        histogram("The same on a logarithmic axis", counts, "entries, most used first", log=True, colour=colour),
        *render_similarity(view.similarity),
    ]


# --- codes ------------------------------------------------------------------------------------------------------


def render_codes(view: View) -> Markup:
    """The most used codes with what they mean."""
    cards = [render_card(card) for card in view.cards]
    return section("codes", "What the codes mean", *render_cards_legend(view), tag("div", *cards, class_="cards"))


def render_cards_legend(view: View) -> list[Markup]:
    """How to read a card."""
    parts = [
        note(
            f"The {len(view.cards)} most used codes, from {view.images:,} images ({describe_splits(view)}). The square "
            "is the code decoded alone. The patches are crops of original images (3 × 3 cells) around the positions "
            "where the encoder's feature is closest to the code, each from a different image."
        )
    ]
    if any(card.word for card in view.cards):
        parts.append(
            note(
                tag("b", "The word "),
                "after a code's index is the one that its entry was made of. Training moves the entries of all words "
                "together, and no loss ties a code to images of its word.",
            )
        )
    if view.with_text:
        parts.append(
            note(
                tag("b", "Co-occurs with: "),
                "units of text of the images in which the code is more frequent than on average. The factor is the "
                "lift: how much more likely the code is in images with the unit (shrunk towards 1). By chance alone, "
                "fewer than one code in twenty would show a unit; where none is significant, the strongest are listed "
                "in grey italics and mean little. A unit may describe the surroundings rather than the patch itself.",
            )
        )
    if view.aligned and any(card.nearest for card in view.cards):
        parts.append(
            note(
                tag("b", "Nearest in the aligned space: "),
                "units whose vectors are nearest to the code after the aligner's projection, with their cosine after "
                "centring (the means over all units and over all used codes are subtracted). If many codes list the "
                "same units, the alignment hardly distinguishes those codes.",
            )
        )
    return parts


def render_card(card: CodeCard) -> Markup:
    """One code."""
    return tag(
        "article",
        tag(
            "header",
            img(card.tile, f"code {card.code} decoded alone"),
            tag(
                "div",
                tag("h3", f"Code {card.code}" if card.word is None else f"Code {card.code} · {card.word}"),
                tag("span", f"{card.fraction:.2%} of all positions, {card.count:,} times"),
            ),
        ),
        tag("div", *(img(patch.image, patch.key) for patch in card.patches), class_="patches"),
        *_render_associated(card),
        *_render_nearest(card),
        class_="card",
    )


def _render_associated(card: CodeCard) -> list[Markup]:
    if card.associated is None:
        return []
    rows = []
    for name in GRANULARITIES:
        units = card.associated[name]
        items = [(unit.unit, f"×{unit.lift:.1f}", f"in the text of {unit.images} images") for unit in units]
        if items:
            rows.append(_render_units(name, items, "units" if units[0].certain else "units chance"))
    title = "Co-occurs with" if rows else "Co-occurs with no unit more than other codes do"
    return [tag("p", title, class_="kind"), *rows]


def _render_nearest(card: CodeCard) -> list[Markup]:
    if not card.nearest:
        return []
    rows = []
    for name, units in card.nearest.items():
        items = [(unit.unit, f"{unit.cosine:.2f}", f"cosine with the {name[:-1]}") for unit in units]
        if items:
            rows.append(_render_units(name, items, "units near"))
    return [tag("p", "Nearest in the aligned space", class_="kind"), *rows]


def _render_units(granularity: str, items: Sequence[tuple[str, str, str]], class_: str) -> Markup:
    parts = [tag("li", shorten(unit), tag("small", value), title=f"{unit}: {about}") for unit, value, about in items]
    return tag("ul", tag("li", granularity, class_="of"), *parts, class_=class_)


def shorten(text: str, longest: int = 90) -> str:
    """Cut a text to fit a card."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
