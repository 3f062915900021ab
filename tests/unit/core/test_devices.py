"""Choosing a device, for a command and for jobs side by side."""

import threading

import pytest
import torch

from tavq.core.devices import default_device, device_of_job, select_device, use_device
from tavq.core.errors import UsageError
from tavq.core.parallel import Job, run_in_parallel


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that says it has two GPUs; what was made the current one is returned."""
    chosen, own = [0], torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(torch.device(device).index))

    def empty(count: int, device: torch.device) -> torch.Tensor:
        if (device.index or 0) > 1:
            raise RuntimeError("CUDA error: invalid device ordinal\nmore")
        return own(count)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch, "device", _device)
    return chosen


_real = torch.device


def _device(name: object, index: int | None = None) -> torch.device:
    if name == 0 or name == 1:  # set_device is given back a number
        return _real("cuda", int(str(name)))
    return _real(name) if index is None else _real(name, index)  # type: ignore[arg-type,call-overload]


def test_a_chosen_device_is_the_default_within_everywhere() -> None:
    seen: list[torch.device] = []
    with use_device("cpu:0"):
        thread = threading.Thread(target=lambda: seen.append(default_device()))
        thread.start()
        thread.join()
        with use_device(None):
            seen.append(default_device())
    assert seen == [torch.device("cpu", 0)] * 2
    assert default_device() == torch.device("cpu")


def test_a_gpu_that_is_chosen_is_the_current_one_until_the_end(two_gpus: list[int]) -> None:
    with use_device("cuda:1"):
        assert default_device() == _real("cuda", 1)
        assert two_gpus == [0, 1]
    assert two_gpus == [0, 1, 0]
    assert default_device() == _real("cuda")


@pytest.mark.parametrize("name", ["cuda:7", "gpu", "meta", "", "cuda:x", "cuda:-1", "0"])
def test_other_devices_are_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=rf"The device '{name}' cannot be used here( \(.+\))?; available: cpu"):
        select_device(name)


def test_the_gpus_that_there_are_are_named(two_gpus: list[int]) -> None:
    with pytest.raises(UsageError, match=r"\(CUDA error: invalid device ordinal\); available: cpu, cuda:0, cuda:1"):
        select_device("cuda:2")


def test_where_torchrun_gives_each_process_its_gpu_none_can_be_chosen(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match=f"own GPU; remove --device {name}, or run without torchrun"):
            select_device(name)
    assert select_device("cpu") == _real("cpu")
    assert select_device(None) == _real("cuda")


def test_jobs_take_the_gpus_in_turn_unless_one_was_chosen(two_gpus: list[int]) -> None:
    assert [device_of_job(index) for index in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    with use_device("cuda"):
        assert [device_of_job(index) for index in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    with use_device("cuda:1"):
        assert [device_of_job(index) for index in range(3)] == ["cuda:1"] * 3
    with use_device("cpu"):
        assert [device_of_job(index) for index in range(3)] == ["cpu"] * 3


def test_without_gpus_jobs_have_no_device() -> None:
    assert device_of_job(1) is None


def _default_here(progress: object) -> str:
    return str(default_device())


def test_a_job_computes_on_its_device() -> None:
    jobs = [Job("first", _default_here, device="cpu:0"), Job("second", _default_here)]
    assert run_in_parallel(jobs, lambda *_: None) == ["cpu:0", "cpu"]
