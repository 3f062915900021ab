"""Confident choices that use all entries: the mean entropy of soft assignments minus the entropy of their mean."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tavq.ops.collective import all_reduce_mean, all_reduce_mean_value
from tavq.ops.nearest import CPU_BUFFER, GPU_BUFFER


def entropy_gap(rows: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], temperature: float) -> Float[Tensor, ""]:
    """mean over rows of H(p) - H(mean over rows of p), in nats, with p = softmax(-squared distance / temperature).

    The mean is over the rows of all processes. Keeps no [n, k] matrix: pieces of rows are computed in forward and again
    in backward, one product of the matrices and then three.

    Source: MaskGIT (Chang et al., 2022), in its public code; MAGVIT-2 (Yu et al., 2024), §3.1.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, entries = rows.float(), entries.float()
        centre = entries.detach().mean(0)  # distances stay, and a common offset costs no digits
        return _EntropyGap.apply(rows - centre, entries - centre, temperature)


def binary_entropy_gap(values: Float[Tensor, "n l"], point: float, temperature: float) -> Float[Tensor, ""]:
    """`entropy_gap` against all 2^l corners (±point, ..., ±point), factorised over the axes.

    p is then a product of one sigmoid(4 · value · point / temperature) an axis. The mean entropy is exactly the sum
    over axes; the entropy of the mean, which would take 2^l numbers, is replaced by its upper bound, the sum over axes.

    Source: BSQ (Zhao et al., 2024), its factorised entropy.
    """
    with torch.autocast(values.device.type, enabled=False):
        logits = values.float() * (4 * point / temperature)
        # h(σ(x)) = softplus(x) - x σ(x)
        each = (F.softplus(logits) - logits * logits.sigmoid()).sum(1).mean()
        mean = all_reduce_mean_value(logits.sigmoid().mean(0))
        return each - torch.special.entr(torch.stack([mean, 1 - mean]).clamp(min=1e-30)).sum()


class _EntropyGap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, entries: Tensor, temperature: float) -> Tensor:
        mean, entropy = rows.new_zeros(len(entries)), rows.new_zeros(())
        for piece in _pieces(rows, entries):
            logs = _log_shares(piece, entries, temperature)
            shares = logs.exp()
            mean += shares.sum(0)
            entropy -= torch.linalg.vecdot(shares, logs).sum()
        mean = all_reduce_mean(mean / len(rows))
        ctx.temperature = temperature
        ctx.save_for_backward(rows, entries, mean)
        return entropy / len(rows) - torch.special.entr(mean).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        """With v = log mean - log p, the slope at a logit is p (v - Σ p v) / n."""
        rows, entries, mean = ctx.saved_tensors
        scale = 2 * gradients[0] / ctx.temperature / len(rows)
        of_rows, of_entries = torch.empty_like(rows), torch.zeros_like(entries)
        goal = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        for piece, out in zip(_pieces(rows, entries), _pieces(of_rows, entries), strict=True):
            logs = _log_shares(piece, entries, ctx.temperature)
            shares, slope = logs.exp(), goal - logs
            slope.sub_(torch.linalg.vecdot(shares, slope)[:, None]).mul_(shares).mul_(scale)
            torch.mm(slope, entries, out=out)
            of_entries += slope.T @ piece - slope.sum(0)[:, None] * entries
        return of_rows, of_entries, None


def _log_shares(rows: Tensor, entries: Tensor, temperature: float) -> Tensor:
    """log softmax of -|r - e|²/temperature; |r|² is the same for all entries and falls out."""
    logits = torch.addmm(entries.square().sum(1), rows, entries.T, beta=-1 / temperature, alpha=2 / temperature)
    return F.log_softmax(logits, 1)


def _pieces(rows: Tensor, entries: Tensor) -> tuple[Tensor, ...]:
    """Rows in pieces whose values for all entries fill one working buffer."""
    return rows.split(max(1, (CPU_BUFFER if rows.device.type == "cpu" else GPU_BUFFER) // len(entries)))
