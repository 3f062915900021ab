"""CPU time and peak memory of the commands of a user as images, pixels, entries and text grow, on a page with plots.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --out growth [--most 20000] [--only evaluate encode]

Each point is one run of the command line in a process of its own. The last column compares what one more image (pixel,
entry, sentence) costs in the second half of the largest size with what it costs before: 1 is linear growth.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tavq.core.config import build
from tavq.core.files import write_json
from tavq.data.records import METADATA
from tavq.report.html.charts import Line, line_chart
from tavq.report.page import write_page
from tavq.scenes import write_scenes
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIDE = 32
MODEL = {
    "net": {"channels": 16, "multipliers": [1, 2, 2]},
    "codebook": {"name": "learned", "entries": 256, "width": 16},
}


@dataclass(frozen=True)
class Case:
    """One command that is run at growing sizes."""

    name: str
    axis: str
    sizes: tuple[int, ...]
    command: Callable[[int], list[Any]]


@dataclass(frozen=True)
class Point:
    """What one run took: CPU seconds, and megabytes at its peak."""

    size: int
    seconds: float
    megabytes: float


class Inputs:
    """Data sets and models, each made once, in a folder."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.most = most

    @cache  # noqa: B019 - one for the process
    def scenes(self, count: int) -> Path:
        """A data set whose images, the first of one series, are all in the test split."""
        place = self.folder / f"scenes-{count}"
        if count == self.most:
            if not place.exists():
                write_scenes(place, count, SIDE, 0)
            lines = (place / METADATA).read_text().splitlines()
            records = [{**json.loads(line), "split": "test"} for line in lines]
            (place / METADATA).write_text("".join(f"{json.dumps(record)}\n" for record in records))
            return place
        whole = self.scenes(self.most)
        place.mkdir(exist_ok=True)
        for name in ("images", "segmentation"):
            if not (place / name).exists():
                (place / name).mkdir()
                for path in sorted((whole / name).iterdir())[:count]:
                    os.link(path, place / name / path.name)
        lines = (whole / METADATA).read_text().splitlines(keepends=True)
        (place / METADATA).write_text("".join(lines[:count]))
        return place

    def long_texts(self, sentences: int) -> Path:
        """A data set of 20 images with texts of so many sentences, no two of them equal."""
        place = self.folder / f"texts-{sentences}"
        place.mkdir(exist_ok=True)
        lines = []
        for number in range(20):
            Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(place / f"{number}.png")
            parts = [f"The small dog {number} sits near the old tree {part} on the grass." for part in range(sentences)]
            lines.append(json.dumps({"file_name": f"{number}.png", "long_text": " ".join(parts)}))
        (place / METADATA).write_text("\n".join(lines) + "\n")
        return place

    def noise(self, side: int) -> Path:
        """Sixteen images of noise."""
        place = self.folder / f"noise-{side}"
        place.mkdir(exist_ok=True)
        draw = np.random.default_rng(0)
        for number in range(16):
            Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(place / f"{number}.png")
        return place

    @cache  # noqa: B019 - one for the process
    def model(self, entries: int = 256) -> Path:
        """A tokenizer with random weights."""
        place = self.folder / f"model-{entries}"
        settings = {**MODEL, "codebook": {**MODEL["codebook"], "entries": entries}}
        Tokenizer(build(TokenizerConfig, settings, "The benchmark")).save_pretrained(place)
        return place


def list_cases(inputs: Inputs) -> Iterator[Case]:
    """The commands, and what grows."""
    counts = tuple(inputs.most // divisor for divisor in (16, 8, 4, 2, 1))
    fewer = tuple(count // 10 for count in counts)
    out = inputs.folder / "out"

    def encode(source: Path, side: int, *more: Any, entries: int = 256) -> list[Any]:
        return ["encode", inputs.model(entries), source, "--size", side, *more, "--out", out / f"{next(numbers)}"]

    def evaluate(count: int) -> list[Any]:
        return ["evaluate", inputs.model(), "--size", SIDE, "--data", inputs.scenes(count)]

    def text(folder: Path) -> list[Any]:
        return ["text", folder, "--out", out / f"{next(numbers)}"]

    numbers = itertools.count()
    yield Case("data check", "images", counts, lambda count: ["data", "check", inputs.scenes(count)])
    yield Case("encode", "images", counts, lambda count: encode(inputs.scenes(count), SIDE))
    yield Case("encode --shard-size", "images", counts, lambda n: encode(inputs.scenes(n), SIDE, "--shard-size", 1000))
    yield Case("evaluate", "images", counts, evaluate)
    yield Case("text", "images", fewer, lambda count: text(inputs.scenes(count)))
    yield Case("text", "sentences a text", (4, 8, 16, 32, 64), lambda count: text(inputs.long_texts(count)))
    yield Case("encode", "pixels a side, squared", (64, 128, 256, 512), lambda side: encode(inputs.noise(side), side))
    entries = (2**10, 2**12, 2**14, 2**16)
    yield Case("encode", "entries", entries, lambda count: encode(inputs.noise(256), 256, entries=count))


def run(words: Sequence[Any]) -> tuple[float, float]:
    """CPU seconds and peak megabytes of one run of the command line."""
    command = [sys.executable, "-m", "tavq", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def work(case: Case, size: int) -> int:
    """The amount of work that a size stands for."""
    return size * size if "squared" in case.axis else size


def judge(case: Case, values: Sequence[float]) -> float:
    """What one more unit costs between the two largest sizes, over what it costs from the smallest to the second."""
    sizes = [work(case, size) for size in case.sizes]
    slopes = [(values[b] - values[a]) / (sizes[b] - sizes[a]) for a, b in ((0, -2), (-2, -1))]
    return slopes[1] / slopes[0]


def render(case: Case, points: Sequence[Point]) -> list[Any]:
    """Two plots of a case."""
    x = [float(work(case, point.size)) for point in points]
    return [
        line_chart(f"tavq {case.name}: CPU seconds", [Line("", x, [point.seconds for point in points])], case.axis),
        line_chart(f"tavq {case.name}: peak MB", [Line("", x, [point.megabytes for point in points])], case.axis),
    ]


def main() -> None:
    """Run every case, and write a page, a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the inputs and results")
    parser.add_argument("--most", type=int, default=20000, help="images of the largest data set (default 20000)")
    parser.add_argument("--only", nargs="*", default=(), help="commands, by the first word")
    options = parser.parse_args()
    (options.out / "out").mkdir(parents=True, exist_ok=True)
    results: dict[str, list[dict[str, float]]] = {}
    body, lines = (
        [],
        ["| command | grows with | CPU s | peak MB | a unit more, late over early |", "|---|---|---|---|---|"],
    )
    for case in list_cases(Inputs(options.out, options.most)):
        if options.only and case.name.split()[0] not in options.only:
            continue
        points = [Point(size, *run(case.command(size))) for size in case.sizes]
        results[f"{case.name} by {case.axis}"] = [vars(point) for point in points]
        seconds = [point.seconds for point in points]
        cells = [
            f"`tavq {case.name}`",
            f"{case.axis}: {case.sizes[0]:,} to {case.sizes[-1]:,}",
            ", ".join(f"{value:.1f}" for value in seconds),
            ", ".join(f"{point.megabytes:.0f}" for point in points),
            f"{judge(case, seconds):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
        body += render(case, points)
    write_json(options.out / "growth.json", results)
    (options.out / "growth.md").write_text("\n".join(lines) + "\n")
    print(write_page(options.out / "growth.html", "How cost grows", body))


if __name__ == "__main__":
    main()
