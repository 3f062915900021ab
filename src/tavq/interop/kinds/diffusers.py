"""`VQModel` of diffusers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError
from tavq.interop.kind import FORMAT, CheckpointKind, Exported, checkpoint_kinds
from tavq.interop.layouts import Layout
from tavq.interop.reading import Checkpoint

ACCEPTED: Mapping[str, tuple[Any, ...]] = {
    "_class_name": ("VQModel",),
    "in_channels": (3,),
    "out_channels": (3,),
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "lookup_from_codebook": (False, True),
}
"""Settings of a `VQModel` that our network can have; others would change what it computes."""

EARLIER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names that diffusers gave to projections of attention until version 0.17."""


@checkpoint_kinds.register("diffusers")
class Diffusers(CheckpointKind):
    """A `VQModel`, as of aMUSEd and of latent diffusion's models that were converted.

    Source: layout of huggingface/diffusers, `models/autoencoders/vq_model.py`; its quantizer swaps the weights of the
    codebook loss as taming-transformers' does.
    """

    title = "VQModel of diffusers"
    layout = Layout(
        encoder_stage="encoder.down_blocks.{}", decoder_stage="decoder.up_blocks.{}", fine_first=False,
        block="resnets.{}", attention="attentions.{}", downsample="downsamplers.0.conv", upsample="upsamplers.0.conv",
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"), norm_out="conv_norm_out",
        shortcut="conv_shortcut", projections=("group_norm", "to_q", "to_k", "to_v", "to_out.0"), linear=True,
    )  # fmt: skip
    signature = "encoder.down_blocks.0.resnets.0.conv1.weight"
    attention = ("none", "deepest", "middle", "both")
    fixed_groups = None

    def prepare(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        return {_current_name(name): value for name, value in checkpoint.tensors.items()}

    def groups(self, checkpoint: Checkpoint) -> int:
        settings = checkpoint.settings
        if settings is None:
            raise FileError(
                f"{checkpoint.file} has no config.json of diffusers beside it, which says how it normalizes; give the "
                "folder that holds both."
            )
        for name, accepted in ACCEPTED.items():
            value = settings.get(name, accepted[0])
            if value not in accepted:
                known = " or ".join(map(repr, accepted))
                raise FileError(f"Its config.json has {name} {str(value)[:80]!r}; only {known} can be imported.")
        groups = settings.get("norm_num_groups", 32)
        if not isinstance(groups, int):
            raise FileError(f"Its config.json has norm_num_groups {str(groups)[:80]!r}; it must be a number.")
        return groups

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "nearest", "legacy": True}

    def write(self, place: Path, exported: Exported) -> None:
        """Write the folder that `VQModel.from_pretrained` loads."""
        with files.create_folder(place) as folder:
            files.write_tensors(folder / "diffusion_pytorch_model.safetensors", exported.tensors, FORMAT)
            files.write_json(folder / "config.json", _settings(exported))


def _settings(exported: Exported) -> dict[str, Any]:
    """The config.json of a `VQModel`."""
    net = exported.net
    entries, width = exported.tensors["quantize.embedding.weight"].shape
    plain = len(net.widths) - 1
    last = "Attn" if net.deepest_attention else ""
    return {
        "_class_name": "VQModel",
        "act_fn": "silu",
        "block_out_channels": list(net.widths),
        "down_block_types": ["DownEncoderBlock2D"] * plain + [f"{last}DownEncoderBlock2D"],
        "up_block_types": [f"{last}UpDecoderBlock2D"] + ["UpDecoderBlock2D"] * plain,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": net.latent_width or width,
        "layers_per_block": net.blocks,
        "mid_block_add_attention": net.middle_attention,
        "norm_num_groups": exported.groups,
        "norm_type": "group",
        "num_vq_embeddings": entries,
        "sample_size": exported.size or 256,
        "vq_embed_dim": width,
    }


def _current_name(name: str) -> str:
    return re.sub(
        r"(attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda found: f"{found[1]}.{EARLIER[found[2]]}.", name
    )
