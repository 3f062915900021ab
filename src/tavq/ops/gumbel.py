"""Draws an entry for each row by Gumbel-softmax over linear logits, with its divergence from the uniform choice.

The matrix of logits [n, k] goes through the cache in pieces: noise, softmax, draw and divergence are finished on a
piece before the next is made, and no one-hot matrix is ever multiplied. The backward pass keeps two such matrices,
the soft draw and the divergence's own gradient, and costs three products beside the one of the forward pass.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tavq.ops.nearest import CPU_BUFFER, GPU_BUFFER


def gumbel_softmax(
    rows: Float[Tensor, "n d"],
    weight: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
    entries: Float[Tensor, "k e"],
    temperature: Float[Tensor, ""],
    hard: bool = True,
    noise: bool = True,
) -> tuple[Float[Tensor, "n e"], Int[Tensor, " n"], Float[Tensor, ""]]:
    """The codes of each row, the index it drew, and the mean divergence KL(softmax(logits) ‖ uniform).

    With y = softmax((rows @ weight.T + bias + g) / temperature), g Gumbel noise from torch's global generator or 0
    without `noise`, the index is argmax y. The codes are its entry (`hard`: their gradient is that of y @ entries
    towards the logits, and goes to the drawn entry alone) or y @ entries.

    Computed in float32; where noise is drawn under autocast, the products round their operands to its dtype.
    """
    device, inputs = rows.device.type, (rows, weight, bias, entries)
    half = noise and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if half else torch.float32
    keep = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)
    with torch.autocast(device, enabled=False):
        return _GumbelSoftmax.apply(*(value.float() for value in inputs), temperature, hard, noise, keep, dtype)


@torch.no_grad()
def argmax_logits(
    rows: Float[Tensor, "n d"], weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"]
) -> Int[Tensor, " n"]:
    """The index of each row's greatest logit: the draw of `gumbel_softmax` without noise."""
    with torch.autocast(rows.device.type, enabled=False):
        factors = weight.float().T
        logits = ((rows[piece].float() @ factors).add_(bias) for piece in _pieces(rows, len(weight)))
        found = [torch.empty(0, dtype=torch.long, device=rows.device), *(piece.argmax(1) for piece in logits)]
    return torch.cat(found)


def _pieces(rows: Tensor, k: int) -> list[slice]:
    """Places of rows whose values for k entries fill one working buffer."""
    step = max(1, (CPU_BUFFER if rows.device.type == "cpu" else GPU_BUFFER) // k)
    return [slice(start, start + step) for start in range(0, len(rows), step)]


class _GumbelSoftmax(torch.autograd.Function):
    """Saves the soft draw y and (q (log q - Σ q log q)) / n, the divergence's gradient, in the products' dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        entries: Tensor,
        temperature: Tensor,
        hard: bool,
        noise: bool,
        keep: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, k = len(rows), len(weight)
        soft, slope = (rows.new_empty(n if keep else 0, k, dtype=dtype) for _ in range(2))
        indices = torch.empty(n, dtype=torch.long, device=rows.device)
        mixed = rows.new_empty(0 if hard else n, entries.shape[1])
        divergence = rows.new_zeros(())
        factors, table = weight.to(dtype).T, entries.to(dtype)
        for piece in _pieces(rows, k):
            logits = (rows[piece].to(dtype) @ factors).float().add_(bias)
            logs = F.log_softmax(logits, 1)
            shares = logs.exp()
            information = torch.linalg.vecdot(shares, logs)
            divergence += information.sum()
            if keep:
                slope[piece] = logs.sub_(information[:, None]).mul_(shares).div_(n)
            if noise:  # -log(-log u); u = 0 is a noise of -∞, which is never drawn
                logits.sub_(shares.uniform_().log_().neg_().log_())
            indices[piece] = logits.argmax(1)
            drawn = torch.softmax(logits.div_(temperature), 1).to(dtype)
            if keep:
                soft[piece] = drawn
            if not hard:
                mixed[piece] = (drawn @ table).float()
        codes = F.embedding(indices, entries) if hard else mixed
        ctx.hard = hard
        # A copy: the codebook may move its table before the backward pass.
        ctx.save_for_backward(rows, weight, entries.clone(), temperature, indices, soft, slope)
        ctx.mark_non_differentiable(indices)
        return codes, indices, divergence / n + torch.log(divergence.new_tensor(k))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        of_codes, _, of_divergence = gradients
        rows, weight, entries, temperature, indices, soft, slope = ctx.saved_tensors
        dtype = soft.dtype
        of_rows, of_weight = torch.empty_like(rows), torch.zeros_like(weight)
        of_bias, of_entries = weight.new_zeros(len(weight)), torch.zeros_like(entries)
        factors, table = weight.to(dtype), entries.to(dtype).T
        for piece in _pieces(rows, len(weight)):
            grid = of_codes[piece].to(dtype)
            change = (grid @ table).float()
            drawn = soft[piece].float()
            change.sub_(torch.linalg.vecdot(drawn, change)[:, None]).mul_(drawn).div_(temperature)
            change.addcmul_(slope[piece].float(), of_divergence)
            of_bias += change.sum(0)
            change = change.to(dtype)
            of_rows[piece] = change @ factors
            of_weight += change.T @ rows[piece].to(dtype)
            if not ctx.hard:
                of_entries += soft[piece].T @ grid
        if ctx.hard:
            of_entries.index_add_(0, indices, of_codes.float())
        return of_rows, of_weight, of_bias, of_entries, None, None, None, None, None
