"""Samples of text units, of all levels at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.interfaces import TextUnits
from tavq.ops.waiting import constant


def sample_units(units: TextUnits, samples: int) -> TextUnits:
    """Sample units of each image without replacement; all of them, and padding, if there are fewer than `samples`.

    Differs from the paper, which samples from the discrete distribution over units and does not say whether one unit
    can be sampled twice.
    """
    fractions = draw_fractions(units, samples)
    vectors, mask = take_units([units], [samples], [fractions])
    return TextUnits(vectors[0], mask[0])


def draw_fractions(units: TextUnits, samples: int) -> Float[Tensor, "s b"]:
    """The random numbers in [0, 1) by which `take_units` chooses; as many for any padding."""
    return torch.rand(samples, len(units.mask), device=units.mask.device)


def take_units(
    units: Sequence[TextUnits], samples: Sequence[int], fractions: Sequence[Float[Tensor, "_ b"]]
) -> tuple[Float[Tensor, "l b s t"], Bool[Tensor, "l b s"]]:
    """Sample units of each level, padded to the most samples of any level; the mask is False at padding.

    Args:
        units: of each level.
        samples: units to sample of each level; further ones are padding.
        fractions: from `draw_fractions`, of each level.
    """
    most = max(samples)
    longest = max(most, *(level.mask.shape[1] for level in units))
    masks = torch.stack([F.pad(level.mask, (0, longest - level.mask.shape[1])) for level in units])
    counts = masks.sum(2)
    drawn = torch.stack([F.pad(level, (0, 0, 0, most - len(level))) for level in fractions])
    order = masks.byte().argsort(dim=2, descending=True, stable=True)  # positions of units, then of padding
    positions = order.gather(2, shuffled_positions(counts, drawn))
    vectors = torch.stack([_take(level.vectors, chosen) for level, chosen in zip(units, positions, strict=True)])
    limits = torch.minimum(counts, constant(tuple(samples), counts.device)[:, None])
    return vectors, torch.arange(most, device=counts.device) < limits[:, :, None]


def _take(vectors: Float[Tensor, "b m t"], positions: Int[Tensor, "b s"]) -> Float[Tensor, "b s t"]:
    b, m, width = vectors.shape
    if m == 0:
        return vectors.new_zeros(b, positions.shape[1], width)
    return vectors.gather(1, positions.clamp(max=m - 1)[:, :, None].expand(-1, -1, width))


AT_ONCE = 64
"""Steps that look for an earlier one together; more would need memory that grows with the square of the samples."""


def shuffled_positions(counts: Int[Tensor, "l b"], fractions: Float[Tensor, "l s b"]) -> Int[Tensor, "l b s"]:
    """Where the first steps of a Fisher-Yates shuffle of `counts` elements find what they put in place 0, 1, ...

    Step t swaps place t with place j_t = t + ⌊fraction · (count - t)⌋; where no element is left, it stays. Instead of
    swapping in turn, all steps ask at once which earlier step wrote to their place last: that step r put there what lay
    in place r before it, and so on back to an element that was never moved.
    """
    steps = torch.arange(fractions.shape[1], device=counts.device)
    remaining = (counts[:, None] - steps[:, None]).clamp(min=1)
    swapped = (steps[:, None] + torch.minimum((fractions * remaining).long(), remaining - 1)).transpose(1, 2)
    writer, own_writer = (_last_writer(swapped, places, steps) for places in (swapped, steps.expand_as(swapped)))
    origin = torch.where(own_writer < 0, steps, own_writer)
    for _ in range(max(len(steps) - 1, 0).bit_length()):  # each round doubles how far back a step has looked
        origin = origin.gather(2, origin)
    return torch.where(writer < 0, swapped, origin.gather(2, writer.clamp(min=0)))


def _last_writer(swapped: Tensor, places: Tensor, steps: Tensor) -> Tensor:
    """For each step t the last step before it that wrote to `places[t]`; -1 where none did."""
    found = [
        torch.where((part[..., None] == swapped[:, :, None]) & (steps < now[:, None]), steps, -1).amax(3)
        for part, now in zip(places.split(AT_ONCE, 2), steps.split(AT_ONCE), strict=True)
    ]
    return found[0] if len(found) == 1 else torch.cat(found, 2)
