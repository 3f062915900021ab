"""Encoder, quantizer and decoder as one module, with the alignment that is there in training only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from tavq.codebooks.fixed import FixedCodebook
from tavq.core import files
from tavq.core.config import Config, build_stored, config_of
from tavq.core.errors import FileError, UsageError
from tavq.interfaces import (
    DEEP,
    TOKENS,
    Aligner,
    Codebook,
    CodebookView,
    Loss,
    Losses,
    Quantized,
    Quantizer,
    TextFeatures,
    TextSource,
    aligners,
    codebooks,
    quantizers,
)
from tavq.model_folder import FORMAT, find_model, match_tensors, read_model_config
from tavq.nets.convnet import ConvNetConfig, Decoder, Encoder, count_parameters
from tavq.nets.hierarchy import LEVELS, Hierarchy


class TokenizerConfig(Config):
    """What a tokenizer is made of."""

    net: ConvNetConfig = ConvNetConfig()
    codebook: config_of(codebooks) = Field(default_factory=lambda: codebooks["learned"].Config(name="learned"))
    quantizer: config_of(quantizers) = Field(default_factory=lambda: quantizers["nearest"].Config(name="nearest"))
    align: config_of(aligners) | None = None
    hierarchy_weight: float = Field(1.0, ge=0, le=100)
    """Factor on the codebook and commitment losses of the two upper levels."""
    text_width: int | None = Field(None, ge=1, le=16384)
    """t, the width of the text vectors the aligner reads; training takes it from the text store."""

    @field_validator("net")
    @classmethod
    def _bounded(cls, net: ConvNetConfig) -> ConvNetConfig:
        if max(net.widths) > 8192 or net.channels * sum(net.multipliers) > 32768:
            raise ValueError("no stage may be wider than 8,192 channels")
        return net

    @model_validator(mode="after")
    def _three_stages(self) -> "TokenizerConfig":
        if self.align is not None and len(self.net.multipliers) < 3:
            raise ValueError("an aligner reads three levels, so net.multipliers needs three stages or more")
        return self

    @property
    def reads_text(self) -> bool:
        """It cannot be trained without a text store."""
        return self.align is not None or codebooks[self.codebook.name].reads_text

    @property
    def reads_full_text(self) -> bool:
        """The text store must hold whole texts too."""
        return self.align is not None and aligners[self.align.name].reads_full_text(self.align)

    def resolve_config(self, source: TextSource | None) -> "TokenizerConfig":
        """The settings with what the text store decides filled in: the width of its vectors, its words.

        Raises:
            UsageError: a store is needed and there is none, or its width is not the settings'.
        """
        codebook = codebooks[self.codebook.name].resolve_config(self.codebook, source)
        if self.align is None:
            return self.model_copy(update={"codebook": codebook})
        if source is None:
            whole = " --full-text" if self.reads_full_text else ""
            raise UsageError(f"The aligner {self.align.name!r} needs encoded text; make it with: tavq text DIR{whole}")
        if self.reads_full_text:
            source.vocabulary(TOKENS)  # raises where the store has split texts only
        if self.text_width not in (None, source.width):
            raise UsageError(
                f"model.text_width is {self.text_width}, but the text store's vectors are {source.width} wide."
            )
        align = aligners[self.align.name].resolve_config(self.align, source)
        return self.model_copy(update={"codebook": codebook, "align": align, "text_width": source.width})


@dataclass(frozen=True)
class Output:
    """What a training step needs of one pass: the reconstruction, the quantised grids and their losses."""

    images: Float[Tensor, "b 3 y x"]
    levels: dict[int, Quantized]
    losses: Losses


class Tokenizer(nn.Module):
    """Images to grids of indices and back.

    Args:
        config: the parts and their settings. With an aligner, `config.text_width` must be set.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = quantizers[config.quantizer.name].grid_width(config.codebook)
        # In this order: with one seed, tokenizers of one grid width start from the same encoder and decoder.
        self.encoder = Encoder(config.net, width)
        self.decoder = Decoder(config.net, width)
        self.codebook: Codebook = codebooks[config.codebook.name](config.codebook)
        self.quantizer: Quantizer = quantizers[config.quantizer.name](config.quantizer, config.codebook)
        # Built last: with one seed, a tokenizer with alignment starts from the same weights as one without.
        self.aligner: Aligner | None = None
        self.hierarchy: Hierarchy | None = None
        if config.align is not None:
            if config.text_width is None:
                raise UsageError("A tokenizer with an aligner needs model.text_width, the width of the text vectors.")
            self.aligner = aligners[config.align.name](config.align, width, config.text_width)
            upper = [level for level in self.aligner.levels if level != DEEP]
            self.hierarchy = Hierarchy(config.net.widths, width, upper)

    def load_vocabulary(self, source: TextSource | None) -> None:
        """Fills what its parts hold of a text store; once, before training."""
        self.codebook.load_vocabulary(source)
        if self.aligner is not None and source is not None:
            self.aligner.load_vocabulary(source)

    @property
    def factor(self) -> int:
        """Pixels of a side that one index stands for."""
        return self.config.net.factor

    @property
    def entries(self) -> int:
        """k, the codebook entries of all parts."""
        return self.codebook.size

    def _check_size(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise UsageError(f"Images are numbers in [-1, 1] [b 3 y x]; got {images.dtype} {list(images.shape)}.")
        y, x = images.shape[-2:]
        if y % self.factor or x % self.factor or not (y and x):
            raise UsageError(f"Images of {y} x {x} cannot be encoded: both sides must be multiples of {self.factor}.")

    def encode(self, images: Float[Tensor, "b 3 y x"]) -> Int[Tensor, "b h w *c"]:
        """Indices of images in [-1, 1], c at a position where the codebook has c > 1 parts.

        The alignment takes no part.
        """
        self._check_size(images)
        with torch.no_grad():
            _, features = self.encoder(images)
            return self.quantizer.indices(features, self.codebook)

    def decode(self, indices: Int[Tensor, "b h w *c"]) -> Float[Tensor, "b 3 y x"]:
        """Images of indices, in about [-1, 1] (not clamped)."""
        self._check_indices(indices)
        with torch.no_grad():
            return self.decoder(self.quantizer.lookup(indices, self.codebook))

    def _check_indices(self, indices: Tensor) -> None:
        sizes = self.codebook.sizes
        axes = ["b", "h", "w"] + [str(len(sizes))] * (len(sizes) > 1)
        whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        if not whole or indices.ndim != len(axes) or (len(sizes) > 1 and indices.shape[3] != len(sizes)):
            raise UsageError(
                f"Indices are whole numbers [{' '.join(axes)}]; got {indices.dtype} {list(indices.shape)}."
            )
        h, w = indices.shape[1:3]
        if not (h and w):
            raise UsageError(f"A grid of {h} x {w} indices cannot be decoded: it is empty.")
        parts = indices.unbind(3) if len(sizes) > 1 else [indices]
        for part, size in zip(parts, sizes, strict=True):
            low, high = (int(part.min()), int(part.max())) if len(part) else (0, 0)
            if low < 0 or high >= size:
                raise UsageError(f"Indices {low} to {high} do not fit a codebook of entries 0 to {size - 1}.")

    def lookup_entries(self) -> Float[Tensor, "k d"]:
        """Each entry as the decoder reads it; with several parts, the others at the mean of their entries."""
        with torch.no_grad():
            return self.quantizer.lookup_entries(self.codebook)

    def quantize(self, images: Float[Tensor, "b 3 y x"]) -> dict[int, Quantized]:
        """The quantised grids by level: the deep one (2) always, the upper ones where the aligner reads them."""
        self._check_size(images)
        stages, features = self.encoder(images)
        upper = self.hierarchy(stages) if self.hierarchy is not None else {}
        # The codebook starts and keeps its statistics from the features that the decoder reads, and they come first.
        codebook = CodebookView(self.codebook, self.codebook()) if self.codebook.generated else self.codebook
        if self.quantizer.training:
            self.quantizer.step_schedule()
        deep = self.quantizer(features, codebook, update=self.codebook.training)  # off where it alone is frozen
        return {**{level: self.quantizer(grid, codebook) for level, grid in upper.items()}, DEEP: deep}

    def forward(self, images: Float[Tensor, "b 3 y x"], text: TextFeatures | None = None) -> Output:
        """Reconstruction, grids and every loss but those on pixels; alignment counts where text is given."""
        levels = self.quantize(images)
        losses = dict(levels[DEEP].losses)
        for level, quantized in levels.items():
            if level != DEEP:
                losses |= {
                    f"{key}/{LEVELS[level]}": Loss(loss.value, loss.weight * self.config.hierarchy_weight)
                    for key, loss in quantized.losses.items()
                }
        if self.aligner is not None and text is not None:
            losses |= self.aligner(levels, text)
        return Output(self.decoder(levels[DEEP].quantized), levels, losses)

    def without_alignment(self) -> "Tokenizer":
        """A copy that shares the weights and lacks aligner and hierarchy: the same indices, fewer numbers to ship."""
        with torch.device("meta"):  # no memory, and no draw from the random state of a run that goes on
            plain = Tokenizer(self.config.model_copy(update={"align": None, "text_width": None}))
        plain.load_state_dict(self.state_dict(), strict=False, assign=True)
        return plain.train(self.training)

    def with_fixed_codebook(self) -> "Tokenizer":
        """A copy that shares the weights and has the table of its generated codebook in the place of what makes it.

        The same indices and codes to the bit; the tokenizer itself where its codebook is not generated.
        """
        if not self.codebook.generated:
            return self
        made, training = self.codebook, self.codebook.training
        with torch.no_grad():
            table = made.eval()().clone()
        made.train(training)
        config = FixedCodebook.Config(sizes=made.sizes, width=made.width, distance=made.distance, words=made.words)
        with torch.device("meta"):  # as in without_alignment
            fixed = Tokenizer(self.config.model_copy(update={"codebook": config}))
        state = {key: value for key, value in self.state_dict().items() if not key.startswith("codebook.")}
        fixed.load_state_dict({**state, "codebook.table": table}, assign=True)
        return fixed.train(self.training)

    # --- model folders ------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, card: str = "", metadata: dict[str, Any] | None = None) -> None:
        """Writes a model folder (config.json, model.safetensors, README.md) in one atomic step.

        Args:
            folder: replaced when it exists.
            card: text of README.md.
            metadata: what to keep beside the settings (data hash, steps, versions).
        """
        with files.write_folder(Path(folder)) as place:
            weights = place / "model.safetensors"
            files.write_tensors(weights, self.state_dict())
            files.write_json(
                place / "config.json",
                {
                    "format": FORMAT,
                    "kind": "tokenizer",
                    "model": self.config.model_dump(mode="json"),
                    "sha256": files.sha256(weights),
                    **(metadata or {}),
                },
            )
            files.write_text(place / "README.md", card or "# Image tokenizer\n")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> "Tokenizer":
        """A tokenizer in evaluation mode from a model folder, a run folder (its `model/`) or a hub name.

        Raises:
            FileError: a file is missing, cut, altered or does not fit its settings.
            UsageError: the settings name unknown parts.
        """
        folder = find_model(name_or_path)
        stored = read_model_config(folder)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise FileError(f"There is no file {weights}.")
        files.check_sha256(weights, str(stored.get("sha256")))
        config = build_stored(TokenizerConfig, stored["model"], str(folder / "config.json"))
        with torch.device("meta"):  # refuses what does not fit before memory is taken
            tokenizer = cls(config)
        tensors = files.read_tensors(weights)
        tokenizer.load_state_dict(match_tensors(tokenizer, tensors, weights), assign=True)
        return tokenizer.eval().requires_grad_(False)

    def parameter_counts(self) -> dict[str, int]:
        """Numbers in the parameters of each part."""
        return {name: count_parameters(part) for name, part in self.named_children()}
