"""Sections of a page that compares tokenizer runs."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

from tavq.core.config import flatten_settings
from tavq.metrics.record import Evaluation, Metric
from tavq.report.html.charts import Line, line_chart
from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import arrange_metrics, cell, cell_text, legend
from tavq.report.run import Run
from tavq.report.tokenizer import gallery, sections
from tavq.report.tokenizer.sections import note, section, table
from tavq.report.tokenizer.view import View

CURVES_FIRST = ("reconstruction/", "align/", "codebook/", "quantizer/", "adversarial/")
"""Groups of logged keys whose charts come first, in this order."""

DESCRIPTIONS = frozenset({"description", "published"})
"""Keys of a recipe that describe it and change nothing."""


@runtime_checkable
class Measured(Protocol):
    """What has a name and metrics: a run, or an entry of a leaderboard."""

    @property
    def name(self) -> str:
        """As a page calls it."""
        ...

    @property
    def evaluation(self) -> Evaluation | None:
        """Its metrics."""
        ...

    def metric(self, key: str) -> Metric | None:
        """A metric by its key; None if it was not measured."""
        ...

    def value(self, key: str) -> float | None:
        """The value of a metric; None if it was not measured."""
        ...


def render_header(runs: Sequence[Run]) -> list[Markup]:
    """The runs, what limits the comparison, and the outcome in words."""
    sentences = describe_outcome(runs)
    facts = [sections.fact(run.name, run.recipe.get("description") or f"{run.steps:,} steps") for run in runs]
    alarms = [f"{run.name}: {sections.describe_alarms(run)}" for run in runs if run.alarms]
    parts = [
        tag("h1", name_comparison(runs)),
        tag("p", "The same measurements of each run.", class_="lead"),
        tag("div", *facts, class_="facts"),
    ]
    parts += [tag("p", warning, class_="warning") for warning in differences(runs)]
    parts += [tag("p", alarm, class_="alarmed") for alarm in alarms]
    if sentences:
        items = [tag("li", sentence) for sentence in sentences]
        parts += [tag("ul", *items, class_="outcome"), tag("p", describe_limits(runs))]
    return parts


def name_comparison(runs: Sequence[Run]) -> str:
    """The title of a page: the names of the runs, or their number if they are many."""
    return " vs ".join(run.name for run in runs) if len(runs) < 4 else f"Comparison of {len(runs)} runs"


# --- what was compared ------------------------------------------------------------------------------------------


def differences(runs: Sequence[Run]) -> list[str]:
    """Reasons other than the method why metrics of the runs may differ, a sentence each."""
    seeds = [run.model.get("seed") for run in runs]
    sentences = compare_budgets(runs)
    if len(set(seeds)) > 1:
        sentences.append(f"These runs have different seeds ({_list_by_run(runs, seeds)}).")
    return [*sentences, *find_unevaluated(runs), *compare_evaluations(runs)]


def compare_budgets(runs: Sequence[Run]) -> list[str]:
    """How the training budgets differ, a sentence each."""
    data = [str(run.provenance.get("data_sha256")) for run in runs]
    batches = [(run.recipe.get("train") or {}).get("batch") for run in runs]
    budgets = (
        (data, "were trained on different data"),
        ([run.steps for run in runs], "were trained for different numbers of steps"),
        (batches, "were trained with different batch sizes"),
        ([run.model.get("size") for run in runs], "were trained at different image sizes"),
    )
    sentences = []
    for values, difference in budgets:
        if len(set(values)) > 1:
            listed = _list_by_run(runs, [str(value)[:12] for value in values])
            sentences.append(f"These runs {difference} ({listed}).")
    return sentences


def find_unevaluated(runs: Sequence[Run]) -> list[str]:
    """Which runs have no metrics, and the command that computes them."""
    missing = [run.name for run in runs if run.evaluation is None and not run.outdated]
    outdated = [run.name for run in runs if run.outdated]
    command = runs[0].evaluate_command
    sentences = []
    if missing:
        sentences.append(f"Not evaluated yet: {', '.join(missing)}. Evaluate with: {command}")
    if outdated:
        sentences.append(f"Evaluated by an older version: {', '.join(outdated)}. Evaluate again with: {command}")
    return sentences


def compare_evaluations(runs: Sequence[Run]) -> list[str]:
    """How the evaluations differ, a sentence each."""
    evaluated = [run.details for run in runs if run.evaluation is not None]
    keys = ("data_sha256", "split", "images", "size", "feature_weights")
    values = {key: {str(details.get(key)) for details in evaluated} for key in keys}
    about = "Metrics were computed on different images or networks"
    return [f"{about}: {key} differs between the evaluations." for key in keys if len(values[key]) > 1]


def _list_by_run(runs: Sequence[Run], values: Sequence[Any]) -> str:
    return ", ".join(f"{run.name}: {value}" for run, value in zip(runs, values, strict=True))


def describe_outcome(runs: Sequence[Run]) -> list[str]:
    """Which run is ahead on which metric and by how much, in sentences that claim no more than was measured."""
    evaluated = [run for run in runs if run.evaluation is not None]
    wins: dict[str, list[str]] = {run.name: [] for run in evaluated}
    ties: list[str] = []
    for metric, values in select_main_metrics(evaluated):
        winners = metric.best(values)
        if len(winners) == 1:
            wins[evaluated[winners[0]].name].append(describe_win(metric, values, winners[0]))
        else:
            ties.append(metric.title)
    compared = sum(len(won) for won in wins.values()) + len(ties)
    sentences = [
        f"{name} is ahead on {len(won)} of {compared} metrics: {'; '.join(won)}." for name, won in wins.items() if won
    ]
    if ties:
        sentences.append(f"No difference at the printed precision: {', '.join(ties)}.")
    return sentences


def select_main_metrics(runs: Sequence[Run]) -> list[tuple[Metric, list[float | None]]]:
    """The main metrics that at least two runs have, with each run's value; those that repeat another are not main."""
    selected = []
    for arranged in arrange_metrics([run.evaluation for run in runs if run.evaluation is not None]):
        for metric in (row.metric for row in arranged.rows):
            values = [run.value(metric.key) for run in runs]
            if metric.main and metric.better and sum(value is not None for value in values) >= 2:
                selected.append((metric, values))
    return selected


def describe_win(metric: Metric, values: Sequence[float | None], winner: int) -> str:
    """`PSNR 23.10 dB vs 22.78 dB (+0.32 dB)`: the winner and the second best."""
    own = values[winner]
    others = [value for position, value in enumerate(values) if value is not None and position != winner]
    second = max(others) if metric.better > 0 else min(others)
    return f"{metric.title} {metric.text(own)} vs {metric.text(second)} ({metric.difference(own, second)})"


def describe_limits(runs: Sequence[Run]) -> str:
    """The limits of what the metrics show."""
    images = runs[0].details.get("images")
    steps = sorted({run.steps for run in runs})
    trained = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return (
        f"Each run is one seed, trained for {trained} steps and evaluated on {sections.format_count(images)} images. "
        "Several metrics measure nearly the same thing, and single runs have no error bars: a small difference may be "
        "due to the seed. Repeat with other seeds before you draw a conclusion, and do not extrapolate to larger "
        "models or longer training."
    )


# --- tables and curves ------------------------------------------------------------------------------------------


def render_metrics(runs: Sequence[Measured]) -> Markup | None:
    """The evaluations side by side with the best values marked; for two runs also their difference."""
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    arranged = arrange_metrics(evaluations)
    if not arranged:
        return None
    head = ["metric", *(run.name for run in runs)]
    about = "↑ higher is better, ↓ lower is better; the best value is marked. Small print: 95 % intervals over images."
    if len(runs) == 2:
        head.append("difference")
        about += f" The difference is {runs[1].name} minus {runs[0].name}."
    tables: list[Markup | None] = []
    for metric_table in arranged:
        group = metric_table.group
        metrics = [metric for row in metric_table.rows for metric in row.metrics.values()]
        tables += [tag("h3", group.title), note(group.note) if group.note else None]
        tables.append(table(head, [_render_row(metric, runs) for metric in metrics], numbers=range(1, len(head))))
    return section(
        "metrics",
        "Metrics",
        note(about, " ", sections.describe_images(evaluations[0])),
        *tables,
        *sections.render_warnings(*evaluations),
        *legend(arranged),
    )


def _render_row(metric: Metric, runs: Sequence[Measured]) -> list[Markup]:
    values = [run.value(metric.key) for run in runs]
    winners = metric.best(values) if metric.baseline is None else []
    cells = []
    for index, run in enumerate(runs):
        class_ = "number best" if index in winners else "number"
        cells.append(cell(*cell_text(metric, run.metric(metric.key)), class_=class_))
    if len(runs) == 2:
        cells.append(tag("td", metric.difference(values[1], values[0]), class_="number"))
    name = metric.title + metric.arrow if metric.baseline is None else f"… {metric.baseline.title}"
    return [tag("th", name, scope="row", title=metric.meaning), *cells]


def render_differing_settings(runs: Sequence[Run]) -> Markup:
    """The settings that differ."""
    recipes = [dict(flatten_settings(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe if key not in DESCRIPTIONS))
    # `align: null` next to a run that has align.name adds nothing to align.name
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    rows = []
    for key in keys:
        values = [sections.format_value(recipe[key]) if key in recipe else "–" for recipe in recipes]
        if len(set(values)) > 1:
            rows.append([tag("td", text, class_="setting") for text in (key, *values)])
    if not rows:
        return section("settings", "Settings that differ", note("None: the recipes are the same."))
    return section("settings", "Settings that differ", table(["setting", *(run.name for run in runs)], rows))


def render_curves(runs: Sequence[Run]) -> Markup:
    """Every logged key in a chart of its own, with one line per run."""
    charts = []
    for key in sorted(sections.list_logged_keys(runs), key=_rank_key):
        lines = [Line(run.name, *run.curve(key)) for run in runs]
        charts.append(line_chart(sections.title_curve(key), lines, log=sections.needs_log_axis(lines)))
    return section("curves", "Training", tag("div", *charts, class_="charts"))


def _rank_key(key: str) -> int:
    return next((rank for rank, group in enumerate(CURVES_FIRST) if key.startswith(group)), 9)


# --- images and codes -----------------------------------------------------------------------------------------


def render_images(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The same images and their reconstruction by each run."""
    rows = []
    for index, pair in enumerate(views[0].pairs):
        columns = [render_figure(img(pair.original, pair.key), "image")]
        for run, view in zip(runs, views, strict=True):
            columns.append(render_figure(img(view.pairs[index].reconstruction, run.name), run.name))
        rows.append(tag("div", *columns, class_="row"))
    return section(
        "images",
        "The same images reconstructed by each run",
        note(f"{gallery.describe_choice(views[0].pairs_split)}, not picked by hand."),
        tag("div", *rows, class_="rows" if len(runs) < 4 else "rows wide"),
    )


def render_figure(image: Markup, name: str) -> Markup:
    """An image and its caption."""
    return tag("figure", image, tag("figcaption", name))


def render_codebooks(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The codebook of each run."""
    parts = []
    for colour, (run, view) in enumerate(zip(runs, views, strict=True)):
        figures = tag("div", *gallery.render_codebook_figures(view, colour), class_="book")
        parts += [tag("h3", run.name), note(gallery.describe_usage(view)), figures]
    return section("codebook", "Codebooks", *parts)


def render_codes(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The most used codes of each run side by side; indices of different runs are unrelated."""
    rows = []
    for cards in zip_longest(*(view.cards for view in views)):
        columns = [tag("div") if card is None else gallery.render_card(card) for card in cards]
        rows.append(tag("div", *columns, class_="side"))
    aligned = next((view for view in views if view.aligned), views[0])
    return section(
        "codes",
        "What the codes mean",
        *gallery.render_cards_legend(aligned),
        note("Cards in one row have the same rank of use in their run; equal indices of different runs are unrelated."),
        tag("div", *(tag("h3", run.name) for run in runs), class_="side"),
        *rows,
    )
