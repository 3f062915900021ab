"""MaskGIT-VQ: the tokenizer of MaskGIT as open-muse, TiTok and RAR use it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from tavq.interop.kind import CheckpointKind, checkpoint_kinds
from tavq.interop.layouts import Layout


@checkpoint_kinds.register("maskgit")
class MaskGIT(CheckpointKind):
    """Images in [0, 1]; no attention; blocks without biases, whose 1 x 1 convolution reads the block's own output.

    Source: layout of bytedance/1d-tokenizer, `modeling/modules/maskgit_vqgan.py`. "Same" padding of odd kernels and
    stride 1 is padding by half the kernel.
    """

    title = "MaskGIT-VQ"
    layout = Layout(
        encoder_stage="encoder.down.{}", decoder_stage="decoder.up.{}", fine_first=True,
        block="block.{}", attention="", downsample="", upsample="upsample_conv",
        middle=("mid.{}",), norm_out="norm_out", shortcut="nin_shortcut", projections=("", "", "", "", ""),
    )  # fmt: skip
    signature = "encoder.mid.0.conv1.weight"
    foreign = ("encoder.conv_blocks.0.res.0.conv1.weight",)
    switches: ClassVar[Mapping[str, Any]] = {
        "decoder_extra": 0, "project": False, "out_kernel": 1, "bias": False, "shortcut": "output",
        "downsample": "average", "value_range": "[0, 1]",
    }  # fmt: skip
    attention = ("none",)

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "nearest", "legacy": True}
