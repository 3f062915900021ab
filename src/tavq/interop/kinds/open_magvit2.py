"""Open-MAGVIT2."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from tavq.interop.kind import CheckpointKind, checkpoint_kinds
from tavq.interop.layouts import Layout, Names, axis
from tavq.interop.reading import Checkpoint
from tavq.interop.running_means import describe_running_means, with_running_means


@checkpoint_kinds.register("open-magvit2")
class OpenMAGVIT2(CheckpointKind):
    """Signs of the encoder's channels are the code, and no table exists; the first channel is the lowest digit.

    Source: layout of TencentARC/SEED-Voken, `src/Open_MAGVIT2`; weights of the losses: its configs.
    """

    title = "Open-MAGVIT2"
    layout = Layout(
        encoder_stage="encoder.down.{}", decoder_stage="decoder.up.{}", fine_first=True,
        block="block.{}", attention="", downsample="downsample", upsample="upsample.conv1",
        middle=("mid_block.{}",), norm_out="norm_out", shortcut="nin_shortcut", projections=("", "", "", "", ""),
        adaptive="decoder.adaptive.{}",
    )  # fmt: skip
    signature = "encoder.mid_block.0.conv1.weight"
    dropped = ("loss.",)
    switches: ClassVar[Mapping[str, Any]] = {
        "decoder_extra": 0, "project": False, "out_kernel": 1, "bias": False, "downsample": "symmetric",
        "upsample": "depth-to-space", "adaptive_norm": True,
    }  # fmt: skip
    quantizers = ("binary",)
    attention = ("none",)

    def prepare(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        return with_running_means(checkpoint)

    def describe_weights(self, checkpoint: Checkpoint) -> str:
        return describe_running_means(checkpoint) or super().describe_weights(checkpoint)

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "binary"}

    def codebook(self, tensors: Mapping[str, Tensor], quantizer: str) -> dict[str, Any]:
        return {"name": "lattice", "levels": [2] * axis(tensors, "encoder.conv_out.weight", 0)}

    def codebook_names(self, quantizer: str) -> Names:
        return {}
