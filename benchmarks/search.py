"""Exact search over a memory-mapped table, compared with a matrix product and topk over the table in memory."""

import itertools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import compare, report

from tavq.core.files import read_json, write_json
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.ops.topk import topk_dot_products

COUNT = 10
TOGETHER = 64
WIDTHS = (64, 256)
KINDS = {"float32": "<f4", "float16": "<f2"}
STEP = 10_000


def write_table(path: Path, rows: int, width: int, kind: str) -> None:
    """Write unit vectors around a few hundred centres, like embeddings."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(300, width))
    file = TensorFileWriter(path, {"rows": (kind, (rows, width))}, {})
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        part = centres[draw.integers(300, size=count)] + draw.normal(size=(count, width))
        file.write("rows", start, part / np.linalg.norm(part, axis=1, keepdims=True))
    file.close()


def queries(width: int, count: int) -> np.ndarray:
    """Random unit vectors."""
    vectors = np.random.default_rng(1).normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def works(folder: Path, asked: np.ndarray) -> dict[str, Callable[[], object]]:
    """The alternatives on the tables in a folder; the first loads its table into memory."""
    tables = {name: MappedTensors(folder / f"{name}.safetensors")["rows"] for name in KINDS}
    whole = torch.from_numpy(np.array(tables["float32"]))
    query = torch.from_numpy(asked)
    found: dict[str, Callable[[], object]] = {"torch, all at once in memory": lambda: (query @ whole.T).topk(COUNT)}
    for name, table in tables.items():
        found[f"mapped, {name}"] = lambda table=table: topk_dot_products(asked, table, COUNT, 1.001)  # type: ignore[misc]
    return found


# --- memory -----------------------------------------------------------------------------------------------------


def own_memory() -> int:
    """Bytes of this process's own memory, without pages of mapped files, which the system can reclaim."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


def measure_memory(folder: Path, width: int, together: int, name: str, out: Path) -> None:
    """Write the peak memory of an alternative, on top of what the process started with."""
    torch.set_num_threads(1)
    asked = queries(width, together)
    before = most = own_memory()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.002):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    if name in KINDS:
        table = MappedTensors(folder / f"{name}.safetensors")["rows"]
        topk_dot_products(asked, table, COUNT, 1.001)
    else:
        works(folder, asked)["torch, all at once in memory"]()
    ended.set()
    watcher.join()
    write_json(out, {"bytes": most - before})


def memory(folder: Path, width: int, together: int, name: str) -> float:
    """Measure megabytes in a process of its own."""
    out = folder / "memory.json"
    command = [sys.executable, __file__, "memory", str(folder), str(width), str(together), name, str(out)]
    subprocess.run(command, check=True)
    return float(read_json(out)["bytes"]) / 1e6


def measure(rounds: int, largest: int = 100_000) -> dict[str, dict[str, Any]]:
    """A case for each number of vectors up to `largest`, each width, and one or several queries at a time."""
    sizes = list(itertools.takewhile(lambda rows: rows <= largest, (10_000 * 10**n for n in itertools.count(1))))
    cases: dict[str, dict[str, Any]] = {}
    for rows, width in itertools.product(sizes or [largest], WIDTHS):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, kind in KINDS.items():
                write_table(folder / f"{name}.safetensors", rows, width, kind)
            for together in (1, TOGETHER):
                made = compare(works(folder, queries(width, together)), rounds)
                for name, row in made.items():
                    took = memory(folder, width, together, name.removeprefix("mapped, "))
                    row["queries_a_second"] = 1000 * together / row["milliseconds"]
                    row["megabytes"] = took
                    row["note"] = f"{row['queries_a_second']:,.0f} queries per second, {took:,.0f} MB"
                cases[f"{rows:,} rows of width {width}, {together} at once"] = made
    return cases


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], Path(sys.argv[6]))
    else:
        report("search", measure, largest=100_000)
