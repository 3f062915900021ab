"""What a kind of checkpoint is: the names of its tensors, how it is recognised, and how it quantizes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.core.registry import Registry
from tavq.interop.layouts import Layout, Names, axis
from tavq.interop.reading import Checkpoint
from tavq.nets.convnet import ConvNetConfig


class CheckpointKind(ABC):
    """A layout of checkpoints that one project, or several, write."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What it is, for cards and messages."""
    layout: ClassVar[Layout]
    signature: ClassVar[str]
    """A tensor that every checkpoint of this kind has."""
    foreign: ClassVar[tuple[str, ...]] = ()
    """Tensors that some other kinds with the same signature have, and this one has not."""
    switches: ClassVar[Mapping[str, Any]] = {}
    """Settings of the network that all models of this kind have, where they are not our defaults."""
    dropped: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of tensors that the tokenizer does not need."""
    quantizers: ClassVar[tuple[str, ...]] = ("nearest",)
    """Our quantizers that its code has."""
    attention: ClassVar[tuple[str, ...]]
    """Where its code can have attention, as `model.net.attention` says it."""
    size: ClassVar[int | None] = None
    """Side of the images that all its models were trained on; None where they differ."""
    fixed_groups: ClassVar[int | None] = 32
    """Groups of every normalization of its code; None where its settings say how many."""

    @classmethod
    def recognizes(cls, tensors: Collection[str]) -> bool:
        """Whether a checkpoint with these tensors can be of this kind."""
        return cls.signature in tensors and not any(name in tensors for name in cls.foreign)

    @classmethod
    def suggests(cls, tensors: Collection[str]) -> bool:
        """Whether `auto` should think of this kind. Default: wherever it is recognised.

        Kinds with the same tensors as another need more signs.
        """
        return cls.recognizes(tensors)

    def prepare(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """The tensors under the names of the layout. Default: as they are."""
        return dict(checkpoint.tensors)

    def describe_weights(self, checkpoint: Checkpoint) -> str:
        """Which of the checkpoint's weights are read, for the card."""
        return f"the section `{checkpoint.section}`" if checkpoint.section else "the only ones"

    def groups(self, checkpoint: Checkpoint) -> int:
        """Groups of every normalization; raises FileError for settings that our network does not have."""
        assert self.fixed_groups is not None
        return self.fixed_groups

    @abstractmethod
    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The settings of our quantizer that does the same."""

    def codebook(self, tensors: Mapping[str, Tensor], quantizer: str) -> dict[str, Any]:
        """The settings of our codebook. Default: a table of the size of theirs."""
        (table,) = self.codebook_names(quantizer)["codebook.table"]
        return {"name": "learned", "entries": axis(tensors, table, 0), "width": axis(tensors, table, 1)}

    def codebook_names(self, quantizer: str) -> Names:
        """Our names of the tensors of codebook and quantizer, and theirs."""
        return {"codebook.table": ("quantize.embedding.weight",)}

    def reshape(self, name: str, value: Tensor) -> Tensor:
        """Our tensor in the shape that `name` has in a checkpoint: projections may be matrices there."""
        projections = tuple(f".{projection}.weight" for projection in self.layout.projections[1:])
        return value.flatten(1) if self.layout.linear and name.endswith(projections) else value

    def write(self, place: Path, exported: "Exported") -> None:
        """Write a checkpoint. Default: a safetensors file."""
        if place.suffix != ".safetensors":
            raise UsageError(
                f"The weights become a safetensors file; choose --out {place.with_suffix('.safetensors')}."
            )
        files.write_tensors(place, exported.tensors, FORMAT)


@dataclass(frozen=True)
class Exported:
    """What a checkpoint is written from."""

    tensors: Mapping[str, Tensor]  # by the names of the kind
    net: ConvNetConfig
    groups: int  # of every normalization
    size: int | None  # side of the images that it was trained on


FORMAT = {"format": "pt"}
"""Metadata that diffusers and transformers expect in a safetensors file."""

checkpoint_kinds: Registry[type[CheckpointKind]] = Registry("kind of checkpoint", "tavq.interop.kinds")


def find_kind(name: str, tensors: Collection[str], source: str) -> CheckpointKind:
    """The kind called `name`, or for `auto` the one that the names of `tensors` suggest.

    Raises:
        UsageError: there is no such kind, none or more than one is recognised, or the tensors are of another kind.
    """
    named = None if name == "auto" else checkpoint_kinds[name]
    if named is not None and named.recognizes(tensors):
        return named()
    kinds = [checkpoint_kinds[kind] for kind in checkpoint_kinds]
    found = [kind for kind in kinds if kind.suggests(tensors)]
    if not found:
        known = ", ".join(f"{kind.name} (has {kind.signature!r})" for kind in kinds)
        first = ", ".join(map(repr, sorted(tensors)[:3])) or "none"
        raise UsageError(f"{source} is not a checkpoint of a known kind: {known}. Its first tensors: {first}.")
    names = " or ".join(kind.name for kind in found)
    if named is not None:
        raise UsageError(f"{source} is a checkpoint of the kind {found[0].name!r}, not {name!r}; use {names} or auto.")
    if len(found) > 1:
        raise UsageError(
            f"{source} may be a checkpoint of several kinds, which have equal names of tensors and compute different "
            f"indices; say which it is: {names}."
        )
    return found[0]()
