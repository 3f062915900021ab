"""The parts of a page about one run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tavq.core.config import flat
from tavq.core.errors import DataError
from tavq.data.pictures import load_picture
from tavq.interfaces import GRANULARITIES
from tavq.report.charts import Line, histogram, line_chart
from tavq.report.markup import Markup, tag
from tavq.report.meaning import CodeCard
from tavq.report.measures import measures_of
from tavq.report.pictures import img, sheet
from tavq.report.run import Run
from tavq.report.view import View

GROUPS = (
    ("Reconstruction", "reconstruction/", False),
    ("Alignment with text", "align/", False),
    ("Quantizer", "quantizer/", True),
    ("Codebook loss", "codebook_loss/", True),
    ("Adversarial", "adversarial/", False),
)
"""Curves of one room share a chart; those of another scale than their neighbours are logarithmic."""

APART = {"adversarial/weight": "Weight of the adversarial loss"}
SINGLE = {
    "codebook/usage": "Codebook usage (share of the entries, between two lines of the log)",
    "codebook/perplexity": "Codebook perplexity (between two lines of the log)",
    "learning_rate": "Learning rate",
    "seconds_per_step": "Seconds a step",
}
GRIDS = 4
"""Sample grids shown, evenly spread over the run."""


def section(identity: str, title: str, *children: Any) -> Markup:
    """A part of a page that a link can name."""
    return tag("section", tag("h2", title, id=identity), *children)


def note(*children: Any) -> Markup:
    """Small print."""
    return tag("p", *children, class_="note")


def table(head: Sequence[Any], rows: Sequence[Sequence[Markup]], numbers: Sequence[int] = ()) -> Markup:
    """A table that scrolls sideways where it is wider than the page; `rows` hold `td`s."""
    cells = [tag("th", name, class_="number" if place in numbers else None) for place, name in enumerate(head)]
    body = tag("tbody", *(tag("tr", *row) for row in rows))
    return tag("div", tag("table", tag("thead", tag("tr", *cells)), body), class_="scroll")


def number(value: int) -> str:
    """A count with its thousands set off: 1,024; 72.3 M above a million."""
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,}"


# --- header -----------------------------------------------------------------------------------------------------


def fact(value: Any, name: str) -> Markup:
    """One figure of the header."""
    return tag("div", tag("b", value), tag("span", name), class_="fact")


def header(run: Run) -> list[Markup]:
    """What was trained, on what, for how long, with which software."""
    model = run.tokenizer
    # a loaded model is frozen, so its own count of trainable numbers says 0
    parameters = {name: sum(map(Tensor.numel, part.parameters())) for name, part in model.named_children()}
    side = run.size // model.factor
    told = {"data": "–", "tavq": "–", "torch": "–", "device": "–", **run.provenance}
    facts = [
        fact(told["data"], f"data, {number(int(told.get('pictures') or 0))} training pictures"),
        fact(f"{run.size} × {run.size} px", f"pictures, {side} × {side} codes each (f = {model.factor})"),
        fact(f"{model.entries:,} × {model.codebook.width}", f"codebook, {model.config.codebook.name}"),
        fact(model.config.quantizer.name, "quantizer"),
        fact(model.config.align.name if model.config.align else "none", "alignment with text"),
        fact(number(run.steps), f"steps, seed {run.model.get('seed', '–')}"),
        fact(
            number(sum(parameters.values())),
            "parameters: " + ", ".join(f"{k} {number(v)}" for k, v in parameters.items() if v),
        ),
        fact(f"tavq {told['tavq']}", f"torch {told['torch']}, {told['device']}"),
    ]
    return [
        tag("h1", run.name),
        tag("p", run.recipe.get("description") or "An image tokenizer.", class_="lead"),
        tag("div", *facts, class_="facts"),
        *(tag("p", alarm_text(run), class_="alarmed") for _ in run.alarms[:1]),
        tag("details", tag("summary", "Every setting, and where the run comes from"), settings_table(run)),
    ]


def alarm_text(run: Run) -> str:
    """How often an alarm sounded, and where first."""
    first = run.alarms[0]
    usage = first.get("usage")
    share = f" with {usage:.1%} of the entries in use" if isinstance(usage, float) else ""
    times = "once" if len(run.alarms) == 1 else f"{len(run.alarms)} times"
    return f"The alarm “{first.get('alarm')}” sounded {times}, first at step {first.get('step')}{share}."


def settings_table(run: Run) -> Markup:
    """The resolved recipe and the provenance, a key a line."""
    pairs = [*flat(run.recipe), *flat(run.provenance, "provenance")]
    rows = [
        [tag("td", key, class_="setting"), tag("td", shown(value), class_="setting")] for key, value in pairs if key
    ]
    return table(["setting", "value"], rows)


def shown(value: Any) -> str:
    """A setting's value as YAML would have it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- figures ----------------------------------------------------------------------------------------------------


def figures(run: Run) -> Markup:
    """The evaluation as a table with what each figure means."""
    if run.evaluation is None:
        return section("figures", "Figures", note("This run was not evaluated yet. Run: tavq evaluate RUN --data DATA"))
    arrows = {1: "higher is better", -1: "lower is better", 0: ""}
    rows = []
    for measure in measures_of([run.evaluation]):
        meaning = f"{measure.meaning} {arrows[measure.better].capitalize()}{'.' if measure.better else ''}"
        rows.append(
            [
                tag("th", measure.name, scope="row"),
                tag("td", measure.text(measure.of(run.evaluation)), class_="number"),
                tag("td", meaning, class_="meaning"),
            ]
        )
    return section(
        "figures",
        "Figures",
        note(evaluated_on(run.evaluation)),
        table(["measure", "value", "what it says"], rows, numbers=[1]),
        *warnings_of(run.evaluation),
    )


def evaluated_on(evaluation: Mapping[str, Any]) -> str:
    """On which pictures the figures stand."""
    size = evaluation.get("size")
    pixels = f" of {size[1]} × {size[0]} px" if isinstance(size, list) and len(size) == 2 else ""
    with_text = evaluation.get("images_with_text")
    text = f", {with_text} of them with text" if isinstance(with_text, int) else ""
    return (
        f"Measured on {evaluation.get('images', '?')} pictures{pixels} of the split "
        f"“{evaluation.get('split', '?')}” of {evaluation.get('data', '?')}{text}."
    )


def warnings_of(evaluation: Mapping[str, Any]) -> list[Markup]:
    """What the evaluation itself warns of."""
    found = [value for key, value in evaluation.items() if key.endswith("_warning") and value]
    return [tag("p", value, class_="warning") for value in found]


# --- curves -----------------------------------------------------------------------------------------------------


def curves(run: Run) -> Markup:
    """Every logged value, those of one room in one chart."""
    keys = [key for key in logged_keys([run]) if key not in APART]
    alarms = [float(line["step"]) for line in run.alarms if isinstance(line.get("step"), int | float)]
    charts = []
    grouped: set[str] = set()
    rooms = dict.fromkeys(key.partition("/")[0] for key in keys if "/" in key and key not in SINGLE)
    for room in rooms:
        members = [key for key in keys if key.startswith(f"{room}/") and key not in SINGLE]
        grouped |= set(members)
        lines = [Line(key.partition("/")[2], *run.curve(key)) for key in members]
        charts.append(line_chart(room.capitalize(), lines, log=wide(lines), alarms=alarms))
    for key in [*APART, *SINGLE, *keys]:
        if key not in grouped and key in logged_keys([run]):
            grouped.add(key)
            charts.append(line_chart({**APART, **SINGLE}.get(key, key), [Line(key, *run.curve(key))], alarms=alarms))
    about = "Each point is the mean over the steps since the last line of the log."
    if alarms:
        about += " Red lines mark alarms."
    return section("curves", "Training", note(about), tag("div", *charts, class_="charts"))


def logged_keys(runs: Sequence[Run]) -> list[str]:
    """Keys with numbers in the logs of some runs, in the order they were first written."""
    keys: dict[str, None] = {}
    for run in runs:
        for line in run.lines:
            keys |= dict.fromkeys(key for key, value in line.items() if isinstance(value, int | float))
    return [key for key in keys if key != "step"]


def wide(lines: Sequence[Line]) -> bool:
    """Whether curves need a logarithmic axis: all positive and over more than two powers of ten."""
    values = [value for line in lines for value in line.y if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 100


# --- pictures ---------------------------------------------------------------------------------------------------


def pairs(view: View) -> Markup:
    """Pictures beside what comes back from their codes."""
    held = "that training never saw" if view.pairs_split != "train" else "of the training split (there is no other)"
    figures_ = [
        tag(
            "figure",
            img(pair.original, "original"),
            img(pair.reconstruction, "reconstruction"),
            tag("figcaption", pair.key, title=pair.key),
            class_="pair",
        )
        for pair in view.pairs
    ]
    about = f"Left the picture, right its reconstruction from codes alone; pictures {held}, evenly spread, not chosen."
    return section("pictures", "Pictures and their reconstruction", note(about), tag("div", *figures_, class_="pairs"))


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
            picture = load_picture(path)
        except DataError:  # a page is not lost for one picture
            continue
        caption = tag("figcaption", f"step {step:,}")
        parts.append(tag("figure", img(picture, f"samples of step {step}", exact=False), caption, class_="progress"))
    about = "Upper row the pictures, lower row their reconstruction at that step."
    return section("progress", "How reconstruction grew", note(about), *parts)


# --- codebook ---------------------------------------------------------------------------------------------------


def codebook(view: View) -> Markup:
    """All entries as pictures and colours, and how often they are used."""
    return section("codebook", "Codebook", note(usage_text(view)), tag("div", *book(view), class_="book"))


def usage_text(view: View) -> str:
    """Usage and perplexity in a sentence."""
    used, size = int((view.counts > 0).sum()), len(view.counts)
    return (
        f"{used:,} of {size:,} entries ({used / size:.1%}) were chosen at least once on {view.pictures:,} pictures "
        f"({splits_text(view)}); perplexity {view.perplexity:,.1f}."
    )


def splits_text(view: View) -> str:
    """Pictures by split."""
    return ", ".join(f"{count:,} {split}" for split, count in view.splits.items())


def book(view: View, colour: int = 0) -> list[Markup]:
    """Tile sheet, colour map and the two histograms."""
    count = len(view.tiles)
    columns = next(width for width in (8, 16, 32) if width * width >= count or width == 32)
    part = "Every entry" if count == len(view.counts) else f"The {count:,} most used of {len(view.counts):,} entries"
    squares = [np.full((6, 6, 3), 0, np.uint8) + view.colours[code] for code in view.order[:count]]
    ordered = [int(view.counts[code]) for code in view.order]
    return [
        tag(
            "figure",
            img(sheet(list(view.tiles), columns), "each entry decoded alone", exact=True),
            tag("figcaption", f"{part} decoded alone, the most used first. Unused ones come last."),
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
            f"The {len(view.cards)} most used codes, from {view.pictures:,} pictures ({splits_text(view)}). The square "
            "is the code decoded alone; the patches are parts of original pictures (3 × 3 cells) around the places "
            "where the picture's feature is nearest to the code, each from another picture."
        )
    ]
    if view.with_text:
        parts.append(
            note(
                tag("b", "Found with it: "),
                "units of text of the pictures in which the code is more frequent than on average, with how many times "
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
                "after the means over all units and all used codes are removed.",
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
                tag("h3", f"Code {card.code}"),
                tag("span", f"{card.share:.2%} of all positions, {card.count:,} times"),
            ),
        ),
        tag("div", *(img(patch.picture, patch.key) for patch in card.patches), class_="patches"),
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
        told = [(item.unit, f"×{item.lift:.1f}", f"in the text of {item.pictures} pictures") for item in units]
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
