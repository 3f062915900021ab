"""The tokenizers of LlamaGen."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tavq.interop.kind import CheckpointKind, checkpoint_kinds
from tavq.interop.layouts import Layout


@checkpoint_kinds.register("llamagen")
class LlamaGen(CheckpointKind):
    """VQ-16 and VQ-8 of LlamaGen: latents of width 256, codes of width 8, features and entries of length 1.

    Source: layout of FoundationVision/LlamaGen, `tokenizer/tokenizer_image/vq_model.py`.
    """

    title = "VQ tokenizer of LlamaGen"
    layout = Layout(
        encoder_stage="encoder.conv_blocks.{}", decoder_stage="decoder.conv_blocks.{}", fine_first=False,
        block="res.{}", attention="attn.{}", downsample="downsample.conv", upsample="upsample.conv",
        middle=("mid.0", "mid.1", "mid.2"), norm_out="norm_out", shortcut="nin_shortcut",
        projections=("norm", "q", "k", "v", "proj_out"),
    )  # fmt: skip
    signature = "encoder.conv_blocks.0.res.0.conv1.weight"
    dropped = ("quantize.codebook_used",)
    quantizers = ("spherical",)
    attention = ("both",)

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "spherical"}
