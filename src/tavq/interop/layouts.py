"""How other projects name the tensors of a VQ-GAN network, and what its tensors say about its geometry."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor, nn

from tavq.core.errors import FileError
from tavq.nets.convnet import ConvNetConfig

Names = dict[str, tuple[str, ...]]
"""Our name of each tensor, and theirs; several where theirs are stacked to ours (query, key, value)."""


@dataclass(frozen=True)
class Layout:
    """The names of modules in a project's encoder and decoder; `{}` stands for the index of a stage or block."""

    encoder_stage: str
    decoder_stage: str
    fine_first: bool  # stage 0 of the decoder is the finest, not the one that comes first
    block: str
    attention: str
    downsample: str
    upsample: str
    middle: tuple[str, ...]  # block, attention, block; or one with `{}`, for as many blocks as a stage has
    norm_out: str
    shortcut: str  # of a residual block
    projections: tuple[str, str, str, str, str]  # of attention: norm, query, key, value, out
    linear: bool = False  # the projections are matrices, not 1 x 1 convolutions
    adaptive: str = ""  # of a stage's normalization by the code, counted as the decoder's stages

    def encoder_block(self, stage: int, block: int) -> str:
        """The module of a residual block of the encoder."""
        return f"{self.encoder_stage.format(stage)}.{self.block.format(block)}"

    def encoder_attention(self, stage: int, block: int) -> str:
        """The module of an attention block of the encoder."""
        return f"{self.encoder_stage.format(stage)}.{self.attention.format(block)}"

    def middle_names(self, net: ConvNetConfig) -> list[str]:
        """The modules of the middle in the order of ours."""
        if len(self.middle) == 1:
            return [self.middle[0].format(block) for block in range(net.middle_blocks)]
        return [part for part in self.middle if net.middle_attention or part != self.middle[1]]


# --- geometry ---------------------------------------------------------------------------------------------------


def infer_net(
    tensors: Mapping[str, Tensor], layout: Layout, groups: int, switches: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the network that tensors belong to: how many stages and blocks, how wide, and its attention.

    Args:
        tensors: by their names in the checkpoint.
        layout: its names.
        groups: of every normalization, which no tensor shows.
        switches: settings that all networks of the layout have.

    Raises:
        FileError: a tensor that shows it is missing or has no such axis.
    """
    stages = _count(tensors, lambda stage: f"{layout.encoder_block(stage, 0)}.conv1.weight")
    blocks = _count(tensors, lambda block: f"{layout.encoder_block(0, block)}.conv1.weight")
    widths = [axis(tensors, f"{layout.encoder_block(stage, 0)}.conv1.weight", 0) for stage in range(max(stages, 1))]
    channels = math.gcd(*widths)
    latent = width = axis(tensors, "encoder.conv_out.weight", 0)
    if switches.get("project", True):
        width = axis(tensors, "quant_conv.weight", 0)
    middle = 2
    if len(layout.middle) == 1:
        middle = _count(tensors, lambda block: f"encoder.{layout.middle[0].format(block)}.conv1.weight")
    return {
        "channels": channels,
        "multipliers": [width // max(channels, 1) for width in widths],
        "blocks": blocks,
        "attention": _infer_attention(tensors, layout, stages),
        "latent_width": None if latent == width else latent,
        "groups": groups,
        "middle_blocks": middle,
        **switches,
    }


def _infer_attention(tensors: Mapping[str, Tensor], layout: Layout, stages: int) -> str:
    norm = layout.projections[0]
    deepest = f"{layout.encoder_attention(stages - 1, 0)}.{norm}.weight" in tensors
    middle = len(layout.middle) > 1 and f"encoder.{layout.middle[1]}.{norm}.weight" in tensors
    return {(False, False): "none", (True, False): "deepest", (False, True): "middle", (True, True): "both"}[
        deepest, middle
    ]


def _count(tensors: Mapping[str, Tensor], name: Callable[[int], str]) -> int:
    """How many of the numbered names follow each other from 0."""
    return next(index for index in count() if name(index) not in tensors)


def axis(tensors: Mapping[str, Tensor], name: str, dimension: int) -> int:
    """The size of a tensor along a dimension; FileError if there is no such tensor or dimension."""
    if name not in tensors:
        raise FileError(f"The tensor {name!r} is missing.")
    shape = tensors[name].shape
    if dimension >= len(shape) or 0 in shape:
        raise FileError(f"The tensor {name!r} has the shape {list(shape)}, which is not one of a weight.")
    return shape[dimension]


# --- names ------------------------------------------------------------------------------------------------------


def network_names(model: nn.Module, net: ConvNetConfig, layout: Layout) -> Names:
    """Our names of the tensors of encoder and decoder, and those of a layout.

    Args:
        model: has them as `encoder` and `decoder`.
        net: their geometry.
        layout: the names to find.
    """
    norm, query, key, value, out = layout.projections
    parts = {
        "shortcut": (layout.shortcut,), "norm": (norm,), "query_key_value": (query, key, value), "out": (out,)
    }  # fmt: skip
    names: Names = {}
    for ours, theirs in _module_names(net, layout):
        for parameter, _ in model.get_submodule(ours).named_parameters():
            first, dot, rest = parameter.partition(".")
            names[f"{ours}.{parameter}"] = tuple(f"{theirs}.{part}{dot}{rest}" for part in parts.get(first, (first,)))
    return names


def _module_names(net: ConvNetConfig, layout: Layout) -> Iterator[tuple[str, str]]:
    yield "encoder.project", "quant_conv"
    yield "decoder.project", "post_quant_conv"
    middle = layout.middle_names(net)
    for part in ("encoder", "decoder"):
        yield f"{part}.conv_in", f"{part}.conv_in"
        yield f"{part}.norm_out", f"{part}.{layout.norm_out}"
        yield f"{part}.conv_out", f"{part}.conv_out"
        yield from ((f"{part}.middle.{position}", f"{part}.{name}") for position, name in enumerate(middle))
    last = len(net.multipliers) - 1
    for stage in range(last + 1):
        theirs = layout.encoder_stage.format(stage)
        yield from _stage_names(f"encoder.stages.{stage}", theirs, net, layout, net.blocks, stage == last)
        mirrored = layout.decoder_stage.format(last - stage if layout.fine_first else stage)
        yield from _stage_names(
            f"decoder.stages.{stage}", mirrored, net, layout, net.blocks + net.decoder_extra, stage == 0
        )
        if net.adaptive_norm:
            yield f"decoder.adaptive.{stage}", layout.adaptive.format(last - stage if layout.fine_first else stage)
        if stage < last:
            if net.downsample != "average":
                yield f"encoder.downsamples.{stage}.conv", f"{theirs}.{layout.downsample}"
            yield f"decoder.upsamples.{stage}.conv", f"{mirrored}.{layout.upsample}"


def _stage_names(
    ours: str, theirs: str, net: ConvNetConfig, layout: Layout, blocks: int, deepest: bool
) -> Iterator[tuple[str, str]]:
    """Names of the blocks of a stage; in ours attention follows each residual block in one sequence."""
    attention = deepest and net.deepest_attention
    for block in range(blocks):
        yield f"{ours}.{2 * block if attention else block}", f"{theirs}.{layout.block.format(block)}"
        if attention:
            yield f"{ours}.{2 * block + 1}", f"{theirs}.{layout.attention.format(block)}"
