"""The profile of a few steps."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from tavq.core import files
from tavq.data.folder import FolderDataset
from tavq.recipes.schema import Recipe
from tavq.training.profiling import PROFILE, WARMUP, profile_steps, summarize
from tavq.training.reporting import SilentReporter
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]


class Listener(SilentReporter):
    """A Reporter that keeps messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_profile_changes_no_weight_and_names_the_operators(
    recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    listener, steps = Listener(), WARMUP + 3
    for name, profiled in (("plain", 0), ("profiled", 2)):
        settings = recipe({"train.steps": steps, "train.profile": profiled})
        Trainer(settings, dataset, tmp_path / name, reporter=listener).run()
    assert not (tmp_path / "plain" / PROFILE).exists()
    folder = tmp_path / "profiled" / PROFILE
    (message,) = listener.messages
    assert str(folder / "summary.txt") in message
    summary = (folder / "summary.txt").read_text()
    assert summary.startswith("2 steps, ")
    assert "waiting for data" in summary
    assert "convolution" in summary
    trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert sum(str(event.get("name", "")).startswith("ProfilerStep#") for event in trace) >= 2
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("plain", "profiled")]
    assert weights[0] == weights[1]
    hashes = {files.read_json(tmp_path / name / "model/config.json")["method_hash"] for name in ("plain", "profiled")}
    assert len(hashes) == 1


def test_a_resumed_run_may_be_profiled(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    Trainer(recipe({"train.steps": 1}), dataset, tmp_path).run()
    Trainer(recipe({"train.steps": WARMUP + 3, "train.profile": 1}), dataset, tmp_path).run(resume=True)
    assert (tmp_path / PROFILE / "summary.txt").is_file()


@pytest.mark.parametrize(("done", "said"), [(WARMUP - 1, "needs more than 3 steps"), (WARMUP + 1, "summary.txt")])
def test_a_run_that_ends_early(done: int, said: str, tmp_path: Path) -> None:
    messages: list[str] = []
    with profile_steps(5, tmp_path, messages.append) as step:
        for _ in range(done):
            step()
    (message,) = messages
    assert said in message
    assert (tmp_path / PROFILE).exists() == ("summary" in said)


def test_a_profile_that_cannot_be_written_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    messages: list[str] = []
    monkeypatch.setattr(files, "write_folder", fail)
    with profile_steps(1, tmp_path, messages.append) as step:
        for _ in range(WARMUP + 4):
            step()
    assert messages == ["The profile could not be written (No space left on device). The run goes on."]


def event(key: str, count: int, cpu: float, gpu: float = 0, own: bool = False) -> Any:
    return SimpleNamespace(
        key=key, count=count, cpu_time_total=cpu, self_cpu_time_total=cpu, self_device_time_total=gpu,
        is_user_annotation=own, device_type=DeviceType.CUDA if gpu and not cpu else DeviceType.CPU,
    )  # fmt: skip


def test_the_table_by_hand() -> None:
    steps = [event("ProfilerStep*", 2, 4e6, own=True), event("wait for data", 2, 1e6, own=True)]
    cpu = summarize([*steps, event("aten::mm", 8, 3e5), event("aten::add", 2, 1e5)]).splitlines()
    assert cpu[0] == "2 steps, 2.0000 s a step, 25.0% waiting for data"
    assert summarize([event("ProfilerStep*", 1, 4e6, own=True)]).startswith("1 step, 4.0000 s a step")
    assert cpu[3].split() == ["aten::mm", "4.0", "150.000", "75.0%"]
    assert cpu[4].split() == ["aten::add", "1.0", "50.000", "25.0%"]
    launches = [event("cudaLaunchKernel", 600, 1e5), event("ampere_sgemm", 8, 0, 1e6), event("aten::mm", 8, 9e9, 1e6)]
    gpu = summarize([*steps, *launches]).splitlines()
    assert gpu[1] == "300 kernels launched a step"
    assert gpu[4].split() == ["ampere_sgemm", "4.0", "500.000", "100.0%"]
