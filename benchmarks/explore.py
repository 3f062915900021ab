"""The explorer at full size: 16,384 codes and 100,000 images with synthetic grids, so that no encoder runs.

Prints how long the counting takes, the largest memory, and of each kind of query the median time and the slowest.
"""

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from starlette.testclient import TestClient
from torch import Tensor

from tavq.core.config import build
from tavq.core.files import write_json_lines
from tavq.core.mmap_tensors import TensorFileWriter
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.explore.building import build_store
from tavq.explore.encoding import Encoder, Progress
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel, Sources
from tavq.explore.server.app import make_api
from tavq.explore.store import GRIDS, Source
from tavq.explore.units import describe_text
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIZE, WORDS, WORDS_AN_IMAGE = 64, 3000, 8
FILES = 64
"""Image files; the other images are links to them."""

ROUNDS = 3


class SyntheticEncoder(Encoder):
    """Writes drawn grids: codes by Zipf's law, a third of them decided by the words of the image."""

    def run(self, dataset: FolderDataset, config: DataConfig, progress: Progress | None = None) -> None:
        """Write grids and distances of all images."""
        random = np.random.default_rng(0)
        [level] = self.levels
        fractions = 1 / np.arange(1, level.entries + 1)
        with closing(TensorFileWriter(self.folder / GRIDS, self._tensors(), {})) as file:
            for start in range(0, len(dataset), 1000):
                count = min(1000, len(dataset) - start)
                codes = random.choice(level.entries, (count, level.cells), p=fractions / fractions.sum())
                own = random.random(codes.shape) < 1 / 3
                words = np.array([words_of(start + row) for row in range(count)])
                picked = words[np.arange(count)[:, None], random.integers(0, WORDS_AN_IMAGE, codes.shape)]
                codes[own] = (picked[own] * 5) % level.entries
                file.write("deep/grid", start, codes)
                file.write("deep/distance", start, random.random((count, level.cells), np.float32))
                file.write("readable", start, np.ones(count))
            file.flush()


def words_of(image: int) -> list[int]:
    """The words of an image, some of them far more frequent than others."""
    random = np.random.default_rng(image)
    return (WORDS * random.random(WORDS_AN_IMAGE) ** 3).astype(int).tolist()


def name_of(word: int) -> str:
    """A noun that the splitter keeps, different for each number."""
    letters = "bdfgklmnprstvz"
    return "".join(letters[(word // len(letters) ** place) % len(letters)] + "aeiou"[place] for place in range(4)) + "x"


def make_data(folder: Path, images: int) -> FolderDataset:
    """A data set of links to a few small images, with captions."""
    for number in range(FILES):
        pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        save_png(folder / f"{number}.png", pixels)
    lines: Iterator[dict[str, object]] = (
        {"file_name": f"{image}.png", "captions": [f"The {name_of(a)} and the {name_of(b)} near a {name_of(c)}."
         for a, b, c in [words_of(image)[:3], words_of(image)[3:6]]]} for image in range(images)
    )  # fmt: skip
    for image in range(FILES, images):
        (folder / f"{image}.png").hardlink_to(folder / f"{image % FILES}.png")
    write_json_lines(folder / "metadata.jsonl", lines)
    return FolderDataset(folder)


def read_units(dataset: FolderDataset, _: object) -> Iterator[dict[str, list[str]]]:
    """The words of all images, which a text store would have; splitting captions takes longer."""
    for image in range(len(dataset)):
        yield {"words": [name_of(word) for word in words_of(image)], "phrases": [], "sentences": []}


def megabytes() -> float:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Timer:
    """Seconds since it was made: by the clock, and of the processor, which a busy machine lengthens less."""

    def __init__(self) -> None:
        self._clock, self._processor = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds by the clock and of the processor."""
        return time.monotonic() - self._clock, time.process_time() - self._processor

    def __str__(self) -> str:
        clock, processor = self.read()
        return f"{clock:.1f} s ({processor:.1f} s of the processor)"


def summarize(times: list[tuple[float, float]]) -> str:
    """The median and the longest of some times."""
    clock, processor = ([1000 * seconds for seconds in each] for each in zip(*times, strict=True))
    texts = (f"median {median(each):.0f} ms, at most {max(each):.0f} ms" for each in (clock, processor))
    return "{} (of the processor: {}) of {}".format(*texts, len(times))


def time_all(ask: Callable[[str], tuple[float, float]], addresses: list[str]) -> list[tuple[float, float]]:
    """The times of three rounds, after one call that warms up."""
    ask(addresses[0])
    return [ask(address) for _ in range(ROUNDS) for address in addresses]


def main() -> None:
    """Build and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--codes", type=int, default=16_384)
    options = parser.parse_args()
    torch.manual_seed(0)
    net = {"channels": 16, "multipliers": [1, 2, 4, 4], "blocks": 1, "attention": False}
    table = {"name": "learned", "entries": options.codes, "width": 64, "init": "normal"}
    tokenizer = (
        Tokenizer(build(TokenizerConfig, {"net": net, "codebook": table}, "benchmark")).eval().requires_grad_(False)
    )
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "data").mkdir()
        dataset = make_data(Path(place) / "data", options.images)
        print(f"data: {len(dataset):,} images, {megabytes():.0f} MB")
        explorer = count(tokenizer, dataset, Path(place))
        ask_all(explorer, options.codes)
    clock, processor = (seconds * options.images for seconds in encode_some(tokenizer))
    print(
        f"encoding {options.images:,} images of {SIZE} px would take {clock:.0f} s ({processor:.0f} s of the processor)"
    )


def count(tokenizer: Tokenizer, dataset: FolderDataset, place: Path) -> Explorer:
    """Build the store from synthetic grids."""
    import tavq.explore.building as building

    building.Encoder = SyntheticEncoder  # type: ignore[misc]
    building.iter_units = read_units  # type: ignore[assignment]
    sha = hashlib.sha256(b"synthetic").hexdigest()
    text = describe_text(None, dataset)
    source = Source(model=sha, size=SIZE, data=dataset.fingerprint, split=None, images=len(dataset), text=text)
    timer = Timer()

    def report(done: int, total: int | None, note: str) -> None:
        print(f"  {timer}  {note}")

    store = build_store(tokenizer, source, dataset, None, place / "store", DataConfig(size=SIZE), report)
    print(f"counting: {timer}, {megabytes():.0f} MB")
    files = sum(path.stat().st_size for path in (place / "store").iterdir()) / 1e6
    print(f"the store has {files:.0f} MB; held out: {store.manifest.held_out}")
    timer = Timer()
    names = ("synthetic", "other")  # of two models, of which the second has the same counts
    models = [ExploredModel(name, tokenizer, Sources(name, {}, store)) for name in names]
    explorer = Explorer(dataset, models, place)
    make_api(explorer)
    print(f"opening: {timer}")
    return explorer


def ask_all(explorer: Explorer, codes: int) -> None:
    """Time every kind of query."""
    client = TestClient(make_api(explorer))
    base = "/api/v1/models/synthetic"

    def ask(address: str) -> tuple[float, float]:
        timer = Timer()
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        return timer.read()

    timer = Timer()
    ask("/api/v1/overview")
    ask(f"{base}/levels/deep/codes")
    print(f"first page: {timer}")
    for model in explorer.models:
        model.warm_up()
    deep = f"{base}/levels/deep"
    some = sorted({min(code, codes - 1) for code in (0, 1, 5, 50, 500, 5000, codes - 1)})
    images = [0, 7, 99, len(explorer.dataset) - 1]
    known = client.get("/api/v1/units/words").json()["total"]
    words = [word for word in (0, 1, 10, 100, 1000) if word < known]
    kinds = {
        "list of codes": [f"{deep}/codes?sort={sort}" for sort in ("usage", "entropy", "certainty", "held_out")],
        "code": [f"{deep}/codes/{code}" for code in some],
        "word": [f"{deep}/units/words/{word}" for word in words],
        "words": ["/api/v1/units/words?query=ba"],
        "image": [f"{base}/images/{image}" for image in images],
        "heat map": [f"{deep}/images/{image}/heat?unit={word}" for image in images for word in words],
        "captions": ["/api/v1/images?query=bab", "/api/v1/images?query=the"],
        "map": [f"{deep}/map"],
        "atlas": client.get(f"{deep}/map").json()["atlas"]["pages"][:3],
        "patch": [f"{deep}/images/{image}/patch.webp?row=1&column=1" for image in images],
        "text search": [f"{base}/search?text={name_of(word)}" for word in words] + [f"{base}/search?text=ba"],
        "two codes": ["/api/v1/compare/codes?first=synthetic:deep:0&second=other:deep:5"],
        "two models": [f"/api/v1/compare/models?offset={offset}&limit=30" for offset in (0, 60, 1200)],
    }
    for kind, addresses in kinds.items():
        print(f"{kind}: {summarize(time_all(ask, addresses))}")

    def post(address: str, **body: Any) -> tuple[float, float]:
        timer = Timer()
        answer = client.post(address, **body)
        assert answer.status_code == 200, answer.text
        return timer.read()

    cells = {"op": "paint", "cells": [[1, 1], [2, 2]]}
    edits = [
        post(f"{base}/edits", json={"image": str(image), "operations": [{**cells, "code": code}]})
        for code in (3, 4, 5) for image in images
    ]  # fmt: skip
    print(f"edit and decode: {summarize(edits)}")
    patch = {"row": 1, "column": 1, "height": 2, "width": 2}
    patches = [post(f"{base}/search/patch", json={"image": str(image), **patch}) for image in images * ROUNDS]
    print(f"patch search: {summarize(patches)}")
    photograph = explorer.dataset.file("0.png").read_bytes()
    uploads = [post(f"{base}/search/image", content=photograph) for _ in range(3 * ROUNDS)]
    print(f"upload of an image: {summarize(uploads)}; memory {megabytes():.0f} MB")


def encode_some(tokenizer: Tokenizer, images: int = 256) -> tuple[float, float]:
    """Seconds to encode an image, by the clock and of the processor."""
    batch: Tensor = torch.rand(32, 3, SIZE, SIZE) * 2 - 1
    tokenizer.encode(batch)
    timer = Timer()
    for _ in range(images // 32):
        tokenizer.encode(batch)
    clock, processor = timer.read()
    return clock / images, processor / images


if __name__ == "__main__":
    main()
