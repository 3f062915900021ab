"""MaskGIT: a bidirectional transformer that predicts hidden tokens, many at a time and in any order.

Source: MaskGIT (Chang et al. 2022, arXiv 2202.04200), §3.
"""

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Losses
from tavq.nets.transformer import Transformer, check_heads, sinusoidal_positions
from tavq.ops.masking import IGNORED
from tavq.tasks.base import GenerationBatch, GenerationTask, Prompt, Sampling, TokenLayout, sample_tokens, tasks
from tavq.tasks.windows import crop_window, overlapping_windows, paste_window

INIT_STD = 0.02
"""Standard deviation of initial weights, as in BERT, which the paper follows."""

ROUNDING = 1e-9
"""Subtracted before rounding up: cos 60° is slightly above a half in floats."""


def count_masked(uniform: Float[Tensor, " b"], length: int) -> Int[Tensor, " b"]:
    """How many of `length` tokens are masked in training: cos(π r / 2) of them, rounded up, for r in [0, 1)."""
    fraction = torch.cos(uniform.double() * (math.pi / 2))
    return (fraction * length - ROUNDING).ceil().long().clamp(1, length)


def count_still_masked(step: int, steps: int, counts: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """How many of the `counts` initially masked tokens remain masked after decoding step `step`, from 1.

    Each step fills in at least one token, and the last one fills in all that remain.
    """
    if step >= steps:
        return torch.zeros_like(counts)
    fraction = math.cos(math.pi / 2 * step / steps)
    scheduled = (counts.double() * fraction - ROUNDING).ceil().long()
    return scheduled.minimum(counts - step).clamp(min=0)


def select_largest(values: Float[Tensor, "b n"], counts: Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """True at the `counts` largest values of each image."""
    return values.argsort(dim=1, descending=True).argsort(dim=1) < counts[:, None]


@tasks.register("masked")
class MaskedTask(GenerationTask):
    """A masked-token model; it decodes in steps, the most confident tokens first, and keeps known tokens.

    The network reads all tokens, a mask token at the hidden positions, and returns logits over the tokens that are
    valid there. Each step samples every hidden token and keeps the most confident ones. The confidence is the log
    probability of the sampled token plus Gumbel noise times `choice_temperature` (1 - t/T) in step t of T. The number
    of tokens that remain masked follows the cosine schedule. Decoding costs T passes over all n tokens, however small
    the hidden region is.

    Position embeddings are learned, one for each token of the sequence, as in the paper: a model is trained for one
    grid anyway. They start from the grid's sinusoids, at the scale of the token embeddings, so that the network need
    not discover which positions are neighbours: in 150 steps of `completion-tiny` at batch 8 the loss reached 4.3
    instead of 4.5 with random ones.

    Source: arXiv 2202.04200, §3.1 (training: eq. 1, with label smoothing), §3.2 (decoding), §3.3 (cosine schedule);
    the choice temperature of 4.5, the tied weights and the layer before the logits are those of its published code.
    Differs from the paper: norms before the attention (`nets/transformer`); sinusoidal start of the position
    embeddings; each part of a position is a token of its own; larger grids; at temperature 0 there is no Gumbel noise
    either, so that decoding is deterministic; decoding rounds up as training does, where the published code rounds
    down.
    """

    class Config(NamedConfig):
        """The size of the network, its training and its decoding."""

        RENAMED: ClassVar = {"noise": "choice_temperature"}

        name: Literal["masked"] = "masked"
        layers: int = Field(16, ge=1, le=256)
        heads: int = Field(16, ge=1, le=256)
        width: int = Field(1024, ge=1, le=16384)
        dropout: float = Field(0.1, ge=0, lt=1)
        label_smoothing: float = Field(0.1, ge=0, lt=1)
        steps: int = Field(12, ge=1, le=10_000)
        """Default number of decoding steps."""
        choice_temperature: float = Field(4.5, ge=0, le=1000)
        """Scale of the Gumbel noise added to the confidences; 0 always keeps the most confident tokens."""

        _check_heads = model_validator(mode="after")(check_heads)

    completion = "any"
    sampling_options = frozenset({"steps"})
    supports_larger_grids = True
    RENAMED_TENSORS: ClassVar = {
        "tokens": "token_embedding",
        "places": "position_embedding",
        "enter": "embedding_norm",
        "leave": "head",
    }

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
        self.token_embedding = nn.Embedding(layout.vocabulary + 1, width)  # the last is the mask token
        self.position_embedding = nn.Embedding(layout.length, width)
        self.embedding_norm, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.transformer = Transformer(width, config.layers, config.heads, dropout=config.dropout)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(layout.vocabulary))
        self.apply(_init_weights)
        with torch.no_grad():
            self.position_embedding.weight.copy_(_initial_positions(layout, self.position_embedding.weight))

    @property
    def mask_token(self) -> int:
        """The id of the mask token, which corresponds to no index."""
        return self.layout.vocabulary

    def _encode(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """The hidden states from which the logits are computed."""
        embedded = self.token_embedding(tokens) + self.position_embedding.weight
        return self.head(self.transformer(self.dropout(self.embedding_norm(embedded))))

    def _output_layers(self) -> Iterator[tuple[slice, int, Float[Tensor, "k c"], Float[Tensor, " k"]]]:
        """For each part: its positions in the sequence, its first token, and the weight and bias of its logits.

        Logits cover only the tokens of the position's own part, so that no other can be sampled. The weights are the
        token embeddings (tied).
        """
        sizes = self.layout.sizes
        for part, (first, size) in enumerate(zip(accumulate((0, *sizes)), sizes, strict=False)):
            entries = slice(first, first + size)
            yield slice(part, None, len(sizes)), first, self.token_embedding.weight[entries], self.bias[entries]

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(self, batch: GenerationBatch) -> Losses:
        """Cross-entropy with label smoothing, the mean over the masked tokens of the batch."""
        tokens = batch.tokens
        counts = count_masked(torch.rand(len(tokens), device=tokens.device), self.layout.length)
        masked = select_largest(torch.rand(tokens.shape, device=tokens.device), counts)
        hidden = self._encode(tokens.masked_fill(masked, self.mask_token))
        errors = hidden.new_zeros((), dtype=torch.float32)
        for positions, first, weight, bias in self._output_layers():
            targets = (tokens[:, positions] - first).masked_fill(~masked[:, positions], IGNORED)
            logits = F.linear(hidden[:, positions], weight, bias).flatten(0, 1)
            smoothing = self.config.label_smoothing
            errors = errors + F.cross_entropy(
                logits, targets.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
            )
        return {"task/masked": Loss(errors / masked.sum(), 1.0, masked.sum())}

    # --- sampling ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens before the first step and after each one, with the mask token where they are still hidden.

        A larger grid is filled in window by window. Each window overlaps the ones before it by half, and keeps the
        tokens that they sampled.
        """
        layout, own = self.output_layout(prompt), self.layout
        tokens = self._initial_tokens(prompt, layout)
        yield tokens
        for corner in overlapping_windows(layout, own):
            for window in self._decode_window(crop_window(tokens, layout, own, corner), sampling, generator):
                tokens = paste_window(tokens, layout, window, own, corner)
                yield tokens

    def _decode_window(
        self, tokens: Int[Tensor, "b n"], sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens of a window after each step."""
        masked = tokens == self.mask_token
        counts, steps = masked.sum(1), sampling.steps or self.config.steps
        for step in range(1, min(steps, int(counts.max())) + 1):
            sampled, confidence = self._sample_masked(tokens, masked, sampling, generator)
            noise = self.config.choice_temperature * (1 - step / steps) if sampling.temperature > 0 else 0.0
            if noise > 0:
                exponential = torch.empty_like(confidence).exponential_(generator=generator)
                confidence = confidence - noise * exponential.clamp(min=1e-30).log()  # -log E is Gumbel noise
            kept = select_largest(confidence, masked.sum(1) - count_still_masked(step, steps, counts))
            tokens, masked = torch.where(kept, sampled, tokens), masked & ~kept
            yield tokens

    def _initial_tokens(self, prompt: Prompt, layout: TokenLayout) -> Int[Tensor, "b n"]:
        """The known tokens, and the mask token elsewhere."""
        shape, device = (prompt.count, layout.length), self.bias.device
        known, keep = prompt.known_tokens, prompt.keep_mask
        if known is None or keep is None:
            return torch.full(shape, self.mask_token, device=device)
        if known.shape != shape or keep.shape != shape:
            raise UsageError(
                f"The known tokens have shape {list(known.shape)} and the keep mask {list(keep.shape)}; expected "
                f"{list(shape)}."
            )
        return known.masked_fill(~keep, self.mask_token)

    def _sample_masked(
        self, tokens: Int[Tensor, "b n"], masked: Bool[Tensor, "b n"], sampling: Sampling, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b n"], Float[Tensor, "b n"]]:
        """The tokens with every masked one sampled, and the log probability of each; -inf where none was masked."""
        hidden, sampled = self._encode(tokens), tokens.clone()
        confidence = torch.full(tokens.shape, -torch.inf, device=tokens.device)
        for positions, first, weight, bias in self._output_layers():
            wanted = masked[:, positions]
            logits = F.linear(hidden[:, positions][wanted], weight, bias).float()
            chosen = sample_tokens(logits, sampling, generator)
            sampled[:, positions][wanted] = chosen + first
            confidence[:, positions][wanted] = logits.log_softmax(1).gather(1, chosen[:, None])[:, 0]
        return sampled, confidence


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _initial_positions(layout: TokenLayout, noise: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """The sinusoids of each position of the grid, plus noise that distinguishes its parts."""
    grid = sinusoidal_positions(layout.height, layout.width, noise.shape[1], noise.device)
    sinusoids = 2**0.5 * INIT_STD * grid.repeat_interleave(layout.parts, dim=0)
    of_part = noise[: layout.parts] if layout.parts > 1 else torch.zeros_like(noise[:1])
    return sinusoids + of_part.repeat(layout.height * layout.width, 1)
