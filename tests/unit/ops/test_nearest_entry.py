"""nearest against a float64 brute force, on the sets where float32 scores go wrong."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from tavq.ops import nearest_entry as kernel
from tavq.ops.nearest_entry import find_nearest


def brute_force(features: Tensor, entries: Tensor) -> Tensor:
    """Lowest index of the least float64 distance, one row at a time."""
    table = entries.double()
    found = [int((row.double() - table).square().sum(1).argmin()) for row in features]
    return torch.tensor(found, dtype=torch.long)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ROWS, ENTRIES = normal(300, 8, seed=1), normal(120, 8, seed=2)
SETS = {
    "ordinary": (ROWS, ENTRIES),
    "a common offset of 1000": (ROWS + 1e3, ENTRIES + 1e3),
    "rows far from all entries": (ROWS + 1e3, ENTRIES),
    "a large common offset on one axis": (ROWS + torch.eye(8)[0] * 1e5, ENTRIES + torch.eye(8)[0] * 1e5),
    "one entry far away": (ROWS, torch.cat([ENTRIES, torch.full((1, 8), 1e8)])),
    "repeated entries": (ROWS, torch.cat([ENTRIES, ENTRIES.flip(0), ENTRIES])),
    "entries one rounding apart": (ROWS, torch.cat([ENTRIES * (1 + k * 2**-23) for k in range(5)])),
    "rows in the middle of two entries": ((ENTRIES[:60] + ENTRIES[60:]) / 2, ENTRIES),
    "a lattice, where most rows tie": (ROWS.round(), ENTRIES.round()),
    "all entries equally far": (torch.zeros(20, 8), ENTRIES.sign()),
    "constant rows": (torch.full((40, 8), 3.25), ENTRIES),
    "all entries equal": (ROWS, torch.ones(50, 8)),
    "rows that are entries": (ENTRIES, ENTRIES),
    "entries of a fresh codebook": (ROWS, ENTRIES / 120),
    "products that underflow": (ROWS * 1e-25, ENTRIES * 1e-25),
    "products of which some digits underflow": (ROWS * 1e-21, ENTRIES * 1e-23),
    "products that overflow": (ROWS * 1e20, ENTRIES * 1e20),
    "one entry": (ROWS, ENTRIES[:1]),
    "two entries": (ROWS, ENTRIES[:2]),
    "one row": (ROWS[:1], ENTRIES),
    "no rows": (ROWS[:0], ENTRIES),
    "width 1": (ROWS[:, :1], ENTRIES[:, :1]),
    "width 256": (normal(64, 256), normal(200, 256, seed=3)),
}


@pytest.mark.parametrize("name", SETS)
def test_indices_equal_a_float64_brute_force(name: str) -> None:
    features, entries = SETS[name]
    assert torch.equal(find_nearest(features, entries), brute_force(features, entries))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_dtype_is_compared_as_it_is(dtype: torch.dtype) -> None:
    fine = 1 + torch.arange(5, dtype=torch.float64)[:, None, None] * 2.0**-40  # equal in float32, not in float64
    entries = (ENTRIES.double() * fine).view(-1, 8).to(dtype)
    features = ROWS.to(dtype)
    assert torch.equal(find_nearest(features, entries), brute_force(features, entries))
    assert torch.equal(find_nearest(features, ENTRIES), brute_force(features, ENTRIES))


def test_hand_computed() -> None:
    features = torch.tensor([[0.0, 0.0], [0.9, 0.0], [3.0, 4.0]])
    entries = torch.tensor([[1.0, 0.0], [0.0, 0.5], [3.0, 3.0]])
    assert find_nearest(features, entries).tolist() == [1, 0, 2]


def test_of_equal_distances_the_lowest_index_wins() -> None:
    entries = torch.tensor([[2.0], [1.0], [-1.0], [1.0]])
    assert find_nearest(torch.zeros(3, 1), entries).tolist() == [1, 1, 1]


@pytest.mark.parametrize("buffer", [512, 5000])
@pytest.mark.parametrize(
    "name", ["ordinary", "repeated entries", "a lattice, where most rows tie", "one entry far away"]
)
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, buffer: int, name: str) -> None:
    monkeypatch.setattr(kernel, "CPU_BUFFER", buffer)  # 512 numbers: parts of 64 entries, pieces of 8 rows
    features, entries = SETS[name]
    assert torch.equal(find_nearest(features, entries), brute_force(features, entries))


def test_rows_may_be_any_view() -> None:
    grid = normal(2, 8, 5, 6)
    features = grid.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.equal(find_nearest(features, ENTRIES), brute_force(features, ENTRIES))
    assert torch.equal(find_nearest(ROWS[::3], ENTRIES[::2]), brute_force(ROWS[::3], ENTRIES[::2]))


def test_neither_gradient_nor_autocast_reach_it() -> None:
    features, entries = ROWS.clone().requires_grad_(), ENTRIES.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        indices = find_nearest(features, entries)
    assert not indices.requires_grad
    assert torch.equal(indices, brute_force(ROWS, ENTRIES))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_coarser_products_change_no_index(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    # What TF32 and bfloat16 do to the operands, on any machine; the user's setting says how coarse they may be.
    exact = torch.addmm

    def coarse(bias: Tensor, a: Tensor, b: Tensor, *, alpha: float, out: Tensor | None = None) -> Tensor:
        if a.dtype == torch.float32 and precision == "medium":
            a, b = a.bfloat16().float(), b.bfloat16().float()
        elif a.dtype == torch.float32:
            a, b = (x.contiguous().view(torch.int32).bitwise_and(-(2**13)).view(torch.float32) for x in (a, b))
        return exact(bias, a, b, alpha=alpha, out=out)

    monkeypatch.setattr(torch, "addmm", coarse)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        indices = find_nearest(ROWS, ENTRIES)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(indices, brute_force(ROWS, ENTRIES))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_row_that_is_not_finite_spoils_no_other(value: float) -> None:
    features = ROWS.clone()
    features[7, 3] = value
    indices = find_nearest(features, ENTRIES)
    assert 0 <= indices[7] < len(ENTRIES)
    others = torch.arange(len(features)) != 7
    assert torch.equal(indices[others], brute_force(features[others], ENTRIES))


def test_entries_that_are_not_finite_give_indices_in_range() -> None:
    entries = ENTRIES.clone()
    entries[5] = torch.nan
    indices = find_nearest(ROWS, entries)
    assert indices.min() >= 0
    assert indices.max() < len(entries)


def test_widths_must_agree() -> None:
    with pytest.raises(TypeCheckError):
        find_nearest(ROWS, ENTRIES[:, :5])


MEMORY = """
import resource, torch
from tavq.ops.nearest_entry import find_nearest
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
warm = torch.ones(64, {d})
find_nearest(warm, torch.eye({d}))
torch.mm(torch.ones(512, {d}), torch.ones({d}, 512))
rows, entries = torch.randn({n}, {d}), torch.randn({k}, {d})
before = peak()
find_nearest(rows, entries)
print((peak() - before) / 2**20)
"""


@pytest.mark.parametrize(("n", "d", "k"), [(16_384, 8, 16_384), (32_768, 64, 1_024)])
def test_peak_memory_stays_below_its_bound(n: int, d: int, k: int) -> None:
    code = MEMORY.format(n=n, d=d, k=k)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    allowed = 16 + n * 32 / 2**20  # MB: the stated bound, the result, 24 bytes a row
    assert float(done.stdout) < allowed  # the matrix of distances would be 1,024 MB and 128 MB
