"""`tavq data import`: the help knows every kind, and a published layout becomes a data set without fault."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import jpeg, lay_out

from tavq.core.registry import Registry
from tavq.importers.exporting import formats
from tavq.importers.importing import sources

Tavq = Callable[..., Any]


@pytest.mark.parametrize(("command", "registry", "least"), [("import", sources, 13), ("export", formats, 1)])
def test_the_help_lists_every_kind_with_its_files(
    tavq: Tavq, command: str, registry: Registry[Any], least: int
) -> None:
    done = tavq("data", command, "--help")
    text = "".join(done.out.split())  # a line may end anywhere
    assert (done.code, done.err) == (0, "")
    assert len(registry) >= least
    for kind in registry:
        assert "".join(f"{kind}: {registry[kind].layout}".split()) in text


def test_import_and_check(tavq: Tavq, tmp_path: Path) -> None:
    things = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 32, "height": 24}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [2, 4, 8, 8]}],
        "categories": [{"id": 3, "name": "car"}],
    }
    captions = {"images": things["images"], "annotations": [{"image_id": 1, "caption": "A car"}, {"image_id": 9}]}
    lay_out(tmp_path / "coco", {"instances_val2017.json": things, "captions_val2017.json": captions})
    lay_out(tmp_path / "coco", {"val2017/1.jpg": jpeg(0, 16, 12)})
    done = tavq("data", "import", "coco", tmp_path / "coco", tmp_path / "out", "--json", tmp_path / "counts.json")
    assert done.code == 0, done.err
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert (counts["images"], counts["captions"], counts["others"]) == ({"val": 1}, 1, {"objects": 1})
    assert counts["left_out"]["annotations of images that are not listed"] == 1
    assert "left out: annotations of images that are not listed" in done.out
    assert tavq("data", "check", tmp_path / "out").code == 0
    again = tavq("data", "import", "coco", tmp_path / "coco", tmp_path / "out")
    assert (again.code, "already exists and is not empty" in again.err) == (2, True)


def test_a_wrong_layout_is_one_line(tavq: Tavq, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for kind in ("coco", "refcoco", "coco-qa", "textcaps", "karpathy"):
        done = tavq("data", "import", kind, tmp_path / "empty", tmp_path / "out")
        assert done.code == 1
        line = next(line for line in done.err.splitlines() if line.startswith("tavq: "))
        assert str(tmp_path / "empty") in line
        assert tavq("data", "import", kind, tmp_path / "gone", tmp_path / "out").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
