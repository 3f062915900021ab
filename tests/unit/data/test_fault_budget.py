"""The limit on faults counts images of the split that is read, and nothing else; it is a number or a share."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tavq.core.config import build
from tavq.core.errors import DataError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, load_training_split
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.recipes.schema import TaskDataConfig

COUNT = 6
Line = dict[str, Any] | bytes


def folder_of(folder: Path, lines: list[Line], unreadable: int = 0) -> Path:
    """Six images 0.png to 5.png, the first `unreadable` of them broken, and lines of metadata.jsonl."""
    for number in range(COUNT):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
        if number < unreadable:
            (folder / f"{number}.png").write_bytes(b"broken")
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / "metadata.jsonl").write_bytes(b"".join(line + b"\n" for line in raw))
    return folder


def good(split: str = "train", start: int = 0) -> list[Line]:
    return [{"file_name": f"{number}.png", "split": split} for number in range(start, COUNT)]


def read(folder: Path, budget: Any, split: str | None = "train", train: bool = False) -> list[str]:
    """What is skipped when a split is read."""
    dataset = FolderDataset(folder, split)
    config = build(DataConfig, {"size": 16, "fault_budget": budget}, "test")
    loader: Any = TrainingLoader(dataset, config, 2, 0) if train else EvaluationLoader(dataset, config, 2)
    assert sum(len(batch.images) for batch in islice(loader, 3)) > 0
    return [str(fault) for fault in loader.faults]


MANY = 101
FIELDS: dict[str, Line] = {
    "boxes without area": {"objects": [{"box": [1, 1, 0, 5], "name": "x"}] * MANY},
    "boxes without a name": {"objects": [{"box": [1, 1, 2, 5]}] * MANY},
    "captions that are empty": {"captions": [""] * MANY},
    "captions that are numbers": {"captions": [1] * MANY},
    "captions of control characters": {"captions": ["\x00"] * MANY},
    "questions without an answer": {"questions": [{"question": "?"}] * MANY},
    "a segmentation outside": {"segmentation": "../a.png"},
    "a long text that is a list": {"long_text": []},
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_that_cannot_be_used_costs_no_image(tmp_path: Path, kind: str, train: bool) -> None:
    lines = good()
    lines[0] = {**lines[0], **FIELDS[kind]}  # type: ignore[dict-item]
    skipped = read(folder_of(tmp_path, lines), 0, train=train)
    assert skipped
    assert all(fault.startswith("0.png: ") for fault in skipped)
    assert {fault.part for fault in FolderDataset(tmp_path, "train").faults} == {*FIELDS[kind]}  # type: ignore[misc]


def test_a_broken_line_of_another_file_of_texts_costs_no_image(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, good())
    (folder / "long_text.jsonl").write_bytes(b"{\n" * MANY)
    assert len(read(folder, 0)) == MANY


OTHERS: dict[str, Callable[[int], Line]] = {
    "without a name": lambda number: {"split": "test"},
    "with a name outside": lambda number: {"file_name": f"../{number}.png", "split": "test"},
    "with bad boxes": lambda number: {"file_name": f"t{number}.png", "split": "test", "objects": [{"box": []}]},
    "whose image is missing": lambda number: {"file_name": f"t{number}.png", "split": "test"},
    "that repeat a name": lambda number: {"file_name": "5.png", "split": "test"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_lines_of_another_split_are_neither_counted_nor_reported(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path, [*good(), *map(OTHERS[kind], range(MANY))])
    assert read(folder, 0) == []
    assert FolderDataset(folder).faults or kind == "whose image is missing"


@pytest.mark.parametrize("kind", OTHERS)
def test_the_test_split_is_told_of_its_own_faults_only(tmp_path: Path, kind: str) -> None:
    """The same the other way round: what a training image lacks is not reported for the test split."""
    lines = [*good("test"), *map(OTHERS[kind], range(3))]
    swap = {"test": "train", "train": "test"}
    swapped = [{**line, "split": swap[line["split"]]} for line in lines if isinstance(line, dict)]
    folder = folder_of(tmp_path, [*good("test")[:1], *swapped[1:]])
    assert read(folder, 0, "test") == []


LOST: dict[str, Line] = {
    "no JSON": b"{",
    "no UTF-8": b"\xff",
    "no object": b"[]",
    "no name": {"split": "train"},
    "a name outside": {"file_name": "/etc/passwd"},
    "an unknown split": {"file_name": "9.png", "split": "dev"},
}


@pytest.mark.parametrize("kind", LOST)
def test_a_line_without_a_record_costs_its_image(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path, [*good(), LOST[kind]])
    assert len(read(folder, 1)) == 1
    with pytest.raises(DataError, match=r"1 of 7 images in .* cannot be read; the fault_budget is 0"):
        read(folder, 0)


@pytest.mark.parametrize(
    ("budget", "unreadable", "passes"),
    [
        (0, 0, True), (0, 1, False), (2, 2, True), (2, 3, False), ("2", 2, True), ("2", 3, False),
        (0.5, 3, True), (0.5, 4, False), ("50%", 3, True), ("50%", 4, False), ("0.34", 2, True), ("33%", 2, False),
        (0.0, 1, False), ("0%", 1, False), (1.0, 5, True), ("100%", 5, True), (1.0, 6, False), (99, 6, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("train", [True, False])
def test_the_limit_is_a_number_or_a_share(
    tmp_path: Path, budget: Any, unreadable: int, passes: bool, train: bool
) -> None:
    folder = folder_of(tmp_path, good(), unreadable)
    if passes:
        assert len(read(folder, budget, train=train)) == unreadable
    else:
        with pytest.raises(DataError, match=r"\d of 6 images .*\d.png: it is not an image"):
            read(folder, budget, train=train)


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_a_limit_as_text_means_what_it_says(number: int, share: float) -> None:
    for config in (DataConfig, TaskDataConfig):
        assert build(config, {"fault_budget": str(number)}, "test").fault_budget == number
        assert build(config, {"fault_budget": share}, "test").fault_budget == share
        found = build(config, {"fault_budget": f"{share:.17f}"}, "test").fault_budget
        assert found == pytest.approx(share)
        assert build(config, {"fault_budget": f"{100 * share:.17f}%"}, "test").fault_budget == pytest.approx(share)
    assert DataConfig(fault_budget=number).max_faults(7) == number
    assert 0 <= DataConfig(fault_budget=share).max_faults(7) <= 7
    stored = DataConfig.model_validate_json(DataConfig(fault_budget=share).model_dump_json())
    assert stored.fault_budget == share
    assert isinstance(stored.fault_budget, float)


@pytest.mark.parametrize(
    "wrong", [-1, -0.1, 1.5, "1.5", "101%", "-1", "x", "", "%", "nan", "inf", True, None, [1], "1e400"]
)
def test_what_is_no_limit_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"fault_budget.*a number of images such as 200, or a share"):
        build(DataConfig, {"fault_budget": wrong}, "test")


def test_training_images_beside_another_split_have_their_own_faults(tmp_path: Path) -> None:
    lines = [*good("test", 3), {"file_name": "t.png", "split": "test", "captions": [0]}]
    lines += [{"file_name": f"{number}.png", "captions": [1]} for number in range(3)]
    train = load_training_split(FolderDataset(folder_of(tmp_path, lines), "test"))
    assert train is not None
    assert [fault.where for fault in train.faults] == ["0.png", "1.png", "2.png"]


def test_a_limited_pass_has_a_share_of_what_it_reads(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, good(), 2)
    config = DataConfig(size=16, fault_budget=0.5)
    batches: Iterator[Any] = iter(EvaluationLoader(FolderDataset(folder), config, 1, None, limit=4))
    assert len([*batches]) == 2
    with pytest.raises(DataError, match="2 of 3 images"):
        list(EvaluationLoader(FolderDataset(folder), config, 1, None, limit=3))


# --- parts of a data set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "unreadable", "part", "passes"),
    [
        (100, 1, 1, True),
        (2, 2, 2, True),
        (1, 2, 2, False),
        ("50%", 3, 3, True),
        ("50%", 4, 4, False),
        (0.5, 2, 2, True),
        (100, 2, 0, True),
        (100, COUNT, COUNT, False),
    ],
)
def test_a_part_has_the_budget_of_the_whole(
    tmp_path: Path, budget: Any, unreadable: int, part: int, passes: bool
) -> None:
    dataset = FolderDataset(folder_of(tmp_path, good(), unreadable), "train")
    config = build(DataConfig, {"size": 16, "fault_budget": budget}, "test")
    own = dataset.subset(dataset.records[:part])
    if passes:
        loader = EvaluationLoader(own, config, 2, whole=len(dataset))
        assert list(loader) == []
        assert len(loader.faults) == part
    else:
        with pytest.raises(DataError, match=f"{unreadable} of {COUNT} images"):
            list(EvaluationLoader(own, config, 2, whole=len(dataset)))
