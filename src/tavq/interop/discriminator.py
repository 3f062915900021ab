"""The discriminator of a checkpoint, kept beside the model so that fine-tuning can start from it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from tavq.core.tensor_bytes import file_chunks
from tavq.interop.reading import Checkpoint
from tavq.model_folder import FLOATS
from tavq.nets.discriminators import MAX_MULTIPLE, DiscriminatorConfig, PatchDiscriminator
from tavq.ops.checks import is_finite

PREFIX = "loss.discriminator."
"""Where taming-transformers and projects that train with its code have it; LlamaGen's files have a section for it."""


@dataclass(frozen=True)
class FoundDiscriminator:
    """What became of a checkpoint's discriminator."""

    description: str
    """For the card."""
    names: tuple[str, ...] = ()
    """Its tensors' names among those of the checkpoint, if it is kept."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Its weights by the names of `PatchDiscriminator`; empty if it is not kept."""
    config: DiscriminatorConfig | None = None

    def record(self) -> dict[str, Any]:
        """Its settings and the SHA-256 of its file, for the config.json of a model folder."""
        assert self.config is not None
        digest = hashlib.sha256()
        for chunk in file_chunks(self.tensors):
            digest.update(chunk)
        return {"settings": self.config.model_dump(mode="json"), "sha256": digest.hexdigest()}


def find_discriminator(checkpoint: Checkpoint) -> FoundDiscriminator:
    """The patch discriminator of a checkpoint, if it has one that is a network of ours.

    Source: Isola et al. 2017, in the layout of CompVis/taming-transformers, `taming/modules/discriminator/model.py`,
    and FoundationVision/LlamaGen, `tokenizer/tokenizer_image/discriminator_patchgan.py`.
    """
    own = {name: value for name, value in checkpoint.tensors.items() if name.startswith(PREFIX)}
    tensors = {name.removeprefix(PREFIX): value for name, value in own.items()} or dict(checkpoint.discriminator)
    if not tensors:
        return FoundDiscriminator("the checkpoint has none")
    config = _infer_config(tensors)
    if config is None or not _fits(config, tensors):
        return FoundDiscriminator("dropped, as it is another network than the patch discriminators here")
    if not all(map(is_finite, tensors.values())):
        return FoundDiscriminator("dropped, as some of its weights are not finite")
    cast = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    shape = f"{config.channels} channels, {config.layers} layers, normalization {config.norm}"
    return FoundDiscriminator(
        f"kept ({shape}); start from it with `train.adversarial.start_from`", tuple(own), cast, config
    )


def _infer_config(tensors: Mapping[str, Tensor]) -> DiscriminatorConfig | None:
    """The settings under which our network has these convolutions; None if there are none."""
    shapes = [tuple(value.shape) for value in tensors.values() if value.ndim == 4]
    first = tensors.get("main.0.weight")
    if first is None or first.ndim != 4 or len(shapes) < 3:
        return None
    norm = "batch" if "main.3.running_mean" in tensors else "group"
    if "main.3.bias" not in tensors:
        norm = "none"
    channels, layers = first.shape[0], len(shapes) - 2
    widths = [channels * min(2**layer, MAX_MULTIPLE) for layer in range(layers + 1)]
    expected = [(out, into, 4, 4) for into, out in zip([3, *widths], [*widths, 1], strict=True)]
    if sorted(shapes) != sorted(expected):
        return None  # before memory is taken for a network of a size that the file makes up
    try:
        return DiscriminatorConfig.model_validate({"channels": channels, "layers": layers, "norm": norm})
    except ValidationError:
        return None


def _fits(config: DiscriminatorConfig, tensors: Mapping[str, Tensor]) -> bool:
    """Whether names, shapes and types are those of our network."""
    expected = PatchDiscriminator(config).state_dict()
    if expected.keys() != tensors.keys():
        return False
    return all(
        value.shape == tensors[name].shape and value.is_floating_point() == (tensors[name].dtype in FLOATS)
        for name, value in expected.items()
    )
