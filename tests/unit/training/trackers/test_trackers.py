"""Logging a run to other programs: what they can read back, and that their faults end nothing."""

import json
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.api.tracking import require_run, track_evaluation
from tavq.core import files
from tavq.core.errors import FileError, UsageError
from tavq.data.folder import FolderDataset
from tavq.metrics.images import PSNR
from tavq.metrics.record import Evaluation
from tavq.recipes.schema import Recipe
from tavq.training.reporting import SilentReporter
from tavq.training.tokenizer.trainer import Trainer
from tavq.training.tracking import TRACKING, Tracker, TrackingReporter, flatten_line, trackers, tracking

Make = Callable[..., Recipe]


class Listener(SilentReporter):
    """A Reporter that keeps messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class Fake(Tracker):
    """A tracker that keeps what it gets, and fails where it is told to."""

    distribution = "fake-tracker"
    fails: tuple[str, ...] = ()
    last: "Fake"

    def __init__(self, run: Path, state: dict[str, Any], step: int, settings: Mapping[str, Any]) -> None:
        Fake.last, self.got, self.begun = self, [], (step, dict(state))
        self._fail("init")
        state["id"] = state.get("id", 0) + 1

    def _fail(self, act: str) -> None:
        if act in Fake.fails:
            raise ModuleNotFoundError("No module named 'fake'") if act == "import" else ConnectionError(f"{act}\nmore")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._fail("log")
        self.got.append((step, dict(values)))

    def show(self, step: int, image: Any) -> None:
        self.got.append((step, image.shape))

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        self.got.append((step, dict(values)))

    def close(self) -> None:
        self._fail("close")
        self.got.append("closed")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    assert "tensorboard" in trackers
    monkeypatch.setitem(trackers._classes, "fake", Fake)
    monkeypatch.setattr(Fake, "fails", ())
    return Fake


def test_the_numbers_of_a_line_by_name() -> None:
    line = {"step": 4, "a/b": 1, "text": "no", "flag": True, "speed": {"mfu": 0.5, "on": "cpu"}, "nan": float("nan")}
    assert flatten_line(line) == {"a/b": 1.0, "speed/mfu": 0.5}


def test_a_tracker_that_there_is_not_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match=r"Unknown tracker 'tensorbord'.*Did you mean 'tensorboard'"):
        TrackingReporter(Listener(), ["tensorbord"])


def test_what_a_run_tells_reaches_a_tracker(fake: Any, recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    settings = {"train.steps": 2, "train.log_every": 1, "train.sample_every": 2}
    for _ in range(2):
        with tracking(Listener(), ["fake"]) as reporter:
            Trainer(recipe(settings), dataset, tmp_path, reporter=reporter).run("auto")
        settings["train.steps"] = 3
    assert Fake.last.begun == (2, {"id": 1})  # the resumed run goes on where the first one ended
    assert [entry[0] for entry in Fake.last.got[:-1]] == [3, 3]
    assert Fake.last.got[-1] == "closed"
    assert files.read_json(tmp_path / TRACKING) == {"fake": {"id": 2}}
    assert "speed/images_per_second" in Fake.last.got[0][1]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        ("init", r"Not logged to fake \(ConnectionError: init\)\. The run goes on without it"),
        ("log", r"No longer logged to fake \(ConnectionError: log\)\. The run goes on without it"),
        ("close", r"No longer logged to fake \(ConnectionError: close\)"),
    ],
)
def test_a_tracker_that_fails_ends_nothing(
    fake: Any, act: str, said: str, recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    Fake.fails, listener = (act,), Listener()
    with tracking(listener, ["fake"]) as reporter:
        Trainer(recipe({"train.steps": 2, "train.log_every": 1}), dataset, tmp_path, reporter=reporter).run()
    assert (tmp_path / "model").is_dir()
    (message,) = listener.messages
    assert re.search(said, message)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Fake, "__init__", lambda self, *rest: Fake._fail(self, "import"))
    Fake.fails, listener = ("import",), Listener()
    reporter = TrackingReporter(listener, ["fake"])
    reporter.open(tmp_path, {}, 0)
    assert listener.messages == ["Not logged to fake. It needs the package fake-tracker: pip install 'tavq[fake]'."]


@pytest.mark.parametrize("content", ["[1]", "x", "", '{"fake": 1}', "\udcff", None])
def test_a_record_that_cannot_be_read_is_named_and_ends_nothing(fake: Any, tmp_path: Path, content: str | None) -> None:
    place = tmp_path / TRACKING
    if content is None:
        place.symlink_to(place)
    else:
        place.write_text(content, "utf-8", "surrogateescape")
    listener = Listener()
    reporter = TrackingReporter(listener, ["fake"])
    reporter.open(tmp_path, {}, 0)
    reporter.progress(1, 2, {"loss": 1.0})
    [message] = listener.messages
    assert TRACKING in message
    if content is not None:
        assert place.read_text("utf-8", "surrogateescape") == content


def test_a_record_that_cannot_be_written_ends_nothing(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*values: object) -> None:
        raise FileError("no space left")

    listener = Listener()
    monkeypatch.setattr(files, "write_json", fail)
    reporter = TrackingReporter(listener, ["fake"])
    reporter.open(tmp_path, {}, 0)
    reporter.progress(1, 2, {"loss": 1.0})
    assert fake.last.got == [(1, {"loss": 1.0})]
    assert listener.messages == ["If this run is resumed, it may begin new curves (FileError: no space left)."]


def test_an_evaluation_needs_a_run_to_be_logged_to(tmp_path: Path) -> None:
    require_run("model", tmp_path, [])
    with pytest.raises(UsageError, match="model is not a run folder"):
        require_run("model", tmp_path, ["tensorboard"])


# --- read back by the programs' own readers, or by the format -----------------------------------------------------


def train_in_two_parts(name: str, recipe: Make, dataset: FolderDataset, run: Path) -> list[str]:
    """Log two steps, one of which is not in a checkpoint, resume, and log an evaluation; return the messages."""
    listener = Listener()
    settings = {"train.log_every": 1, "train.sample_every": 2, "train.checkpoint_every": 1, "train.keep": 9}
    with tracking(listener, [name]) as reporter:
        Trainer(recipe({**settings, "train.steps": 3}), dataset, run, reporter=reporter).run()
        reporter.progress(4, 5, {"step": 4, "reconstruction/l1": 99.0})  # logged, then killed before its checkpoint
    with tracking(listener, [name]) as reporter:
        Trainer(recipe({**settings, "train.steps": 5}), dataset, run, reporter=reporter).run(resume=True)
    track_evaluation(run, Evaluation((PSNR.measured(21.5),), {}), [name])
    return listener.messages


def test_tensorboard_reads_one_curve(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train_in_two_parts("tensorboard", recipe, dataset, tmp_path) == []
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    lines = [line for line in files.read_json_lines(tmp_path / "log.jsonl") if "alarm" not in line]
    curve = [(event.step, event.value) for event in found.Scalars("reconstruction/l1")]
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5]
    assert [value for _, value in curve] == pytest.approx([line["reconstruction/l1"] for line in lines], rel=1e-6)
    assert {"speed/images_per_second", "learning_rate", "codebook/usage"} <= set(found.Tags()["scalars"])
    assert [event.step for event in found.Images("samples")] == [2, 3, 4, 5]
    assert [(event.step, event.value) for event in found.Scalars("evaluation/psnr")] == [(5, 21.5)]
    assert '"steps": 3' in found.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()


def test_wandb_reads_one_run(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(name, value)
    assert train_in_two_parts("wandb", recipe, dataset, tmp_path) == []
    paths = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(paths) == 3
    own = files.read_json(tmp_path / TRACKING)["wandb"]["id"]
    assert {path.stem.partition("-")[2] for path in paths} == {own}
    deadline = time.monotonic() + 20
    while any(path.stat().st_size < 100 for path in paths) and time.monotonic() < deadline:
        time.sleep(0.2)  # W&B writes in a process of its own
    parts = [list(read_records(path)) for path in paths]
    for part in parts:
        (begun,) = [record.run for record in part if record.WhichOneof("record_type") == "run"]
        assert (begun.run_id, begun.project, begun.display_name) == (own, "tavq", tmp_path.name)
    logged = [read_history(part) for part in parts]
    lines = [line for line in files.read_json_lines(tmp_path / "log.jsonl") if "alarm" not in line]
    assert {**logged[0], **logged[1]}.keys() == {1, 2, 3, 4, 5}
    for line in lines[3:]:
        assert logged[1][line["step"]]["reconstruction/l1"] == pytest.approx(line["reconstruction/l1"])
        assert "speed/images_per_second" in logged[1][line["step"]]
    assert logged[1][4]["samples/_type"] == "image-file"
    summary = [record.summary for record in parts[2] if record.WhichOneof("record_type") == "summary"]
    values = {"/".join(item.nested_key) or item.key: item.value_json for part in summary for item in part.update}
    assert values["evaluation/psnr"] == "21.5"


def read_history(part: list[Any]) -> dict[int, dict[str, Any]]:
    """What was logged at each step."""
    rows = [record.history for record in part if record.WhichOneof("record_type") == "history"]
    return {
        row.step.num: {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in rows
    }


def read_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, held = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        if room < 7:  # no header fits into the rest of the block
            position += room
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        held += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def test_an_image_is_what_it_was(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from io import BytesIO

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    tracker = trackers["tensorboard"](tmp_path, {}, 0, {})
    tracker.show(1, image)
    tracker.close()
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    written = Image.open(BytesIO(found.Images("samples")[0].encoded_image_string))
    assert np.array_equal(np.asarray(written), image)
