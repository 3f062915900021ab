"""VQ-GAN as taming-transformers and latent diffusion write it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from tavq.interop.kind import CheckpointKind, checkpoint_kinds
from tavq.interop.layouts import Layout, Names
from tavq.interop.reading import Checkpoint
from tavq.interop.running_means import describe_running_means, with_running_means


@checkpoint_kinds.register("taming")
class Taming(CheckpointKind):
    """VQ-GAN and Gumbel-VQ of taming-transformers, and the VQ models of latent diffusion.

    Projects that train with that code write the same layout. Where a checkpoint has running means of its weights
    (`model_ema.`, with names that have lost their dots), they are read in place of the weights.

    Source: layout of CompVis/taming-transformers, `taming/models/vqgan.py`, and CompVis/latent-diffusion,
    `ldm/modules/ema.py`; swapped weights of the codebook loss: `quantizer.legacy`, the default of its quantizer.
    """

    title = "VQ-GAN of taming-transformers or latent diffusion"
    layout = Layout(
        encoder_stage="encoder.down.{}", decoder_stage="decoder.up.{}", fine_first=True,
        block="block.{}", attention="attn.{}", downsample="downsample.conv", upsample="upsample.conv",
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"), norm_out="norm_out", shortcut="nin_shortcut",
        projections=("norm", "q", "k", "v", "proj_out"),
    )  # fmt: skip
    signature = "encoder.down.0.block.0.conv1.weight"
    foreign = ("encoder.mid.0.conv1.weight", "encoder.mid_block.0.conv1.weight", "decoder.up.0.upsample.conv.weight")
    dropped = ("loss.",)
    quantizers: ClassVar[tuple[str, ...]] = ("nearest", "gumbel")
    attention: ClassVar[tuple[str, ...]] = ("middle", "both")

    def prepare(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        return with_running_means(checkpoint)

    def describe_weights(self, checkpoint: Checkpoint) -> str:
        return describe_running_means(checkpoint) or super().describe_weights(checkpoint)

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        if "quantize.embed.weight" in tensors:
            return {"name": "gumbel", "divergence": 1e-8}
        return {"name": "nearest", "legacy": True}

    def codebook_names(self, quantizer: str) -> Names:
        if quantizer != "gumbel":
            return super().codebook_names(quantizer)
        logits: Names = {f"quantizer.logits.{part}": (f"quantize.proj.{part}",) for part in ("weight", "bias")}
        return {"codebook.table": ("quantize.embed.weight",), **logits}

    def reshape(self, name: str, value: Tensor) -> Tensor:
        return value[..., None, None] if name == "quantize.proj.weight" else super().reshape(name, value)
