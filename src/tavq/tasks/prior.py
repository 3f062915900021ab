"""An autoregressive prior over image tokens: new images, the rest of an image, an image for a segmentation map.

Source: VQ-GAN (arXiv 2012.09841), §3.2: a GPT over the indices in raster order, p(s) = ∏ p(s_i | s_<i), and with a
condition c prepended to them, p(s | c) = ∏ p(s_i | s_<i, c); larger images by a sliding window (its fig. 3). LG-VQ
and TA-VQ generate so; the recipes have their sizes.
Differs from the paper: a start token, so that the first token is sampled too; a fraction of the conditions is dropped
in training, for classifier-free guidance; a position of several parts is several tokens.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Losses
from tavq.nets.causal import INIT_STD, CausalTransformer
from tavq.nets.transformer import check_heads
from tavq.tasks.base import (
    GenerationBatch,
    GenerationTask,
    Prompt,
    Sampling,
    TokenLayout,
    apply_guidance,
    sample_tokens,
    tasks,
)
from tavq.tasks.windows import Corner, crop_window, window_around

MAX_PARAMETERS = 1 << 31
"""8 GB in fp32; a larger model is a typing error or an attack."""


class PriorConfig(NamedConfig):
    """The size of the transformer and its condition."""

    RENAMED: ClassVar = {"unconditional": "condition_dropout"}

    name: Literal["prior"] = "prior"
    layers: int = Field(12, ge=1, le=64)
    heads: int = Field(8, ge=1, le=64)
    width: int = Field(512, ge=8, le=4096)
    """Of the hidden states; a multiple of `heads`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the embedded tokens and of each residual branch."""
    segmentation: bool = False
    """Condition on the tokens of segmentation maps, from a tokenizer trained on maps."""
    condition_dropout: float = Field(0.1, ge=0, lt=1)
    """Fraction of the conditions dropped in training; guidance needs it above 0."""

    _check_heads = model_validator(mode="after")(check_heads)


@tasks.register("prior")
class Prior(GenerationTask):
    """A GPT over the tokens of an image in raster order, the parts of a position in turn.

    Its sequence is the g tokens of the condition (if it has one), a start token, and all tokens but the last. The
    outputs from the start token on predict the n tokens. `sample` caches 2 · layers · width numbers for each token of
    each image; guidance doubles that.
    """

    Config = PriorConfig
    completion = "end"
    sampling_options = frozenset({"guidance"})
    supports_larger_grids = True
    RENAMED_TENSORS: ClassVar = {
        "embed": "token_embedding",
        "embed_given": "condition_embedding",
        "places": "position_embedding",
        "net": "transformer",
    }

    def __init__(
        self,
        config: PriorConfig,
        layout: TokenLayout,
        condition_layout: TokenLayout | None = None,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        if config.segmentation and condition_layout is None:
            raise UsageError("A prior with segmentation needs the layout of the segmentation maps' tokens.")
        self.condition_layout = condition_layout if config.segmentation else None
        _check_size(config, layout, self.condition_layout)
        self.prefix = 0 if self.condition_layout is None else self.condition_layout.length
        self.start = layout.vocabulary  # the last row of the embedding
        self.first_tokens = tuple(accumulate((0, *layout.sizes[:-1])))  # of each part
        self.token_embedding = nn.Embedding(layout.vocabulary + 1, config.width)
        self.condition_embedding = None
        if self.condition_layout is not None:  # the last row stands for a dropped condition
            self.condition_embedding = nn.Embedding(self.condition_layout.vocabulary + 1, config.width)
        self.position_embedding = nn.Embedding(self.prefix + layout.length, config.width)
        self.transformer = CausalTransformer(config.width, config.layers, config.heads, config.dropout)
        self.head = nn.Linear(config.width, layout.vocabulary, bias=False)
        for table in (self.token_embedding, self.condition_embedding, self.position_embedding, self.head):
            if table is not None:
                nn.init.normal_(table.weight, std=INIT_STD)

    @classmethod
    def required_conditions(cls, config: Any) -> frozenset[str]:
        return frozenset({"segmentation"} if config.segmentation else ())

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, batch: GenerationBatch) -> Losses:
        """The negative log-likelihood of a token in nats; in training some conditions are dropped."""
        condition = batch.condition
        if self.training and self.condition_layout is not None and condition is not None:
            dropped = torch.rand(len(condition), 1, device=condition.device) < self.config.condition_dropout
            condition = torch.where(dropped, self.condition_layout.vocabulary, condition)
        return {"prior/nll": Loss(-self.log_likelihood(batch.tokens, condition).mean(), 1.0)}

    def log_likelihood(self, tokens: Int[Tensor, "b n"], condition: Int[Tensor, "b g"] | None) -> Float[Tensor, "b n"]:
        """log p of each token given the ones before it, in nats, normalised over the tokens of its part."""
        hidden = self.transformer(self._embed(tokens[:, :-1], condition))[:, self.prefix :]
        parts, log_likelihoods = self.layout.parts, []
        for part, first in enumerate(self.first_tokens):
            logits = self._logits(hidden[:, part::parts], part).float()
            targets = tokens[:, part::parts] - first
            errors = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            log_likelihoods.append(-errors.view_as(targets))
        return torch.stack(log_likelihoods, dim=2).flatten(1)

    def _embed(self, tokens: Int[Tensor, "b m"], condition: Int[Tensor, "b g"] | None) -> Float[Tensor, "b s c"]:
        """The embeddings of the condition, the start token and the first m tokens, with their positions."""
        start = torch.full((len(tokens), 1), self.start, device=tokens.device)
        embedded = self.token_embedding(torch.cat([start, tokens], dim=1))
        if self.condition_embedding is not None:
            assert condition is not None, "the condition is missing"
            embedded = torch.cat([self.condition_embedding(condition), embedded], dim=1)
        return embedded + self.position_embedding.weight[: embedded.shape[1]]

    def _logits(self, hidden: Float[Tensor, "*n c"], part: int) -> Float[Tensor, "*n k"]:
        """Logits over the entries of one part, the only valid tokens at its positions."""
        first = self.first_tokens[part]
        return F.linear(hidden, self.head.weight[first : first + self.layout.sizes[part]])

    # --- sampling -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The known tokens, and the tokens after each row of the grid.

        Each token is sampled in a window of the trained size around its position. In a larger grid the window moves
        with almost every position; cached keys then belong to other positions, so the whole window is encoded again:
        the half of it that comes before the position, and the condition. While it stands still, each step encodes one
        token.
        """
        layout, own, parts = self.output_layout(prompt), self.layout, self.layout.parts
        condition = self._check_condition(prompt, sampling)
        known, keep, first = self._known_tokens(prompt, layout)
        tokens = torch.where(keep, known, layout.vocabulary)
        yield tokens.clone()
        if first == layout.length:
            return
        guided = condition is not None and len(condition) > prompt.count
        copies = 2 if guided else 1
        cache, window = self.transformer.make_cache(copies * prompt.count, self.prefix + own.length), None
        for index in range(first, layout.length):
            y, x = divmod(index // parts, layout.width)
            corner, part = window_around(y, x, layout, own), index % parts
            index_in_window = ((y - corner[0]) * own.width + x - corner[1]) * parts + part
            if corner != window:
                window, cache.length = corner, 0
                before = crop_window(tokens, layout, own, corner)[:, :index_in_window]
                embedded = self._embed(before.repeat(copies, 1), self._crop_condition(condition, layout, corner))
            else:
                last = tokens[:, index - 1 : index].repeat(copies, 1)
                embedded = self.token_embedding(last) + self.position_embedding.weight[self.prefix + index_in_window]
            logits = self._logits(self.transformer(embedded, cache)[:, -1], part).float()
            if guided:
                logits = apply_guidance(logits[: prompt.count], logits[prompt.count :], sampling.guidance)
            sampled = self.first_tokens[part] + sample_tokens(logits, sampling, generator)
            tokens[:, index] = torch.where(keep[:, index], known[:, index], sampled)
            if (index + 1) % (layout.width * parts) == 0:
                yield tokens.clone()

    def _check_condition(self, prompt: Prompt, sampling: Sampling) -> Int[Tensor, "b g"] | None:
        """The tokens of the condition; with guidance, the dropped condition is appended for each image."""
        if self.condition_layout is None:
            if sampling.guidance != 1:
                raise UsageError(f"guidance is {sampling.guidance}, but this prior has no condition; leave it at 1.")
            return None
        if prompt.condition is None:
            raise UsageError("This prior generates images from segmentation maps; give one map for each image.")
        map_layout = self._condition_layout_for(self.output_layout(prompt))
        _check_tokens(prompt.condition, prompt.count, map_layout, "segmentation maps")
        if sampling.guidance == 1:
            return prompt.condition
        if self.config.condition_dropout == 0:
            raise UsageError(
                f"guidance is {sampling.guidance}, but this prior was trained without dropping conditions "
                "(task.condition_dropout 0); leave it at 1."
            )
        return torch.cat([prompt.condition, torch.full_like(prompt.condition, self.condition_layout.vocabulary)])

    def _condition_layout_for(self, layout: TokenLayout) -> TokenLayout:
        """The layout of the segmentation maps for images of `layout`, scaled up by the same factors."""
        own, maps = self.layout, self.condition_layout
        assert maps is not None
        height, height_rest = divmod(layout.height * maps.height, own.height)
        width, width_rest = divmod(layout.width * maps.width, own.width)
        if height_rest or width_rest:
            raise UsageError(
                f"{layout.height} x {layout.width} positions do not match a whole number of positions of the "
                f"segmentation map, which has {maps.height} x {maps.width} for {own.height} x {own.width}."
            )
        return maps.resized(height, width)

    def _crop_condition(
        self, condition: Int[Tensor, "b m"] | None, layout: TokenLayout, corner: Corner
    ) -> Tensor | None:
        """The condition of a window, rounded down to the map's nearest position."""
        own, maps = self.layout, self.condition_layout
        if condition is None or maps is None:
            return None
        y, x = corner[0] * maps.height // own.height, corner[1] * maps.width // own.width
        return crop_window(condition, self._condition_layout_for(layout), maps, (y, x))

    def _known_tokens(self, prompt: Prompt, layout: TokenLayout) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"], int]:
        """The known tokens, which of them are kept, and how many leading tokens are kept in every image."""
        shape, device = (prompt.count, layout.length), self.head.weight.device
        if prompt.known_tokens is None or prompt.keep_mask is None:
            return torch.zeros(shape, dtype=torch.int64, device=device), torch.zeros(shape, device=device).bool(), 0
        known, keep = prompt.known_tokens, prompt.keep_mask
        _check_tokens(torch.where(keep, known, 0), prompt.count, layout, "images")
        if bool((keep[:, 1:] & ~keep[:, :-1]).any()):
            raise UsageError(
                "The prior can only complete everything after some position; your mask keeps a token after a hidden "
                "one. A task that completes any region can do that."
            )
        return known, keep, int(keep.all(0).sum())


def _check_tokens(tokens: Tensor, count: int, layout: TokenLayout, what: str) -> None:
    """Raises UsageError unless these are the tokens of `count` images of the layout."""
    if tokens.shape != (count, layout.length):
        raise UsageError(
            f"The tokens of the {what} have shape {list(tokens.shape)}; expected {count} images of {layout.height} x "
            f"{layout.width} positions of {layout.parts}."
        )
    if count and not 0 <= int(tokens.min()) <= int(tokens.max()) < layout.vocabulary:
        raise UsageError(
            f"Tokens {int(tokens.min())} to {int(tokens.max())} of the {what} do not fit a vocabulary of "
            f"{layout.vocabulary}; they come from another tokenizer."
        )


def _check_size(config: PriorConfig, layout: TokenLayout, condition_layout: TokenLayout | None) -> None:
    """Raises UsageError for a network that does not fit into memory, before any is allocated."""
    rows = 2 * layout.vocabulary + layout.length
    if condition_layout is not None:
        rows += condition_layout.vocabulary + condition_layout.length
    parameters = config.width * (rows + 12 * config.layers * config.width)
    if parameters > MAX_PARAMETERS:
        raise UsageError(
            f"A prior of {parameters:,} parameters is too large; at most {MAX_PARAMETERS:,} are allowed "
            f"(task.layers {config.layers}, task.width {config.width}, a vocabulary of {layout.vocabulary:,})."
        )
