"""Two processes that measured half of the batches each give, to the last bit, what one gives that measured all."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from processes import run_alone_and_as_two

pytestmark = pytest.mark.slow  # starts processes that train

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results, Results]:
    """What one process found, and what the first and the second of two did; two images cannot be read."""
    folder = tmp_path_factory.mktemp("processes")
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    for number in range(16):
        content = (shared_images / f"images/{number}.png").read_bytes()
        (data / f"images/{number}.png").write_bytes(content if number not in (4, 9) else b"no image")
    (data / "metadata.jsonl").write_text((shared_images / "metadata.jsonl").read_text())
    run_alone_and_as_two(Path(__file__).with_name("one_evaluation_process.py"), folder, data)
    alone, first, second = (json.loads((folder / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    return alone, first, second


@pytest.mark.parametrize("part", ["all", "first batch"])
def test_two_processes_measure_what_one_does(results: tuple[Results, Results, Results], part: str) -> None:
    alone, first, second = (copy.deepcopy(found[part]) for found in results)
    assert first == second
    # sums of features in another order
    ours, theirs = (found["metrics"].pop("fd_patches") for found in (first, alone))
    assert ours["value"] == pytest.approx(theirs["value"], rel=1e-9)
    assert {**ours, "value": theirs["value"]} == theirs
    assert first == alone


def test_everything_was_measured(results: tuple[Results, Results, Results]) -> None:
    alone = results[0]["all"]
    assert alone["images"] == alone["protocol"]["images"]["count"] == 14
    assert alone["images_with_text"] == 10
    assert [fault.partition(":")[0] for fault in alone["faults"]] == ["images/4.png", "images/9.png"]
    names = {"psnr", "perplexity_deep", "code_text_cosine", "retrieval/text_to_image/recall@1"}
    names |= {"probe_code_text_cosine", "masked_words_recall@1_of_3", "word_code_mse", "probe_word_code_mse"}
    assert names <= {key for key, metric in alone["metrics"].items() if metric["interval"] is not None}
    assert results[0]["first batch"]["images"] == 3
