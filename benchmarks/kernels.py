"""The Triton kernels against the plain PyTorch forms, checked and timed with CUDA events on a machine with a GPU.

Run: python benchmarks/kernels.py [--rounds 20] [--json kernels.json] [--sweep 1]
Without a GPU: TRITON_INTERPRET=1 python benchmarks/kernels.py --toy 1, which checks and times small cases on the CPU.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timing import compare, report
from torch import Tensor

from tavq.ops.kernels import SWITCH, use_triton
from tavq.ops.nearest_entry import find_nearest
from tavq.ops.transport import sinkhorn

NEAREST = ((65_536, 256, 1_024), (16_384, 8, 16_384), (256, 256, 1_024), (16_384, 256, 16_384))
PROBLEMS = ((24, 16, 16), (96, 16, 16), (1_024, 16, 16), (24, 256, 64))
TOY_NEAREST, TOY_PROBLEMS = ((70, 16, 130),), ((3, 16, 16),)
EPSILON, ITERATIONS = 0.05, 50
BLOCKS = tuple(itertools.product((32, 64, 128), (32, 64, 128), (16, 32, 64), (4, 8)))
"""Features, entries, columns and warps of the sweep."""


@contextmanager
def form(name: str) -> Iterator[None]:
    """Within this context the kernels (`triton`) or the plain forms (`torch`) compute."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def run(name: str, work: Callable[..., Any], *given: Any) -> Any:
    with form(name):
        return work(*given)


def matrix_form(features: Tensor, entries: Tensor) -> Tensor:
    """The usual formula: the full matrix of distances, then argmin."""
    return (entries.square().sum(1) - 2 * features @ entries.T).argmin(1)


def measure_nearest(device: torch.device, dtype: torch.dtype, rounds: int, n: int, d: int, k: int) -> dict[str, Any]:
    features = torch.randn(n, d, device=device).to(dtype)
    entries = torch.randn(k, d, device=device)
    kernel, plain = (run(name, find_nearest, features, entries) for name in ("triton", "torch"))
    wrong = int((kernel != plain).sum())
    if wrong:
        raise SystemExit(f"nearest entry {n} x {d} -> {k}, {dtype}: {wrong} indices differ from the plain form's")
    works = {
        "full matrix": partial(matrix_form, features.float(), entries),
        "plain": partial(run, "torch", find_nearest, features, entries),
        "kernel": partial(run, "triton", find_nearest, features, entries),
        "product alone": partial(torch.mm, features.float(), entries.T),
    }
    results = compare(works, rounds, device=device)
    results["kernel"]["note"] = "all indices equal the plain form's"
    return results


def transport_step(cost: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    cost = cost.detach().requires_grad_()
    value = sinkhorn(cost, source, target, EPSILON, ITERATIONS)
    (gradient,) = torch.autograd.grad(value.sum(), cost)
    return value, gradient


def measure_transport(device: torch.device, rounds: int, b: int, n: int, m: int) -> dict[str, Any]:
    cost = 4 * torch.rand(b, n, m, device=device)
    source = torch.full((b, n), 1 / n, device=device)
    target = (torch.arange(m, device=device) < torch.randint(1, m + 1, (b, 1), device=device)).float()
    target /= target.sum(1, keepdim=True)
    kernel = run("triton", transport_step, cost, source, target)
    exact = run("torch", transport_step, cost.double(), source.double(), target.double())
    far = max(float((one - other).abs().max()) for one, other in zip(kernel, exact, strict=True))
    if not far < 1e-5:
        raise SystemExit(f"Sinkhorn {b} x {n} x {m}: values or gradients are {far:.1e} from those of float64")
    works = {name: partial(run, name, transport_step, cost, source, target) for name in ("torch", "triton")}
    results = compare({"plain": works["torch"], "kernel": works["triton"]}, rounds, device=device)
    results["kernel"]["note"] = f"within {far:.1e} of float64"
    return results


def sweep_blocks(device: torch.device, rounds: int, n: int, d: int, k: int) -> dict[str, Any]:
    """Times of the nearest entry by block sizes, relative to those in use."""
    from tavq.ops.kernels import best_two as module

    features, table = torch.randn(n, d, device=device), torch.randn(k, d, device=device)
    given = (features, table.mean(0), table, table.square().sum(1) / 2, False)
    names = ("BLOCK_ROWS", "BLOCK_ENTRIES", "BLOCK_WIDTH", "WARPS")

    def search(sizes: tuple[int, ...]) -> None:
        for name, size in zip(names, sizes, strict=True):
            setattr(module, name, size)
        module.best_two(*given)

    used = tuple(getattr(module, name) for name in names)
    works = {"in use": partial(search, used)}
    for sizes in BLOCKS:
        try:
            search(sizes)
        except Exception as error:  # some do not fit a GPU's shared memory
            print(f"{sizes}: {type(error).__name__}")
            continue
        works[" x ".join(map(str, sizes))] = partial(search, sizes)
    results = compare(works, rounds, device=device)
    search(used)
    return results


def measure(rounds: int, sweep: int, toy: int) -> dict[str, dict[str, Any]]:
    """All cases; ends with a message where a kernel's results are not those of the plain form."""
    device = torch.device("cpu" if toy else "cuda")
    if not toy and not torch.cuda.is_available():
        raise SystemExit("No CUDA device. Without one: TRITON_INTERPRET=1 python benchmarks/kernels.py --toy 1")
    if not use_triton(device):
        raise SystemExit(
            f"The kernels do not run here: they need Triton, {SWITCH} unset and, on a CPU, TRITON_INTERPRET=1"
        )
    torch.manual_seed(0)
    nearest, problems = (TOY_NEAREST, TOY_PROBLEMS) if toy else (NEAREST, PROBLEMS)
    if sweep:
        return {f"blocks, {n} x {d} -> {k}": sweep_blocks(device, rounds, n, d, k) for n, d, k in nearest}
    cases = {}
    for (n, d, k), dtype in itertools.product(nearest, (torch.float32, torch.bfloat16)):
        cases[f"nearest entry, {n} x {d} -> {k}, {dtype}"] = measure_nearest(device, dtype, rounds, n, d, k)
    for b, n, m in problems:
        cases[f"Sinkhorn, {b} x {n} x {m}, {ITERATIONS} iterations"] = measure_transport(device, rounds, b, n, m)
    return cases


if __name__ == "__main__":
    report("kernels", measure, sweep=0, toy=0)
