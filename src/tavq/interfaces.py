"""Read this first: the values that pass between the rooms, and what each kind of part must do.

Axis letters, fixed here for the whole package: b batch, c image channels, y x image, h w latent grid, d latent
width, k entries, m text units, t text width, l levels, s samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""The level of the hierarchy that the decoder reads; level 0 is the shallowest and finest, 1 lies between."""

FULL_TEXT = "full_text"
"""Table of a text store: token vectors of the text before it was split (for LG-VQ and an ablation of TA-VQ)."""

FULL_TEXT_IDS = "full_text/ids"
"""Table that goes with `FULL_TEXT`: for each token its row in the table `TOKENS`."""

POOLED = "pooled"
"""Table that goes with `FULL_TEXT`: one vector per image for its full text."""

TOKENS = "tokens"
"""Table of the distinct tokens of all full texts, each with its row of the encoder's input embedding."""


@dataclass(frozen=True)
class TextUnits:
    """The encoded units of one granularity for a batch of images, padded to the longest."""

    vectors: Float[Tensor, "b m t"]
    mask: Bool[Tensor, "b m"]  # False at padding, which no loss or metric counts
    ids: Int[Tensor, "b m"] | None = None  # rows of the store's table of tokens; full text only


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

    def has_text(self) -> Bool[Tensor, " b"]:
        """True for images with at least one unit of any granularity."""
        units = (self.words, self.phrases, self.sentences, self.full_text)
        return torch.stack([unit.mask.any(dim=1) for unit in units if unit is not None]).any(dim=0)


@dataclass(frozen=True)
class Batch:
    """Images with their text, from the loader to the training step."""

    images: Float[Tensor, "b c y x"]  # in [-1, 1]
    keys: tuple[str, ...]  # file_name of each image
    text: TextFeatures | None = None


class Loss(NamedTuple):
    """One term of the objective and its weight; training/loop sums `weight * value`."""

    value: Float[Tensor, ""]
    weight: float | Tensor  # a tensor where it is computed, as reading it would make the CPU wait for a GPU
    elements: Tensor | None = None  # number that the value is a mean of, such as words, if they are not samples


Losses = dict[str, Loss]
"""Terms by `room/name`: `quantizer/commitment`, `align/sentences`."""


@dataclass(frozen=True)
class Quantized:
    """One quantized grid.

    `quantized` is what the decoder reads: the values of the chosen entries, with the gradient of the encoder's
    features (straight-through). `entries` has the same values and passes its gradient to the codebook. A quantizer
    with c > 1 parts has c indices a position; indices of part i count from 0 within that part.
    """

    quantized: Float[Tensor, "b d h w"]
    entries: Float[Tensor, "b d h w"]
    indices: Int[Tensor, "b h w *c"]
    losses: Losses


Distance = Literal["l2", "cosine"]


class Codebook(nn.Module, ABC):
    """A table of k entries of width d, in one or more parts.

    Attributes:
        sizes: entries of each part; quantizers with one index a position need a codebook of one part.
        width: d, the width of an entry. The Config must have `width` too, and the number of parts as `parts`.
        distance: how the distance between a feature and an entry is measured.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    generated: ClassVar[bool] = False
    """A network computes the entries in every pass; a trained model is saved with their table instead."""
    reads_text: ClassVar[bool] = False
    """Training needs a text store."""
    sizes: tuple[int, ...]
    width: int
    distance: Distance = "l2"
    words: tuple[str, ...] = ()
    """The name of each entry, for codebooks whose entries stand for words."""

    @property
    def size(self) -> int:
        """k, the number of entries of all parts."""
        return sum(self.sizes)

    @classmethod
    def resolve_config(cls, config: Any, source: "TextSource | None") -> Any:
        """Fill in the settings that depend on the text store, such as the words. Default: none do.

        Raises UsageError if the codebook needs a store and `source` is None or lacks something.
        """
        return config

    def load_vocabulary(self, source: "TextSource | None") -> None:
        """Copy what comes from the text store (word vectors, say) before training. Default: nothing."""

    @abstractmethod
    def forward(self) -> Float[Tensor, "k d"]:
        """All entries, part after part, as the quantizer compares against them."""

    def init_from_features(self, features: Float[Tensor, "n d"], part: int = 0) -> None:
        """Called in training before `part` quantizes `features`, to start entries from them. Default: nothing.

        Only features of the grid that the decoder reads come here and to `update`; for a level's own codebook, those
        of the level.
        """

    def keep_entries(self) -> None:
        """Called where entries are those of a trained model, to start none from features. Default: nothing."""

    def update(self, features: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Called in training after `part` has quantized `features` (without gradient), for running means and restarts.

        Returns losses of the codebook's own, named `codebook/...`. Default: nothing.
        """
        return {}


class Lattice(Codebook):
    """A codebook of one part without a table: index i stands for the i-th point of a fixed lattice.

    The digits of a point are its levels on each axis, 0 the lowest; the Config's `levels` are their numbers.
    """

    levels: tuple[int, ...]

    @abstractmethod
    def to_points(self, digits: Int[Tensor, "n l"]) -> Float[Tensor, "n l"]:
        """Coordinates of the points that digits stand for."""

    @abstractmethod
    def project_out(self, points: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Entries of lattice points: the points themselves, or a linear map of them."""

    @abstractmethod
    def to_digits(self, indices: Int[Tensor, " n"]) -> Int[Tensor, "n l"]:
        """Digits of indices; the first axis varies fastest."""

    @abstractmethod
    def to_indices(self, digits: Int[Tensor, "n l"]) -> Int[Tensor, " n"]:
        """Indices of digits, the inverse of `to_digits`."""


class CodebookView(Codebook):
    """Other entries in front of a codebook: those of one part, or all of them after a computation.

    `init_from_features` and `update` are passed on to the codebook. A view lasts for one pass and owns no parameters.

    Args:
        codebook: the codebook behind the view.
        entries: its entries as the quantizer should see them.
        part: the part that `entries` belong to; None for all parts.
    """

    def __init__(self, codebook: Codebook, entries: Float[Tensor, "k d"], part: int | None = None) -> None:
        super().__init__()
        self._held = (codebook, entries, part)  # in a tuple, so that nn.Module does not register the codebook again
        self.sizes = codebook.sizes if part is None else (len(entries),)
        self.width, self.distance = entries.shape[1], codebook.distance

    def forward(self) -> Float[Tensor, "k d"]:
        return self._held[1]

    def init_from_features(self, features: Float[Tensor, "n d"], part: int = 0) -> None:
        codebook, _, own = self._held
        codebook.init_from_features(features, part if own is None else own)
        if own is not None:  # the codebook may just have replaced the entries of this part
            self._held = (codebook, codebook().split(codebook.sizes)[own], own)

    def update(self, features: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        codebook, _, own = self._held
        return codebook.update(features, indices, part if own is None else own)


def split_parts(codebook: Codebook) -> list[Codebook]:
    """Split a codebook into one view a part; a codebook of one part is returned as it is."""
    if len(codebook.sizes) == 1:
        return [codebook]
    return [CodebookView(codebook, entries, i) for i, entries in enumerate(codebook().split(codebook.sizes))]


class Quantizer(nn.Module, ABC):
    """Replaces each feature by an entry of a codebook, or by one entry of each of its parts.

    Args:
        config: the class's settings.
        codebook: the settings of the codebook it will work with; raises UsageError where the two do not fit.

    Traits exempt a class, or an instance with these settings, from contract tests that do not hold for its method.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    compatible_codebook: ClassVar[Mapping[str, Any]] = {"name": "learned"}
    """Settings of a codebook that works with this quantizer, for tests and benchmarks; without size and width."""
    multi_part: ClassVar[bool] = False
    """Accepts codebooks of several parts and gives one index a part at each position."""
    straight_through: bool = True
    """The gradient of `quantized` reaches the features unchanged, and nothing else."""
    exact: bool = True
    """`quantized` holds entries of the codebook in training too; False: in evaluation only."""
    idempotent: bool = True
    """Quantizing a quantized grid gives the same grid."""
    order_sensitive: ClassVar[bool] = False
    """Permuting the entries changes which of them are chosen, as where indices are computed and not searched."""
    stochastic: ClassVar[bool] = False
    """Indices are sampled in training."""

    def __init__(self, config: Any, codebook: Any) -> None:
        super().__init__()
        self.config = config
        if codebook.parts > 1 and not self.multi_part:
            accepted = [name for name in quantizers if quantizers[name].multi_part]
            raise UsageError(
                f"The quantizer {self.name!r} gives one index a position and the codebook has {codebook.parts} parts; "
                f"quantizers for several parts: {', '.join(accepted)}."
            )

    @classmethod
    def grid_width(cls, codebook: Any) -> int:
        """d of the grid to quantize, from the settings of the codebook."""
        return int(codebook.width)

    def step_schedule(self) -> None:
        """Called once a training step, before any grid is quantized, to advance a schedule. Default: none."""

    @abstractmethod
    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        """Quantize a grid and compute the losses; with `update`, call the codebook's hooks for training."""

    @abstractmethod
    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w *c"]:
        """Indices of the chosen entries alone, for `Tokenizer.encode`."""

    def lookup(self, indices: Int[Tensor, "b h w *c"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        """The quantized grid of indices, for `Tokenizer.decode`. Default: one entry a position."""
        return unflatten_grid(F.embedding(indices.flatten(), codebook()), indices.shape)

    def lookup_entries(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        """Each entry as the decoder reads it, with other parts at their mean entry. Default: the entries themselves."""
        return codebook()


class Aligner(nn.Module, ABC):
    """Pulls quantized grids towards their text. It sees no pixels, no optimizer and no files.

    Traits exempt a class from contract tests that do not hold for its method.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    levels: tuple[int, ...]
    """The levels of the hierarchy it reads: 0 shallow and fine, 1 between, 2 deep. Other levels are not built."""
    batchwise: bool = False
    """Contrasts the images of a batch, so that the loss of a batch is not the mean of its images' losses."""
    sequential: bool = False
    """Depends on the order of the tokens of a text."""
    entry_levels: Mapping[str, int] = {}
    """The level whose entries `embed_entries` maps, by granularity; empty where there is no such map."""

    @classmethod
    def reads_full_text(cls, config: Any) -> bool:
        """Whether these settings need token-level text, which a store keeps only on request (`--full-text`)."""
        return False

    @classmethod
    def resolve_config(cls, config: Any, source: "TextSource") -> Any:
        """Fill in the settings that depend on the text store, such as the vocabulary size. Default: none do."""
        return config

    def load_vocabulary(self, source: "TextSource") -> None:
        """As `Codebook.load_vocabulary`: token embeddings, say."""

    @property
    def gradient_targets(self) -> frozenset[str]:
        """What its losses train beside its own networks: "encoder", "codebook" or "both"."""
        return frozenset({"encoder"})

    def matches_vocabulary(self, source: "TextSource") -> bool:
        """Whether token ids of this source mean what they meant in training. Default: no ids are used."""
        return True

    @abstractmethod
    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        """The alignment losses of a batch."""

    @abstractmethod
    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """Unit vectors whose dot product with `embed_text` ranks images against texts."""

    @abstractmethod
    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """Unit vectors of texts in the space of `embed_images`."""

    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Map each entry of a level (`entry_levels`) to the text encoder's space. Default: None, there is no map."""
        return None

    def fill_words(
        self, levels: Mapping[int, Quantized], text: TextFeatures, noise: Float[Tensor, "b m"], count: int
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Int[Tensor, " p"]] | None:
        """Mask tokens of each full text and predict them. Default: None, it predicts no words.

        Args:
            levels: the quantized grids.
            text: the texts, of which it reads `full_text`.
            noise: in [0, 1); the tokens with the least noise are masked.
            count: tokens to mask in each text; all of a shorter text.

        Returns the predicted ids, the true ids, and the image of the batch that each belongs to.
        """
        return None

    def relations(
        self, levels: Mapping[int, Quantized], text: TextFeatures
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Int[Tensor, " p"]] | None:
        """Cosines of pairs of words and of the codes they match, and the image of each pair. Default: None."""
        return None


@runtime_checkable
class TextSource(Protocol):
    """Where the loader finds the encoded text of an image (text/store is the one that ships)."""

    width: int

    def __contains__(self, key: str) -> bool: ...

    def vectors(self, key: str) -> Mapping[str, Any]:
        """Arrays [m, t] by granularity for the image `key`; m may be 0.

        A source of full texts adds `FULL_TEXT` [m, t], `FULL_TEXT_IDS` [m] and `POOLED` [t].
        """
        ...

    def vocabulary(self, granularity: str) -> tuple[Sequence[str], Any]:
        """Every distinct unit of a granularity, or of `TOKENS`, and the array of their vectors [u, t].

        Raises UsageError where the source has none.
        """
        ...


codebooks: Registry[type[Codebook]] = Registry("codebook", "tavq.codebooks")
quantizers: Registry[type[Quantizer]] = Registry("quantizer", "tavq.quantizers")
aligners: Registry[type[Aligner]] = Registry("aligner", "tavq.align")


def sum_losses(losses: Mapping[str, Loss]) -> Float[Tensor, ""]:
    """The weighted sum of `losses`; 0 for an empty mapping, as FSQ has no losses."""
    if not losses:
        return torch.zeros(())
    return torch.stack([loss.weight * loss.value for loss in losses.values()]).sum()
