"""Sections of the page of one task run."""

from collections.abc import Mapping, Sequence
from typing import Any

from tavq.metrics.record import Evaluation
from tavq.report.html.images import img, sheet
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import MetricTable, arrange_metrics, cell, cell_text, legend
from tavq.report.run import Run
from tavq.report.task.generation_view import Shown, TaskView
from tavq.report.task.replicates import SEEN, image_source, tokenizer_name
from tavq.report.tokenizer import sections
from tavq.report.tokenizer.gallery import describe_choice
from tavq.report.tokenizer.sections import fact, note, number, section, table

COLUMNS = 6
"""Unconditional samples per row of the sheet."""

# --- header -----------------------------------------------------------------------------------------------------


def render_header(run: Run) -> list[Markup]:
    """What was trained, on which tokenizer and data, for how many steps, and with which software."""
    model, provenance = run.task, {"data": "–", "tavq": "–", "torch": "–", "device": "–", **run.provenance}
    layout, images = model.config.layout, provenance.get("images")
    trained_on = f"data, {number(images)} images to train on" if isinstance(images, int) else "data"
    parts = f" of {layout.parts} each" if layout.parts > 1 else ""
    source, examples = image_source(run), provenance.get("examples")
    tokens = "tokens to generate" if source is None else "codes"
    sha256 = str(provenance.get("tokenizer", "–"))
    if isinstance(examples, int):
        trained_on += f", {number(examples)} examples"
    count = sum(parameter.numel() for parameter in model.task.parameters())
    facts = [
        fact(model.config.task.name, "task"),
        fact(provenance["data"], trained_on),
        fact(
            tokenizer_name(run),
            f"tokenizer {sha256[:12]}…, {layout.vocabulary:,} {tokens}",
        ),
        fact(f"{run.size} × {run.size} px", f"images, {layout.height} × {layout.width} positions{parts}"),
        *([] if source is None else [fact(SEEN.get(source, source), "input of the task")]),
        *_render_conditions(run, provenance),
        fact(number(run.steps), f"steps, seed {run.model.get('seed', '–')}"),
        fact(number(count), "parameters of the task's network"),
        fact(f"tavq {provenance['tavq']}", f"torch {provenance['torch']}, {provenance['device']}"),
    ]
    return [
        tag("h1", run.name),
        tag("p", run.recipe.get("description") or "A task on the codes of a tokenizer.", class_="lead"),
        tag("div", *facts, class_="facts"),
        tag("details", tag("summary", "All settings and the provenance of the run"), sections.render_settings(run)),
    ]


def _render_conditions(run: Run, provenance: Mapping[str, Any]) -> list[Markup]:
    """The encoder of texts and the tokenizer of maps that condition the task."""
    text, maps = provenance.get("text"), provenance.get("segmentation_tokenizer")
    encoder = text.get("encoder", {}).get("name", "?") if isinstance(text, Mapping) else None
    found = [] if encoder is None else [fact(encoder, "encoder of its text conditions")]
    return found if maps is None else [*found, fact(f"{str(maps)[:12]}…", "tokenizer of its segmentation maps")]


# --- metrics ----------------------------------------------------------------------------------------------------


def render_metrics(run: Run) -> Markup:
    """The evaluation, a table for each group of metrics: the task's own next to those of the baselines."""
    if run.evaluation is None:
        return section("metrics", "Metrics", note(sections.explain_missing_metrics(run)))
    found = arrange_metrics([run.evaluation])
    tables: list[Markup | None] = []
    for one in found:
        tables += [tag("h3", one.group.title), note(one.group.note) if one.group.note else None]
        tables.append(_render_table(one))
    return section(
        "metrics",
        "Metrics",
        note(
            describe_measurement(run.evaluation), " ↑ higher is better, ↓ lower is better. Small print: 95 % intervals."
        ),
        *tables,
        *legend(found),
        *sections.render_warnings(run.evaluation),
    )


def _render_table(one: MetricTable) -> Markup:
    body = []
    for row in one.rows:
        metric = row.metric
        cells = [cell(*cell_text(metric, row.metrics.get(name)), bold=name is None) for name in one.baselines]
        body.append([tag("th", metric.title + metric.arrow, scope="row", title=metric.meaning), *cells])
    heads = ["this task" if baseline is None else baseline.title for baseline in one.baselines.values()]
    return table(["", *heads], body, numbers=range(1, len(heads) + 1))


def describe_measurement(evaluation: Evaluation) -> str:
    """Which images the metrics were computed on."""
    details = evaluation.details
    trained, count = details.get("training_images"), details.get("images")
    copies = f"; {trained:,} training images to compare with" if isinstance(trained, int) and trained else ""
    images = f"{count:,} images of the split" if isinstance(count, int) else "the split"
    return f"Measured on {images} “{details.get('split', '?')}” of {details.get('data', '?')}{copies}."


# --- images ---------------------------------------------------------------------------------------------------


def render_images(view: TaskView) -> Markup | None:
    """What the task generates: from conditions, completions, and without a condition."""
    about = f"{describe_choice(view.split)}, not picked by hand; generated once, seed 0."
    parts: list[Markup] = []
    if view.conditioned:
        parts += [note(about), render_image_rows(view.conditioned)]
    if view.alone:
        samples = img(sheet(view.alone, COLUMNS), "generated images", exact=False)
        parts += [
            note("Unconditional samples, seed 0, not picked by hand."),
            tag("figure", samples, class_="sheet"),
        ]
    if view.completed:
        parts += [tag("h3", "Completion"), note(about), render_image_rows(view.completed)]
    return section("images", "Generated images", *parts) if parts else None


def render_image_rows(shown: Sequence[Shown]) -> Markup:
    """Images that belong together side by side, with their text below."""
    rows = []
    for one in shown:
        columns = [tag("figure", img(image, name), tag("figcaption", name)) for name, image in one.images]
        caption = tag("figcaption", one.text or one.key, class_="said" if one.text else "named")
        rows.append(tag("figure", tag("div", *columns, class_="row"), caption))
    return tag("div", *rows, class_="rows")
