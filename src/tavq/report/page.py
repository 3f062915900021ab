"""Writes the report of a run, and a page that compares runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.addresses import is_remote
from tavq.core.errors import TavqError, UsageError
from tavq.data.folder import FolderDataset, is_dataset
from tavq.data.images import encode_png
from tavq.data.shards import find_home
from tavq.report.html.markup import Markup, document, tag
from tavq.report.html.style import STYLE
from tavq.report.run import Run, read_run, read_runs
from tavq.report.task import comparison as task_comparison
from tavq.report.task import sections as task_sections
from tavq.report.task import understanding_sections
from tavq.report.task.generation_view import TaskView, build_task_view, is_generation
from tavq.report.task.tables import make_task_tables
from tavq.report.task.understanding_view import answer_images
from tavq.report.tokenizer import comparison, gallery, sections
from tavq.report.tokenizer.code_cards import TOP
from tavq.report.tokenizer.overview import draw_overview
from tavq.report.tokenizer.speed import render_speed
from tavq.report.tokenizer.starting_point import render_start
from tavq.report.tokenizer.view import NoProgress, Progress, build_view, choose_evenly, select_held_out_first
from tavq.report.tokenizer.word_cards import render_words
from tavq.text.store import TextStore

PAIRS = 12
"""Number of images shown with their reconstruction."""

NO_DATA = (
    "The data set of this run was not found; give it with --data (also if it has changed since the run was trained)"
)
"""Begins the sentence that says why a page has fewer images."""

COMPARED_CODES = 8
"""Number of codes explained of each run in a comparison."""


def write_report(
    run: Path,
    data: Path | None = None,
    text: Path | None = None,
    limit: int = 512,
    progress: Progress | None = None,
    workers: int = 0,
) -> Path:
    """Write RUN/report.html and return its path.

    The page is one file that loads nothing: training curves, metrics (if RUN/evaluation.json exists), images with
    their reconstruction, the codebook, and what its most used codes mean. Takes about a second plus the time to encode
    `limit` images.

    Args:
        run: a run folder with its model/ and log.jsonl.
        data: the data set to show images of; by default the one the run was trained on, if it is as it was. Without
            one the page has no images and no codes.
        text: the text store; by default DATA/text if it exists.
        limit: maximum number of images to read, held-out ones first.
        progress: called with the number of images read.
        workers: processes that read images.

    Raises:
        UsageError: `run` is not a finished run, or `data` does not exist.
        FileError: a file of the run or of the store is damaged.
    """
    loaded = read_run(run)
    folder = find_data_folder(loaded, data)
    progress = progress or NoProgress()
    if loaded.is_task:
        header = task_sections.render_header(loaded)
        parts = _render_task_sections(loaded, folder, text, limit, progress)
    else:
        header = sections.render_header(loaded)
        parts = _render_tokenizer_sections(loaded, folder, text, limit, progress, workers)
    return write_page(run / "report.html", f"{loaded.name}: report", [*header, render_contents(parts), *parts])


def _render_tokenizer_sections(
    run: Run, folder: Path | None, text: Path | None, limit: int, progress: Progress, workers: int
) -> list[Any]:
    """What follows the header of a tokenizer's page."""
    parts: list[Any] = [sections.render_metrics(run), render_start(run), sections.render_curves(run), render_speed(run)]
    if folder is None:
        return [*parts, sections.note(f"{NO_DATA} to see images and codes."), gallery.render_progress(run)]
    dataset = select_held_out_first(folder, limit)
    store = TextStore.find(find_home(folder), text)
    if store is not None:
        store.check_encoder(run.provenance.get("text"))
    view = build_view(run, dataset, store, choose_evenly(dataset, PAIRS), TOP, progress, workers)
    if dataset.fingerprint != run.provenance.get("data_sha256", dataset.fingerprint):
        warning = "The images below come from a different data set than the run was trained on."
        parts.append(tag("p", warning, class_="warning"))
    return [
        *parts,
        gallery.render_pairs(view),
        gallery.render_progress(run),
        gallery.render_codebook(view),
        gallery.render_codes(view),
        render_words({run.name: (view.word_cards, view.word_level)}),
    ]


def write_comparison(
    runs: Sequence[Path],
    out: Path,
    data: Path | None = None,
    text: Path | None = None,
    limit: int = 512,
    progress: Progress | None = None,
    overview: Path | None = None,
    workers: int = 0,
) -> Path:
    """Write a page that compares two or more runs, and return its path.

    Args:
        runs: run folders.
        out: the page to write.
        data: the data set to show images of; by default the first run's, if it is as it was.
        text: the text store; by default DATA/text if it exists.
        limit: maximum number of images to read for each run.
        progress: called with the number of images read.
        overview: also write a PNG file with reconstructions and codes; tokenizers only.
        workers: processes that read images.

    Raises:
        UsageError: fewer than two runs, or a folder that is not a finished run.
        FileError: a file of a run or of the store is damaged.
    """
    loaded = read_runs(runs)
    folder = find_data_folder(loaded[0], data)
    progress = progress or NoProgress()
    if loaded[0].is_task:
        return _compare_tasks(loaded, out, folder, text, limit, progress)
    body: list[Any] = [
        *comparison.render_header(loaded),
        comparison.render_metrics(loaded),
        comparison.render_differing_settings(loaded),
        comparison.render_curves(loaded),
    ]
    if folder is not None:
        dataset = select_held_out_first(folder, limit)
        store, names = TextStore.find(find_home(folder), text), choose_evenly(dataset, PAIRS // 2)
        if store is not None:
            for run in loaded:
                store.check_encoder(run.provenance.get("text"))
        views = [build_view(run, dataset, store, names, COMPARED_CODES, progress, workers) for run in loaded]
        if overview is not None:
            files.write_bytes(overview, encode_png(draw_overview([run.name for run in loaded], views)))
        body += [
            comparison.render_images(loaded, views),
            comparison.render_codebooks(loaded, views),
            comparison.render_codes(loaded, views),
            render_words(
                {run.name: (view.word_cards, view.word_level) for run, view in zip(loaded, views, strict=True)}
            ),
        ]
    else:
        body.append(sections.note(f"{NO_DATA} to see images and codes."))
    return write_page(out, "Comparison: " + ", ".join(run.name for run in loaded), body)


def _render_task_sections(
    run: Run, folder: Path | None, text: Path | None, limit: int, progress: Progress
) -> list[Any]:
    """What follows the header of a task's page."""
    parts: list[Any] = [task_sections.render_metrics(run), sections.render_curves(run), render_speed(run)]
    if folder is None:
        parts.append(sections.note(f"{NO_DATA} to see more images."))
    if is_generation(run):
        parts.append(task_sections.render_images(_generate_view(run, folder, text, limit, progress)))
    elif folder is not None:
        view = answer_images(run, folder, limit, lambda done: progress(done, None, f"{run.name}: answering"))
        parts.append(understanding_sections.render_answers(view))
    return [*parts, gallery.render_progress(run)]


def _generate_view(run: Run, folder: Path | None, text: Path | None, limit: int, progress: Progress) -> TaskView:
    return build_task_view(run, folder, text, limit, lambda done: progress(done, None, f"{run.name}: generating"))


def _compare_tasks(
    runs: Sequence[Run], out: Path, folder: Path | None, text: Path | None, limit: int, progress: Progress
) -> Path:
    tables = make_task_tables(runs)
    body: list[Any] = [
        *task_comparison.render_header(runs, tables),
        task_comparison.render_main_metrics(tables),
        task_comparison.render_metrics(runs),
        comparison.render_differing_settings(task_comparison.select_first_runs(tables)),
        task_comparison.render_curves(runs, tables),
    ]
    if all(map(is_generation, runs)):
        views = [_generate_view(run, folder, text, limit, progress) for run in runs]
        body.append(task_comparison.render_images(runs, views))
    return write_page(out, "Comparison: " + ", ".join(run.name for run in runs), body)


def find_data_folder(run: Run, data: Path | None) -> Path | None:
    """The data set to show: `data` if given, else the run's own if it still exists and did not change.

    A run of somebody else can name any folder of this machine, whose images would then be in the page. It cannot know
    the hash of a data set that it was not trained on. A remote address is never opened because a run names it.
    """
    if data is not None:
        if not is_dataset(data):
            raise UsageError(f"The folder {data} does not exist; give the folder of a data set.")
        return data
    stored = run.provenance.get("data_folder")
    if not isinstance(stored, str) or is_remote(stored) or not is_dataset(Path(stored)):
        return None
    try:
        fingerprint = FolderDataset(Path(stored)).fingerprint
    except TavqError:
        return None
    return Path(stored) if fingerprint == run.provenance.get("data_sha256") else None


def render_contents(parts: Sequence[Any]) -> Markup:
    """Links to the sections of a page."""
    titles = {
        "metrics": "Metrics",
        "start": "Start",
        "curves": "Training",
        "speed": "Speed",
        "images": "Images",
        "answers": "Answers",
        "progress": "Progress",
        "codebook": "Codebook",
        "codes": "Codes",
        "words": "Words",
    }
    page = "".join(part for part in parts if part)
    return tag("nav", *(tag("a", title, href=f"#{key}") for key, title in titles.items() if f'id="{key}"' in page))


def write_page(path: Path, title: str, body: Sequence[Any]) -> Path:
    """Write a page and return its path."""
    footer = tag("footer", "Written by tavq. One file that loads nothing from the network.")
    files.write_text(path, document(title, STYLE, *body, footer))
    return path
