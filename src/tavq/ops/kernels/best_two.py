"""The two best entries of each feature in one pass over the table, without a matrix of scores.

The product of a block of features with a block of entries stays in registers, where its two smallest scores are merged
with those of the blocks before. What PyTorch does by a product, a reduction and a search, each through memory, becomes
one launch that reads features and entries and writes 20 bytes a feature.

Source: the running minimum over blocks is that of the running maximum of "online softmax" (Milakov and Gimelshein
2018); here it carries the runner-up as well, by which ops/nearest_entry knows which features rounding cannot decide.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ROWS, BLOCK_ENTRIES, BLOCK_WIDTH = 64, 64, 32
"""Features, entries and columns that a program multiplies at once; `benchmarks/kernels.py --sweep` tries others."""

WARPS = 8
"""Warps of a program; with 4, compiled for compute capability 8.0 to 10.0, it does not fit the registers."""

PROGRAMS_PER_PROCESSOR = 2
"""With fewer features than fill the GPU's processors so many times, several programs share the entries."""


def best_two(
    features: Float[Tensor, "n d"],
    mean: Float[Tensor, " d"],
    table: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"],
    tf32: bool,
    splits: int | None = None,
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Index and score of the best entry, score of the second best, and norm of each feature f - c, in float32.

    The score of an entry b is bias - (f - c)·b. Of equal scores the lower index wins. With one entry the second score
    is infinite. NaN and overflows give some index in range; the caller's bound on the rounding error finds them.

    Args:
        features: f, any floating dtype and strides; centred where they are read, in their own precision.
        mean: c, subtracted from each feature.
        table: the centred entries in float32.
        bias: added to each score; infinite for padding.
        tf32: let tensor cores round the operands to TF32.
        splits: how many programs share the entries; chosen by the number of features if None.
    """
    n, d = features.shape
    blocks, tiles = triton.cdiv(n, BLOCK_ROWS), triton.cdiv(len(table), BLOCK_ENTRIES)
    splits = min(splits or _choose_splits(features.device, blocks), tiles)
    index = torch.empty(splits, n, dtype=torch.long, device=features.device)
    best, second = (torch.empty(splits, n, device=features.device) for _ in range(2))
    norms = torch.empty(n, device=features.device)
    _best_two[(blocks, splits)](
        features,
        mean,
        table.contiguous(),
        bias,
        index,
        best,
        second,
        norms,
        n,
        len(table),
        d,
        triton.cdiv(tiles, splits),
        *features.stride(),
        PRECISION="tf32" if tf32 else "ieee",
        BLOCK_ROWS=BLOCK_ROWS,
        BLOCK_ENTRIES=BLOCK_ENTRIES,
        BLOCK_WIDTH=BLOCK_WIDTH,
        num_warps=WARPS,
        enable_fp_fusion=True,  # as in all versions before Triton 3.10
    )
    return *_merge(index, best, second), norms


def _choose_splits(device: torch.device, blocks: int) -> int:
    if device.type != "cuda":
        return 1
    wanted = PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, wanted // blocks)


def _merge(index: Tensor, best: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two best of all programs that share the entries: [splits, n] to [n]."""
    if len(index) == 1:
        return index[0], best[0], second[0]
    least, winner = best.min(0, keepdim=True)
    others = best.scatter(0, winner, torch.inf).amin(0)
    return index.gather(0, winner)[0], least[0], torch.minimum(others, second.gather(0, winner)[0])


@triton.jit
def _load_centred(features, mean, rows, columns, n, d, row_stride, stride):
    """A block of f - c, rounded once to float32; 0 in columns beyond the width."""
    inside = (rows < n)[:, None] & (columns < d)[None, :]
    values = tl.load(features + rows[:, None] * row_stride + columns[None, :] * stride, mask=inside, other=0.0)
    centre = tl.load(mean + columns, mask=columns < d, other=0.0)
    return (values - centre[None, :]).to(tl.float32)


@triton.jit
def _best_two(
    features,
    mean,
    table,
    bias,
    index,
    best,
    second,
    norms,
    n,
    k,
    d,
    tiles,
    row_stride,
    stride,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    split = tl.program_id(1)
    width, within = tl.arange(0, BLOCK_WIDTH), tl.arange(0, BLOCK_ENTRIES)
    best_score = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    second_score = tl.full([BLOCK_ROWS], float("inf"), tl.float32)
    best_index = tl.zeros([BLOCK_ROWS], tl.int32)
    for tile in range(split * tiles, tl.minimum(split * tiles + tiles, tl.cdiv(k, BLOCK_ENTRIES))):
        entries = tile * BLOCK_ENTRIES + within
        product = tl.zeros([BLOCK_ROWS, BLOCK_ENTRIES], tl.float32)
        for start in range(0, d, BLOCK_WIDTH):
            columns = start + width
            left = _load_centred(features, mean, rows, columns, n, d, row_stride, stride)
            inside = (columns < d)[:, None] & (entries < k)[None, :]
            right = tl.load(table + entries[None, :] * d + columns[:, None], mask=inside, other=0.0)
            product = tl.dot(left, right, product, input_precision=PRECISION)
        scores = tl.load(bias + entries, mask=entries < k, other=float("inf"))[None, :] - product
        scores = tl.where(scores == scores, scores, float("inf"))  # NaN, of overflows, is never the nearest
        least, position = tl.min(scores, 1, return_indices=True)
        rest = tl.min(tl.where(within[None, :] == position[:, None], float("inf"), scores), 1)
        second_score = tl.minimum(tl.maximum(best_score, least), tl.minimum(second_score, rest))
        best_index = tl.where(least < best_score, tile * BLOCK_ENTRIES + position, best_index)
        best_score = tl.minimum(best_score, least)
    output = split * n + rows
    tl.store(index + output, best_index.to(tl.int64), mask=rows < n)
    tl.store(best + output, best_score, mask=rows < n)
    tl.store(second + output, second_score, mask=rows < n)
    if split == 0:
        squares = tl.zeros([BLOCK_ROWS], tl.float32)
        for start in range(0, d, BLOCK_WIDTH):
            values = _load_centred(features, mean, rows, start + width, n, d, row_stride, stride)
            squares += tl.sum(values * values, 1)
        tl.store(norms + rows, tl.sqrt(squares), mask=rows < n)
