"""From a tokenizer of this package to another project's checkpoint."""

from typing import Any

from torch import Tensor, nn

from tavq.core.errors import UsageError
from tavq.interop.importing import checkpoint_names
from tavq.interop.kind import CheckpointKind, Exported
from tavq.nets.convnet import ConvNetConfig
from tavq.tokenizer import Tokenizer, compute_table

SWITCHES = (
    "decoder_extra", "project", "out_kernel", "bias", "shortcut", "downsample", "upsample", "adaptive_norm",
    "value_range",
)  # fmt: skip
"""Settings of the network of which each kind has one value."""


def export_tokenizer(tokenizer: Tokenizer, kind: CheckpointKind, size: int | None = None) -> Exported:
    """What a checkpoint of this kind holds of a tokenizer: all but its aligner.

    Args:
        tokenizer: the tokenizer.
        kind: the kind of checkpoint.
        size: side of the images that it was trained on, if it is known.

    Raises UsageError if the code of that kind computes something else, or has no place for a part.
    """
    groups = _norm_groups(tokenizer)
    _check(tokenizer, kind, groups)
    state = tokenizer.state_dict()
    state["codebook.table"] = compute_table(tokenizer.codebook)
    tensors: dict[str, Tensor] = {}
    for ours, theirs in checkpoint_names(tokenizer, kind).items():
        for name, value in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            tensors[name] = kind.reshape(name, value)
    return Exported(tensors, tokenizer.config.net, groups[0], size)


def _norm_groups(tokenizer: Tokenizer) -> list[int]:
    """The different numbers of groups of the normalizations of its encoder and decoder."""
    modules = [*tokenizer.encoder.modules(), *tokenizer.decoder.modules()]
    return sorted({module.num_groups for module in modules if isinstance(module, nn.GroupNorm)})


def _check(tokenizer: Tokenizer, kind: CheckpointKind, groups: list[int]) -> None:
    config = tokenizer.config
    facts: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("model.quantizer", config.quantizer.name, kind.quantizers),
        ("model.net.attention", config.net.attention, kind.attention),
        ("the distance of its codebook", tokenizer.codebook.distance, ("l2",)),
        ("the parts of its codebook", len(tokenizer.codebook.sizes), (1,)),
    ]
    for name in SWITCHES:
        default = ConvNetConfig.model_fields[name].default
        facts.append((f"model.net.{name}", getattr(config.net, name), (kind.switches.get(name, default),)))
    middle = config.net.blocks if len(kind.layout.middle) == 1 else 2
    facts.append(("model.net.middle_blocks", config.net.middle_blocks, (middle,)))
    for what, value, accepted in facts:
        if value not in accepted:
            known = " or ".join(map(repr, accepted))
            raise UsageError(f"This tokenizer cannot be exported as {kind.name}: {what} is {value!r}, not {known}.")
    first, *others = config.net.widths
    if kind.fixed_groups and any(width % first for width in others):
        raise UsageError(
            f"This tokenizer cannot be exported as {kind.name}, whose stages are multiples of the first; here they "
            f"have {', '.join(map(str, config.net.widths))} channels."
        )
    if len(groups) > 1 or (kind.fixed_groups and groups != [kind.fixed_groups]):
        needed = kind.fixed_groups or "the same number of"
        raise UsageError(
            f"This tokenizer cannot be exported as {kind.name}, which has {needed} groups in every normalization; here "
            f"they are {', '.join(map(str, groups))}. Train with model.net.groups {kind.fixed_groups or groups[0]}."
        )
