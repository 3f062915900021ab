"""A large drawn collection as token shards: two parts of a job array, each killed twice, joined and verified.

Draws so many small images, encodes them once undisturbed and once by two processes that are killed with SIGKILL after
a third and after two thirds of the shards, and compares every byte. Prints seconds, bytes an image next to the other
forms of the same tokens, and how fast they are read.

    nice -n 10 python benchmarks/token_shards.py --images 100000
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tavq.core.config import build
from tavq.token_folder.packing import PADDING, pack, unpack
from tavq.token_folder.reading import TokenShards
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIDE = 32
PARTS = 2
SETTINGS = {
    "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1},
    "codebook": {"name": "learned", "entries": 1024, "width": 8, "init": "features"},
}


def draw(number: int) -> np.ndarray:
    """A disc and a bar of random colours on a gradient."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = (rng.integers(0, 200, 3) + np.stack([y, x, y + x], 2) * rng.random(3)).clip(0, 255).astype(np.uint8)
    cy, cx, radius = rng.integers(6, 26, 3)
    image[(y - cy) ** 2 + (x - cx) ** 2 < radius * 4] = rng.integers(0, 256, 3)
    image[:, (top := rng.integers(0, 26)) : top + 5] = rng.integers(0, 256, 3)
    return image


def write_block(folder: Path, start: int, stop: int) -> None:
    """Write the images from `start` up to `stop`."""
    (folder / f"{start:07d}").mkdir(parents=True)
    for number in range(start, stop):
        Image.fromarray(draw(number)).save(folder / f"{start:07d}/{number:07d}.png", compress_level=1)


def write_images(folder: Path, count: int) -> None:
    """Draw a folder data set, whose last twentieth is the validation split."""
    starts = range(0, count, 1000)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(write_block, folder), starts, [min(start + 1000, count) for start in starts]))
    names = [f"{number // 1000 * 1000:07d}/{number:07d}.png" for number in range(count)]
    splits = ["val" if number >= count * 19 // 20 else "train" for number in range(count)]
    lines = [json.dumps({"file_name": name, "split": split}) + "\n" for name, split in zip(names, splits, strict=True)]
    (folder / "metadata.jsonl").write_text("".join(lines))


def make_model(folder: Path) -> None:
    """A small tokenizer whose codebook begins at features of drawn images."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(build(TokenizerConfig, SETTINGS, "benchmark"))
    images = torch.from_numpy(np.stack([draw(number) for number in range(64)])).permute(0, 3, 1, 2) / 127.5 - 1
    tokenizer.train()(images)
    tokenizer.eval().save_pretrained(folder, card="# Benchmark\n", metadata={"size": SIDE})


def tavq(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a command."""
    return subprocess.Popen([sys.executable, "-m", "tavq", *map(str, arguments)], stderr=subprocess.DEVNULL)


def timed(*arguments: object) -> float:
    """The seconds of a command, which must succeed."""
    start = time.perf_counter()
    if tavq(*arguments).wait():
        raise SystemExit(f"failed: tavq {' '.join(map(str, arguments))}")
    return time.perf_counter() - start


def run_killed(out: Path, arguments: list[object], shards: int) -> int:
    """Encode by a job array that is killed twice; return how many processes were killed."""
    killed = 0
    for limit in (shards // 3, shards * 2 // 3, None):
        jobs = [tavq(*arguments, "--shard", f"{part}/{PARTS}") for part in range(1, PARTS + 1)]
        while limit is not None and len(list(out.glob("tokens-*"))) < limit:
            time.sleep(0.01)
            if all(job.poll() is not None for job in jobs):
                raise SystemExit("the parts ended before they could be killed")
        for job in jobs if limit is not None else ():
            job.send_signal(signal.SIGKILL)
        codes = [job.wait() for job in jobs]
        killed += sum(code == -signal.SIGKILL for code in codes)
    return killed


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def measure_reading(folder: Path) -> None:
    """Print how fast tokens are read and unpacked, next to a copy of as many bytes."""
    shards = TokenShards(folder)
    order = np.random.default_rng(0).permutation(len(shards))[:20_000]
    start = time.perf_counter()
    for number in order[:5000].tolist():
        shards[number]
    alone = 5000 / (time.perf_counter() - start)
    start = time.perf_counter()
    for first in range(0, len(order), 256):
        shards.__getitems__(order[first : first + 256].tolist())
    print(f"random access: {alone:,.0f} images/s one by one, "
          f"{len(order) / (time.perf_counter() - start):,.0f} in batches of 256")  # fmt: skip
    for entries in (256, 1024, 16384):
        indices = np.random.default_rng(0).integers(0, entries, (40_000, 256, 1))
        packed = pack(indices, [entries])
        data = np.concatenate([packed.reshape(-1), np.zeros(PADDING, np.uint8)])
        starts = np.arange(len(packed)) * packed.shape[1]
        unpacked = unpack(data, starts, 256, [entries])
        other = np.empty_like(unpacked)
        seconds = [best(partial(unpack, data, starts, 256, [entries])), best(partial(np.copyto, other, unpacked))]
        speeds = [unpacked.nbytes / each / 1e9 for each in seconds]
        print(f"{entries} entries: unpacked at {speeds[0]:.2f} GB/s, {unpacked.size / seconds[0] / 1e6:,.0f} million "
              f"indices/s; a copy of the result {speeds[1]:.1f} GB/s")  # fmt: skip


def best(work: "partial[object]") -> float:
    """The shortest of some runs, in seconds."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--shard-size", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tavq-token-shards")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    home: Path = given.folder
    data, model, shards = home / "images", home / "model", -(-given.images // given.shard_size)
    if not (data / "metadata.jsonl").exists():
        start = time.perf_counter()
        write_images(data, given.images)
        print(f"drew {given.images:,} images of {SIDE} px in {time.perf_counter() - start:.0f} s", flush=True)
    make_model(model)
    arguments = ["encode", model, data, "--shard-size", given.shard_size, "--resume", "--out"]
    once = timed(*arguments, home / "once")
    print(f"one process: {once:.0f} s, {given.images / once:,.0f} images/s", flush=True)
    start = time.perf_counter()
    killed = run_killed(home / "killed", [*arguments, home / "killed"], shards)
    seconds = time.perf_counter() - start
    same = content(home / "once") == content(home / "killed")
    found = TokenShards(home / "killed")
    print(f"{PARTS} parts, {killed} processes killed: {seconds:.0f} s; {len(found):,} images in "
          f"{len(found.manifest.shards)} shards, all hashes right, every byte as undisturbed: {same}")  # fmt: skip
    bytes_of = sum(note.bytes for note in found.manifest.shards)
    tokens = int(found.shapes()[0].prod())
    packed = tokens * found.manifest.bits[0] / 8
    print(f"shards: {bytes_of / len(found):.0f} bytes an image for {tokens} tokens of {found.manifest.bits[0]} bits "
          f"({packed:.0f} bytes) and the file name", flush=True)  # fmt: skip
    timed("encode", model, data, "--split", "val", "--out", home / "val.safetensors")
    timed("export", model, "--to", "tokens", "--data", data, "--split", "val", "--form", "ids", "--resume",
          "--tokens", home / "val.safetensors", "--out", home / "jsonl")  # fmt: skip
    count = len(TokenShards(home / "killed", "val"))
    lines = sum(path.stat().st_size for path in (home / "jsonl").glob("*.jsonl"))
    file = (home / "val.safetensors").stat().st_size
    print(f"the same as JSON lines: {lines / count:.0f} bytes an image, as one safetensors file: {file / count:.0f}")
    measure_reading(home / "killed")
    if not same or len(found) != given.images:
        raise SystemExit("the folders differ")


if __name__ == "__main__":
    main()
