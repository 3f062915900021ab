"""A feature for each entry: the closest one, or one drawn in proportion to its similarity; and the contrast with them.

All of it goes through the features in pieces: nothing here holds a number for each pair of feature and entry.
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
"""Similarities held at once: 16 MB. With fewer the products are of few entries, and slower."""

LEAST = -80.0
"""Logarithm of the least chance beside the greatest: e^-80 is never drawn, and where exp underflows it takes ten times
as long."""

TRIES = 8
"""Features tried at once for an entry; after them 97 % of all entries have one."""


@torch.no_grad()
def closest(rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance) -> Int[Tensor, " k"]:
    """The row most similar to each entry."""
    if distance == "cosine":
        rows, entries = F.normalize(rows, dim=1), F.normalize(entries, dim=1)
    found = []
    for scores in _scores(rows, entries):
        group = scores.amax(2).max(1).indices
        found.append(group * scores.shape[2] + _member(scores, group).max(1).indices)
    return torch.cat(found).clamp_(max=len(rows) - 1)


@torch.no_grad()
def drawn(rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance) -> Int[Tensor, " k"]:
    """A row for each entry, drawn from the softmax over rows of the similarity (cosine, or minus squared distance)."""
    return _drawn_by_cosine(rows, entries) if distance == "cosine" else _drawn_by_distance(rows, entries)


def _drawn_by_cosine(rows: Tensor, entries: Tensor) -> Tensor:
    """Rejection sampling: a row tried with equal chances is taken with chance exp(cosine - 1), which is e^-2 or more.

    Exact, and it looks at a handful of rows for each entry instead of all.
    """
    found = torch.zeros(len(entries), dtype=torch.long, device=rows.device)
    entries, pending = F.normalize(entries, dim=1), torch.arange(len(entries), device=rows.device)
    while len(pending):
        tried = torch.randint(len(rows), (len(pending), TRIES), device=rows.device)
        cosines = torch.einsum("ktd,kd->kt", F.normalize(rows[tried], dim=2), entries[pending])
        # so written that NaN is taken: the loop must end, and training then stops at the loss
        taken = ~(torch.rand_like(cosines) >= (cosines - 1).exp())
        hit, which = taken.float().max(1)
        hit = hit > 0
        found[pending[hit]] = tried[hit, which[hit]]
        pending = pending[~hit]
    return found


def _drawn_by_distance(rows: Tensor, entries: Tensor) -> Tensor:
    """By inverting the cumulative chances, first of groups of rows and then inside one.

    Two uniform numbers an entry, where Gumbel noise needs n; and of the n chances only √n are summed up one by one.
    """
    found, first = [], 0
    shares = torch.rand(len(entries), 2, 1, device=rows.device)
    for scores in _scores(rows, entries):
        share, first = shares[first : first + len(scores)], first + len(scores)
        chances = scores.sub_(scores.amax((1, 2), keepdim=True)).clamp_(min=LEAST).exp_()
        group = _inverted(chances.sum(2), share[:, 0])
        found.append(group * scores.shape[2] + _inverted(_member(chances, group), share[:, 1]))
    return torch.cat(found).clamp_(max=len(rows) - 1)


def _inverted(chances: Tensor, share: Tensor) -> Tensor:
    """Of each row of `chances` the place where their running sum passes a share of the whole."""
    sums = chances.cumsum(1)
    return torch.searchsorted(sums, share * sums[:, -1:], right=True)[:, 0].clamp_(max=chances.shape[1] - 1)


def _scores(rows: Tensor, entries: Tensor) -> Iterator[Tensor]:
    """For a few entries at a time minus the squared distances to all rows, but for a number of each entry's own.

    In groups [k g n/g]: amax and sum over whole groups are several times faster than argmax and cumsum over all.
    Rows are filled up to whole groups with ones that are infinitely far. Each piece is overwritten by the next.
    """
    size = math.isqrt(len(rows))
    groups = -(-len(rows) // size)
    step = max(1, PAIRS // len(rows))
    norms = rows.square().sum(1)
    buffer = rows.new_empty(min(step, len(entries)), groups * size)
    for piece in entries.split(step):
        scores = buffer[: len(piece)]
        torch.addmm(norms, piece, rows.T, beta=-1, alpha=2, out=scores[:, : len(rows)])
        scores[:, len(rows) :] = -torch.inf
        yield scores.view(len(piece), groups, size)


def _member(scores: Tensor, group: Tensor) -> Tensor:
    return scores[torch.arange(len(scores), device=scores.device), group]


def contrast(
    rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE of each entry: the mean similarity of its closest n/k rows against those of the farthest half.

    The gradient to the entries is made at once, piece by piece, so that no similarity is kept for backward.
    """
    slopes, total = [], entries.new_zeros(())
    rows = F.normalize(rows, dim=1) if distance == "cosine" else rows
    near = max(1, len(rows) // len(entries))
    for piece in entries.detach().split(max(1, PAIRS // len(rows))):
        piece = piece.requires_grad_()
        with torch.enable_grad():
            scores = _similarities(rows, piece, distance)
            positive = scores.topk(near, dim=1, sorted=False).values.mean(1, keepdim=True)
            negatives = scores.topk(len(rows) // 2, dim=1, largest=False, sorted=False).values
            logits = torch.cat([positive, negatives], 1) / temperature
            loss = (logits.logsumexp(1) - logits[:, 0]).sum() / len(entries)
        slopes.append(torch.autograd.grad(loss, piece)[0])
        total = total + loss.detach()
    return _WithGradient.apply(entries, total, torch.cat(slopes))


def _similarities(rows: Tensor, entries: Tensor, distance: Distance) -> Tensor:
    """[k n]; `rows` are unit vectors where the distance is the cosine."""
    if distance == "cosine":
        return F.normalize(entries, dim=1) @ rows.T
    return 2 * entries @ rows.T - rows.square().sum(1) - entries.square().sum(1, keepdim=True)


class _WithGradient(torch.autograd.Function):
    """A value whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None
