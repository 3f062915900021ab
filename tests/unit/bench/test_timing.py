"""Ratios, spread and memory of works whose cost is known."""

import sys
import time

import pytest
import torch

from tavq.bench.case import Alternative
from tavq.bench.machine import find_class
from tavq.bench.timing import compare, peak_memory

CPU = torch.device("cpu")


def burn(milliseconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < milliseconds / 1000:
        pass


def test_ratios_are_per_item_and_of_the_first() -> None:
    works = [
        Alternative("first", lambda: burn(20)),
        Alternative("half", lambda: burn(10), repeats=2),
        Alternative("batch", lambda: burn(20), items=4),
    ]
    found, rounds = compare(works, 3, CPU)
    assert rounds == 3
    assert found["first"].ratio == 1
    assert found["half"].ratio == pytest.approx(2, rel=0.2)
    assert found["batch"].ratio == pytest.approx(4, rel=0.2)
    assert found["batch"].milliseconds == pytest.approx(5, rel=0.2)
    assert found["half"].least <= found["half"].ratio <= found["half"].greatest


def test_rounds_end_when_the_time_is_over_but_not_before_two() -> None:
    assert compare([Alternative("slow", lambda: burn(5))], 50, CPU, budget=0)[1] == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak of a process again")
def test_the_peak_is_that_of_a_call_alone() -> None:
    large = peak_memory(lambda: torch.ones(2**24).sum(), CPU)  # 64 MB
    small = peak_memory(lambda: torch.ones(2**20).sum(), CPU)
    if large is None:
        pytest.skip("this system does not let a process reset its peak")
    assert large == pytest.approx(2**26, rel=0.2)
    assert small < 2**24


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["AVX2", "AVX-512", "AVX-512 bf16", "AMX bf16"], "amx"),
        (["AVX2", "AVX-512", "AVX-512 bf16"], "avx512-bf16"),
        (["AVX2", "AVX-512"], "avx512"),
        (["AVX2"], "avx2"),
        ([], "other"),
    ],
)
def test_the_class_of_a_processor_is_its_fastest_feature(flags: list[str], name: str) -> None:
    assert find_class(CPU, flags) == name


def test_the_class_of_a_gpu_is_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert find_class(torch.device("cuda", 0), ["AVX2"]) == "cuda-9.0"
