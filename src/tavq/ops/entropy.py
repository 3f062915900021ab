"""Entropy loss of soft assignments: their mean entropy minus the entropy of their mean.

It is low where each choice is confident and all entries are used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tavq.ops.collective import all_reduce_mean, all_reduce_mean_value
from tavq.ops.nearest_entry import CPU_BUFFER, GPU_BUFFER


def entropy_gap(features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], temperature: float) -> Float[Tensor, ""]:
    """mean of H(p) - H(mean of p) over features, in nats, with p = softmax(-squared distance / temperature).

    The second mean is over the features of all processes. No [n, k] matrix is kept: the backward pass computes p again,
    chunk by chunk, at the cost of three matrix products where the forward pass has one.

    Source: MaskGIT (Chang et al., 2022), in its public code; MAGVIT-2 (Yu et al., 2024), §3.1.
    """
    with torch.autocast(features.device.type, enabled=False):
        features, entries = features.float(), entries.float()
        # distances do not change when both move, and without their common offset fewer digits cancel
        centre = entries.detach().mean(0)
        return _EntropyGap.apply(features - centre, entries - centre, temperature, True)


def dot_entropy_gap(
    features: Float[Tensor, "n d"], entries: Float[Tensor, "k d"], temperature: float
) -> Float[Tensor, ""]:
    """`entropy_gap` with p = softmax(feature·entry / temperature).

    Source: IBQ (Shi et al., 2024), in its public code.
    """
    with torch.autocast(features.device.type, enabled=False):
        entries = entries.float()
        # what all entries have in common changes no probability
        return _EntropyGap.apply(features.float(), entries - entries.detach().mean(0), 2 * temperature, False)


def binary_entropy_gap(values: Float[Tensor, "n l"], point: float, temperature: float) -> Float[Tensor, ""]:
    """`entropy_gap` against all 2^l corners (±point, ..., ±point), factorised over the axes.

    p is then a product over the axes of sigmoid(4 · value · point / temperature). The mean entropy is exactly the sum
    over axes. The entropy of the mean would take 2^l numbers; its upper bound, the sum over axes, replaces it.

    Source: BSQ (Zhao et al., 2024), its factorised entropy.
    """
    with torch.autocast(values.device.type, enabled=False):
        logits = values.float() * (4 * point / temperature)
        # h(σ(x)) = softplus(x) - x σ(x)
        mean_entropy = (F.softplus(logits) - logits * logits.sigmoid()).sum(1).mean()
        mean = all_reduce_mean_value(logits.sigmoid().mean(0))
        return mean_entropy - torch.special.entr(torch.stack([mean, 1 - mean]).clamp(min=1e-30)).sum()


class _EntropyGap(torch.autograd.Function):
    """The gap for logits (2 f·e - |e|²) / temperature, or without |e|² where `norms` is False."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, entries: Tensor, temperature: float, norms: bool) -> Tensor:
        mean, entropy = features.new_zeros(len(entries)), features.new_zeros(())
        for chunk in _split(features, entries):
            log_p = _log_probabilities(chunk, entries, temperature, norms)
            p = log_p.exp()
            mean += p.sum(0)
            entropy -= torch.linalg.vecdot(p, log_p).sum()
        mean = all_reduce_mean(mean / len(features))
        ctx.temperature, ctx.norms = temperature, norms
        ctx.save_for_backward(features, entries, mean)
        return entropy / len(features) - torch.special.entr(mean).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:
        """With v = log mean - log p, the gradient at a logit is p (v - Σ p v) / n."""
        features, entries, mean = ctx.saved_tensors
        scale = 2 * gradients[0] / ctx.temperature / len(features)
        feature_gradient, entry_gradient = torch.empty_like(features), torch.zeros_like(entries)
        log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        for chunk, out in zip(_split(features, entries), _split(feature_gradient, entries), strict=True):
            log_p = _log_probabilities(chunk, entries, ctx.temperature, ctx.norms)
            p, logit_gradient = log_p.exp(), log_mean - log_p
            logit_gradient.sub_(torch.linalg.vecdot(p, logit_gradient)[:, None]).mul_(p).mul_(scale)
            torch.mm(logit_gradient, entries, out=out)
            step = logit_gradient.T @ chunk
            if ctx.norms:
                step -= logit_gradient.sum(0)[:, None] * entries
            entry_gradient += step
        return feature_gradient, entry_gradient, None, None


def _log_probabilities(features: Tensor, entries: Tensor, temperature: float, norms: bool) -> Tensor:
    """log softmax of -|f - e|²/temperature; |f|² is the same for all entries and cancels. Without `norms` of 2 f·e."""
    offset = entries.square().sum(1) if norms else entries.new_zeros(len(entries))
    logits = torch.addmm(offset, features, entries.T, beta=-1 / temperature, alpha=2 / temperature)
    return F.log_softmax(logits, 1)


def _split(features: Tensor, entries: Tensor) -> tuple[Tensor, ...]:
    """Split features into chunks whose values for all entries fill one working buffer."""
    buffer = CPU_BUFFER if features.device.type == "cpu" else GPU_BUFFER
    return features.split(max(1, buffer // len(entries)))
