"""`tavq report` and `compare`: pages to look at."""

from pathlib import Path

from cyclopts import App

from tavq.cli import console


def add_to(app: App) -> None:
    """Adds the commands."""
    app.command(report)
    app.command(compare)


def report(run: Path, /, *, data: Path | None = None, text: Path | None = None) -> None:
    """Writes RUN/report.html: curves, pictures, the codebook, and what its codes mean.

    Example: tavq report run

    Args:
        run: A run folder.
        data: The data set to show pictures of; by default the one it was trained on.
        text: The text store; by default DATA/text.
    """
    from tavq.report.page import write_report

    with console.bar("Writing the report") as bar:
        place = write_report(run, data, text, progress=bar)
    console.say(f"The report is {place.resolve()}")


def compare(
    *runs: Path, out: Path = Path("comparison.html"), data: Path | None = None, text: Path | None = None
) -> None:
    """Writes one page that sets runs side by side.

    Example: tavq compare run-vqgan run-ta --out comparison.html

    Args:
        runs: Two or more run folders.
        out: The page to write.
        data: The data set to show pictures of; by default the first run's.
        text: The text store; by default DATA/text.
    """
    from tavq.core.errors import UsageError
    from tavq.report.page import write_comparison

    if len(runs) < 2:
        raise UsageError("A comparison needs two or more run folders.")
    with console.bar("Writing the comparison") as bar:
        place = write_comparison(runs, out, data, text, progress=bar)
    console.say(f"The comparison is {place.resolve()}")
