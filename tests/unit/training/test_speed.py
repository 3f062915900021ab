"""What a run measures of itself."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tavq.core import files
from tavq.data.folder import FolderDataset
from tavq.interfaces import Loss, Losses
from tavq.recipes.schema import LoopConfig, Recipe
from tavq.training import speed
from tavq.training.speed import SpeedMeter
from tavq.training.tokenizer.trainer import Trainer


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def batches(clock: Clock, seconds: float) -> Iterator[torch.Tensor]:
    while True:
        clock.now += seconds
        yield torch.ones(4, 8)


def make_meter(monkeypatch: pytest.MonkeyPatch, peak: float | None = None) -> tuple[SpeedMeter, nn.Module, Clock]:
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(speed, "device_peak", lambda device, precision: peak)
    model = nn.Linear(8, 2, bias=False)
    return SpeedMeter(LoopConfig(steps=9, batch=4), model), model, clock


def test_images_and_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, _, clock = make_meter(monkeypatch)

    def train(batch: torch.Tensor) -> Losses:
        clock.now += 0.5
        return {"a/b": Loss(torch.zeros(()), 1.0)}

    for _ in range(3):
        meter.step(train, batches(clock, 1.5))
    shown = meter.read()
    assert shown["images_per_second"] == pytest.approx(4 / 2)
    assert shown["data_wait"] == pytest.approx(0.75)
    assert shown["memory_resident"] > 50e6
    assert "mfu" not in shown
    meter.step(train, batches(clock, 0))
    assert meter.read()["data_wait"] == 0  # of the steps since the last line only


def test_the_operations_of_each_kind_of_step_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, model, clock = make_meter(monkeypatch, peak=1e3)
    counted = []

    class Counter(speed.FlopCounter):
        def __enter__(self) -> Any:
            counted.append(meter.steps)
            return super().__enter__()

    monkeypatch.setattr(speed, "FlopCounter", Counter)
    forward, names = 2 * 4 * 8 * 2, ["a/b"]

    def train(batch: torch.Tensor) -> Losses:
        clock.now += 0.5
        for _ in names:
            model(batch)
        return {name: Loss(torch.zeros(()), 1.0) for name in names}

    for step in range(8):
        if step == 4:
            names.append("adversarial/generator")  # the discriminator starts, and the step is a longer one
        meter.step(train, batches(clock, 0))
    assert counted == [0, 5]  # the first step, and the one after the losses changed
    done = forward * 4 + forward * 2 * 3  # the step in which they changed is not known
    assert meter.read()["mfu"] == pytest.approx(done / 4.0 / 1e3)


def test_the_log_of_a_run_has_it(recipe: Callable[..., Recipe], dataset: FolderDataset, tmp_path: Path) -> None:
    Trainer(recipe({"train.steps": 2}), dataset, tmp_path).run()
    lines = files.read_json_lines(tmp_path / "log.jsonl")
    assert lines
    for line in lines:
        assert {"images_per_second", "data_wait", "memory_resident"} == set(line["speed"])
        assert 0 <= line["speed"]["data_wait"] <= 1
        assert line["speed"]["images_per_second"] > 0
