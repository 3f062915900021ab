"""Which images a run describes, what it writes, and how the next run continues."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.sharding import Shard
from tavq.describe.answers import Describer, DescriptionResult, OnResults
from tavq.describe.endpoint import EndpointError
from tavq.describe.job import DescriptionJob, DescriptionRun, format_speed

Draw = Callable[[int], Path]


class Scripted(Describer):
    """Says of each image what the script says, or else its name."""

    note = "noted"

    def __init__(self, script: dict[str, DescriptionResult] | None = None, stop_after: int | None = None) -> None:
        self.script = script or {}
        self.stop_after = stop_after
        self.seen: list[str] = []

    def run(self, pending: Iterator[str], on_results: OnResults, should_stop: Callable[[], bool]) -> None:
        for name in pending:
            if len(self.seen) == self.stop_after:
                raise EndpointError("The server is gone.")
            self.seen.append(name)
            on_results([self.script.get(name, DescriptionResult(name, f"Text of {name}."))])


def work(folder: Path, describer: Scripted | None = None, **changes: Any) -> tuple[DescriptionRun, Scripted]:
    describer = describer or Scripted()
    run = DescriptionRun(DescriptionJob(folder, **{"model": "m", "prompt": "p"} | changes))
    run.execute(lambda: describer)
    return run, describer


def lines(folder: Path, name: str = "long_text.jsonl") -> list[dict[str, Any]]:
    """The lines without their time, which is now."""
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    assert all(abs(line.pop("time") - time.time()) < 600 for line in found)
    return found


def names(count: int) -> list[str]:
    return [f"{number:02}.png" for number in range(count)]


def test_each_image_has_a_line_of_its_own(draw: Draw) -> None:
    run, _ = work(draw(3))
    assert lines(draw(3)) == [
        {"file_name": name, "model": "m", "prompt": "p", "text": f"Text of {name}."} for name in names(3)
    ]
    assert (run.summary.described, run.summary.failed, run.summary.remaining) == (3, 0, 0)


def test_a_second_run_does_nothing_and_loads_nothing(draw: Draw) -> None:
    work(draw(3))
    run = DescriptionRun(DescriptionJob(draw(3), "m", "p"))

    def load() -> Any:
        raise AssertionError("the model was loaded")

    run.execute(load)
    assert (run.summary.described, run.summary.described_before) == (0, 3)
    assert len(lines(draw(3))) == 3


def test_another_model_or_prompt_describes_again(draw: Draw) -> None:
    work(draw(2))
    assert work(draw(2), model="n")[1].seen == names(2)
    assert work(draw(2), prompt="q")[1].seen == names(2)
    assert work(draw(2))[1].seen == []


def test_the_newest_text_is_read(draw: Draw) -> None:
    folder = draw(20)
    work(folder)
    old = (folder / "long_text.jsonl").read_text().replace('"time": ', '"time": 1, "was": ')
    (folder / "long_text.jsonl").write_text(old)
    texts = {name: DescriptionResult(name, f"New of {name}.") for name in names(20)}
    seen = work(folder, Scripted(texts), model="n", shard=Shard.parse("1/2"))[1].seen
    assert 0 < len(seen) < 20
    for record in FolderDataset(folder):
        assert record.text == f"{'New' if record.file_name in seen else 'Text'} of {record.file_name}."


def test_faults_are_written_and_retried_only_on_request(draw: Draw) -> None:
    folder = draw(3)
    bad = Scripted(
        {
            "01.png": DescriptionResult("01.png", fault="refused"),
            "02.png": DescriptionResult("02.png", "A cat.", truncated=True),
        }
    )
    run, _ = work(folder, bad)
    assert lines(folder)[1] == {"file_name": "01.png", "model": "m", "prompt": "p", "fault": "refused"}
    assert lines(folder)[2] == {"file_name": "02.png", "model": "m", "prompt": "p", "text": "A cat.", "cut": True}
    assert (run.summary.described, run.summary.truncated, run.summary.failed) == (2, 1, 1)
    assert [str(fault) for fault in run.faults.first] == ["01.png: refused"]
    run, describer = work(folder)
    assert describer.seen == []
    assert (run.summary.described_before, run.summary.failed_before) == (2, 1)
    assert work(folder, retry_faults=True)[1].seen == ["01.png"]
    assert work(folder, retry_faults=True)[1].seen == []


def test_a_truncated_last_line_is_dropped_and_repeated(draw: Draw) -> None:
    folder = draw(3)
    work(folder)
    path = folder / "long_text.jsonl"
    whole, expected = path.read_bytes(), lines(folder)
    for cut in (1, 20, len(whole.split(b"\n")[2])):
        path.write_bytes(whole[:-cut])
        assert work(folder)[1].seen == ["02.png"]
        assert lines(folder) == expected


def test_images_with_a_long_text_are_skipped(draw: Draw) -> None:
    folder = draw(4)
    records: list[dict[str, Any]] = [{"file_name": name} for name in names(4)]
    records[1]["long_text"] = "Its own."
    records[2]["split"] = "val"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + "{\n")
    run, describer = work(folder, split="train")
    assert describer.seen == ["00.png", "03.png"]
    assert run.summary.has_long_text == 1
    assert run.faults.count == 1  # the broken line, once
    assert work(folder)[1].seen == ["02.png"]


def test_a_name_that_could_not_be_read_back_is_a_fault_and_not_described(draw: Draw) -> None:
    folder = draw(2)
    (folder / "00.png").rename(folder / "new\nline.png")
    run, describer = work(folder)
    assert describer.seen == ["01.png"]
    assert [fault.where for fault in run.faults.first] == [r"'new\nline.png'"]


def test_a_limit_counts_pending_images(draw: Draw) -> None:
    run, describer = work(draw(5), limit=2)
    assert (describer.seen, run.summary.remaining) == (names(5)[:2], 3)
    run, describer = work(draw(5), limit=2)
    assert (describer.seen, run.summary.remaining) == (names(5)[2:4], 1)
    run, describer = work(draw(5), limit=2)
    assert (describer.seen, run.summary.remaining) == (names(5)[4:], 0)


def test_shards_are_disjoint_and_cover_everything(draw: Draw) -> None:
    folder = draw(20)
    parts = [work(folder, shard=Shard.parse(f"{number}/3"))[1].seen for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == names(20)
    assert all(len(part) > 2 for part in parts)
    assert [line["file_name"] for line in lines(folder, "long_text-2-of-3.jsonl")] == parts[1]
    assert work(folder)[1].seen == []  # all files are read together
    assert work(folder, shard=Shard.parse("1/2"))[1].seen == []


def test_files_of_other_shards_are_named(draw: Draw) -> None:
    folder = draw(1)
    for name in ("long_text.jsonl", "long_text-1-of-2.jsonl", "long_text-2-of-2.jsonl", "long_text-mine.jsonl"):
        (folder / name).write_text("")
    halves = ["long_text-1-of-2.jsonl", "long_text-2-of-2.jsonl"]
    assert DescriptionJob(folder, "m", "p").find_other_shards() == halves
    assert DescriptionJob(folder, "m", "p", shard=Shard(2, 2)).find_other_shards() == ["long_text.jsonl"]
    assert DescriptionJob(folder, "m", "p", shard=Shard(1, 3)).find_other_shards() == [*halves, "long_text.jsonl"]
    assert DescriptionJob(folder / "none", "m", "p").find_other_shards() == []


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1.5/2", "²/3"])
def test_invalid_shards(text: str) -> None:
    with pytest.raises(UsageError, match="must be i/n with i from 1 to n"):
        Shard.parse(text)


def test_finished_descriptions_are_kept_when_the_server_ends(draw: Draw) -> None:
    run, _ = work(draw(5), Scripted(stop_after=2))
    assert (run.summary.stopped, run.summary.described, run.summary.remaining) == ("The server is gone.", 2, 3)
    assert work(draw(5))[1].seen == names(5)[2:]


def test_finding_pending_images_can_be_stopped(draw: Draw) -> None:
    folder = draw(1)
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{n}.png", "long_text": "A."}}\n' for n in range(2500))
    )
    run, shown = DescriptionRun(DescriptionJob(folder, "m", "p")), []

    def stop(done: int, total: int, note: str) -> None:
        shown.append(note)
        run.stopping = True

    assert run.execute(Scripted, stop).stopped == "Stopped by a signal"
    assert shown == ["1,000 images checked"]


def test_progress_has_rate_and_time_left(draw: Draw) -> None:
    shown: list[tuple[int, int, str]] = []
    DescriptionRun(DescriptionJob(draw(4), "m", "p")).execute(Scripted, lambda *values: shown.append(values))
    assert [(done, total) for done, total, _ in shown] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert shown[-1][2].endswith("/s, 0 s left noted")
    assert format_speed(0, 10, 5) == ""
    assert format_speed(10, 100, 5) == "2/s, 45 s left"
    assert format_speed(10, 3000, 5) == "2/s, 24 min left"
    assert format_speed(10, 20_000, 5) == "2/s, 2 h 46 min left"


@pytest.mark.parametrize("changes", [{"model": " "}, {"prompt": ""}, {"prompt": "a\0"}, {"prompt": "x" * 200_000}])
def test_a_model_or_prompt_that_could_not_be_read_back_is_refused(draw: Draw, changes: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="must be printable text of at most 100,000 characters"):
        work(draw(1), **changes)


def test_a_wrong_split_and_folder(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown split 'dev'; known: train, val, test"):
        work(draw(1), split="dev")
    with pytest.raises(UsageError, match="There is no folder"):
        work(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        work(tmp_path / "empty")
    assert [*(tmp_path / "empty").iterdir()] == []
