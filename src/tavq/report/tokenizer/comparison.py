"""The parts of a page that sets runs beside each other."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from tavq.core.config import flatten_settings
from tavq.metrics.record import Metric
from tavq.report.html.charts import Line, line_chart
from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import arrange_metrics, cell, cell_text, legend
from tavq.report.run import Run
from tavq.report.tokenizer import gallery, sections
from tavq.report.tokenizer.sections import note, section, table
from tavq.report.tokenizer.view import View

CURVES_FIRST = ("reconstruction/", "align/", "codebook/", "quantizer/", "adversarial/")


WORDS = frozenset({"description", "published"})
"""What a recipe says of itself; no setting."""


def header(runs: Sequence[Run]) -> list[Markup]:
    """The runs, what makes them hard to compare, and the outcome in words."""
    said = outcome(runs)
    facts = [sections.fact(run.name, run.recipe.get("description") or f"{run.steps:,} steps") for run in runs]
    return [
        tag("h1", " against ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs side by side"),
        tag("p", "The same questions asked of each run.", class_="lead"),
        tag("div", *facts, class_="facts"),
        *(tag("p", warning, class_="warning") for warning in differences(runs)),
        *(tag("p", f"{run.name}: {sections.alarm_text(run)}", class_="alarmed") for run in runs if run.alarms),
        *([tag("ul", *(tag("li", line) for line in said), class_="outcome"), tag("p", caution(runs))] if said else []),
    ]


# --- what was compared ------------------------------------------------------------------------------------------


def differences(runs: Sequence[Run]) -> list[str]:
    """Why metrics of the runs may differ for other reasons than the method, a sentence each."""
    seeds = [run.model.get("seed") for run in runs]
    return [
        *budgets(runs),
        *([f"These runs have different seeds ({_by_run(runs, seeds)})."] if len(set(seeds)) > 1 else []),
        *not_evaluated(runs),
        *measured_apart(runs),
    ]


def budgets(runs: Sequence[Run]) -> list[str]:
    """How the training budgets differ, a sentence each."""
    questions = (
        ([str(run.provenance.get("data_sha256")) for run in runs], "were trained on different data"),
        ([run.steps for run in runs], "were trained for different numbers of steps"),
        ([(run.recipe.get("train") or {}).get("batch") for run in runs], "were trained on batches of different sizes"),
        ([run.model.get("size") for run in runs], "have images of different sizes"),
    )
    return [
        f"These runs {what} ({_by_run(runs, [str(value)[:12] for value in values])})."
        for values, what in questions
        if len(set(values)) > 1
    ]


def not_evaluated(runs: Sequence[Run]) -> list[str]:
    """Which runs have no metrics, and how they get them."""
    missing = [run.name for run in runs if run.evaluation is None and not run.outdated]
    outdated = [run.name for run in runs if run.outdated]
    found = [f"Not evaluated yet: {', '.join(missing)}. Run: {runs[0].evaluated_by}"] if missing else []
    if outdated:
        found.append(f"Evaluated by an older version: {', '.join(outdated)}. Run again: {runs[0].evaluated_by}")
    return found


def measured_apart(runs: Sequence[Run]) -> list[str]:
    """How the evaluations differ, a sentence each."""
    evaluated = [run.details for run in runs if run.evaluation is not None]
    return [
        f"Metrics were computed on different images or networks: {key} differs between the evaluations."
        for key in ("data_sha256", "split", "images", "size", "feature_weights")
        if len({str(details.get(key)) for details in evaluated}) > 1
    ]


def _by_run(runs: Sequence[Run], values: Sequence[Any]) -> str:
    return ", ".join(f"{run.name}: {value}" for run, value in zip(runs, values, strict=True))


def outcome(runs: Sequence[Run]) -> list[str]:
    """Which run is ahead on which metric and by how much, in sentences that claim no more than was measured."""
    evaluated = [run for run in runs if run.evaluation is not None]
    wins: dict[str, list[str]] = {run.name: [] for run in evaluated}
    even: list[str] = []
    for metric, values in main_metrics(evaluated):
        winners = metric.best(values)
        if len(winners) == 1:
            wins[evaluated[winners[0]].name].append(describe_win(metric, values, winners[0]))
        else:
            even.append(metric.title)
    counted = sum(len(found) for found in wins.values()) + len(even)
    sentences = [
        f"{name} is ahead on {len(found)} of {counted} metrics: {'; '.join(found)}."
        for name, found in wins.items()
        if found
    ]
    if even:
        sentences.append(f"No difference at the printed precision: {', '.join(even)}.")
    return sentences


def main_metrics(runs: Sequence[Run]) -> list[tuple[Metric, list[float | None]]]:
    """The main metrics that at least two runs have, with each run's value; those that repeat another are not main."""
    found = []
    for table_ in arrange_metrics([run.evaluation for run in runs if run.evaluation is not None]):
        for metric in (row.metric for row in table_.rows):
            values = [run.value(metric.key) for run in runs]
            if metric.main and metric.better and sum(value is not None for value in values) >= 2:
                found.append((metric, values))
    return found


def describe_win(metric: Metric, values: Sequence[float | None], winner: int) -> str:
    """`PSNR 23.10 dB against 22.78 dB (+0.32 dB)`, against the next best."""
    own = values[winner]
    others = [value for position, value in enumerate(values) if value is not None and position != winner]
    following = max(others) if metric.better > 0 else min(others)
    return f"{metric.title} {metric.text(own)} against {metric.text(following)} ({metric.difference(own, following)})"


def caution(runs: Sequence[Run]) -> str:
    """What the metrics cannot show."""
    images = runs[0].details.get("images")
    steps = sorted({run.steps for run in runs})
    trained = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return (
        f"Each run is one seed, trained for {trained} steps and measured on {sections.count_of(images)} images. "
        "Several of the metrics measure nearly the same thing, and single runs give no error bars: a small difference "
        "may be due to the seed. Repeat with other seeds before you draw a conclusion, and do not extend one to larger "
        "models or longer training."
    )


# --- tables and curves ------------------------------------------------------------------------------------------


def metrics(runs: Sequence[Run]) -> Markup | None:
    """The evaluations side by side; the better value marked, with two runs the difference too."""
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    found = arrange_metrics(evaluations)
    if not found:
        return None
    head = ["metric", *(run.name for run in runs), *(["difference"] if len(runs) == 2 else [])]
    tables: list[Markup | None] = []
    for one in found:
        tables += [tag("h3", one.group.title), note(one.group.note) if one.group.note else None]
        rows = [_row(metric, runs) for row in one.rows for metric in row.metrics.values()]
        tables.append(table(head, rows, numbers=range(1, len(head))))
    about = (
        "↑ higher is better, ↓ lower is better; the better value is marked, in small print 95 % intervals over images."
    )
    if len(runs) == 2:
        about += f" The difference is {runs[1].name} minus {runs[0].name}."
    return section(
        "metrics",
        "Metrics",
        note(about, " ", sections.evaluated_on(evaluations[0])),
        *tables,
        *sections.warnings_of(*evaluations),
        *legend(found),
    )


def _row(metric: Metric, runs: Sequence[Run]) -> list[Markup]:
    values = [run.value(metric.key) for run in runs]
    winners = metric.best(values) if metric.baseline is None else []
    cells = [
        cell(*cell_text(metric, run.metric(metric.key)), class_="number best" if place in winners else "number")
        for place, run in enumerate(runs)
    ]
    if len(runs) == 2:
        cells.append(tag("td", metric.difference(values[1], values[0]), class_="number"))
    name = metric.title + metric.arrow if metric.baseline is None else f"… {metric.baseline.title}"
    return [tag("th", name, scope="row", title=metric.meaning), *cells]


def settings(runs: Sequence[Run]) -> Markup:
    """The settings that differ."""
    every = [dict(flatten_settings(run.recipe)) for run in runs]
    keys = list(dict.fromkeys(key for found in every for key in found if key not in WORDS))
    # `align: null` beside a run that has align.name says nothing that align.name does not
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    rows = []
    for key in keys:
        values = [sections.shown(found[key]) if key in found else "–" for found in every]
        if len(set(values)) > 1:
            rows.append([tag("td", key, class_="setting"), *(tag("td", value, class_="setting") for value in values)])
    if not rows:
        return section("settings", "Settings that differ", note("None: the recipes are the same."))
    return section("settings", "Settings that differ", table(["setting", *(run.name for run in runs)], rows))


def curves(runs: Sequence[Run]) -> Markup:
    """Each logged value in a chart, a line a run."""
    keys = sections.logged_keys(runs)
    ordered = sorted(keys, key=lambda key: next((n for n, room in enumerate(CURVES_FIRST) if key.startswith(room)), 9))
    charts = []
    for key in ordered:
        lines = [Line(run.name, *run.curve(key)) for run in runs]
        charts.append(line_chart(sections.SINGLE.get(key, key), lines, log=sections.wide(lines)))
    return section("curves", "Training", tag("div", *charts, class_="charts"))


# --- images and codes -----------------------------------------------------------------------------------------


def images(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The same images through each run."""
    rows = []
    for place, pair in enumerate(views[0].pairs):
        columns = [_named(img(pair.original, pair.key), "image")]
        columns += [
            _named(img(view.pairs[place].reconstruction, run.name), run.name) for run, view in _zip(runs, views)
        ]
        rows.append(tag("div", *columns, class_="row"))
    held = "Images that training never saw" if views[0].pairs_split != "train" else "Images of the training split"
    return section(
        "images",
        "The same images through each run",
        note(f"{held}, evenly spread over the split “{views[0].pairs_split}” and not picked by hand."),
        tag("div", *rows, class_="rows" if len(runs) < 4 else "rows wide"),
    )


def _named(image: Markup, name: str) -> Markup:
    return tag("figure", image, tag("figcaption", name))


def _zip(runs: Sequence[Run], views: Sequence[View]) -> list[tuple[Run, View]]:
    return list(zip(runs, views, strict=True))


def codebooks(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The codebook of each run."""
    parts = []
    for colour, (run, view) in enumerate(_zip(runs, views)):
        parts += [
            tag("h3", run.name),
            note(gallery.usage_text(view)),
            tag("div", *gallery.book(view, colour), class_="book"),
        ]
    return section("codebook", "Codebooks", *parts)


def codes(runs: Sequence[Run], views: Sequence[View]) -> Markup:
    """The most used codes of each run beside each other; codes of two runs have nothing to do with each other."""
    rows = [
        tag("div", *(tag("div") if card is None else gallery.code_card(card) for card in rank), class_="side")
        for rank in zip_longest(*(view.cards for view in views))
    ]
    aligned = next((view for view in views if view.aligned), views[0])
    return section(
        "codes",
        "What the codes mean",
        *gallery.codes_legend(aligned),
        note("Cards on one line have the same rank of use in their run; their numbers do not correspond."),
        tag("div", *(tag("h3", run.name) for run in runs), class_="side"),
        *rows,
    )
