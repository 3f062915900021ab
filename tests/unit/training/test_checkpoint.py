"""Checkpoints: exact, bounded in number, and never loaded if a byte is wrong; one writer per run."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import load_newest
from torch import Tensor, nn

from tavq.core.errors import FileError, UsageError
from tavq.training import checkpoint
from tavq.training.run_folder import RunFolder

HOLD = """
import fcntl, os, sys, time
handle = open(sys.argv[1], "a+")
fcntl.lockf(handle, fcntl.LOCK_EX)
handle.truncate(0)
handle.write(str(os.getpid()))
handle.flush()
print("held", flush=True)
time.sleep(60)
"""


def groups(value: float) -> dict[str, dict[str, Tensor]]:
    return {"model": {"net.weight": torch.full((2, 3), value)}, "model.optimizer": {"0/step": torch.tensor(value)}}


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_loads_what_was_saved(tmp_path: Path) -> None:
    place = checkpoint.save(tmp_path, 12, groups(0.1), {"consumed": 24}, keep=2)
    assert place == tmp_path / "00000012"
    loaded, metadata, damaged = load_newest(tmp_path)
    assert damaged == []
    assert (metadata["step"], metadata["consumed"]) == (12, 24)
    assert loaded.keys() == {"model", "model.optimizer"}
    assert torch.equal(loaded["model"]["net.weight"], groups(0.1)["model"]["net.weight"])
    assert torch.equal(loaded["model.optimizer"]["0/step"], torch.tensor(0.1))


def test_a_restored_optimizer_has_the_memory_format_of_its_parameters(tmp_path: Path) -> None:
    """Adam updates all parameters at once only where state and parameters are laid out alike."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        module = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        return module, torch.optim.Adam(module.parameters(), 0.1)

    def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.linspace(0, 1, 100).view(1, 4, 5, 5)).square().sum().backward()
        optimizer.step()

    whole, optimizer = make()
    step(whole, optimizer)
    tensors = checkpoint.flatten_optimizer(optimizer)
    checkpoint.save(tmp_path, 1, {"model.optimizer": tensors, "model": dict(whole.state_dict())}, {}, keep=1)
    loaded = load_newest(tmp_path)[0]
    resumed, other = make()
    resumed.load_state_dict(loaded["model"])
    checkpoint.restore_optimizer(other, loaded["model.optimizer"])
    weight = next(resumed.parameters())
    for name in ("exp_avg", "exp_avg_sq"):
        assert other.state[weight][name].stride() == weight.stride()
    step(whole, optimizer)
    step(resumed, other)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):  # names sort as numbers do
        checkpoint.save(tmp_path, step, groups(step), {"consumed": 0}, keep=2)
    assert steps(tmp_path) == ["00000010", "00000011"]
    assert sorted(path.name for path in (tmp_path / "00000011").iterdir()) == ["state.json", "state.safetensors"]
    assert load_newest(tmp_path)[1]["step"] == 11


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: cut(place / "state.safetensors", 0.0),
        lambda place: cut(place / "state.safetensors", 0.5),
        lambda place: cut(place / "state.safetensors", 0.99),
        lambda place: cut(place / "state.json", 0.5),
        lambda place: (place / "state.json").unlink(),
        lambda place: (place / "state.safetensors").unlink(),
        lambda place: (place / "state.json").write_text("[]"),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    checkpoint.save(tmp_path, 2, groups(2), {"consumed": 4}, keep=2)
    damage(checkpoint.save(tmp_path, 4, groups(4), {"consumed": 8}, keep=2))
    loaded, metadata, damaged = load_newest(tmp_path)
    assert metadata["step"] == metadata["consumed"] / 2 == loaded["model"]["net.weight"][0, 0] == 2
    assert len(damaged) == 1
    assert "00000004" in damaged[0]


def test_no_flipped_bit_is_ever_loaded(tmp_path: Path) -> None:
    place = checkpoint.save(tmp_path, 4, groups(4), {"consumed": 8}, keep=2)
    for name in ("state.json", "state.safetensors"):
        whole = (place / name).read_bytes()
        for position in range(len(whole)):
            flipped = bytearray(whole)
            flipped[position] ^= 1
            (place / name).write_bytes(flipped)
            with pytest.raises(FileError, match="00000004"):
                load_newest(tmp_path)
        (place / name).write_bytes(whole)


def test_an_error_says_that_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    for step in (2, 4):
        cut(checkpoint.save(tmp_path, step, groups(step), {"consumed": 0}, keep=2) / "state.safetensors", 0.5)
    with pytest.raises(FileError, match=r"Every checkpoint in .* is damaged: .*00000004"):
        load_newest(tmp_path)


def test_an_error_says_that_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no checkpoint in .* start without --resume"):
        load_newest(tmp_path)
    assert not checkpoint.exists(tmp_path / "nowhere")


def test_a_restored_optimizer_continues_as_if_never_stored() -> None:
    def three_steps(module: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        for step in range(3):
            optimizer.zero_grad()
            module(torch.full((1, 2), float(step + 1))).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    first = torch.optim.Adam(one.parameters(), 0.1, (0.5, 0.9))
    three_steps(one, first)
    two.load_state_dict(one.state_dict())
    second = torch.optim.Adam(two.parameters(), 0.1, (0.5, 0.9))
    stored = {name: tensor.clone() for name, tensor in checkpoint.flatten_optimizer(first).items()}
    checkpoint.restore_optimizer(second, stored)
    three_steps(one, first)
    three_steps(two, second)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {},
            r"step 4 \(task\) does not fit .*: 2 tensors differ, first 'bias' \(checkpoint: missing, needed: \(3,\)\)",
        ),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(4)},
            r"1 tensors .*'bias' \(checkpoint: \(4,\), needed: \(3,",
        ),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "scale": torch.zeros(())}, r"'scale' .* needed: none\)"),
    ],
    ids=["lacking", "another shape", "too many"],
)
def test_tensors_of_another_network_are_refused_by_name(stored: dict[str, torch.Tensor], message: str) -> None:
    module = nn.Linear(2, 3)
    for restore in (checkpoint.restore_module, checkpoint.restore_tensors):
        target: Any = module if restore is checkpoint.restore_module else dict(module.named_parameters())
        with pytest.raises(FileError, match=message):
            restore(target, stored, "The checkpoint of step 4 (task)")  # type: ignore[operator]


def test_the_state_of_other_parameters_is_refused_by_name() -> None:
    step = torch.ones(())
    stored = {"0/step": step, "0/exp_avg": torch.zeros(3, 2), "1/step": step, "1/exp_avg": torch.zeros(4)}
    optimizer = torch.optim.Adam(nn.Linear(2, 3).parameters())
    with pytest.raises(FileError, match=r"^It does not fit .*'1/exp_avg' \(checkpoint: \(4,\), needed: \(3,\)\)"):
        checkpoint.restore_optimizer(optimizer, stored, "It")
    checkpoint.restore_optimizer(optimizer, {**stored, "1/exp_avg": torch.zeros(3)}, "It")
    with pytest.raises(FileError, match=r"'2/exp_avg' \(checkpoint: \(1,\), needed: none\)"):
        checkpoint.restore_optimizer(optimizer, {"2/exp_avg": torch.zeros(1)}, "It")


def test_a_second_writer_learns_the_pid_of_the_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run / ".lock")], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(FileError, match=rf"\(pid {first.pid}\) is writing to {run}"), RunFolder(run).lock():
            raise AssertionError("two processes hold one run folder")
        first.send_signal(signal.SIGKILL)
    with RunFolder(run).lock():  # a killed process does not hold the lock, although the file still has its pid
        pass


def test_a_run_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="cannot be used as a run folder"), RunFolder(place).lock():
            raise AssertionError("a file served as a folder")
