"""`tavq report` and `compare`: pages to look at."""

from pathlib import Path
from typing import Any

from tavq.cli import console


def report(run: Path, /, *, data: Path | None = None, text: Path | None = None) -> None:
    """Writes RUN/report.html: curves, images, the codebook, and what its codes mean.

    Example: tavq report run

    Args:
        run: A run folder.
        data: The data set to show images of; by default the one it was trained on.
        text: The text store; by default DATA/text.
    """
    from tavq.report.page import write_report

    with console.bar("Writing the report") as bar:
        place = write_report(run, data, text, progress=bar)
    console.say(f"The report is {place.resolve()}")


def compare(
    *runs: Path,
    out: Path = Path("comparison.html"),
    data: Path | None = None,
    text: Path | None = None,
    json: Path | None = None,
) -> None:
    """Writes one page that sets runs side by side; of runs of tasks it prints their main figures too.

    Runs of a task that differ in nothing but their seeds, or their tokenizers' seeds, are one row.

    Example: tavq compare run-vqgan run-ta --out comparison.html

    Args:
        runs: Two or more run folders.
        out: The page to write.
        data: The data set to show images of; by default the first run's.
        text: The text store; by default DATA/text.
        json: Write the main figures to this file too; of runs of tasks alone.
    """
    from tavq.core.errors import UsageError
    from tavq.report.page import write_comparison
    from tavq.report.run import read_runs

    found = read_runs(runs)
    if json is not None and not found[0].of_task:
        raise UsageError("Of tokenizers there is no such table: leave out --json, and see each RUN/evaluation.json.")
    if found[0].of_task:
        _tell_tasks(found, json)
    with console.bar("Writing the comparison") as bar:
        place = write_comparison(runs, out, data, text, progress=bar)
    console.say(f"The comparison is {place.resolve()}")


def _tell_tasks(runs: Any, json: Path | None) -> None:
    """The main figures on the terminal and in a file."""
    from tavq.report.task.comparison import differences
    from tavq.report.task.tables import as_json, cells_of, tables_of
    from tavq.report.task_measures import ARROWS

    tables = tables_of(runs)
    told = differences(runs, tables)
    for table in tables:
        heads = [column.measure.name + ARROWS[column.measure.better] for column in table.columns]
        console.table(f"{table.task} (95 % intervals)", ["seen", "trained", *heads], cells_of(table))
    for line in told:
        console.say(line)
    console.write_json(json, {"tables": [as_json(table) for table in tables], "differences": told})
