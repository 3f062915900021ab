"""Write pages about runs."""

from collections.abc import Sequence
from pathlib import Path

from tavq.api.calls import PathLike, Progress
from tavq.api.images import count_workers
from tavq.data.workers import explain_dead_workers
from tavq.report import page


@explain_dead_workers()
def write_report(
    run: PathLike,
    *,
    data: PathLike | None = None,
    text: PathLike | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write RUN/report.html: one file with curves, metrics, images, the codebook and what its codes mean.

    Args:
        run: the run folder of a tokenizer or a task.
        data: the data set to show images of; by default the one of the training.
        text: the text store; by default DATA/text.
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note).

    Returns:
        The page.

    Raises:
        UsageError: there is no run or no data set.
        FileError: a file of the run is damaged.
    """
    return page.write_report(
        Path(run), _path(data), _path(text), progress=_with_defaults(progress), workers=count_workers(workers)
    )


@explain_dead_workers()
def compare(
    runs: Sequence[PathLike],
    *,
    out: PathLike = "comparison.html",
    data: PathLike | None = None,
    text: PathLike | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    overview: PathLike | None = None,
) -> Path:
    """Write one page that compares runs.

    Args:
        runs: two or more run folders, all of tokenizers or all of tasks.
        out: the page to write.
        data: the data set to show images of; by default the first run's.
        text: the text store; by default DATA/text.
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note).
        overview: also write one PNG file with reconstructions and codes of tokenizers.

    Returns:
        The page.

    Raises:
        UsageError: there are fewer than two runs, or runs of both kinds.
        FileError: a file of a run is damaged.
    """
    folders = [Path(run) for run in runs]
    reported = _with_defaults(progress)
    return page.write_comparison(
        folders, Path(out), _path(data), _path(text), progress=reported, overview=_path(overview),
        workers=count_workers(workers),
    )  # fmt: skip


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _with_defaults(progress: Progress | None) -> page.Progress | None:
    if progress is None:
        return None

    def advance(done: int, total: int | None = None, note: str = "") -> None:
        progress(done, total, note)

    return advance
