"""`tavq data import`: its help knows every kind, and a published layout becomes a data set without fault."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from published_layouts import jpeg, write

from tavq.data.importing import sources

SRC = str(Path(__file__).parents[2] / "src")
Tavq = Callable[..., Any]


def test_the_help_lists_every_kind_with_its_files(tavq: Tavq) -> None:
    done = tavq("data", "import", "--help")
    text = "".join(done.out.split())  # a line may end anywhere
    assert (done.code, done.err) == (0, "")
    assert len(sources) >= 6
    for kind in sources:
        assert "".join(f"{kind}: {sources[kind].layout}".split()) in text


def test_only_that_help_loads_the_readers() -> None:
    script = "import sys; from tavq.cli import run; run(['data', '--help']); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not set(done.stdout.splitlines()[-1].split()) & {"torch", "numpy", "tavq.data.importing"}


def test_import_and_check(tavq: Tavq, tmp_path: Path) -> None:
    things = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 32, "height": 24}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [2, 4, 8, 8]}],
        "categories": [{"id": 3, "name": "car"}],
    }
    captions = {"images": things["images"], "annotations": [{"image_id": 1, "caption": "A car"}, {"image_id": 9}]}
    write(tmp_path / "coco", {"instances_val2017.json": things, "captions_val2017.json": captions})
    write(tmp_path / "coco", {"val2017/1.jpg": jpeg(16, 12)})
    done = tavq("data", "import", "coco", tmp_path / "coco", tmp_path / "out", "--json", tmp_path / "counts.json")
    assert done.code == 0, done.err
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert (counts["pictures"], counts["captions"], counts["others"]) == ({"val": 1}, 1, {"objects": 1})
    assert counts["left_out"]["annotations of pictures that are not listed"] == 1
    assert "left out: annotations of pictures that are not listed" in done.out
    assert tavq("data", "check", tmp_path / "out").code == 0
    again = tavq("data", "import", "coco", tmp_path / "coco", tmp_path / "out")
    assert (again.code, "already holds something" in again.err) == (2, True)


def test_a_wrong_layout_is_one_line(tavq: Tavq, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for kind in ("coco", "refcoco", "coco-qa", "textcaps", "karpathy"):
        done = tavq("data", "import", kind, tmp_path / "empty", tmp_path / "out")
        assert done.code == 1
        line = next(line for line in done.err.splitlines() if line.startswith("tavq: "))
        assert str(tmp_path / "empty") in line
        assert tavq("data", "import", kind, tmp_path / "gone", tmp_path / "out").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
