"""Operations of a step, and peaks of devices."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tavq.training.flops import PEAKS, FlopCounter, device_peak, find_peak


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 5))


def test_the_operations_by_hand_and_by_torch() -> None:
    net, images = network(), torch.randn(2, 3, 8, 8)
    with FlopCounter() as counter, FlopCounterMode(display=False) as reference:
        net(images).sum().backward()
    # forwards, and backwards by weight and, but for the first layer, by input
    convolution, linear = 2 * 2 * 8 * 8 * (3 * 9) * 8, 2 * 2 * 512 * 5
    assert counter.total == 2 * convolution + 3 * linear
    assert counter.total == reference.get_total_flops()


def test_what_is_computed_a_second_time_is_not_counted() -> None:
    net, values = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)), torch.randn(4, 16, requires_grad=True)
    totals = []
    for again in (False, True):
        with FlopCounter() as counter:
            out = checkpoint(net, values, use_reentrant=False) if again else net(values)
            out.sum().backward()
        totals.append(counter.total)
    assert totals == [3 * 2 * 2 * 4 * 16 * 32] * 2


def test_attention_is_counted() -> None:
    queries = torch.randn(1, 2, 16, 8)
    with FlopCounter() as counter, torch.no_grad():
        (queries @ queries.transpose(2, 3)).softmax(3) @ queries
    assert counter.total == 2 * 2 * 2 * 16 * 16 * 8


def test_counting_changes_no_bit() -> None:
    grids = []
    for counted in (False, True):
        torch.manual_seed(0)
        net, images = network(), torch.randn(2, 3, 8, 8)
        if counted:
            with FlopCounter():
                net(images).square().sum().backward()
        else:
            net(images).square().sum().backward()
        grids.append(torch.cat([parameter.grad.flatten() for parameter in net.parameters()]))
    assert torch.equal(*grids)


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H200", "bf16", 989),
        ("NVIDIA H100 80GB HBM3", "tf32", 494),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "fp32", 60),
        ("NVIDIA GH200 480GB", "bf16", 989),
        ("NVIDIA A100-SXM4-40GB", "fp32", 19.5),
        ("NVIDIA A100 80GB PCIe", "bf16", 312),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("Tesla T4", "tf32", 8.1),  # it has no TF32, and computes in fp32
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA L40", "bf16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", None),
        ("x86_64 CPU", "fp32", None),
    ],
)
def test_a_peak_is_known_or_it_is_not(name: str, precision: str, tera: float | None) -> None:
    found = find_peak(name, precision)
    assert found == (None if tera is None else pytest.approx(tera * 1e12))


def test_no_precision_is_slower_than_a_wider_one() -> None:
    for name, peaks in PEAKS:
        order = [peaks[precision] for precision in ("bf16", "tf32", "fp32") if precision in peaks]
        assert order == sorted(order, reverse=True), name


def test_a_processor_has_no_peak() -> None:
    assert device_peak(torch.device("cpu"), "bf16") is None


def test_float32_counts_as_tf32_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    gpu, before = torch.device("cuda", 0), torch.get_float32_matmul_precision()
    assert device_peak(gpu, "bf16") == pytest.approx(989e12)
    try:
        torch.set_float32_matmul_precision("high")
        assert device_peak(gpu, "fp32") == pytest.approx(494e12)
    finally:
        torch.set_float32_matmul_precision(before)
