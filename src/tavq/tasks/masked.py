"""Draws many tokens at a time, in any order: a bidirectional transformer that fills in what is hidden.

Source: MaskGIT (Chang et al. 2022, arXiv 2202.04200), §3.
"""

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Losses
from tavq.nets.transformer import Transformer, grid_positions, whole_heads
from tavq.tasks.base import GenerationBatch, GenerationTask, Prompt, Sampling, TokenLayout, sample_tokens, tasks
from tavq.tasks.windows import crop_window, overlapping_windows, paste_window

SPREAD = 0.02
"""Standard deviation of the weights at the start, as in BERT, which the paper follows."""

IGNORED = -100
"""The target of a token that does not count."""


def masked_counts(draws: Float[Tensor, " b"], length: int) -> Int[Tensor, " b"]:
    """How many of `length` tokens are hidden in training: cos(π r / 2) of them, rounded up, for r in [0, 1)."""
    share = torch.cos(draws.double() * (math.pi / 2))
    return (share * length - 1e-9).ceil().long().clamp(1, length)  # cos 60° is a little above a half in floats


def hidden_after(step: int, steps: int, counts: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """How many of the `counts` tokens hidden at first still are after a pass, the first one being 1.

    Each pass fills in one token at least, and the last one all that remain.
    """
    if step >= steps:
        return torch.zeros_like(counts)
    share = math.cos(math.pi / 2 * step / steps)
    scheduled = (counts.double() * share - 1e-9).ceil().long()
    return scheduled.minimum(counts - step).clamp(min=0)


def greatest(values: Float[Tensor, "b n"], counts: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Where the `counts` greatest values of each row stand."""
    return values.argsort(dim=1, descending=True).argsort(dim=1) < counts[:, None]


@tasks.register("masked")
class MaskedTask(GenerationTask):
    """Tokens drawn in passes, those first that the network is surest of; known ones stay.

    The network sees the tokens of all places, a mask token at the hidden ones, and gives logits over the tokens that
    may stand there. Each pass draws every hidden token and keeps the most confident: the logarithm of the drawn
    token's probability and Gumbel noise, `noise` times 1 - t/T in pass t of T. How many stay hidden follows the
    cosine schedule. Costs T passes of the network over all n tokens, however large the hidden region is.

    Positions are learned, one vector for each place of the sequence, as in the paper: a model is made for one grid
    anyway. They begin as the grid's sinusoids and not as noise, as large as the tokens' vectors, so that neighbours
    need not be discovered: in 150 steps of `completion-tiny`'s network at batch 8 the loss came to 4.3 instead of 4.5.

    Source: arXiv 2202.04200, §3.1 (training: eq. 1, targets smoothed), §3.2 (decoding), §3.3 (cosine schedule); the
    noise and its 4.5, the tied weights and the layer before the logits as in its published code.
    Differs from the paper: the norms come before the attention (`nets/transformer`); positions begin as sinusoids; of
    several parts of a position each is a token of its own; larger grids are drawn; at temperature 0 the noise is off
    too, so that nothing is drawn at random; decoding rounds upwards as training does, where the published code rounds
    downwards.
    """

    class Config(NamedConfig):
        """The size of the network, its training and its decoding."""

        name: Literal["masked"] = "masked"
        layers: int = Field(16, ge=1, le=256)
        heads: int = Field(16, ge=1, le=256)
        width: int = Field(1024, ge=1, le=16384)
        dropout: float = Field(0.1, ge=0, lt=1)
        label_smoothing: float = Field(0.1, ge=0, lt=1)
        steps: int = Field(12, ge=1, le=10_000)
        """Passes in which an image is drawn where nothing else is asked for."""
        noise: float = Field(4.5, ge=0, le=1000)
        """Of the first passes' choice of what to keep; 0 keeps the most confident always."""

        _whole_heads = model_validator(mode="after")(whole_heads)

    completion = "any"
    sampling_options = frozenset({"steps"})
    supports_larger_grids = True

    def __init__(
        self,
        config: Config,
        layout: TokenLayout,
        condition_layout: TokenLayout | None = None,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        width = config.width
        self.tokens = nn.Embedding(layout.vocabulary + 1, width)  # the last is the mask token
        self.places = nn.Embedding(layout.length, width)
        self.enter, self.drop = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.transformer = Transformer(width, config.layers, config.heads, dropout=config.dropout)
        self.leave = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(layout.vocabulary))
        self.apply(_start)
        with torch.no_grad():
            self.places.weight.copy_(_first_places(layout, self.places.weight))

    @property
    def mask(self) -> int:
        """The mask token; it stands for no index."""
        return self.layout.vocabulary

    def _features(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        rows = self.drop(self.enter(self.tokens(tokens) + self.places.weight))
        return self.leave(self.transformer(rows))

    def _parts(self) -> Iterator[tuple[slice, int, Float[Tensor, "k c"], Float[Tensor, " k"]]]:
        """Of each part of a position: its places, its first token, and the weights and biases of its logits.

        A place's logits are of its own part's tokens alone, so that no other is ever drawn.
        """
        sizes = self.layout.sizes
        for part, (first, size) in enumerate(zip(accumulate((0, *sizes)), sizes, strict=False)):
            own = slice(first, first + size)
            yield slice(part, None, len(sizes)), first, self.tokens.weight[own], self.bias[own]

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, codes: GenerationBatch) -> Losses:
        """Cross-entropy with smoothed targets, the mean over the hidden tokens of the batch."""
        tokens = codes.tokens
        counts = masked_counts(torch.rand(len(tokens), device=tokens.device), self.layout.length)
        hidden = greatest(torch.rand(tokens.shape, device=tokens.device), counts)
        features = self._features(tokens.masked_fill(hidden, self.mask))
        errors = features.new_zeros((), dtype=torch.float32)
        for places, first, weight, bias in self._parts():
            targets = (tokens[:, places] - first).masked_fill(~hidden[:, places], IGNORED)
            logits = F.linear(features[:, places], weight, bias).flatten(0, 1)
            smoothing = self.config.label_smoothing
            errors = errors + F.cross_entropy(
                logits, targets.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
            )
        return {"task/masked": Loss(errors / hidden.sum(), 1.0)}

    # --- drawing ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens before the first pass and after each one: the known ones, and the mask where one is hidden.

        A larger grid is filled in window by window, each half over what the ones before it drew, which stays.
        """
        layout, own = self.output_layout(prompt), self.layout
        tokens = self._begin(prompt, layout)
        yield tokens
        for corner in overlapping_windows(layout, own):
            for window in self._window_passes(crop_window(tokens, layout, own, corner), sampling, generator):
                tokens = paste_window(tokens, layout, window, own, corner)
                yield tokens

    def _window_passes(
        self, tokens: Int[Tensor, "b n"], sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens after each pass."""
        hidden = tokens == self.mask
        counts, steps = hidden.sum(1), sampling.steps or self.config.steps
        for step in range(1, min(steps, int(counts.max())) + 1):
            drawn, confidence = self._drawn(tokens, hidden, sampling, generator)
            noise = self.config.noise * (1 - step / steps) if sampling.temperature > 0 else 0.0
            if noise > 0:
                exponential = torch.empty_like(confidence).exponential_(generator=generator)
                confidence = confidence - noise * exponential.clamp(min=1e-30).log()
            filled = greatest(confidence, hidden.sum(1) - hidden_after(step, steps, counts))
            tokens, hidden = torch.where(filled, drawn, tokens), hidden & ~filled
            yield tokens

    def _begin(self, prompt: Prompt, layout: TokenLayout) -> Int[Tensor, "b n"]:
        """The tokens to start from, the mask where they are hidden."""
        shape, device = (prompt.count, layout.length), self.bias.device
        if prompt.known_tokens is None or prompt.keep_mask is None:
            return torch.full(shape, self.mask, device=device)
        known, keep = prompt.known_tokens, prompt.keep_mask
        if known.shape != shape or keep.shape != shape:
            raise UsageError(
                f"The known tokens are {list(known.shape)} and the keep mask {list(keep.shape)}; this model completes "
                f"{list(shape)}."
            )
        return known.masked_fill(~keep, self.mask)

    def _drawn(
        self, tokens: Int[Tensor, "b n"], hidden: Bool[Tensor, "b n"], sampling: Sampling, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"]]:
        """A token for each hidden place, and the logarithm of its probability, -inf where none is hidden."""
        features, drawn = self._features(tokens), tokens.clone()
        confidence = torch.full(tokens.shape, -torch.inf, device=tokens.device)
        for places, first, weight, bias in self._parts():
            wanted = hidden[:, places]
            logits = F.linear(features[:, places][wanted], weight, bias).float()
            chosen = sample_tokens(logits, sampling, generator)
            drawn[:, places][wanted] = chosen + first
            confidence[:, places][wanted] = logits.log_softmax(1).gather(1, chosen[:, None])[:, 0]
        return drawn, confidence


def _start(module: nn.Module) -> None:
    """The weights that training begins with."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _first_places(layout: TokenLayout, table: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """The sinusoids of each position of the grid, and noise that tells its parts apart."""
    grid = grid_positions(layout.height, layout.width, table.shape[1], table.device)
    waves = 2**0.5 * SPREAD * grid.repeat_interleave(layout.parts, dim=0)
    of_part = table[: layout.parts] if layout.parts > 1 else torch.zeros_like(table[:1])
    return waves + of_part.repeat(layout.height * layout.width, 1)
