"""Which commands take `--device` and `--precision`."""

import inspect

import pytest
import torch
from cyclopts import App

from tavq.cli import app, run
from tavq.cli.devices import with_device, with_precision
from tavq.cli.memory import find_command
from tavq.core.devices import default_device
from tavq.core.precision import select_precision

COMPUTE = [
    "demo", "describe", "text", "train", "evaluate", "encode", "decode", "export", "task train", "task evaluate",
    "generate", "complete", "caption", "ask", "ground", "fill", "search", "search index", "leaderboard", "study",
    "metrics images", "explore", "bench", "doctor",
]  # fmt: skip


@pytest.mark.parametrize("command", COMPUTE)
def test_a_command_that_computes_can_be_given_a_device(command: str) -> None:
    function = find_command(app, command.split())[1]
    assert function is not None
    assert "device" in inspect.signature(function).parameters


def test_the_device_holds_while_the_command_runs() -> None:
    group, seen = App(), []

    @with_device
    def command(word: str, /, *, count: int = 1) -> None:
        """Do something."""
        seen.append((word, count, default_device()))

    group.default(command)
    for words in (["a", "--device", "cpu:0"], ["b", "--count", "2"]):
        group(words, exit_on_error=False, result_action="return_value")
    assert seen == [("a", 1, torch.device("cpu:0")), ("b", 2, torch.device("cpu"))]


def test_a_device_that_there_is_not_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "model", "tokens", "--out", "images", "--device", "tpu"]) == 2
    assert "available: cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["foo", "tpu", "xpu:9", "", "cpu foo", "meta"])
def test_no_device_is_listed_that_is_not_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "model", "tokens", "--out", "images", "--device", name]) == 2
    told = capsys.readouterr().err
    assert f"{name!r} cannot be used here" in told
    assert "Expected one of" not in told


@pytest.mark.parametrize("command", ["train recipe", "task train recipe --tokenizer model"])
def test_a_flag_that_takes_a_value_may_stand_alone(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--data", "d", "--out", "o", "--resume", "never"]) == 2
    assert '"auto". Or give --resume without a value.' in capsys.readouterr().err


PRECISE = [
    "evaluate", "encode", "decode", "task evaluate", "generate", "complete", "caption", "ask", "ground", "fill",
    "search", "search index",
]  # fmt: skip


@pytest.mark.parametrize("command", PRECISE)
def test_a_command_that_uses_a_tokenizer_can_be_given_a_precision(command: str) -> None:
    function = find_command(app, command.split())[1]
    assert function is not None
    assert "precision" in inspect.signature(function).parameters


def test_the_precision_holds_while_the_command_runs() -> None:
    group, seen = App(), []

    @with_device
    @with_precision
    def command() -> None:
        """Do something."""
        seen.append(select_precision(None))

    group.default(command)
    for words in (["--precision", "bf16"], []):
        group(words, exit_on_error=False, result_action="return_value")
    assert seen == ["bf16", "fp32"]


def test_an_unknown_precision_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "model", "tokens", "--out", "images", "--precision", "bf61"]) == 2
    assert "Unknown precision 'bf61'; known: bf16, fp32. Did you mean 'bf16'?" in capsys.readouterr().err
