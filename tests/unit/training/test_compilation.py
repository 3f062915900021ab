"""What `train.compile` compiles, and what it says where it cannot."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tavq
from tavq.data.folder import FolderDataset
from tavq.nets.transformer import Transformer
from tavq.recipes.identity import COSMETIC_SETTINGS
from tavq.recipes.schema import Recipe
from tavq.training.compilation import compile_blocks
from tavq.training.reporting import SilentReporter
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


class Messages(SilentReporter):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def message(self, text: str) -> None:
        self.seen.append(text)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was given to a compiler that changes nothing."""
    names: list[str] = []

    def compile(method: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        owner = getattr(method, "__self__", None)
        names.append(f"{type(owner).__name__}.{method.__name__}" if owner is not None else method.__name__)
        return method

    monkeypatch.setattr(torch, "compile", compile)
    return names


@pytest.mark.slow
def test_a_compiled_step_is_the_step_up_to_rounding() -> None:
    package = str(Path(tavq.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("compiled_process.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_tokenizers_networks_are_compiled_and_keep_the_names_of_their_tensors(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, compiled: list[str]
) -> None:
    settings = {"train.perceptual": {"network": "scenes"}, "data.size": 32, "train.recompute": True}
    plain = Trainer(recipe(settings), dataset, tmp_path / "plain", device=CPU)
    assert compiled == []
    trainer = Trainer(recipe({**settings, "train.compile": True}), dataset, tmp_path / "compiled", device=CPU)
    names = {"Encoder.forward", "Decoder.hidden", "PatchDiscriminator.forward", "ScenesNetwork.stages"}
    assert names < set(compiled)
    assert list(trainer.tokenizer.state_dict()) == list(plain.tokenizer.state_dict())
    assert [type(part) for part in trainer.tokenizer.modules()] == [type(part) for part in plain.tokenizer.modules()]


def test_without_gradients_a_network_runs_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a sample in the middle of a run is not worth minutes of compiling."""
    monkeypatch.setattr(torch, "compile", lambda method, **_: lambda *inputs: method(*inputs) + 1)
    network = nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])
    x = torch.ones(1, 2)
    before = network[0](x)
    compile_blocks(network, sharded=False)
    assert network[0](x).equal(before + 1)
    with torch.no_grad():
        assert network[0](x).equal(before)


@pytest.mark.parametrize(("sharded", "names"), [(False, ["Block"] * 2), (True, ["Attention", "Sequential"] * 2)])
def test_blocks_of_a_task_are_compiled(sharded: bool, names: list[str], compiled: list[str]) -> None:
    compile_blocks(Transformer(8, 2, 2), sharded)
    assert compiled == [f"{name}.forward" for name in names]


def test_a_run_says_in_one_line_that_nothing_compiles_here_and_trains(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Callable[..., Any]:
        raise RuntimeError("No working C++ compiler found.\nLooked for: g++")

    monkeypatch.setattr(torch, "compile", refuse)
    messages = Messages()
    settings = {"train.compile": True, "train.steps": 1, "train.adversarial": None}
    trainer = Trainer(recipe(settings), dataset, tmp_path / "run", reporter=messages, device=CPU)
    [said] = messages.seen
    assert said == (
        "train.compile changes nothing, as PyTorch cannot compile here: No working C++ compiler found. "
        "tavq doctor says what is missing."
    )
    trainer.run()


def test_compiling_is_no_part_of_a_method() -> None:
    assert "train.compile" in COSMETIC_SETTINGS
