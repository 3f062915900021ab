"""`tavq report` and `compare`: pages to look at."""

from collections.abc import Sequence
from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.console import Workers
from tavq.core.errors import UsageError


def report(run: Path, /, *, data: Path | None = None, text: Path | None = None, workers: Workers | None = None) -> None:
    """Write RUN/report.html: curves, metrics, images, the codebook, and what its codes mean.

    Example: tavq report run

    Args:
        run: A run folder.
        data: The data set to show images of; by default the one of the training.
        text: The text store; by default DATA/text.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
    """
    with console.bar("Writing the report") as bar:
        page = api.write_report(run, data=data, text=text, workers=workers, progress=bar)
    console.say(f"The report is {page.resolve()}")


def compare(
    *runs: Path,
    out: Path = Path("comparison.html"),
    data: Path | None = None,
    text: Path | None = None,
    workers: Workers | None = None,
    json: Path | None = None,
    overview: Path | None = None,
) -> None:
    """Write one page that compares runs; for tasks, also print their main metrics.

    Runs of a task that differ only in their seeds, or in the seeds of their tokenizers, share a row.

    Example: tavq compare run-vqgan run-ta --out comparison.html

    Args:
        runs: Two or more run folders.
        out: The page to write.
        data: The data set to show images of; by default the first run's.
        text: The text store; by default DATA/text.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the main metrics to this file (tasks only).
        overview: Also write a PNG file that shows reconstructions and codes (tokenizers only).
    """
    found = api.read_runs(runs)
    if found[0].is_task:
        if overview is not None:
            raise UsageError("--overview is for runs of tokenizers; leave it out.")
        _print_tasks(found, json)
    elif json is not None:
        raise UsageError("--json is for runs of tasks; the metrics of a tokenizer are in RUN/evaluation.json.")
    with console.bar("Writing the comparison") as bar:
        page = api.compare(runs, out=out, data=data, text=text, workers=workers, progress=bar, overview=overview)
    console.say(f"The comparison is {page.resolve()}")


def _print_tasks(runs: "Sequence[api.Run]", json: Path | None) -> None:
    tables = api.make_task_tables(runs)
    differences = api.find_differences(runs, tables)
    value = {"tables": [api.table_as_json(table) for table in tables], "differences": differences}
    with console.saved_as_json(json, value):
        for table in tables:
            heads = [column.metric.title + column.metric.arrow for column in table.columns]
            console.print_table(f"{table.task} (95 % intervals)", ["input", "seeds", *heads], api.format_cells(table))
        for line in differences:
            console.say(line)
