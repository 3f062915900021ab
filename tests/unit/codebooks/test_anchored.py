"""The anchored codebook: how anchors are found, and what a pass keeps."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tavq.codebooks import anchors
from tavq.codebooks.anchored import AnchoredCodebook
from tavq.codebooks.anchors import contrastive_loss, find_closest, sample_anchors
from tavq.codebooks.learned import LearnedCodebook
from tavq.interfaces import CodebookView, Distance, split_parts

DISTANCES: tuple[Distance, ...] = ("cosine", "l2")


def made(entries: int = 4, width: int = 3, **settings: Any) -> AnchoredCodebook:
    torch.manual_seed(0)
    config = {"entries": entries, "width": width, **settings}
    return AnchoredCodebook(AnchoredCodebook.Config.model_validate(config)).train()


def similarities(features: Tensor, entries: Tensor, distance: Distance) -> Tensor:
    """[k n], straight from the definition."""
    if distance == "cosine":
        return F.cosine_similarity(entries[:, None], features[None], dim=2)
    return -(entries[:, None] - features[None]).square().sum(2)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_closest_feature(distance: Distance) -> None:
    torch.manual_seed(1)
    features, entries = 3 * torch.randn(50, 4), torch.randn(9, 4)
    assert torch.equal(find_closest(features, entries, distance), similarities(features, entries, distance).argmax(1))


@pytest.mark.parametrize("distance", DISTANCES)
def test_features_are_sampled_from_the_softmax_of_the_similarity(distance: Distance) -> None:
    torch.manual_seed(2)
    features, entries = torch.randn(7, 3), torch.randn(2, 3)
    draws = 20_000
    found = sample_anchors(features, entries.repeat(draws, 1), distance).view(draws, 2)
    shares = torch.stack([torch.bincount(column, minlength=7) / draws for column in found.T])
    expected = similarities(features, entries, distance).softmax(1)
    # four standard deviations of a share
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()


def test_features_are_sampled_by_distance_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    features = 100 * torch.randn(20, 3)
    entries = features[torch.randperm(20)]
    monkeypatch.setattr(anchors, "PAIRS", 50)  # far apart: each entry has but its own row, whatever the draw
    assert torch.equal(features[sample_anchors(features, entries, "l2")], entries)


@pytest.mark.parametrize("distance", DISTANCES)
def test_sampling_ends_for_nan_features(distance: Distance) -> None:
    assert sample_anchors(torch.full((5, 3), torch.nan), torch.randn(4, 3), distance).max() < 5


def reference_contrast(features: Tensor, entries: Tensor, distance: Distance, temperature: float) -> Tensor:
    """By full sorts, through autograd."""
    n, k = len(features), len(entries)
    ordered = similarities(features, entries, distance).sort(1).values / temperature
    positive = ordered[:, n - max(1, n // k) :].mean(1, keepdim=True)
    return F.cross_entropy(torch.cat([positive, ordered[:, : n // 2]], 1), torch.zeros(k, dtype=torch.long))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("n", "k"), [(1, 3), (5, 9), (60, 7)])
def test_the_contrast_and_its_gradient(distance: Distance, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "PAIRS", 2 * n)  # two entries at once
    torch.manual_seed(4)
    features, entries = torch.randn(n, 5), torch.randn(k, 5)
    ours, theirs = entries.clone().requires_grad_(), entries.clone().requires_grad_()
    loss = contrastive_loss(features, ours, distance, 0.5)
    expected = reference_contrast(features, theirs, distance, 0.5)
    torch.testing.assert_close(loss, expected)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_pass_keeps_the_values_that_it_used() -> None:
    """Losses that read the table have its gradient at the time of use, though entries are replaced before backward."""
    codebook = made(contrastive=2.0)
    before = codebook().detach().clone()
    features = torch.randn(20, 3)
    used = codebook()
    own = (used @ features.T).square().sum()
    losses = codebook.update(features, torch.zeros(20, dtype=torch.long))
    assert not torch.equal(codebook().detach(), before)
    assert torch.equal(used.detach(), before)
    (own + losses["codebook/contrastive"].value).backward()
    table = before.clone().requires_grad_()
    ((table @ features.T).square().sum() + reference_contrast(features, table, "cosine", 0.07)).backward()
    torch.testing.assert_close(codebook.table.grad, table.grad)
    assert losses["codebook/contrastive"].weight == 2.0


@pytest.mark.parametrize("anchor", ["probrandom", "closest", "random"])
def test_unused_entries_move_to_features_and_used_ones_stay(anchor: str) -> None:
    codebook = made(anchor=anchor)
    before = codebook().detach().clone()
    features = 5 + torch.randn(40, 3)
    assert codebook.update(features, torch.arange(40) % 2) == {}
    after = codebook().detach()
    torch.testing.assert_close(after[:2], before[:2], atol=1e-6, rtol=0)
    distances = torch.cdist(after[2:], features).amin(1)
    assert (distances < 0.02 * features.norm(dim=1).max()).all()
    assert (distances > 0).all()  # a_k = exp(-0.001): not all the way
    torch.testing.assert_close(codebook.usage, torch.tensor([0.005, 0.005, 0.0, 0.0]))


def test_a_pool_is_filled_before_its_features_are_replaced() -> None:
    codebook = made(entries=6, anchor="random")
    small = [torch.full((4, 3), float(number)) for number in (1, 2, 3)]
    for features, held in zip(small, (4, 6, 6), strict=True):
        codebook.update(features, torch.zeros(4, dtype=torch.long))
        assert codebook.pooled.tolist() == [held]
    assert sorted(codebook.pool[:, 0].tolist()).count(3.0) == 4
    large = torch.arange(30.0).view(10, 3)
    codebook.update(large, torch.zeros(10, dtype=torch.long))
    assert len({tuple(row) for row in codebook.pool.tolist()} & {tuple(row) for row in large.tolist()}) == 6


def test_each_part_has_its_own_usage() -> None:
    codebook = made(parts=2)
    before = codebook().detach().clone()
    split_parts(codebook)[1].update(torch.randn(8, 3), torch.full((8,), 3))
    assert codebook.usage.nonzero().flatten().tolist() == [7]
    assert torch.equal(codebook()[:4], before[:4])
    assert torch.equal(codebook()[7], before[7])
    assert not torch.equal(codebook()[4:7], before[4:7])


def test_a_view_has_the_entries_it_was_initialised_with() -> None:
    codebook = LearnedCodebook(LearnedCodebook.Config(entries=2, width=1, parts=2, init="features", restart=1.0))
    first, second = split_parts(codebook)
    first.init_from_features(torch.ones(5, 1))
    first.update(torch.ones(5, 1), torch.zeros(5, dtype=torch.long))  # exchanges the storage
    second.init_from_features(torch.full((5, 1), 2.0))
    assert isinstance(second, CodebookView)
    assert second().tolist() == [[2.0], [2.0]]
    assert codebook().tolist() == [[1.0], [1.0], [2.0], [2.0]]
