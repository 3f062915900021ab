"""Anchors of entries: the closest feature, or one sampled by similarity; and a contrastive loss on the closest ones.

Everything runs in chunks: no function here holds a value for each pair of feature and entry.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.interfaces import Distance

PAIRS = 2**22
"""Similarities held at once: 16 MB. Fewer would make small and slow matrix products."""

MIN_LOGIT = -80.0
"""Least logit below the largest: e^-80 is never sampled, and exp takes ten times as long where it underflows."""

PROPOSALS = 8
"""Features proposed at once for an entry in rejection sampling; after them 97 % of all entries have one."""


@torch.no_grad()
def find_closest(
    features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance
) -> Int[Tensor, " k"]:
    """The index of the feature most similar to each entry."""
    if distance == "cosine":
        features, entries = F.normalize(features, dim=1), F.normalize(entries, dim=1)
    indices = []
    for logits in _grouped_logits(features, entries):
        group = logits.amax(2).max(1).indices
        indices.append(group * logits.shape[2] + _select_group(logits, group).max(1).indices)
    return torch.cat(indices).clamp_(max=len(features) - 1)


@torch.no_grad()
def sample_anchors(
    features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance
) -> Int[Tensor, " k"]:
    """Sample a feature for each entry from the softmax over features of cosine, or of minus squared distance."""
    if distance == "cosine" and features.device.type == "cpu":
        return _sample_by_cosine(features, entries)
    if distance == "cosine":  # rejection would ask a GPU in every round whether it is done
        return _sample_by_distance(F.normalize(features, dim=1), F.normalize(entries, dim=1), 0.5)
    return _sample_by_distance(features, entries)


def _sample_by_cosine(features: Tensor, entries: Tensor) -> Tensor:
    """Rejection sampling: propose a feature uniformly and accept it with probability exp(cosine - 1), at least e^-2.

    Exact, and it compares an entry with a handful of features instead of all.
    """
    chosen = torch.zeros(len(entries), dtype=torch.long, device=features.device)
    entries, pending = F.normalize(entries, dim=1), torch.arange(len(entries), device=features.device)
    while len(pending):
        proposed = torch.randint(len(features), (len(pending), PROPOSALS), device=features.device)
        cosines = torch.einsum("ktd,kd->kt", F.normalize(features[proposed], dim=2), entries[pending])
        # negated, so that NaN is accepted: the loop must end, and training then stops at the loss
        accepted = ~(torch.rand_like(cosines) >= (cosines - 1).exp())
        accepted, first = accepted.float().max(1)
        accepted = accepted > 0
        chosen[pending[accepted]] = proposed[accepted, first[accepted]]
        pending = pending[~accepted]
    return chosen


def _sample_by_distance(features: Tensor, entries: Tensor, scale: float = 1.0) -> Tensor:
    """Invert the cumulative probabilities, first over groups of features and then within one group.

    Needs two uniform numbers an entry, where Gumbel noise needs n, and only √n of the n probabilities are accumulated.

    Args:
        features: the features to choose from.
        entries: each gets one of them.
        scale: of minus the squared distance; with unit vectors 0.5 gives the softmax over cosines.
    """
    indices, first = [], 0
    quantiles = torch.rand(len(entries), 2, 1, device=features.device)
    for logits in _grouped_logits(features, entries):
        quantile, first = quantiles[first : first + len(logits)], first + len(logits)
        weights = logits.sub_(logits.amax((1, 2), keepdim=True)).mul_(scale).clamp_(min=MIN_LOGIT).exp_()
        group = _invert_cumulative(weights.sum(2), quantile[:, 0])
        within = _invert_cumulative(_select_group(weights, group), quantile[:, 1])
        indices.append(group * logits.shape[2] + within)
    return torch.cat(indices).clamp_(max=len(features) - 1)


def _invert_cumulative(weights: Tensor, quantile: Tensor) -> Tensor:
    """For each row the position where the running sum of its weights passes `quantile` times their total."""
    sums = weights.cumsum(1)
    return torch.searchsorted(sums, quantile * sums[:, -1:], right=True)[:, 0].clamp_(max=weights.shape[1] - 1)


def _grouped_logits(features: Tensor, entries: Tensor) -> Iterator[Tensor]:
    """Yield minus the squared distances of a few entries to all features, up to a constant of each entry.

    In groups [k g n/g]: amax and sum over whole groups are several times faster than argmax and cumsum over all.
    Features are padded to whole groups with ones at infinite distance. Each chunk overwrites the last.
    """
    size = math.isqrt(len(features))
    groups = -(-len(features) // size)
    step = max(1, PAIRS // len(features))
    norms = features.square().sum(1)
    buffer = features.new_empty(min(step, len(entries)), groups * size)
    for chunk in entries.split(step):
        logits = buffer[: len(chunk)]
        torch.addmm(norms, chunk, features.T, beta=-1, alpha=2, out=logits[:, : len(features)])
        logits[:, len(features) :] = -torch.inf
        yield logits.view(len(chunk), groups, size)


def _select_group(values: Tensor, group: Tensor) -> Tensor:
    return values[torch.arange(len(values), device=values.device), group]


def contrastive_loss(
    features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE of each entry: the mean similarity of its closest n/k features against those of the farthest half.

    The forward pass computes the gradient, chunk by chunk, so that no similarities are kept for the backward pass.

    Args:
        features: without a gradient.
        entries: the codebook.
        distance: cosine, or squared distance with its sign changed, as the similarity.
        temperature: divides similarities.
    """
    gradients, total = [], entries.new_zeros(())
    features = F.normalize(features, dim=1) if distance == "cosine" else features
    near = max(1, len(features) // len(entries))
    for chunk in entries.detach().split(max(1, PAIRS // len(features))):
        chunk = chunk.requires_grad_()
        with torch.enable_grad():
            similarities = _similarities(features, chunk, distance)
            positive = similarities.topk(near, dim=1, sorted=False).values.mean(1, keepdim=True)
            negatives = similarities.topk(len(features) // 2, dim=1, largest=False, sorted=False).values
            logits = torch.cat([positive, negatives], 1) / temperature
            loss = (logits.logsumexp(1) - logits[:, 0]).sum() / len(entries)
        gradients.append(torch.autograd.grad(loss, chunk)[0])
        total = total + loss.detach()
    return _WithGradient.apply(entries, total, torch.cat(gradients))


def _similarities(features: Tensor, entries: Tensor, distance: Distance) -> Tensor:
    """Similarities [k n]; for cosine the features must have unit length."""
    if distance == "cosine":
        return F.normalize(entries, dim=1) @ features.T
    return 2 * entries @ features.T - features.square().sum(1) - entries.square().sum(1, keepdim=True)


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is already known."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None
