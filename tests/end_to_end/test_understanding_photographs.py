"""Questions and referring expressions about photographs, from the files as they are distributed to an answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]

CASES = {
    "vqa": ("coco-qa", "coco_qa/cocoqa_test_partial.jsonl", "accuracy"),
    "grounding": ("refcoco", "refexp/refcocos_test.json", "mean_iou"),
}
SMALL = "--train.steps 2 --train.batch 8 --task.image.hidden 16 --task.image.patch 4"


@pytest.mark.real_data
@pytest.mark.parametrize("task", CASES)
def test_a_task_learns_from_photographs(
    task: str, real_data: Path, tavq: Tavq, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kind, file, metric = CASES[task]
    source = Path("source")
    source.mkdir()
    (source / Path(file).name).symlink_to(real_data / file)
    (source / "images320.tar").symlink_to(real_data / "coco_subset/images320.tar")
    assert tavq("data", "import", kind, source, "data", "--limit", 20).code == 0
    lines = [json.loads(line) for line in Path("data/metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):  # all of it is published as test
        line["split"] = "train" if number % 2 else "test"
    Path("data/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = ("task", "train", f"{task}-tiny", "--tokenizer", home / "plain", "--data", "data", "--out", "run")
    done = tavq(*train, *SMALL.split(), "--train.log_every", 1, "--train.warmup", 1)
    assert done.code == 0, done.err
    done = tavq("task", "evaluate", "run", "--data", "data", "--json", "found.json")
    assert done.code == 0, done.err
    assert 0 <= json.loads(Path("found.json").read_text())["metrics"][metric]["value"] <= 1
    image = Path("data", lines[0]["file_name"])  # of any size and shape
    if task == "vqa":
        done = tavq("ask", "run", image, lines[0]["questions"][0]["question"])
    else:
        done = tavq("ground", "run", image, lines[0]["objects"][0]["phrases"][0], "--out", "found.png")
        assert Path("found.png").is_file()
    assert done.code == 0, done.err
