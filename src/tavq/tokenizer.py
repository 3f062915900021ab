"""The tokenizer: encoder, quantizer and decoder in one module, with an aligner that only training uses."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from tavq.codebooks.fixed import FixedCodebook
from tavq.core import files
from tavq.core.config import build_stored
from tavq.core.errors import FileError, UsageError
from tavq.core.precision import Precision, select_precision
from tavq.interfaces import (
    DEEP,
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
from tavq.model_folder import DISCRIMINATOR, FORMAT, find_model, match_tensors, read_model_config, write_config
from tavq.nets.convnet import Decoder, Encoder, count_parameters
from tavq.nets.hierarchy import LEVELS, Hierarchy
from tavq.ops.checks import check_pixels, check_range, require_finite
from tavq.tokenizer_config import TokenizerConfig as TokenizerConfig
from tavq.tokenizer_config import with_literal_alignment


@dataclass(frozen=True)
class TokenizerOutput:
    """The result of a training pass: reconstructions, quantized grids by level, and all losses but those on pixels."""

    images: Float[Tensor, "b 3 y x"]
    levels: dict[int, Quantized]
    losses: Losses


class Tokenizer(nn.Module):
    """Maps images to grids of indices and back.

    Args:
        config: the parts and their settings. An aligner needs `config.text_width`.
    """

    precision: Precision = "fp32"
    """In which encoder and decoder compute once `prepare` was called; training has its own setting."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = quantizers[config.quantizer.name].grid_width(config.codebook)
        # First, so that with one seed tokenizers of equal grid width start from the same encoder and decoder.
        self.encoder = Encoder(config.net, width)
        self.decoder = Decoder(config.net, width)
        self.codebook: Codebook = codebooks[config.codebook.name](config.codebook)
        self.quantizer: Quantizer = quantizers[config.quantizer.name](config.quantizer, config.codebook)
        # Last, so that with one seed tokenizers with and without an aligner start from the same weights.
        self.aligner: Aligner | None = None
        self.hierarchy: Hierarchy | None = None
        own: dict[str, nn.Module] = {}
        if config.align is not None:
            if config.text_width is None:
                raise UsageError("A tokenizer with an aligner needs model.text_width, the width of the text vectors.")
            self.aligner = aligners[config.align.name](config.align, width, config.text_width)
            upper = [level for level in self.aligner.levels if level != DEEP]
            self.hierarchy = Hierarchy(config.net.widths, width, upper)
            if config.hierarchy.codebook == "own":
                kind = codebooks[config.codebook.name]
                own = {LEVELS[level]: kind(config.codebook) for level in upper}
        self.level_codebooks = nn.ModuleDict(own)

    def load_vocabulary(self, source: TextSource | None) -> None:
        """Fills what its parts hold of a text store; once, before training."""
        for codebook in {id(codebook): codebook for codebook in self.codebooks.values()}.values():
            codebook.load_vocabulary(source)
        if self.aligner is not None and source is not None:
            self.aligner.load_vocabulary(source)

    @property
    def codebooks(self) -> dict[int, Codebook]:
        """The codebook of each level that is quantized; several levels may share one."""
        levels = {DEEP: self.codebook}
        for level in self.aligner.levels if self.aligner is not None else ():
            name = LEVELS[level]
            own = self.level_codebooks[name] if name in self.level_codebooks else self.codebook  # noqa: SIM401 (no get)
            assert isinstance(own, Codebook)
            levels[level] = own
        return levels

    @property
    def factor(self) -> int:
        """The downsampling factor: one index covers factor × factor pixels."""
        return self.config.net.factor

    @property
    def entries(self) -> int:
        """k, the number of codebook entries of all parts."""
        return self.codebook.size

    def _check_size(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            shape = list(images.shape)
            raise UsageError(f"Expected a float tensor [b, 3, h, w] in [-1, 1]; got {images.dtype} {shape}.")
        y, x = images.shape[-2:]
        if y % self.factor or x % self.factor or not (y and x):
            raise UsageError(f"Cannot encode images of {x} x {y}: both sides must be multiples of {self.factor}.")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the encoder's weights; images of any float type are converted to it."""
        first = next(self.encoder.parameters(), None)
        return torch.float32 if first is None else first.dtype

    def prepare(self, device: torch.device | str | None = None, precision: str | None = None) -> "Tokenizer":
        """Put a trained tokenizer to use, in evaluation mode and in the memory format that suits the device.

        On a CPU the weights of convolutions have channels last in memory, so that all activations do. Indices are the
        same in every format, except where rounding decides between two entries; images are the same to rounding.
        For another device call this again, in place of `to`.

        Args:
            device: where to compute; by default where it is.
            precision: `fp32`, or `bf16`, in which encoder and decoder run under autocast: about twice as fast on a
                processor that multiplies bfloat16, for a few indices in a hundred that differ. By default the one of
                `tavq.use_precision`, else fp32.

        Returns the tokenizer itself.

        Raises:
            UsageError: there is no such precision.
        """
        self.precision = select_precision(precision)
        place = next(self.parameters()).device if device is None else torch.device(device)
        form = torch.channels_last if place.type == "cpu" else torch.contiguous_format
        self.eval().to(place).to(memory_format=form)  # type: ignore[call-overload]
        return self

    def _computing(self) -> AbstractContextManager[None]:
        """The context of encoder and decoder; in fp32 it leaves the autocast of a training step as it is."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(next(self.parameters()).device.type, torch.bfloat16)

    def _widened(self, computed: Tensor) -> Tensor:
        """What bf16 gave, in the type of the weights, which all other parts expect."""
        return computed if self.precision == "fp32" else computed.to(self.dtype)

    def encode(self, images: Float[Tensor, "b 3 y x"]) -> Int[Tensor, "b h w *c"]:
        """Encode images in [-1, 1], of any float type, to indices, c at each position if the codebook has c > 1 parts.

        Raises:
            UsageError: the images have another shape, or values that are not finite or far outside [-1, 1].
            TrainingError: the encoder gives NaN or infinity.
        """
        self._check_size(images)
        check_pixels(images)
        with torch.no_grad():
            with self._computing():
                _, features = self.encoder(images.to(self.dtype))
            finite = require_finite(self._widened(features), "The encoder's features")
            return self.quantizer.indices(finite, self.codebook)

    def decode(self, indices: Integer[Tensor, "b h w *c"]) -> Float[Tensor, "b 3 y x"]:
        """Decode indices, of any integer type, to images in about [-1, 1] (not clamped).

        Raises:
            UsageError: the indices have another shape, or are no entries of the codebook.
            TrainingError: the decoder gives NaN or infinity.
        """
        wide = self.check_indices(indices)
        with torch.no_grad():
            codes = self.quantizer.lookup(wide, self.codebook)
            with self._computing():
                images = self.decoder(codes)
            return require_finite(self._widened(images), "The decoder's images")

    def check_indices(self, indices: Tensor) -> Tensor:
        """The indices as int64 (torch knows few operations on narrow integers); UsageError as in `decode`."""
        sizes = self.codebook.sizes
        axes = ["b", "h", "w"] + [str(len(sizes))] * (len(sizes) > 1)
        integer = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
        if not integer or indices.ndim != len(axes) or (len(sizes) > 1 and indices.shape[3] != len(sizes)):
            raise UsageError(
                f"Expected an integer tensor [{', '.join(axes)}]; got {indices.dtype} {list(indices.shape)}."
            )
        h, w = indices.shape[1:3]
        if not (h and w):
            raise UsageError(f"Cannot decode an empty grid of {h} x {w} indices.")
        wide = indices.to(torch.int64)
        check_range(wide.unbind(3) if len(sizes) > 1 else [wide], sizes)
        return wide

    def lookup_entries(self) -> Float[Tensor, "k d"]:
        """Each entry as the decoder reads it, with every other part at the mean of its entries."""
        with torch.no_grad():
            return self.quantizer.lookup_entries(self.codebook)

    def features(self, images: Float[Tensor, "b 3 y x"]) -> dict[int, Float[Tensor, "b d _h _w"]]:
        """The features of each level before they are quantized, shallow levels first.

        Raises:
            UsageError: the images have another shape.
            TrainingError: in evaluation mode, the encoder gives NaN or infinity; training looks at its losses instead.
        """
        self._check_size(images)
        with self._computing():
            stages, deep = self.encoder(images.to(self.dtype))
            upper = self.hierarchy(stages) if self.hierarchy is not None else {}
        levels = {level: self._widened(grid) for level, grid in {**upper, DEEP: deep}.items()}
        if not self.training:  # the quantizer would give entries for NaN too, mostly the same one
            for grid in levels.values():
                require_finite(grid, "The encoder's features")
        return levels

    def quantize_features(self, levels: Mapping[int, Float[Tensor, "b d _h _w"]]) -> dict[int, Quantized]:
        """Quantize what `features` gives; in training also update the codebooks."""
        upper = {level: grid for level, grid in levels.items() if level != DEEP}
        # A generated codebook is computed once for all levels that share it. The deep level comes first: only its
        # features initialize and update a shared codebook, with which the other levels are then quantized.
        shared = CodebookView(self.codebook, self.codebook()) if self.codebook.generated else self.codebook
        if self.quantizer.training:
            self.quantizer.step_schedule()
        deep = self.quantizer(levels[DEEP], shared, update=self.codebook.training)  # off where it alone is frozen
        quantized = {}
        for level, grid in upper.items():
            own = self.codebooks[level]
            is_own = own is not self.codebook
            quantized[level] = self.quantizer(grid, own if is_own else shared, update=is_own and own.training)
        return {**quantized, DEEP: deep}

    def quantize(self, images: Float[Tensor, "b 3 y x"]) -> dict[int, Quantized]:
        """The quantized grids by level: always the deep one (2), and the shallower ones that the aligner reads."""
        return self.quantize_features(self.features(images))

    def forward(self, images: Float[Tensor, "b 3 y x"], text: TextFeatures | None = None) -> TokenizerOutput:
        """Reconstruct images and compute every loss but those on pixels; the alignment losses need `text`."""
        levels = self.quantize(images)
        losses = self.compute_losses(levels, text)
        return TokenizerOutput(self.decoder(levels[DEEP].quantized), levels, losses)

    def compute_losses(self, levels: Mapping[int, Quantized], text: TextFeatures | None) -> Losses:
        """Every loss but those on pixels, with the weights of their levels."""
        losses = dict(levels[DEEP].losses)
        for level, quantized in levels.items():
            if level != DEEP:
                losses |= {
                    f"{key}/{LEVELS[level]}": Loss(loss.value, loss.weight * self.config.hierarchy.weight)
                    for key, loss in quantized.losses.items()
                }
        if self.aligner is not None and text is not None:
            losses |= self.aligner(levels, text)
        return losses

    def without_alignment(self) -> "Tokenizer":
        """A copy without aligner and hierarchy, which shares the weights: smaller, with the same indices."""
        with torch.device("meta"):  # takes no memory, and leaves the random state of a running training alone
            plain = Tokenizer(self.config.model_copy(update={"align": None, "text_width": None}))
        plain.load_state_dict(self.state_dict(), strict=False, assign=True)
        plain.precision = self.precision
        return plain.train(self.training)

    def with_fixed_codebook(self) -> "Tokenizer":
        """A copy with a table in place of a generated codebook, which shares the other weights.

        Indices and images are the same bit for bit. Returns the tokenizer itself if its codebook is not generated.
        """
        if not self.codebook.generated:
            return self
        made = self.codebook
        config = FixedCodebook.Config(sizes=made.sizes, width=made.width, distance=made.distance, words=made.words)
        with torch.device("meta"):  # as in without_alignment
            fixed = Tokenizer(self.config.model_copy(update={"codebook": config}))
        generated = ("codebook.", "level_codebooks.")
        state = {key: value for key, value in self.state_dict().items() if not key.startswith(generated)}
        state["codebook.table"] = compute_table(made)
        for level, codebook in self.level_codebooks.items():
            state[f"level_codebooks.{level}.table"] = compute_table(codebook)
        fixed.load_state_dict(state, assign=True)
        fixed.precision = self.precision
        return fixed.train(self.training)

    # --- model folders ------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        folder: str | Path,
        card: str = "",
        metadata: dict[str, Any] | None = None,
        discriminator: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a model folder (config.json, model.safetensors, README.md) in one atomic step.

        Args:
            folder: replaced if it exists.
            card: the model card, written to README.md.
            metadata: further keys of config.json (data hash, steps, versions).
            discriminator: weights of a discriminator to keep beside; `metadata` has its settings.
        """
        with files.write_folder(Path(folder)) as temporary:
            weights = temporary / "model.safetensors"
            files.write_tensors(weights, self.state_dict())
            record = {"format": FORMAT, "kind": "tokenizer", "model": self.config.model_dump(mode="json")}
            write_config(temporary, {**record, "sha256": files.sha256(weights), **(metadata or {})})
            if discriminator:
                files.write_tensors(temporary / f"{DISCRIMINATOR}.safetensors", discriminator)
            files.write_text(temporary / "README.md", card or "# Image tokenizer\n")

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> "Tokenizer":
        """Load a tokenizer in evaluation mode from a model folder, a run folder (its `model/`) or a hub name.

        Raises:
            FileError: a file is missing, truncated, altered or does not fit its settings.
            UsageError: the settings name unknown parts.
        """
        folder = find_model(name_or_path)
        stored = read_model_config(folder)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise FileError(f"There is no file {weights}.")
        files.check_sha256(weights, str(stored.get("sha256")))
        config = build_stored(TokenizerConfig, with_literal_alignment(stored["model"]), str(folder / "config.json"))
        with torch.device("meta"):  # finds settings that do not fit before it allocates memory
            tokenizer = cls(config)
        tensors = files.read_tensors(weights)
        tokenizer.load_state_dict(match_tensors(tokenizer, tensors, weights), assign=True)
        return tokenizer.eval().requires_grad_(False)

    def parameter_counts(self) -> dict[str, int]:
        """The number of parameters of each part."""
        return {name: count_parameters(part) for name, part in self.named_children()}


@torch.no_grad()
def compute_table(codebook: nn.Module) -> Float[Tensor, "k d"]:
    """The entries of a generated codebook as they are in evaluation."""
    training = codebook.training
    table: Tensor = codebook.eval()().clone()
    codebook.train(training)
    return table
