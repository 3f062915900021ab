"""A feature for each entry: the closest one, or one drawn in proportion to its similarity; and the contrast with them.

All of it goes through the features in pieces: nothing here holds a number for each pair of feature and entry.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.interfaces import Distance
from tavq.ops.nearest import nearest

PAIRS = 2**20
"""Similarities held at once: 4 MB, which stay in a core's cache."""

TRIES = 8
"""Features tried at once for an entry; after them 97 % of all entries have one."""


def closest(rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance) -> Int[Tensor, " k"]:
    """The row nearest to each entry."""
    if distance == "cosine":
        rows, entries = F.normalize(rows, dim=1), F.normalize(entries, dim=1)
    return nearest(entries, rows)


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
    """By inverting the cumulative sum of the chances: one uniform number an entry, where Gumbel noise needs n."""
    shares = torch.rand(len(entries), 1, device=rows.device)
    half_norms = rows.square().sum(1) / 2
    found = []
    for piece, share in zip(_pieces(entries, rows), _pieces(shares, rows), strict=True):
        scores = torch.addmm(half_norms, piece, rows.T, beta=-2, alpha=2)
        chances = scores.sub_(scores.amax(1, keepdim=True)).exp_().cumsum(1)
        found.append(torch.searchsorted(chances, share * chances[:, -1:], right=True)[:, 0])
    return torch.cat(found).clamp_(max=len(rows) - 1)


def _pieces(entries: Tensor, rows: Tensor) -> Iterator[Tensor]:
    return iter(entries.split(max(1, PAIRS // len(rows))))


def contrast(
    rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], distance: Distance, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE of each entry: the mean similarity of its closest n/k rows against those of the farthest half.

    The gradient to the entries is made at once, piece by piece, so that no similarity is kept for backward.
    """
    slopes, total = [], entries.new_zeros(())
    rows = F.normalize(rows, dim=1) if distance == "cosine" else rows
    near = max(1, len(rows) // len(entries))
    for piece in _pieces(entries.detach(), rows):
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
