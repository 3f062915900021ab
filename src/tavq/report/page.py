"""Writes RUN/report.html, and one page that compares runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.data.images import encode_png
from tavq.report.html.markup import Markup, document, tag
from tavq.report.html.style import STYLE
from tavq.report.run import Run, read_run, read_runs
from tavq.report.task import comparison as task_comparison
from tavq.report.task import sections as task_sections
from tavq.report.task import understanding_sections
from tavq.report.task.generation_view import TaskView, draws, look_at_task
from tavq.report.task.tables import tables_of
from tavq.report.task.understanding_view import answer_images
from tavq.report.tokenizer import comparison, gallery, sections
from tavq.report.tokenizer.code_cards import TOP
from tavq.report.tokenizer.overview import draw_overview
from tavq.report.tokenizer.view import Progress, Silence, held_out_first, look, spread
from tavq.text.store import TextStore

PAIRS = 12
SIDE_TOP = 8
"""Codes of each run in a comparison."""


def write_report(
    run: Path,
    data: Path | None = None,
    text: Path | None = None,
    limit: int = 512,
    progress: Progress | None = None,
) -> Path:
    """Writes RUN/report.html and returns its path.

    The page is one file that loads nothing: curves, metrics (where RUN/evaluation.json is), images with their
    reconstruction, the codebook, and what its most used codes mean. About a second plus encoding `limit` images.

    Args:
        run: a run folder with its model/ and log.jsonl.
        data: the data set to show images of; by default the one the run was trained on, where it still is. Without
            one the page has no images and no codes.
        text: the text store; by default DATA/text where it exists.
        limit: at most so many images are read, held-out ones first.
        progress: told the number of images read.

    Raises:
        UsageError: there is no run, or no data set where `data` says.
        FileError: a file of the run or of the store is damaged.
    """
    found = read_run(run)
    folder = data_folder(found, data)
    if found.of_task:
        parts = _of_task(found, folder, text, limit, progress or Silence())
        page = [*task_sections.header(found), contents(parts), *parts]
        return write(run / "report.html", f"{found.name}: report", page)
    body: list[Any] = [*sections.header(found)]
    middle: list[Any] = [sections.metrics(found), sections.curves(found)]
    if folder is None:
        middle.append(
            sections.note("The data set of this run was not found; give it with --data to see images and codes.")
        )
        middle.append(gallery.progress_of(found))
    else:
        dataset = held_out_first(folder, limit)
        store = TextStore.find(folder, text)
        if store is not None:
            store.check_encoder(found.provenance.get("text"))
        view = look(found, dataset, store, spread(dataset, PAIRS), TOP, progress or Silence())
        if dataset.fingerprint != found.provenance.get("data_sha256", dataset.fingerprint):
            middle.append(
                tag("p", "The images below come from other data than the run was trained on.", class_="warning")
            )
        middle += [gallery.pairs(view), gallery.progress_of(found), gallery.codebook(view), gallery.codes(view)]
    return write(run / "report.html", f"{found.name}: report", [*body, contents(middle), *middle])


def write_comparison(
    runs: Sequence[Path],
    out: Path,
    data: Path | None = None,
    text: Path | None = None,
    limit: int = 512,
    progress: Progress | None = None,
    overview: Path | None = None,
) -> Path:
    """Writes one page that sets two or more runs side by side and returns its path.

    Args:
        runs: run folders.
        out: the page to write.
        data: the data set to show images of; by default the first run's.
        text: the text store; by default DATA/text where it exists.
        limit: at most so many images are read for each run.
        overview: also write one PNG file with reconstructions and codes of tokenizers.
        progress: told the number of images read.

    Raises:
        UsageError: fewer than two runs, or one that is none.
        FileError: a file of a run or of the store is damaged.
    """
    found = read_runs(runs)
    folder = data_folder(found[0], data)
    if found[0].of_task:
        return _compare_tasks(found, out, folder, text, limit, progress or Silence())
    body: list[Any] = [
        *comparison.header(found),
        comparison.metrics(found),
        comparison.settings(found),
        comparison.curves(found),
    ]
    if folder is not None:
        dataset = held_out_first(folder, limit)
        store, names = TextStore.find(folder, text), spread(dataset, PAIRS // 2)
        if store is not None:
            for run in found:
                store.check_encoder(run.provenance.get("text"))
        views = [look(run, dataset, store, names, SIDE_TOP, progress or Silence()) for run in found]
        if overview is not None:
            files.write_bytes(overview, encode_png(draw_overview([run.name for run in found], views)))
        body += [
            comparison.images(found, views),
            comparison.codebooks(found, views),
            comparison.codes(found, views),
        ]
    else:
        body.append(sections.note("No data set was found; give one with --data to see images and codes."))
    return write(out, "Comparison: " + ", ".join(run.name for run in found), body)


def _of_task(run: Run, folder: Path | None, text: Path | None, limit: int, progress: Progress) -> list[Any]:
    """What follows the header of a page about a task."""
    parts: list[Any] = [task_sections.metrics(run), sections.curves(run)]
    if folder is None:
        parts.append(sections.note("The data set of this run was not found; give it with --data to see more images."))
    if draws(run):
        parts.append(task_sections.images(_look(run, folder, text, limit, progress)))
    elif folder is not None:
        view = answer_images(run, folder, limit, lambda done: progress(done, None, f"{run.name}: answering"))
        parts.append(understanding_sections.answers(view))
    return [*parts, gallery.progress_of(run)]


def _look(run: Run, folder: Path | None, text: Path | None, limit: int, progress: Progress) -> TaskView:
    return look_at_task(run, folder, text, limit, lambda done: progress(done, None, f"{run.name}: drawing"))


def _compare_tasks(
    runs: Sequence[Run], out: Path, folder: Path | None, text: Path | None, limit: int, progress: Progress
) -> Path:
    tables = tables_of(runs)
    body: list[Any] = [
        *task_comparison.header(runs, tables),
        task_comparison.main_metrics(tables),
        task_comparison.metrics(runs),
        comparison.settings(task_comparison.firsts(tables)),
        task_comparison.curves(runs, tables),
    ]
    if all(map(draws, runs)):
        views = [_look(run, folder, text, limit, progress) for run in runs]
        body.append(task_comparison.images(runs, views))
    return write(out, "Comparison: " + ", ".join(run.name for run in runs), body)


def data_folder(run: Run, data: Path | None) -> Path | None:
    """The data set to show: the one that was named, else the run's own where it still is."""
    if data is not None:
        if not data.is_dir():
            raise UsageError(f"There is no folder {data}; give the folder of a data set.")
        return data
    stored = run.provenance.get("data_folder")
    return Path(stored) if isinstance(stored, str) and Path(stored).is_dir() else None


def contents(parts: Sequence[Any]) -> Markup:
    """Links to the sections of a page."""
    links = [("metrics", "Metrics"), ("curves", "Training"), ("images", "Images"), ("answers", "Answers")]
    links += [("progress", "Progress"), ("codebook", "Codebook"), ("codes", "Codes")]
    there = "".join(part for part in parts if part)
    return tag("nav", *(tag("a", name, href=f"#{key}") for key, name in links if f'id="{key}"' in there))


def write(path: Path, title: str, body: Sequence[Any]) -> Path:
    """Writes a page."""
    footer = tag("footer", "Written by tavq. One file; it loads nothing from anywhere.")
    files.write_text(path, document(title, STYLE, *body, footer))
    return path
