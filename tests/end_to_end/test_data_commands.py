"""`tavq data` on the embedded data set: the same bytes each time, and every fault by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tavq = Callable[..., Any]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_scenes_are_the_same_bytes_and_their_faults_are_named(tavq: Tavq, tmp_path: Path) -> None:
    scenes, again = tmp_path / "scenes", tmp_path / "again"
    for folder in (scenes, again):
        done = tavq("data", "scenes", folder, "--images", 24, "--size", 64, "--seed", 1)
        assert done.code == 0, done.err
    assert content(scenes) == content(again)
    assert sum(name.endswith(".png") and name.startswith("images/") for name in content(scenes)) == 24
    clean = tavq("data", "check", scenes)
    assert (clean.code, clean.out) == (0, "")

    records = [json.loads(line) for line in (scenes / "metadata.jsonl").read_text().splitlines()]
    cut = scenes / records[3]["file_name"]
    cut.write_bytes(cut.read_bytes()[:-100])
    records[7]["captions"][0] = ""
    escaped = records[11]["file_name"]
    records[11]["file_name"] = "../x.png"
    (tmp_path / "x.png").write_bytes((scenes / escaped).read_bytes())
    (scenes / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = tavq("data", "check", scenes, "--json", tmp_path / "faults.json")
    assert found.code == 1
    faults = found.out.splitlines()
    assert len(faults) == 3
    assert sum(fault.startswith(records[3]["file_name"]) for fault in faults) == 1
    assert (
        sum(fault.startswith(records[7]["file_name"]) and "captions entry 1 is empty" in fault for fault in faults) == 1
    )
    assert sum("line 12" in fault and "'../x.png' leads outside" in fault for fault in faults) == 1
    assert "3 faults" in found.err
    assert json.loads((tmp_path / "faults.json").read_text()) == {"faults": faults, "count": 3}
