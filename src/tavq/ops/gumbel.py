"""Gumbel-softmax sampling of an entry for each feature from linear logits, with the KL divergence to uniform.

The matrix of logits [n, k] goes through the cache in chunks: noise, softmax, sample and divergence of a chunk are
finished before the next one starts, and no one-hot matrix is ever multiplied. The backward pass keeps two such
matrices, the soft sample and the divergence's own gradient, and costs three products where the forward pass has one.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.ops.exporting import is_exporting
from tavq.ops.nearest_entry import CPU_BUFFER, GPU_BUFFER


def gumbel_softmax(
    features: Float[Tensor, "n d"],
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
    entries: Float[Tensor, "k e"],
    temperature: Float[Tensor, ""],
    hard: bool = True,
    noise: bool = True,
) -> tuple[Float[Tensor, "n e"], Int[Tensor, " n"], Float[Tensor, ""]]:
    """Sample an entry for each feature.

    Computed in float32; with noise under autocast, the products round their operands to its dtype.

    Args:
        features: the features to quantize.
        weight: of the linear layer from features to logits.
        bias: of that layer.
        entries: the codebook.
        temperature: of the softmax; a tensor, so that a schedule on the GPU is never read.
        hard: return the sampled entries, whose gradient towards the logits is that of y @ entries below and which
            alone get the gradient towards the entries; False: return y @ entries.
        noise: add Gumbel noise g from torch's global generator; False: g = 0.

    Returns:
        The quantized features; the indices argmax y of y = softmax((features @ weight.T + bias + g) / temperature);
        and the mean over features of KL(softmax(logits) ‖ uniform).
    """
    device, inputs = features.device.type, (features, weight, bias, entries)
    half = noise and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if half else torch.float32
    keep = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    with torch.autocast(device, enabled=False):
        return _GumbelSoftmax.apply(*(value.float() for value in inputs), temperature, hard, noise, keep, dtype)


@torch.no_grad()
def argmax_logits(
    features: Float[Tensor, "n d"], weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]
) -> Int[Tensor, " n"]:
    """The index of the largest logit of each feature: what `gumbel_softmax` samples without noise."""
    if is_exporting():
        return F.linear(features.float(), weight.float(), bias).argmax(1)
    indices = torch.empty(len(features), dtype=torch.long, device=features.device)
    with torch.autocast(features.device.type, enabled=False):
        weight_t = weight.float().T
        for chunk in _chunks(features, len(weight)):
            indices[chunk] = (features[chunk].float() @ weight_t).add_(bias).argmax(1)
    return indices


def _chunks(features: Tensor, k: int) -> list[slice]:
    """Split the positions of features into slices whose values for k entries fill one working buffer."""
    buffer = CPU_BUFFER if features.device.type == "cpu" else GPU_BUFFER
    step = max(1, buffer // k)
    return [slice(start, start + step) for start in range(0, len(features), step)]


class _GumbelSoftmax(torch.autograd.Function):
    """Saves the soft sample y and the divergence's gradient (q (log q - Σ q log q)) / n in the products' dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        entries: Tensor,
        temperature: Tensor,
        hard: bool,
        noise: bool,
        keep: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, k = len(features), len(weight)
        samples, divergence_gradient = (features.new_empty(n if keep else 0, k, dtype=dtype) for _ in range(2))
        indices = torch.empty(n, dtype=torch.long, device=features.device)
        mixtures = features.new_empty(0 if hard else n, entries.shape[1])
        divergence = features.new_zeros(())
        weight_t, table = weight.to(dtype).T, entries.to(dtype)
        for chunk in _chunks(features, k):
            logits = (features[chunk].to(dtype) @ weight_t).float().add_(bias)
            log_q = F.log_softmax(logits, 1)
            q = log_q.exp()
            negative_entropy = torch.linalg.vecdot(q, log_q)
            divergence += negative_entropy.sum()
            if keep:
                divergence_gradient[chunk] = log_q.sub_(negative_entropy[:, None]).mul_(q).div_(n)
            if noise:  # -log(-log u); u = 0 is a noise of -∞, which is never sampled
                logits.sub_(q.uniform_().log_().neg_().log_())
            indices[chunk] = logits.argmax(1)
            sample = torch.softmax(logits.div_(temperature), 1).to(dtype)
            if keep:
                samples[chunk] = sample
            if not hard:
                mixtures[chunk] = (sample @ table).float()
        quantized = F.embedding(indices, entries) if hard else mixtures
        ctx.hard = hard
        # a copy, as the codebook may update its table before the backward pass
        ctx.save_for_backward(features, weight, entries.clone(), temperature, indices, samples, divergence_gradient)
        ctx.mark_non_differentiable(indices)
        return quantized, indices, divergence / n + torch.log(torch.tensor(float(k)))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        quantized_gradient, _, upstream = gradients
        features, weight, entries, temperature, indices, samples, divergence_gradient = ctx.saved_tensors
        dtype = samples.dtype
        feature_gradient, weight_gradient = torch.empty_like(features), torch.zeros_like(weight)
        bias_gradient, entry_gradient = weight.new_zeros(len(weight)), torch.zeros_like(entries)
        cast_weight, table_t = weight.to(dtype), entries.to(dtype).T
        for chunk in _chunks(features, len(weight)):
            grid = quantized_gradient[chunk].to(dtype)
            logit_gradient = (grid @ table_t).float()
            sample = samples[chunk].float()
            logit_gradient.sub_(torch.linalg.vecdot(sample, logit_gradient)[:, None]).mul_(sample).div_(temperature)
            logit_gradient.addcmul_(divergence_gradient[chunk].float(), upstream)
            bias_gradient += logit_gradient.sum(0)
            logit_gradient = logit_gradient.to(dtype)
            feature_gradient[chunk] = logit_gradient @ cast_weight
            weight_gradient += logit_gradient.T @ features[chunk].to(dtype)
            if not ctx.hard:
                entry_gradient += samples[chunk].T @ grid
        if ctx.hard:
            entry_gradient.index_add_(0, indices, quantized_gradient.float())
        return feature_gradient, weight_gradient, bias_gradient, entry_gradient, None, None, None, None, None
