"""Forms of operations that a GPU is not waited for, against those that a CPU uses."""

import copy

import pytest
import torch
from pretend_device import pretend
from pretend_operators import count_operators

from tavq.align.lg import masked_loss
from tavq.codebooks.anchors import sample_anchors
from tavq.codebooks.tables import sample_restarts
from tavq.ops.nearest_entry import find_nearest
from tavq.ops.waiting import HostCounts, constant, count_each, select_rows

CUDA = torch.device("cuda", 0)


def test_counts_of_indices_are_those_of_bincount() -> None:
    indices = torch.tensor([3, 0, 3, 3, 1])
    assert torch.equal(count_each(indices, 6), torch.bincount(indices, minlength=6))
    assert count_each(indices[:0], 2).tolist() == [0, 0]


def test_a_constant_is_copied_once() -> None:
    with torch.inference_mode():
        first = constant((2, 3, 5), torch.device("cpu"))
    assert not first.is_inference()
    assert constant((2, 3, 5), torch.device("cpu")) is first


def test_rows_are_selected_on_a_cpu_and_all_kept_on_a_gpu() -> None:
    chosen = torch.tensor([True, False, True])
    assert select_rows(chosen).tolist() == [0, 2]
    with pretend(count_operators) as notes:
        assert select_rows(chosen.to(CUDA, non_blocking=True)).cpu().tolist() == [0, 1, 2]
    assert notes.waits.total() == 1  # the copy back


def test_host_counts_follow_the_buffer() -> None:
    module = torch.nn.Module()
    module.register_buffer("calls", torch.zeros(2, dtype=torch.int64))
    module.known = HostCounts()
    module.known.set(module.calls, 1, 5)
    assert module.calls.tolist() == module.known.of(module.calls) == [0, 5]
    module.load_state_dict({"calls": torch.tensor([7, 8])})
    assert module.known.of(module.calls) == [7, 8]
    twin = copy.deepcopy(module)
    twin.known.set(twin.calls, 0, 1)
    assert module.known.of(module.calls) == [7, 8]
    assert twin.known.of(twin.calls) == [1, 8]


@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (300, 64, 8), (1000, 2, 32)])
def test_one_pass_finds_the_nearest_entry(n: int, k: int, d: int) -> None:
    torch.manual_seed(0)
    features, entries = torch.randn(n, d), torch.randn(k, d) + 5
    with pretend(count_operators) as notes:
        found = find_nearest(features.to(CUDA, non_blocking=True), entries.to(CUDA, non_blocking=True), exact=False)
        assert notes.waits.total() == 0
        found = found.cpu()
    assert torch.equal(found, find_nearest(features, entries))


def test_a_cpu_is_exact_in_training_too() -> None:
    entries = torch.tensor([[1.0], [1.0 + 2.0**-23]])
    feature = torch.tensor([[1.0 + 2.0**-23]])
    assert find_nearest(feature, entries, exact=False).tolist() == [1]


def test_restarts_without_waiting_are_those_of_a_cpu() -> None:
    features, counts = torch.randn(9, 4), torch.tensor([2.0, 0.1, 3.0, 0.2, 0.0])
    torch.manual_seed(3)
    expected = sample_restarts(counts, 1.0, features)
    with pretend(count_operators) as notes:
        torch.manual_seed(3)
        found = sample_restarts(counts.to(CUDA, non_blocking=True), 1.0, features.to(CUDA, non_blocking=True))
        none = sample_restarts(counts.to(CUDA, non_blocking=True) + 9, 1.0, features.to(CUDA, non_blocking=True))
        assert notes.waits.total() == 0
        assert expected is not None
        assert found is not None
        assert none is not None
        assert torch.equal(found.put_into(torch.zeros(5, 4).to(CUDA)).cpu(), expected.put_into(torch.zeros(5, 4)))
        assert not none.restarted.cpu().any()


def test_anchors_on_a_gpu_follow_the_softmax_of_cosines() -> None:
    torch.manual_seed(0)
    features, entry = torch.randn(6, 3), torch.randn(1, 3)
    with pretend(count_operators) as notes:
        device = [value.to(CUDA, non_blocking=True) for value in (features, entry.expand(4000, 3))]
        chosen = sample_anchors(device[0], device[1], "cosine")
        assert notes.waits.total() == 0
        chosen = chosen.cpu()
    cosines = torch.nn.functional.normalize(features, dim=1) @ torch.nn.functional.normalize(entry, dim=1)[0]
    shares = torch.bincount(chosen, minlength=6) / 4000
    assert torch.allclose(shares, cosines.softmax(0), atol=0.03)


def test_the_loss_of_masked_words_is_the_same_where_all_words_are_predicted() -> None:
    torch.manual_seed(0)
    masked = torch.tensor([[True, False, True], [False, False, False]])
    ids, logits = torch.randint(5, (2, 3)), torch.randn(6, 5)
    expected = masked_loss(logits[masked.flatten()], ids, masked)
    with pretend(count_operators):
        found = masked_loss(*(value.to(CUDA) for value in (logits, ids, masked))).cpu()
    assert torch.equal(found, expected)
