"""`tavq leaderboard`."""

from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Workers
from tavq.cli.devices import with_device


@with_device
def leaderboard(
    *models: str,
    data: Path,
    out: Path,
    split: str = "test",
    text: Path | None = None,
    features: tuple[str, ...] = ("scenes",),
    limit: Count | None = None,
    size: Count | None = None,
    fault_budget: str | None = None,
    workers: Workers | None = None,
) -> None:
    """Measure tokenizers, own and imported ones, on the same images: OUT/leaderboard.html, .md and .json.

    Example: tavq leaderboard run-vqgan run-ta imported --data scenes --out board

    Args:
        models: Two or more model folders, run folders or hub names.
        data: A folder data set.
        out: The folder to write.
        split: train, val or test.
        text: The text store; by default DATA/text where it exists.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        limit: Measure only the first images.
        size: Side of the images; by default the size that all models were trained at.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
    """
    with console.bar("Measuring") as bar:
        board = api.leaderboard(
            models, data=data, out=out, split=split, text=text, features=features, limit=limit, size=size,
            fault_budget=fault_budget, workers=workers, progress=bar,
        )  # fmt: skip
    console.print_table("Leaderboard", board.headings, board.values)
    for line in (board.frame, *board.warnings):
        console.say(line)
    console.say(f"The leaderboard is {(out / 'leaderboard.html').resolve()}")
