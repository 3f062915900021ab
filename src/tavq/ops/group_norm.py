"""Group normalization followed by SiLU, which writes and keeps one map of features less than the two in turn.

Memory that a process touches for the first time costs a CPU far more than the arithmetic of either operation: a large
map of features that PyTorch frees goes back to the system, and the next one is paid for page by page.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**17
"""Values in a working buffer of the backward pass in bf16, three of which a core's caches hold."""

SLOW = 2**19
"""Values of an image's features from which PyTorch's own backward pass is slower in bf16 with channels last."""


def group_norm_silu(
    x: Float[Tensor, "b c h w"], groups: int, weight: Float[Tensor, " c"], bias: Float[Tensor, " c"], eps: float
) -> Float[Tensor, "b c h w"]:
    """silu(group_norm(x)), with the bits of the two operations in turn, and the same gradients.

    In bf16 with channels last, large maps have a backward pass of their own, which sums in float32: nearer to float64
    than PyTorch's, and three times as fast.

    Without a gradient SiLU overwrites the normalized features. With one, on a CPU, they are computed again in the
    backward pass: a third of the memory of a convolutional block in training is that of its normalized features. A GPU,
    torch.compile and torch.export take the two operations in turn.

    Args:
        x: the features.
        groups: of channels.
        weight: scale of each channel, in the type of `x` or float32.
        bias: shift of each channel.
        eps: added to the variance.
    """
    differentiable = torch.is_grad_enabled() and any(value.requires_grad for value in (x, weight, bias))
    if differentiable and x.device.type == "cpu" and not torch.compiler.is_compiling():
        result: Tensor = _GroupNormSiLU.apply(x, weight, bias, groups, eps)
        return result
    normalized = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(normalized, inplace=not differentiable and may_overwrite(normalized))


def may_overwrite(features: Float[Tensor, "b c h w"]) -> bool:
    """Whether an operation in place leaves the strides that one out of place would give.

    Maps of one position or one channel are contiguous with channels first and last at once. An operation out of place
    then decides for channels first, and a convolution that reads the other strides sums in another order.
    """
    if torch.compiler.is_compiling():  # it decides about memory itself, and strides may be symbols
        return False
    return not (features.is_contiguous() and features.is_contiguous(memory_format=torch.channels_last))


def _normalize(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The normalized features, and the mean and reciprocal deviation of each group."""
    b, c, h, w = x.shape
    return torch.native_group_norm(x, weight, bias, b, c, h * w, groups, eps)


class _GroupNormSiLU(torch.autograd.Function):
    """Keeps its input and the statistics alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        x = x.contiguous(memory_format=_format_of(x))
        normalized, mean, rstd = _normalize(x, weight, bias, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return F.silu(normalized, inplace=may_overwrite(normalized))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if _is_slow(x):
            own = _Slopes(x, gradient, weight.float(), bias.float(), mean.float(), rstd.float())
            return (own.of_input(), own.of_weight().to(weight.dtype), own.of_bias().to(bias.dtype), None, None)
        normalized, _, _ = _normalize(x, weight, bias, ctx.groups, ctx.eps)
        slope = torch.ops.aten.silu_backward.grad_input(gradient, normalized, grad_input=normalized)
        b, c, h, w = x.shape
        slopes = torch.ops.aten.native_group_norm_backward(
            slope, x, mean, rstd, weight, b, c, h * w, ctx.groups, list(ctx.needs_input_grad[:3])
        )
        return (*slopes, None, None)


def _is_slow(x: Tensor) -> bool:
    """Whether PyTorch's backward pass of group normalization is slow here: 62 ms for 256 x 256 x 128 against 20."""
    last = x.dtype == torch.bfloat16 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return last and x[0].numel() >= SLOW


class _Slopes:
    """The gradients of silu(group_norm(x)) for bf16 features with channels last, in float32 within a core's cache.

    With y = s x + t the normalized features, s = rstd · weight and t = bias - mean · s for each channel, and g' the
    gradient at y: the sums over positions A = Σ g' and B = Σ g' x of each channel give the gradients of the bias, A,
    and of the weight, (B - mean · A) rstd. That of x is s g' + k x + m, where k and m, one a group of n values, are
    k = (mean Σ w A - Σ w B) rstd³ / n and m = -k mean - rstd Σ w A / n, with sums over the channels of the group.
    """

    def __init__(self, x: Tensor, gradient: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> None:
        self.weight, self.per_group = weight, len(weight) // mean.shape[1]
        self.x, self.mean, self.rstd = _as_rows(x), self._spread(mean), self._spread(rstd)
        self.scale = self.rstd * weight
        self.shift = bias - self.mean * self.scale
        self.result = torch.empty_like(x)
        self.sums, self.products = torch.zeros_like(self.scale), torch.zeros_like(self.scale)
        self.step = max(1, CHUNK // len(weight))
        self.buffers = x.new_empty((3, self.step, len(weight)), dtype=torch.float32)
        self._sum(_as_rows(gradient.contiguous(memory_format=torch.channels_last)))

    def _spread(self, values: Tensor) -> Tensor:
        """Values of groups [b g], for each channel [b c]."""
        return values.repeat_interleave(self.per_group, 1)

    def _chunks(self, *maps: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the image and the maps' rows of each chunk of positions."""
        for image in range(len(self.x)):
            for start in range(0, self.x.shape[1], self.step):
                yield image, [rows[image, start : start + self.step] for rows in maps]

    def _sum(self, gradient: Tensor) -> None:
        """Write the gradient at y into the result, and sum it over positions alone and with x."""
        ones = self.scale.new_ones(self.step)
        for image, (x, slope, result) in self._chunks(self.x, gradient, _as_rows(self.result)):
            wide, y, own = (buffer[: len(x)] for buffer in self.buffers)
            torch.addcmul(self.shift[image], wide.copy_(x), self.scale[image], out=y)
            torch.ops.aten.silu_backward.grad_input(own.copy_(slope), y, grad_input=own)
            result.copy_(own)
            self.sums[image].addmv_(own.T, ones[: len(x)])
            self.products[image].addmv_(wide.mul_(own).T, ones[: len(x)])

    def of_input(self) -> Tensor:
        """The gradient of x; overwrites what is kept, so it can be asked for once."""
        sums, products = (self._spread(self._group(own * self.weight)) for own in (self.sums, self.products))
        count = self.x.shape[1] * self.per_group
        factor = (sums * self.mean - products) * self.rstd**3 / count
        offset = -factor * self.mean - sums * self.rstd / count
        for image, (x, result) in self._chunks(self.x, _as_rows(self.result)):
            wide, own, _ = (buffer[: len(x)] for buffer in self.buffers)
            wide.copy_(x).mul_(factor[image]).add_(offset[image])
            result.copy_(wide.addcmul_(own.copy_(result), self.scale[image]))
        return self.result

    def _group(self, values: Tensor) -> Tensor:
        """Sums over the channels of each group [b g]."""
        return values.unflatten(1, (-1, self.per_group)).sum(2)

    def of_weight(self) -> Tensor:
        """The gradient of the scales."""
        return ((self.products - self.sums * self.mean) * self.rstd).sum(0)

    def of_bias(self) -> Tensor:
        """The gradient of the shifts."""
        return self.sums.sum(0)


def _as_rows(features: Tensor) -> Tensor:
    """A view [b hw c] of features with channels last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _format_of(x: Tensor) -> torch.memory_format:
    """Channels last where the features lie so, as PyTorch's group normalization decides it."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
