"""Sections of the page of one tokenizer run, and the elements that all pages share."""

import math
from collections.abc import Sequence
from typing import Any

from tavq.core.config import flatten_settings
from tavq.metrics.codes import LEVEL_NAMES, LOGGED_TITLES
from tavq.metrics.record import Evaluation
from tavq.report.html.charts import Line, line_chart
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import MetricRow, arrange_metrics, cell, cell_text
from tavq.report.run import Run

GROUPS = {
    "align": "Alignment with text",
    "quantizer": "Quantizer losses",
    "codebook": "Codebook losses",
    "adversarial": "Adversarial losses",
}
"""Chart title of each group of logged keys; other groups are titled by their own name."""

SEPARATE = {"adversarial/weight": "Weight of the adversarial loss"}
"""Keys that get a chart of their own, as they are not losses like the rest of their group."""

SINGLE = {
    **{f"codebook/{name}": title for name, title in LOGGED_TITLES.items()},
    "learning_rate": "Learning rate",
    "seconds_per_step": "Seconds per step",
}
"""Chart titles of keys with a chart of their own, in which each level of the hierarchy has a line."""

MAX_ITEMS = 8
"""Number of items shown of a setting that is a list; a codebook can have thousands of words."""

UNCHARTED = frozenset({"step", "codebook/positions"})
"""Logged keys without a chart."""


def section(identity: str, title: str, *children: Any) -> Markup:
    """A section whose heading has the id `identity`, so that links can target it."""
    return tag("section", tag("h2", title, id=identity), *children)


def note(*children: Any) -> Markup:
    """A paragraph in small print."""
    return tag("p", *children, class_="note")


def table(head: Sequence[Any], rows: Sequence[Sequence[Markup]], numbers: Sequence[int] = ()) -> Markup:
    """A table that scrolls sideways if it is wider than the page.

    Args:
        head: the column headings.
        rows: the `td` and `th` elements of each row.
        numbers: indices of the columns to align as numbers.
    """
    cells = [tag("th", name, class_="number" if column in numbers else None) for column, name in enumerate(head)]
    body = tag("tbody", *(tag("tr", *row) for row in rows))
    return tag("div", tag("table", tag("thead", tag("tr", *cells)), body), class_="scroll")


def number(value: int) -> str:
    """Format a count: 1,024, or 72.3 M from a million on."""
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,}"


# --- header -----------------------------------------------------------------------------------------------------


def fact(value: Any, name: str) -> Markup:
    """One value of the header with its label."""
    return tag("div", tag("b", value), tag("span", name), class_="fact")


def render_header(run: Run) -> list[Markup]:
    """What was trained, on which data, for how many steps, and with which software."""
    model = run.tokenizer
    parameters = {name: count for name, count in model.parameter_counts().items() if count}
    side = run.size // model.factor
    provenance = {"data": "–", "tavq": "–", "torch": "–", "device": "–", **run.provenance}
    images = provenance.get("images")
    trained_on = f"data, {number(images)} images to train on" if isinstance(images, int) else "data"
    parts = ", ".join(f"{name} {number(count)}" for name, count in parameters.items())
    facts = [
        fact(provenance["data"], trained_on),
        fact(f"{run.size} × {run.size} px", f"images, {side} × {side} codes each (f = {model.factor})"),
        fact(f"{model.entries:,} × {model.codebook.width}", f"codebook, {_describe_codebook(run)}"),
        fact(model.config.quantizer.name, "quantizer"),
        fact(model.config.align.name if model.config.align else "none", "alignment with text"),
        fact(number(run.steps), f"steps, seed {run.model.get('seed', '–')}"),
        fact(number(sum(parameters.values())), f"parameters: {parts}"),
        fact(f"tavq {provenance['tavq']}", f"torch {provenance['torch']}, {provenance['device']}"),
    ]
    return [
        tag("h1", run.name),
        tag("p", run.recipe.get("description") or "An image tokenizer.", class_="lead"),
        tag("div", *facts, class_="facts"),
        *(tag("p", describe_alarms(run), class_="alarmed") for _ in run.alarms[:1]),
        tag("details", tag("summary", "All settings and the provenance of the run"), render_settings(run)),
    ]


def _describe_codebook(run: Run) -> str:
    """The kind of codebook that was trained; one whose entries a network generates is saved as a table."""
    saved = run.tokenizer.config.codebook.name
    trained = (run.recipe.get("model") or {}).get("codebook", {}).get("name", saved)
    return saved if trained == saved else f"{trained}, saved as a table"


def describe_alarms(run: Run) -> str:
    """How often an alarm was raised, the step of the first one, and its diagnosis."""
    first = run.alarms[0]
    times = "once" if len(run.alarms) == 1 else f"{len(run.alarms)} times"
    diagnosis = " ".join(str(first[part]) for part in ("sign", "cause") if part in first)
    remedy = f" Try: {first['remedy']}" if "remedy" in first else ""
    level = first.get("level", LEVEL_NAMES[-1])
    where = "" if level == LEVEL_NAMES[-1] else f" for the level “{level}”"
    raised = f"The alarm “{first.get('alarm')}” was raised {times}, first at step {first.get('step')}{where}."
    return f"{raised} {diagnosis}{remedy}{_describe_last_line(run, level)}".strip()


def _describe_last_line(run: Run, level: Any) -> str:
    """Codebook usage at the end of the log: the codebook may have recovered since the alarm."""
    last = run.lines[-1] if run.lines else {}
    prefix = "codebook" if level == LEVEL_NAMES[-1] else f"codebook/{level}"
    usage, perplexity = last.get(f"{prefix}/usage"), last.get(f"{prefix}/perplexity")
    if not (isinstance(usage, float) and isinstance(perplexity, float)):
        return ""
    return f" At step {last.get('step')}, the last one logged, usage was {usage:.1%} and perplexity {perplexity:.1f}."


def render_settings(run: Run) -> Markup:
    """The resolved recipe and the provenance, one key per row."""
    pairs = [*flatten_settings(run.recipe), *flatten_settings(run.provenance, "provenance")]
    rows = [
        [tag("td", key, class_="setting"), tag("td", format_value(value), class_="setting")]
        for key, value in pairs
        if key
    ]
    return table(["setting", "value"], rows)


def format_value(value: Any) -> str:
    """Format a setting's value as in YAML."""
    if value is None:
        return "null"
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        return f"{', '.join(map(format_value, value[:MAX_ITEMS]))}, … ({len(value):,} in total)"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- metrics ----------------------------------------------------------------------------------------------------


def render_metrics(run: Run) -> Markup:
    """The evaluation as a table per group, with what each metric means."""
    if run.evaluation is None:
        return section("metrics", "Metrics", note(explain_missing_metrics(run)))
    tables: list[Markup | None] = []
    for arranged in arrange_metrics([run.evaluation]):
        group, rows = arranged.group, [row for metric_row in arranged.rows for row in _render_rows(metric_row)]
        tables += [tag("h3", group.title), note(group.note) if group.note else None]
        tables.append(table(["metric", "value", "meaning"], rows, numbers=[1]))
    return section(
        "metrics",
        "Metrics",
        note(describe_images(run.evaluation), " Small print: 95 % intervals over images."),
        *tables,
        *render_warnings(run.evaluation),
    )


def _render_rows(row: MetricRow) -> list[list[Markup]]:
    """The row of a metric, then those of its baselines."""
    better = {1: " Higher is better.", -1: " Lower is better.", 0: ""}[row.metric.better]
    rows = []
    for metric in row.metrics.values():
        if metric.baseline is None:
            name, meaning = metric.title, f"{metric.meaning}{better}"
        else:
            name, meaning = f"… {metric.baseline.title}", metric.baseline.meaning
        value = cell(*cell_text(metric, metric))
        rows.append([tag("th", name, scope="row"), value, tag("td", meaning, class_="meaning")])
    return rows


def explain_missing_metrics(run: Run) -> str:
    """Why a run has no metrics, and the command that computes them."""
    if run.outdated:
        return f"This run was evaluated by an older version; evaluate it again with: {run.evaluate_command}"
    return f"This run has not been evaluated yet. Evaluate it with: {run.evaluate_command}"


def describe_images(evaluation: Evaluation) -> str:
    """Which images the metrics were computed on."""
    details = evaluation.details
    size, with_text = details.get("size"), details.get("images_with_text")
    pixels = f" of {size[1]} × {size[0]} px" if isinstance(size, list) and len(size) == 2 else ""
    text = f", {with_text:,} of them with text" if isinstance(with_text, int) else ""
    return (
        f"Measured on {format_count(details.get('images'))} images{pixels} of the split "
        f"“{details.get('split', '?')}” of {details.get('data', '?')}{text}."
    )


def format_count(value: Any) -> str:
    """Format a count that an evaluation may lack."""
    return f"{value:,}" if isinstance(value, int) else "?"


def render_warnings(*evaluations: Evaluation | None) -> list[Markup]:
    """The warnings of evaluations, each once."""
    warnings = dict.fromkeys(line for evaluation in evaluations if evaluation for line in evaluation.warnings)
    return [tag("p", warning, class_="warning") for warning in warnings]


# --- curves -----------------------------------------------------------------------------------------------------


def render_curves(run: Run) -> Markup:
    """Every logged key: one chart per group (`align/…`, `quantizer/…`), then those of single quantities."""
    keys = list_logged_keys([run])
    alarms = [float(line["step"]) for line in run.alarms if isinstance(line.get("step"), int | float)]
    grouped: dict[str, list[str]] = {}
    single: dict[str, list[str]] = {key: [] for key in (*SEPARATE, *SINGLE)}
    for key in keys:
        quantity, _ = split_level(key)
        if quantity in single or "/" not in key:
            single.setdefault(quantity, []).append(key)
        else:
            grouped.setdefault(key.partition("/")[0], []).append(key)
    charts = []
    for group, members in grouped.items():
        lines = merge_equal_lines([Line(key.partition("/")[2], *run.curve(key)) for key in members])
        title = GROUPS.get(group, group.capitalize()) + (f": {lines[0].name}" if len(lines) == 1 else "")
        charts.append(line_chart(title, lines, log=needs_log_axis(lines), alarms=alarms))
    titles = {**SEPARATE, **SINGLE}
    for quantity, members in single.items():
        if members:
            lines = [Line(split_level(key)[1], *run.curve(key)) for key in members]
            charts.append(line_chart(titles.get(quantity, quantity), lines, alarms=alarms))
    about = "Each point is the mean over the steps since the last log line."
    if alarms:
        about += " Red lines mark alarms."
    return section("curves", "Training", note(about), tag("div", *charts, class_="charts"))


def split_level(key: str) -> tuple[str, str]:
    """Split a key into the quantity and the level: `codebook/low/usage` is `codebook/usage` of `low`."""
    for level in LEVEL_NAMES:
        if key.startswith(f"codebook/{level}/"):
            return key.replace(f"/{level}/", "/"), level
    return key, LEVEL_NAMES[-1]


def title_curve(key: str) -> str:
    """The title of a chart that shows a single key."""
    quantity, level = split_level(key)
    title = SINGLE.get(quantity, quantity)
    return title if quantity == key else f"{title}, level “{level}”"


def merge_equal_lines(lines: Sequence[Line]) -> list[Line]:
    """Merge equal curves into one line named after all of them, as one would hide the other.

    The codebook loss and the commitment loss have equal values; only their gradients differ.
    """
    names: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for line in lines:
        names.setdefault((tuple(line.x), tuple(line.y)), []).append(line.name)
    return [Line(" = ".join(equal), x, y) for (x, y), equal in names.items()]


def list_logged_keys(runs: Sequence[Run]) -> list[str]:
    """The keys with numeric values in the logs of `runs`, in the order they were first logged."""
    keys: dict[str, None] = {}
    for run in runs:
        for line in run.lines:
            keys |= dict.fromkeys(key for key, value in line.items() if isinstance(value, int | float))
    return [key for key in keys if split_level(key)[0] not in UNCHARTED]


def needs_log_axis(lines: Sequence[Line]) -> bool:
    """Whether curves need a logarithmic axis: all values are positive and span more than a factor of 100."""
    values = [value for line in lines for value in line.y if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 100
