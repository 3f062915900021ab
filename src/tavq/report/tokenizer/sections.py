"""The parts of a page about one run."""

import math
from collections.abc import Sequence
from typing import Any

from tavq.core.config import flatten_settings
from tavq.metrics.record import Evaluation
from tavq.report.html.charts import Line, line_chart
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import MetricRow, arrange_metrics, cell, cell_text
from tavq.report.run import Run

ROOMS = {
    "align": "Alignment with text",
    "quantizer": "Quantizer losses",
    "codebook": "Codebook losses",
    "adversarial": "Adversarial losses",
}
"""Titles of charts; another room is named by itself."""

APART = {"adversarial/weight": "Weight of the adversarial loss"}
"""Values that do not share the chart of their room: they are of another kind than their neighbours."""

SINGLE = {
    "codebook/usage": "Codebook usage (share of the entries, between two lines of the log)",
    "codebook/perplexity": "Codebook perplexity (between two lines of the log)",
    "codebook/dead": "Entries not chosen between two lines of the log",
    "codebook/spacing": "Spacing of the entries (median distance to the nearest other one, a number)",
    "codebook/scale": "Size of the entries (root mean square of their numbers)",
    "learning_rate": "Learning rate",
    "seconds_per_step": "Seconds a step",
}
LISTED = 8
"""Items of a setting that is a list (the words of a codebook are thousands) that are shown."""

UNCHARTED = frozenset({"step", "codebook/positions"})
"""Logged numbers that say nothing as a curve."""


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
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,}"


# --- header -----------------------------------------------------------------------------------------------------


def fact(value: Any, name: str) -> Markup:
    """One figure of the header."""
    return tag("div", tag("b", value), tag("span", name), class_="fact")


def header(run: Run) -> list[Markup]:
    """What was trained, on what, for how long, with which software."""
    model = run.tokenizer
    parameters = {name: count for name, count in model.parameter_counts().items() if count}
    side = run.size // model.factor
    told = {"data": "–", "tavq": "–", "torch": "–", "device": "–", **run.provenance}
    images = told.get("images")
    trained_on = f"data, {number(images)} images to train on" if isinstance(images, int) else "data"
    parts = ", ".join(f"{name} {number(count)}" for name, count in parameters.items())
    facts = [
        fact(told["data"], trained_on),
        fact(f"{run.size} × {run.size} px", f"images, {side} × {side} codes each (f = {model.factor})"),
        fact(f"{model.entries:,} × {model.codebook.width}", f"codebook, {_codebook_of(run)}"),
        fact(model.config.quantizer.name, "quantizer"),
        fact(model.config.align.name if model.config.align else "none", "alignment with text"),
        fact(number(run.steps), f"steps, seed {run.model.get('seed', '–')}"),
        fact(number(sum(parameters.values())), f"parameters: {parts}"),
        fact(f"tavq {told['tavq']}", f"torch {told['torch']}, {told['device']}"),
    ]
    return [
        tag("h1", run.name),
        tag("p", run.recipe.get("description") or "An image tokenizer.", class_="lead"),
        tag("div", *facts, class_="facts"),
        *(tag("p", alarm_text(run), class_="alarmed") for _ in run.alarms[:1]),
        tag("details", tag("summary", "Every setting, and where the run comes from"), settings_table(run)),
    ]


def _codebook_of(run: Run) -> str:
    """The codebook that was trained; a computed one is kept as its table."""
    kept = run.tokenizer.config.codebook.name
    trained = (run.recipe.get("model") or {}).get("codebook", {}).get("name", kept)
    return kept if trained == kept else f"{trained}, kept as a table"


def alarm_text(run: Run) -> str:
    """How often an alarm sounded, where first, and what the diagnosis was then."""
    first = run.alarms[0]
    times = "once" if len(run.alarms) == 1 else f"{len(run.alarms)} times"
    told = " ".join(str(first[part]) for part in ("sign", "cause") if part in first)
    remedy = f" What helps: {first['remedy']}" if "remedy" in first else ""
    sounded = f"The alarm “{first.get('alarm')}” sounded {times}, first at step {first.get('step')}."
    return f"{sounded} {told}{remedy}{_since(run)}".strip()


def _since(run: Run) -> str:
    """What the last line of the log says of the codebook: an alarm may have passed."""
    last = run.lines[-1] if run.lines else {}
    usage, perplexity = last.get("codebook/usage"), last.get("codebook/perplexity")
    if not (isinstance(usage, float) and isinstance(perplexity, float)):
        return ""
    return (
        f" At step {last.get('step')}, the last of the log, usage was {usage:.1%} and the perplexity {perplexity:.1f}."
    )


def settings_table(run: Run) -> Markup:
    """The resolved recipe and the provenance, a key a line."""
    pairs = [*flatten_settings(run.recipe), *flatten_settings(run.provenance, "provenance")]
    rows = [
        [tag("td", key, class_="setting"), tag("td", shown(value), class_="setting")] for key, value in pairs if key
    ]
    return table(["setting", "value"], rows)


def shown(value: Any) -> str:
    """A setting's value as YAML would have it."""
    if value is None:
        return "null"
    if isinstance(value, list) and len(value) > LISTED:
        return f"{', '.join(map(shown, value[:LISTED]))}, … ({len(value):,} in all)"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- metrics ----------------------------------------------------------------------------------------------------


def metrics(run: Run) -> Markup:
    """The evaluation as a table with what each metric means."""
    if run.evaluation is None:
        return section("metrics", "Metrics", note(missing_evaluation(run)))
    tables: list[Markup | None] = []
    for found in arrange_metrics([run.evaluation]):
        rows = [row for one in found.rows for row in _rows(one)]
        tables += [tag("h3", found.group.title), note(found.group.note) if found.group.note else None]
        tables.append(table(["metric", "value", "what it says"], rows, numbers=[1]))
    return section(
        "metrics",
        "Metrics",
        note(evaluated_on(run.evaluation), " In small print 95 % intervals over images."),
        *tables,
        *warnings_of(run.evaluation),
    )


def _rows(row: MetricRow) -> list[list[Markup]]:
    """A metric with what it means, then its baselines."""
    better = {1: " Higher is better.", -1: " Lower is better.", 0: ""}[row.metric.better]
    found = []
    for own in row.metrics.values():
        name = own.title if own.baseline is None else f"… {own.baseline.title}"
        meaning = f"{own.meaning}{better}" if own.baseline is None else own.baseline.meaning
        value = cell(*cell_text(own, own))
        found.append([tag("th", name, scope="row"), value, tag("td", meaning, class_="meaning")])
    return found


def missing_evaluation(run: Run) -> str:
    """Why a run has no metrics, and how it gets them."""
    if run.outdated:
        return f"The evaluation of this run is of an older version; evaluate it again: {run.evaluated_by}"
    return f"This run was not evaluated yet. Run: {run.evaluated_by}"


def evaluated_on(evaluation: Evaluation) -> str:
    """Which images were measured."""
    details = evaluation.details
    size, with_text = details.get("size"), details.get("images_with_text")
    pixels = f" of {size[1]} × {size[0]} px" if isinstance(size, list) and len(size) == 2 else ""
    text = f", {with_text:,} of them with text" if isinstance(with_text, int) else ""
    return (
        f"Measured on {count_of(details.get('images'))} images{pixels} of the split "
        f"“{details.get('split', '?')}” of {details.get('data', '?')}{text}."
    )


def count_of(value: Any) -> str:
    """A count of an evaluation, which may lack it."""
    return f"{value:,}" if isinstance(value, int) else "?"


def warnings_of(*evaluations: Evaluation | None) -> list[Markup]:
    """What evaluations warn of, each warning once."""
    found = dict.fromkeys(line for evaluation in evaluations if evaluation for line in evaluation.warnings)
    return [tag("p", warning, class_="warning") for warning in found]


# --- curves -----------------------------------------------------------------------------------------------------


def curves(run: Run) -> Markup:
    """Every logged value, those of one room in one chart."""
    keys = [key for key in logged_keys([run]) if key not in APART]
    alarms = [float(line["step"]) for line in run.alarms if isinstance(line.get("step"), int | float)]
    charts: list[Markup] = []
    grouped: set[str] = set()
    rooms = dict.fromkeys(key.partition("/")[0] for key in keys if "/" in key and key not in SINGLE)
    for room in rooms:
        members = [key for key in keys if key.startswith(f"{room}/") and key not in SINGLE]
        grouped |= set(members)
        lines = distinct([Line(key.partition("/")[2], *run.curve(key)) for key in members])
        title = ROOMS.get(room, room.capitalize()) + (f": {lines[0].name}" if len(lines) == 1 else "")
        charts.append(line_chart(title, lines, log=wide(lines), alarms=alarms))
    for key in [*APART, *SINGLE, *keys]:
        if key not in grouped and key in logged_keys([run]):
            grouped.add(key)
            charts.append(line_chart({**APART, **SINGLE}.get(key, key), [Line(key, *run.curve(key))], alarms=alarms))
    about = "Each point is the mean over the steps since the last line of the log."
    if alarms:
        about += " Red lines mark alarms."
    return section("curves", "Training", note(about), tag("div", *charts, class_="charts"))


def distinct(lines: Sequence[Line]) -> list[Line]:
    """The lines with equal ones drawn as one that bears all their names, as one would hide the other.

    The codebook loss and the commitment are the same number; only their gradients differ.
    """
    names: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for line in lines:
        names.setdefault((tuple(line.x), tuple(line.y)), []).append(line.name)
    return [Line(" = ".join(found), x, y) for (x, y), found in names.items()]


def logged_keys(runs: Sequence[Run]) -> list[str]:
    """Keys with numbers in the logs of some runs, in the order they were first written."""
    keys: dict[str, None] = {}
    for run in runs:
        for line in run.lines:
            keys |= dict.fromkeys(key for key, value in line.items() if isinstance(value, int | float))
    return [key for key in keys if key not in UNCHARTED]


def wide(lines: Sequence[Line]) -> bool:
    """Whether curves need a logarithmic axis: all positive and over more than two powers of ten."""
    values = [value for line in lines for value in line.y if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 100
