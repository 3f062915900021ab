"""From another project's checkpoint to a tokenizer of this package."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.interop.discriminator import FoundDiscriminator, find_discriminator
from tavq.interop.kind import CheckpointKind, find_kind
from tavq.interop.layouts import Names, infer_net, network_names
from tavq.interop.reading import DISCRIMINATOR, Checkpoint, read_checkpoint
from tavq.model_folder import FLOATS, match_tensors
from tavq.tokenizer import Tokenizer, TokenizerConfig


@dataclass(frozen=True)
class Imported:
    """A tokenizer with where it comes from."""

    tokenizer: Tokenizer
    kind: CheckpointKind
    file: Path
    weights: str  # which of the file's weights were read
    dropped: tuple[str, ...]  # tensors that were not
    left: tuple[str, ...]  # sections that were not
    discriminator: FoundDiscriminator


def import_tokenizer(kind: str, path: Path) -> Imported:
    """Read a checkpoint and build the tokenizer that computes the same.

    Args:
        kind: the name of a kind, or `auto`.
        path: a file of weights or a folder.

    Raises:
        UsageError: there is no such kind or checkpoint, or the checkpoint is of another kind.
        FileError: it is damaged, a tensor is missing, unknown or of another shape, or our network cannot be its.
    """
    checkpoint = read_checkpoint(path)
    found = find_kind(kind, checkpoint.tensors, str(checkpoint.file))
    tensors = found.prepare(checkpoint)
    discriminator = find_discriminator(checkpoint)
    dropped = tuple(sorted(name for name in tensors if any(map(name.startswith, found.dropped))))
    for name in dropped:
        del tensors[name]
    dropped = tuple(name for name in dropped if name not in discriminator.names)
    file, weights = checkpoint.file, found.describe_weights(checkpoint)
    kept = {DISCRIMINATOR} if discriminator.tensors and not discriminator.names else set()
    left = tuple(name for name in checkpoint.left if name not in kept)
    try:
        tokenizer = _build(found, checkpoint, tensors)
        _check_decoder(tensors)
        del checkpoint  # holds the tensors, which are to be given up one by one
        state = _convert(tokenizer, checkpoint_names(tokenizer, found), tensors)
    except (FileError, UsageError) as error:
        raise FileError(f"{file} cannot be imported as {found.name}. {error}") from error
    tokenizer.load_state_dict(match_tensors(tokenizer, state, file), assign=True)
    return Imported(tokenizer.eval().requires_grad_(False), found, file, weights, dropped, left, discriminator)


def _check_decoder(tensors: Iterable[str]) -> None:
    if not any(name.startswith("decoder.") for name in tensors):
        raise FileError(
            "It has no decoder. transformers keeps the encoder of Chameleon's tokenizer alone; import the file of the "
            "project itself, such as vqgan.ckpt in the folder tokenizer of Chameleon's download."
        )


def _build(kind: CheckpointKind, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Tokenizer:
    """The tokenizer, without memory for its weights."""
    quantizer = kind.quantizer(tensors)
    settings = {
        "net": infer_net(tensors, kind.layout, kind.groups(checkpoint), kind.switches),
        "codebook": kind.codebook(tensors, quantizer["name"]),
        "quantizer": quantizer,
    }
    config = build(TokenizerConfig, settings, "Its network")
    with torch.device("meta"):
        return Tokenizer(config)


def checkpoint_names(tokenizer: Tokenizer, kind: CheckpointKind) -> Names:
    """Our names of all weights of a tokenizer, and those of a kind of checkpoint."""
    config = tokenizer.config
    return {**network_names(tokenizer, config.net, kind.layout), **kind.codebook_names(config.quantizer.name)}


def _convert(tokenizer: Tokenizer, names: Names, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the tokenizer; takes each tensor out of `tensors`, so that a copy does not add to it."""
    theirs = [name for group in names.values() for name in group]
    _refuse("lacks", [name for name in theirs if name not in tensors])
    _refuse("has unknown", sorted(tensors.keys() - set(theirs)))
    fixed = {f"codebook.{name}": value for name, value in _fixed_tensors(tokenizer.codebook).items()}
    state: dict[str, Tensor] = {}
    for name, value in tokenizer.state_dict().items():
        if name in names:
            state[name] = _stack(names[name], tensors, tuple(value.shape))
        elif name in fixed:
            state[name] = fixed[name]
        else:  # counters of training steps
            assert not value.is_floating_point(), name
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    return state


def _fixed_tensors(codebook: nn.Module) -> dict[str, Tensor]:
    """Tensors of a codebook that follow from its settings."""
    return getattr(codebook, "fixed_tensors", dict)()


def _refuse(problem: str, names: Iterable[str]) -> None:
    listed = list(names)
    if listed:
        more = f" and {len(listed) - 5:,} more" if len(listed) > 5 else ""
        raise FileError(f"It {problem} tensors: {', '.join(name[:100] for name in listed[:5])}{more}.")


def _stack(names: tuple[str, ...], tensors: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """Our tensor of `shape` from theirs; a matrix and a 1 x 1 convolution are the same."""
    piece = (shape[0] // len(names), *shape[1:])
    for name in names:
        found = tensors[name]
        if found.dtype not in FLOATS or _as_matrix(tuple(found.shape)) != _as_matrix(piece):
            kind = str(found.dtype).removeprefix("torch.")
            raise FileError(f"The tensor {name!r} is {kind} {list(found.shape)}; expected float {list(piece)}.")
    pieces = [tensors.pop(name).float().reshape(piece) for name in names]
    return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1, 1) else shape


def summarize(names: Iterable[str]) -> list[str]:
    """Names of tensors by their first part, with how many there are: `loss (12 tensors)`; a single one in full."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return [
        f"{first} ({len(group):,} tensors)" if len(group) > 1 else group[0] for first, group in sorted(groups.items())
    ]
