"""The tokenizer of Janus as transformers writes it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tavq.interop.kind import CheckpointKind, checkpoint_kinds
from tavq.interop.layouts import Layout


@checkpoint_kinds.register("janus")
class Janus(CheckpointKind):
    """LlamaGen's tokenizer under names like taming's, with the decoder's stages coarse to fine.

    transformers decodes unit entries and compares features with the entries as they are, in its `encode`; the tokenizer
    was trained with unit vectors in both, and is imported so.

    Source: layout of huggingface/transformers, `models/janus/modeling_janus.py`. In Janus's own layout
    (`gen_vision_model`) the tokenizer is of the kind `llamagen`.
    """

    title = "VQ tokenizer of Janus"
    layout = Layout(
        encoder_stage="encoder.down.{}", decoder_stage="decoder.up.{}", fine_first=False,
        block="block.{}", attention="attn.{}", downsample="downsample.conv", upsample="upsample.conv",
        middle=("mid.block_1", "mid.attn_1", "mid.block_2"), norm_out="norm_out", shortcut="nin_shortcut",
        projections=("norm", "q", "k", "v", "proj_out"),
    )  # fmt: skip
    signature = "decoder.up.0.upsample.conv.weight"
    quantizers = ("spherical",)
    attention = ("both",)

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "spherical"}
