"""Read this first: the values that pass between the rooms, and what each kind of part must do.

Axis letters, fixed here for the whole package: b batch, c image channels, y x image, h w latent grid, d latent
width, k entries, m text units, t text width, l levels, s samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.core.registry import Registry
from tavq.ops.grids import unflatten_grid

GRANULARITIES = ("words", "phrases", "sentences")
"""What a text is split into, fine to coarse; level i of the hierarchy is aligned with the i-th of them."""

DEEP = 2
"""The level of the hierarchy that the decoder reads; 0 is low and fine, 1 middle."""

FULL_TEXT = "full_text"
"""Key of the token-level text: the vector of every token of a text that was not split (LG-VQ, TA-VQ's ablation)."""

FULL_TEXT_IDS = "full_text/ids"
"""Key of the token ids of the full text: rows of the table `tokens`."""

POOLED = "pooled"
"""Key of the pooled text embedding, one vector per image."""

TOKENS = "tokens"
"""The vocabulary of all full texts: each distinct token with its input embedding."""


@dataclass(frozen=True)
class TextUnits:
    """The encoded units of one granularity for a batch of images, padded to the longest."""

    vectors: Float[Tensor, "b m t"]
    mask: Bool[Tensor, "b m"]  # True where a unit stands; padding is False and never counts
    ids: Int[Tensor, "b m"] | None = None  # rows of the store's table `tokens`; full text only


@dataclass(frozen=True)
class TextFeatures:
    """The text of a batch at each granularity."""

    words: TextUnits
    phrases: TextUnits
    sentences: TextUnits
    full_text: TextUnits | None = None
    pooled: Float[Tensor, "b t"] | None = None  # of the full text; 0 for an image without text

    def __getitem__(self, granularity: str) -> TextUnits | None:
        return getattr(self, granularity)


@dataclass(frozen=True)
class Batch:
    """Images with their text, as the loader makes them and the training step takes them."""

    images: Float[Tensor, "b c y x"]  # in [-1, 1]
    keys: tuple[str, ...]  # file_name of each image
    text: TextFeatures | None = None


def to_device(value: Any, device: torch.device) -> Any:
    """A copy of a batch (any dataclass of tensors, batches and other values) with every tensor on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: to_device(getattr(value, field.name), device) for field in fields(value)})
    return value


class Loss(NamedTuple):
    """One term of the objective and the factor it counts with; training/loop sums `weight * value`."""

    value: Float[Tensor, ""]
    weight: float


Losses = dict[str, Loss]
"""Terms by `room/name`: `quantizer/commitment`, `align/sentences`."""


@dataclass(frozen=True)
class Quantized:
    """One quantised grid.

    `quantized` is what the decoder reads: in value the chosen entries, in gradient the encoder's features
    (straight-through). `entries` is the same value whose gradient goes to the codebook. A quantizer with c > 1 parts
    has c indices a position, index i counted from 0 within part i of the codebook.
    """

    quantized: Float[Tensor, "b d h w"]
    entries: Float[Tensor, "b d h w"]
    indices: Int[Tensor, "b h w *c"]
    losses: Losses


Distance = Literal["l2", "cosine"]


class Codebook(nn.Module):
    """A table of k entries of width d, in one part or several.

    Attributes:
        sizes: entries of each part; quantizers of one index a position take a codebook of one part.
        width: d, of an entry. Its Config has it as `width`, and the number of parts as `parts`.
        distance: how far a feature is from an entry.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    generated: ClassVar[bool] = False
    """The entries are computed from weights at every pass; a trained model is saved with their table instead."""
    reads_text: ClassVar[bool] = False
    """It cannot be trained without a text store."""
    sizes: tuple[int, ...]
    width: int
    distance: Distance = "l2"
    words: tuple[str, ...] = ()
    """What each entry is called, where entries have names."""

    @property
    def size(self) -> int:
        """k, the entries of all parts."""
        return sum(self.sizes)

    @classmethod
    def resolve_config(cls, config: Any, source: "TextSource | None") -> Any:
        """The settings with what a text store decides filled in, such as the words; most need nothing.

        Raises UsageError where a store is needed and `source` is None or lacks what is needed.
        """
        return config

    def load_vocabulary(self, source: "TextSource | None") -> None:
        """Fills from a text store what is not drawn and not learned, once, before training; most need nothing."""

    def forward(self) -> Float[Tensor, "k d"]:
        """All entries, the parts one below the other, as the quantizer compares against them."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def init_from_features(self, rows: Float[Tensor, "n d"], part: int = 0) -> None:
        """Called in training with the features that `part` is about to quantise; most need nothing.

        Only the grid that the decoder reads is shown, here and in `update`.
        """

    def update(self, rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Called in training with the features that `part` has quantised and the entries they chose.

        Here running means are kept and entries replaced. Returns losses of the codebook's own, `codebook/name`;
        most have none. `rows` carries no gradient.
        """
        return {}


class Lattice(Codebook):
    """A codebook of one part without vectors: index i stands for the i-th point of a fixed lattice.

    Its Config has `levels` and `sphere`.

    Attributes:
        levels: how many values a point takes on each axis.
    """

    levels: tuple[int, ...]

    def to_points(self, digits: Int[Tensor, "n l"]) -> Float[Tensor, "n l"]:
        """Lattice points from the place of each coordinate among the levels of its axis, 0 the least."""
        raise TypeError(f"{type(self).__name__} must define points")

    def project_out(self, points: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """The entries of lattice points: the points themselves, or a linear map of them."""
        raise TypeError(f"{type(self).__name__} must define raised")

    def to_digits(self, indices: Int[Tensor, " n"]) -> Int[Tensor, "n l"]:
        """The place on each axis; the first axis counts fastest."""
        raise TypeError(f"{type(self).__name__} must define digits_of")

    def to_indices(self, digits: Int[Tensor, "n l"]) -> Int[Tensor, " n"]:
        """The inverse of `to_digits`."""
        raise TypeError(f"{type(self).__name__} must define indices_of")


class CodebookView(Codebook):
    """Entries that stand in the place of a codebook's: one part of it, or the same ones after a computation.

    `init_from_features` and `update` go to the codebook behind it. It is made for one pass and owns nothing.

    Args:
        codebook: what stands behind it.
        entries: its entries, or those of one part.
        part: which part; None for all of them.
    """

    def __init__(self, codebook: Codebook, entries: Float[Tensor, "k d"], part: int | None = None) -> None:
        super().__init__()
        self._held = (codebook, entries, part)  # in a tuple: nn.Module would take the codebook over
        self.sizes = codebook.sizes if part is None else (len(entries),)
        self.width, self.distance = entries.shape[1], codebook.distance

    def forward(self) -> Float[Tensor, "k d"]:
        return self._held[1]

    def init_from_features(self, rows: Float[Tensor, "n d"], part: int = 0) -> None:
        codebook, own = self._held[0], self._held[2]
        codebook.init_from_features(rows, part if own is None else own)
        if own is not None:  # the part may have taken features as its entries
            self._held = (codebook, codebook().split(codebook.sizes)[own], own)

    def update(self, rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        return self._held[0].update(rows, indices, part if self._held[2] is None else self._held[2])


def split_parts(codebook: Codebook) -> list[Codebook]:
    """A codebook of one part for each part of `codebook`."""
    if len(codebook.sizes) == 1:
        return [codebook]
    return [CodebookView(codebook, entries, i) for i, entries in enumerate(codebook().split(codebook.sizes))]


class Quantizer(nn.Module):
    """Replaces each feature by an entry of a codebook, or by one of each of its parts.

    Args:
        config: the class's settings.
        codebook: the settings of the codebook it will be given; one that does not fit is a UsageError.

    The traits below say where a class is, by its nature, outside a rule that the contract tests hold all others to;
    where that depends on its settings, an instance has its own value.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "learned"}
    """Settings of a codebook that it works with; size and width are left to whoever builds one."""
    multi_part: ClassVar[bool] = False
    """It takes codebooks of several parts and gives as many indices a position."""
    straight_through: bool = True
    """The gradient of `quantized` reaches the features unchanged, and nothing else."""
    exact: bool = True
    """In training too `quantized` holds the entries of the indices; where False, only in evaluation."""
    idempotent: bool = True
    """Quantising codes gives the same codes."""
    order_sensitive: ClassVar[bool] = False
    """An entry's place is more than a name: permuted entries are not chosen alike."""
    stochastic: ClassVar[bool] = False
    """In training the choice is drawn at random."""

    def __init__(self, config: Any, codebook: Any) -> None:
        super().__init__()
        self.config = config
        if codebook.parts > 1 and not self.multi_part:
            takers = [name for name in quantizers if quantizers[name].multi_part]
            raise UsageError(
                f"The quantizer {self.name!r} gives one index a position and the codebook has {codebook.parts} parts; "
                f"quantizers for multi_part: {', '.join(takers)}."
            )

    @classmethod
    def grid_width(cls, codebook: Any) -> int:
        """d of the grid that it quantises, from the settings of its codebook."""
        return int(codebook.width)

    def step_schedule(self) -> None:
        """Called once a training step, before any grid is quantised: for what follows a schedule; most need nothing."""

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        """The quantised grid with its losses; with `update` the codebook is shown the features."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w *c"]:
        """The chosen entries only; what `encode` needs."""
        raise TypeError(f"{type(self).__name__} must define indices")

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        """The grid of entries that indices stand for; what `decode` needs. Here: one entry a position, as it is."""
        return unflatten_grid(F.embedding(indices.flatten(), codebook()), indices.shape)

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        """Each entry of each part as a code of the grid's width, every other part at the mean of its entries.

        Here: of the one part there is, each entry as it is.
        """
        return codebook()


class Aligner(nn.Module):
    """Pulls codes towards text. Sees codes and text only: no pixels, no optimizer, no files.

    The traits below say where a class is, by its nature, outside a rule that the contract tests hold all others to.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    levels: tuple[int, ...]
    """Which of the hierarchy's grids it reads: 0 low and fine, 1 middle, 2 deep; the others are not built."""
    batchwise: ClassVar[bool] = False
    """It tells the images of a batch apart, so that the loss of a batch is not the mean of its images' losses."""
    sequential: ClassVar[bool] = False
    """It reads text as a sequence, so that the order of the tokens counts."""

    @classmethod
    def reads_full_text(cls, config: Any) -> bool:
        """Whether these settings need token-level text, which a store keeps only on request (`--full-text`)."""
        return False

    @classmethod
    def resolve_config(cls, config: Any, source: "TextSource") -> Any:
        """The settings with what a text store decides filled in (sizes of a vocabulary); most need nothing."""
        return config

    def load_vocabulary(self, source: "TextSource") -> None:
        """Fills from a text store what is not drawn and not learned, once, before training; most need nothing."""

    def matches_vocabulary(self, source: "TextSource") -> bool:
        """The tokens of this source have the numbers that they had in the source it was trained with."""
        return True

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        """The alignment losses of a batch."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """Unit vectors whose dot product with `embed_text` ranks images against texts."""
        raise TypeError(f"{type(self).__name__} must define embed_images")

    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """Unit vectors of texts in the space of `embed_images`."""
        raise TypeError(f"{type(self).__name__} must define embed_text")

    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Each entry in the text encoder's space at one granularity; None where the aligner has no such map."""
        raise TypeError(f"{type(self).__name__} must define embed_entries")

    def fill_words(
        self, levels: Mapping[int, Quantized], text: TextFeatures, noise: Float[Tensor, "b m"], count: int
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Int[Tensor, " p"]] | None:
        """The tokens it puts at `count` masked places of each full text, and those that stood there.

        Masked are the places of the least `noise` (from 0 to 1), all of a shorter text. The last part says which
        image of the batch each place belongs to. None where it fills no words.
        """
        return None

    def relations(
        self, levels: Mapping[int, Quantized], text: TextFeatures
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Int[Tensor, " p"]] | None:
        """The cosine of each pair of words of a text, and of the codes they match; None where it matches none.

        The last part says which image of the batch each pair belongs to.
        """
        return None


@runtime_checkable
class TextSource(Protocol):
    """Where the loader finds the encoded text of an image (text/store is the one that ships)."""

    width: int

    def __contains__(self, key: str) -> bool: ...

    def vectors(self, key: str) -> Mapping[str, Any]:
        """Arrays [m, t] by granularity for the image `key`; m may be 0.

        A source of full texts adds `full_text` [m, t], `full_text/ids` [m] and `pooled` [t].
        """
        ...

    def vocabulary(self, granularity: str) -> tuple[Sequence[str], Any]:
        """Every distinct unit of a granularity, or of `tokens`, and the array of their vectors [u, t].

        Raises UsageError where it has none.
        """
        ...


codebooks: Registry[type[Codebook]] = Registry("codebook", "tavq.codebooks")
quantizers: Registry[type[Quantizer]] = Registry("quantizer", "tavq.quantizers")
aligners: Registry[type[Aligner]] = Registry("aligner", "tavq.align")


def sum_losses(losses: Mapping[str, Loss]) -> Float[Tensor, ""]:
    """The weighted sum of `losses`; 0 where there are none, as for a quantizer that needs none."""
    if not losses:
        return torch.zeros(())
    return torch.stack([loss.weight * loss.value for loss in losses.values()]).sum()
