"""The parts of a page that show images: reconstructions, progress, the codebook, and what its codes mean."""

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
from tavq.report.tokenizer.view import View

GRIDS = 4
"""Sample grids shown, evenly spread over the run."""

# --- images ---------------------------------------------------------------------------------------------------


def pairs(view: View) -> Markup:
    """Images beside what comes back from their codes."""
    held = "that training never saw" if view.pairs_split != "train" else "of the training split (there is no other)"
    shown_pairs = [
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
        f"Left the image, right its reconstruction from codes alone; images {held}, evenly spread over the split "
        "and not picked by hand."
    )
    return section("images", "Images and their reconstruction", note(about), tag("div", *shown_pairs, class_="pairs"))


def progress_of(run: Run) -> Markup | None:
    """The sample grids over the run."""
    grids = run.samples()
    if not grids:
        return None
    last = len(grids) - 1
    places = sorted({round(place * last / max(GRIDS - 1, 1)) for place in range(GRIDS)})
    parts = []
    for step, path in (grids[place] for place in places):
        try:
            image = load_image(path)
        except DataError:  # a page is not lost for one image
            continue
        caption = tag("figcaption", f"step {step:,}")
        parts.append(tag("figure", img(image, f"samples of step {step}", exact=False), caption, class_="progress"))
    about, title = "Upper row the images, lower row their reconstruction at that step.", "How reconstruction grew"
    if run.of_task:
        kept = ", below their first half, which it was given" if run.task.task.completion else ""
        about, title = (
            f"Upper row images as their tokens show them, lower row what was drawn for them{kept}.",
            "Samples",
        )
    return section("progress", title, note(about), *parts)


# --- codebook ---------------------------------------------------------------------------------------------------


def codebook(view: View) -> Markup:
    """All entries as images and colours, and how often they are used."""
    return section("codebook", "Codebook", note(usage_text(view)), tag("div", *book(view), class_="book"))


def usage_text(view: View) -> str:
    """Usage and perplexity in a sentence."""
    used, size = int((view.counts > 0).sum()), len(view.counts)
    return (
        f"{used:,} of {size:,} entries ({used / size:.1%}) were chosen at least once on {view.images:,} images "
        f"({splits_text(view)}); perplexity {view.perplexity:,.1f}."
    )


def splits_text(view: View) -> str:
    """Images by split."""
    return ", ".join(f"{count:,} {split}" for split, count in view.splits.items())


def book(view: View, colour: int = 0) -> list[Markup]:
    """Tile sheet, colour map and the two histograms."""
    count = len(view.tiles)
    columns = next(width for width in (8, 16, 32) if width * width >= count or width == 32)
    part = "Every entry" if count == len(view.counts) else f"The {count:,} most used of {len(view.counts):,} entries"
    squares = [np.full((6, 6, 3), 0, np.uint8) + view.colours[code] for code in view.order[:count]]
    ordered = [int(view.counts[code]) for code in view.order]
    shown_unused = count - int((view.counts > 0).sum())
    unused = f" The last {shown_unused:,} were never chosen here." if shown_unused > 0 else ""
    return [
        tag(
            "figure",
            img(sheet(list(view.tiles), columns), "each entry decoded alone", exact=True),
            tag("figcaption", f"{part} decoded alone, the most used first.{unused}"),
        ),
        tag(
            "figure",
            img(sheet(squares, columns), "entries coloured by their principal components", exact=True),
            tag(
                "figcaption",
                "The same entries in the same places; near colours are near entries (three principal components).",
            ),
        ),
        histogram("How often each entry was chosen", ordered, "entries, the most used first", colour=colour),
        histogram("The same on a logarithmic axis", ordered, "entries, the most used first", log=True, colour=colour),
    ]


# --- codes ------------------------------------------------------------------------------------------------------


def codes(view: View) -> Markup:
    """The most used codes with what they mean."""
    cards = [code_card(card) for card in view.cards]
    return section("codes", "What the codes mean", *codes_legend(view), tag("div", *cards, class_="cards"))


def codes_legend(view: View) -> list[Markup]:
    """How to read a card."""
    parts = [
        note(
            f"The {len(view.cards)} most used codes, from {view.images:,} images ({splits_text(view)}). The square "
            "is the code decoded alone; the patches are parts of original images (3 × 3 cells) around the places "
            "where the image's feature is nearest to the code, each from another image."
        )
    ]
    if any(card.word for card in view.cards):
        parts.append(
            note(
                tag("b", "The word "),
                "beside a code's number is the one that its entry was made of. Training moves the entries of all words "
                "together, and nothing asks that a code stand where its word is seen.",
            )
        )
    if view.with_text:
        parts.append(
            note(
                tag("b", "Found with it: "),
                "units of text of the images in which the code is more frequent than on average, with how many times "
                "likelier that makes the code (lift, shrunk towards 1). Chance alone would show such units for fewer "
                "than one code in twenty; where no unit passes that, the strongest are named in grey italics, and "
                "mean little. A word can come from what stands beside.",
            )
        )
    if view.aligned and any(card.nearest for card in view.cards):
        parts.append(
            note(
                tag("b", "Nearest in the aligned space: "),
                "units whose vectors lie nearest to the code as the aligner's network carries it over, with the cosine "
                "after the means over all units and all used codes are removed. Where the same units come with many "
                "codes, the alignment hardly tells those codes apart.",
            )
        )
    return parts


def code_card(card: CodeCard) -> Markup:
    """One code."""
    return tag(
        "article",
        tag(
            "header",
            img(card.alone, f"code {card.code} decoded alone"),
            tag(
                "div",
                tag("h3", f"Code {card.code}" if card.word is None else f"Code {card.code} · {card.word}"),
                tag("span", f"{card.share:.2%} of all positions, {card.count:,} times"),
            ),
        ),
        tag("div", *(img(patch.image, patch.key) for patch in card.patches), class_="patches"),
        *_found_with(card),
        *_nearest(card),
        class_="card",
    )


def _found_with(card: CodeCard) -> list[Markup]:
    if card.found_with is None:
        return []
    rows = []
    for name in GRANULARITIES:
        units = card.found_with[name]
        told = [(item.unit, f"×{item.lift:.1f}", f"in the text of {item.images} images") for item in units]
        if told:
            rows.append(_units(name, told, "units" if units[0].certain else "units chance"))
    title = tag(
        "p",
        "Found with it" if rows else "Found with it: no unit goes with it more than with other codes",
        class_="kind",
    )
    return [title, *rows]


def _nearest(card: CodeCard) -> list[Markup]:
    if not card.nearest:
        return []
    rows = [
        _units(
            name, [(item.unit, f"{item.cosine:.2f}", f"cosine with the {name[:-1]}") for item in items], "units near"
        )
        for name, items in card.nearest.items()
        if items
    ]
    return [tag("p", "Nearest in the aligned space", class_="kind"), *rows]


def _units(granularity: str, items: Sequence[tuple[str, str, str]], class_: str) -> Markup:
    parts = [tag("li", cut(unit), tag("small", figure), title=f"{unit}: {about}") for unit, figure, about in items]
    return tag("ul", tag("li", granularity, class_="of"), *parts, class_=class_)


def cut(text: str, longest: int = 90) -> str:
    """A text that fits a card."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
