"""Two processes that encode a part of a split each have what one has that encoded all; no image is encoded twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from processes import run_as

pytestmark = pytest.mark.slow  # starts processes

SCRIPT = Path(__file__).with_name("one_encoding_process.py")
COUNT, BROKEN = 13, (4, 9)


@pytest.fixture(scope="module")
def data(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which two cannot be read."""
    data = tmp_path_factory.mktemp("data")
    for number in range(COUNT):
        content = (shared_images / f"images/{number}.png").read_bytes()
        (data / f"{number:02}.png").write_bytes(content if number not in BROKEN else b"no image")
    return data


def run(world: int, data: Path, folder: Path, disks: str) -> list[dict[str, Any]]:
    run_as(world, SCRIPT, folder, data, disks)
    return [json.loads((folder / f"{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.parametrize("disks", ["shared", "apart"])
def test_each_process_encodes_its_part(data: Path, tmp_path: Path, disks: str) -> None:
    [alone] = run(1, data, tmp_path, disks)
    both = run(2, data, tmp_path, disks)
    for found in both:
        for name in ("keys", "tokens", "features", "faults", "files"):
            assert found["first"][name] == alone["first"][name], name
    readable = COUNT - len(BROKEN)
    assert alone["first"]["encoded"] == {"tokens": readable, "features": readable}
    counts = [found["first"]["encoded"] for found in both]
    assert sum(count["tokens"] for count in counts) == readable
    assert 0 < counts[0]["tokens"] < readable
    # features may be larger than memory, so that they pass between processes through a shared disk alone
    assert sum(count["features"] for count in counts) == (readable if disks == "shared" else 2 * readable)


def test_nothing_is_encoded_again(data: Path, tmp_path: Path) -> None:
    for found in (*run(2, data, tmp_path, "shared"), *run(2, data, tmp_path, "shared")):
        assert found["again"]["encoded"] == {"tokens": 0, "features": 0}
        assert found["again"]["tokens"] == found["first"]["tokens"]


def test_a_process_that_lost_its_file_is_not_left_behind(data: Path, tmp_path: Path) -> None:
    run(2, data, tmp_path, "apart")
    (tmp_path / "run-2/1/tokens.safetensors").unlink()
    first, second = run(2, data, tmp_path, "apart")
    assert first["first"]["tokens"] == second["first"]["tokens"]
    assert first["first"]["encoded"]["tokens"] + second["first"]["encoded"]["tokens"] == COUNT - len(BROKEN)
    assert (tmp_path / "run-2/1/tokens.safetensors").is_file()
