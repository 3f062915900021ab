"""Sections of a page that compares task runs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tavq.metrics.record import Metric
from tavq.report.html.images import img, sheet
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import MetricRow, arrange_metrics, cell, cell_text, legend
from tavq.report.run import Run
from tavq.report.task.generation_view import Shown, TaskView
from tavq.report.task.replicates import Estimate, training_seed
from tavq.report.task.sections import COLUMNS, describe_measurement, render_image_rows
from tavq.report.task.tables import TaskTable, describe_seeds, format_estimate
from tavq.report.tokenizer import comparison, sections
from tavq.report.tokenizer.sections import fact, note, section, table

CURVES = 8
"""Maximum number of curves in a chart; with more runs, only the first seed of each row is shown."""


def render_header(runs: Sequence[Run], tables: Sequence[TaskTable]) -> list[Markup]:
    """What is compared, and what limits the comparison."""
    facts = []
    for one in tables:
        for row in one.rows:
            names = ", ".join(run.name for run in row.runs)
            facts.append(fact(row.name, f"{one.task}: {names}"))
    return [
        tag("h1", comparison.name_comparison(runs)),
        tag("p", "The same measurements of each run.", class_="lead"),
        tag("div", *facts, class_="facts"),
        *(tag("p", warning, class_="warning") for warning in find_differences(runs, tables)),
    ]


def find_differences(runs: Sequence[Run], tables: Sequence[TaskTable]) -> list[str]:
    """Reasons other than the input why metrics may differ, a sentence each."""
    sentences = list(comparison.find_unevaluated(runs))
    if len(tables) > 1:
        sentences.append(f"These are different tasks, with a table each: {', '.join(table.task for table in tables)}.")
    for one in tables:
        prefix = f"{one.task}: " if len(tables) > 1 else ""
        own = [*one.repeated, *comparison.compare_budgets(select_first_runs([one])), *_compare_seeds(one)]
        own += comparison.compare_evaluations([run for row in one.rows for run in row.runs])
        sentences += [prefix + sentence for sentence in own]
    return sentences


def _compare_seeds(table: TaskTable) -> list[str]:
    """A sentence if the rows use different seeds."""
    seeds = {}
    for row in table.rows:
        seeds[row.name] = ", ".join(sorted(str(training_seed(run)) for run in row.runs if run.evaluation))
    evaluated = {name: text for name, text in seeds.items() if text}
    if len(set(evaluated.values())) <= 1:
        return []
    listed = "; ".join(f"{name}: {text}" for name, text in evaluated.items())
    return [f"The rows use different seeds ({listed})."]


def select_first_runs(tables: Sequence[TaskTable]) -> list[Run]:
    """One run of each row under the row's name."""
    return [
        replace(row.runs[0], name=f"{table.task}, {row.name}" if len(tables) > 1 else row.name)
        for table in tables
        for row in table.rows
    ]


# --- metrics ----------------------------------------------------------------------------------------------------


def render_main_metrics(tables: Sequence[TaskTable]) -> Markup | None:
    """The main metrics, a table for each task, with the seeds of one input in one row."""
    parts = [part for table in tables if table.columns for part in (tag("h3", table.task), _render_main_table(table))]
    if not parts:
        return None
    about = (
        "Runs that differ only in their seeds or their tokenizers' seeds share a row: the mean, and in small print its "
        "95 % interval by Student's t. With several tokenizers (each counts by the mean of its runs) the interval "
        "covers retraining both; with several seeds on one tokenizer, retraining the task. A row of one run has that "
        "run's interval over images, which does not cover retraining. ↑ higher is better, ↓ lower is better; the best "
        "mean is marked. Rows in italics are baselines."
    )
    return section("main", "Main metrics", note(about), *parts)


def _render_main_table(one: TaskTable) -> Markup:
    own = [line for line in one.lines if line.baseline is None]
    winners = []
    for position, column in enumerate(one.columns):
        found = [line.estimates[position] for line in own]
        best = column.metric.best([None if estimate is None else estimate.value for estimate in found])
        winners.append({own[won].name for won in best})
    body = []
    for line in one.lines:
        cells = [
            _render_main_cell(column.metric, estimate, line.baseline is None and line.name in won)
            for column, estimate, won in zip(one.columns, line.estimates, winners, strict=True)
        ]
        name = tag("b", line.name) if line.baseline is None else tag("i", f"… {line.name}")
        seeds = tag("small", describe_seeds(line), class_="ends") if line.baseline is None else None
        body.append([tag("th", name, seeds, scope="row"), *cells])
    heads = [column.metric.title + column.metric.arrow for column in one.columns]
    return table(["", *heads], body, numbers=range(1, len(heads) + 1))


def _render_main_cell(metric: Metric, estimate: Estimate | None, won: bool) -> Markup:
    return cell(*format_estimate(metric, estimate), class_="number best" if won else "number")


def render_metrics(runs: Sequence[Run]) -> Markup | None:
    """The evaluations side by side with their intervals, the baselines of each metric below it."""
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    found = arrange_metrics(evaluations)
    if not found:
        return None
    tables: list[Markup | None] = []
    for one in found:
        tables += [tag("h3", one.group.title), note(one.group.note) if one.group.note else None]
        body = [_render_row(row, name, runs) for row in one.rows for name in row.metrics]
        tables.append(table(["", *(run.name for run in runs)], body, numbers=range(1, len(runs) + 1)))
    measured_on = dict.fromkeys(map(describe_measurement, evaluations))
    return section(
        "metrics",
        "Every metric of every run",
        note(" ".join(measured_on), " Small print: 95 % intervals over images, which do not cover other seeds."),
        tag("details", tag("summary", "Show them"), *tables),
        *legend(found),
        *sections.render_warnings(*evaluations),
    )


def _render_row(row: MetricRow, baseline: str | None, runs: Sequence[Run]) -> list[Markup]:
    metric = row.metrics[baseline]
    name = tag("b", metric.title + metric.arrow)
    if metric.baseline is not None:
        name = tag("span", f"… {metric.baseline.title}", class_="note")
    cells = [cell(*cell_text(metric, run.metric(metric.key))) for run in runs]
    return [tag("th", name, scope="row", title=metric.meaning), *cells]


# --- what else a page shows -------------------------------------------------------------------------------------


def render_curves(runs: Sequence[Run], tables: Sequence[TaskTable]) -> Markup:
    """The logged values of each run, or of one run of each row."""
    return comparison.render_curves(runs if len(runs) <= CURVES else select_first_runs(tables))


def render_images(runs: Sequence[Run], views: Sequence[TaskView]) -> Markup | None:
    """The same conditions or masks through each run; None if the tasks have different conditions."""
    parts = []
    for choose in ("conditioned", "completed"):
        columns: list[Sequence[Shown]] = [getattr(view, choose) for view in views]
        if columns[0] and len(set(map(_labels, columns))) == 1:
            parts.append(render_image_rows([_join_runs(runs, row) for row in zip(*columns, strict=True)]))
    alone = [(run, view.alone) for run, view in zip(runs, views, strict=True) if view.alone]
    for run, drawn in alone:
        parts += [tag("h3", run.name), tag("figure", img(sheet(drawn, COLUMNS), run.name, exact=False), class_="sheet")]
    return section("images", "Generated images", note("One sample each, seed 0."), *parts) if parts else None


def _labels(column: Sequence[Shown]) -> tuple[Any, ...]:
    """What a run shows: the keys and the names of the images, equal for runs that can share rows."""
    return tuple((shown.key, tuple(name for name, _ in shown.images)) for shown in column)


def _join_runs(runs: Sequence[Run], row: Sequence[Shown]) -> Shown:
    """The images that the runs share, then what each generated."""
    generated = tuple((run.name, shown.images[-1][1]) for run, shown in zip(runs, row, strict=True))
    return Shown(row[0].key, (*row[0].images[:-1], *generated), row[0].text)
