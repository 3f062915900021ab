"""An autoregressive prior over image tokens: new images, the rest of an image, an image of a segmentation map.

Source: VQ-GAN (arXiv 2012.09841), §3.2: a GPT over the indices in raster order, p(s) = ∏ p(s_i | s_<i), and with a
condition c prefixed to them, p(s | c) = ∏ p(s_i | s_<i, c); larger images by a sliding window (its fig. 3). LG-VQ
and TA-VQ generate so; the recipes have their sizes.
Differs from the paper: a start token of its own, so that the first token is drawn too; a share of the conditions is
left out in training, for classifier-free guidance; a position of several parts is several tokens.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Losses
from tavq.nets.causal import SPREAD, CausalTransformer
from tavq.nets.transformer import whole_heads
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
"""8 GB in fp32; what is larger is a slip or an attack."""


class PriorConfig(NamedConfig):
    """The sizes of the transformer, and whether it is given segmentation maps."""

    name: Literal["prior"] = "prior"
    layers: int = Field(12, ge=1, le=64)
    heads: int = Field(8, ge=1, le=64)
    width: int = Field(512, ge=8, le=4096)
    """Of a row; a multiple of `heads`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the rows that come in and of what each part of a block adds."""
    segmentation: bool = False
    """Conditioned on the tokens of segmentation maps, by a tokenizer that was trained on such."""
    unconditional: float = Field(0.1, ge=0, lt=1)
    """Share of the conditions that is left out in training; without it there is no guidance."""

    _whole_heads = model_validator(mode="after")(whole_heads)


@tasks.register("prior")
class Prior(GenerationTask):
    """A GPT over the tokens of an image in raster order, the parts of a position in turn.

    Its sequence is: the g tokens of the condition where there is one, a start token, and the tokens but the last. What
    comes out at the start token and after is read for the n tokens. `draw` keeps 2 · layers · width numbers for each
    place of each image; guidance doubles that.
    """

    Config = PriorConfig
    completion = "end"
    sampling_options = frozenset({"guidance"})
    supports_larger_grids = True

    def __init__(
        self,
        config: PriorConfig,
        layout: TokenLayout,
        condition_layout: TokenLayout | None = None,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        self.condition_layout = condition_layout if config.segmentation else None
        if config.segmentation and condition_layout is None:
            raise UsageError("A prior with segmentation needs the layout of the segmentation maps' tokens.")
        _check_size(config, layout, self.condition_layout)
        self.prefix = 0 if self.condition_layout is None else self.condition_layout.length
        self.start = layout.vocabulary  # the last row of the table, as in the condition's that for none
        self.firsts = tuple(accumulate((0, *layout.sizes[:-1])))  # the first token of each part
        self.embed = nn.Embedding(layout.vocabulary + 1, config.width)
        self.embed_given = None
        if self.condition_layout is not None:  # its last row stands for no condition
            self.embed_given = nn.Embedding(self.condition_layout.vocabulary + 1, config.width)
        self.places = nn.Embedding(self.prefix + layout.length, config.width)
        self.net = CausalTransformer(config.width, config.layers, config.heads, config.dropout)
        self.head = nn.Linear(config.width, layout.vocabulary, bias=False)
        for table in (self.embed, self.embed_given, self.places, self.head):
            if table is not None:
                nn.init.normal_(table.weight, std=SPREAD)

    @classmethod
    def required_conditions(cls, config: Any) -> frozenset[str]:
        return frozenset({"segmentation"} if config.segmentation else ())

    # --- learning -----------------------------------------------------------------------------------------------

    def loss(self, codes: GenerationBatch) -> Losses:
        """The negative log-likelihood of a token in nats, in training of a share of the images unconditionally."""
        condition = codes.condition
        if self.training and self.condition_layout is not None and condition is not None:
            dropped = torch.rand(len(condition), 1, device=condition.device) < self.config.unconditional
            condition = torch.where(dropped, self.condition_layout.vocabulary, condition)
        return {"prior/nll": Loss(-self.log_likelihood(codes.tokens, condition).mean(), 1.0)}

    def log_likelihood(self, tokens: Int[Tensor, "b n"], condition: Int[Tensor, "b g"] | None) -> Float[Tensor, "b n"]:
        """log p of each token, in nats, among those that may stand at its place, given those before it."""
        rows = self.net(self._rows(tokens[:, :-1], condition))[:, self.prefix :]
        parts, found = self.layout.parts, []
        for part, first in enumerate(self.firsts):
            logits = self._logits(rows[:, part::parts], part).float()
            wanted = tokens[:, part::parts] - first
            found.append(-F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted))
        return torch.stack(found, dim=2).flatten(1)

    def _rows(self, tokens: Int[Tensor, "b m"], condition: Int[Tensor, "b g"] | None) -> Float[Tensor, "b s c"]:
        """The rows of the condition, of the start token and of the first tokens, with their places."""
        start = torch.full((len(tokens), 1), self.start, device=tokens.device)
        rows = self.embed(torch.cat([start, tokens], dim=1))
        if self.embed_given is not None:
            assert condition is not None, "the condition is missing"
            rows = torch.cat([self.embed_given(condition), rows], dim=1)
        return rows + self.places.weight[: rows.shape[1]]

    def _logits(self, rows: Float[Tensor, "*n c"], part: int) -> Float[Tensor, "*n k"]:
        """Of the entries of one part, the only ones that may stand at its places."""
        first = self.firsts[part]
        return F.linear(rows, self.head.weight[first : first + self.layout.sizes[part]])

    # --- drawing ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The known tokens, and what stands after each row of positions.

        Each token is drawn in the window of the trained grid around its position; in a larger grid that moves with
        almost each position. What is kept then is of other places, so the whole window is read anew: as many rows as
        its half before the position has, and those of the condition. While it stands still, one row a token.
        """
        layout, own, parts = self.output_layout(prompt), self.layout, self.layout.parts
        condition = self._condition(prompt, sampling)
        known, kept, first = self._known(prompt, layout)
        tokens = torch.where(kept, known, layout.vocabulary)
        yield tokens.clone()
        if first == layout.length:
            return
        copies = 2 if condition is not None and len(condition) > prompt.count else 1
        cache, window = self.net.cache(copies * prompt.count, self.prefix + own.length), None
        for place in range(first, layout.length):
            y, x = divmod(place // parts, layout.width)
            corner, part = window_around(y, x, layout, own), place % parts
            within = ((y - corner[0]) * own.width + x - corner[1]) * parts + part  # its place in the window
            if corner != window:
                window, cache.filled = corner, 0
                seen = crop_window(tokens, layout, own, corner)[:, :within]
                rows = self._rows(_copies(seen, copies), self._condition_in(condition, layout, corner))
            else:
                last = _copies(tokens[:, place - 1 : place], copies)
                rows = self.embed(last) + self.places.weight[self.prefix + within]
            logits = self._logits(self.net(rows, cache)[:, -1], part).float()
            if copies == 2:
                logits = apply_guidance(logits[: prompt.count], logits[prompt.count :], sampling.guidance)
            drawn = self.firsts[part] + sample_tokens(logits, sampling, generator)
            tokens[:, place] = torch.where(kept[:, place], known[:, place], drawn)
            if (place + 1) % (layout.width * parts) == 0:
                yield tokens.clone()

    def _condition(self, prompt: Prompt, sampling: Sampling) -> Int[Tensor, "b g"] | None:
        """The tokens of the condition, below them with guidance those of none."""
        if self.condition_layout is None:
            if sampling.guidance != 1:
                raise UsageError(f"guidance is {sampling.guidance}, but this prior has no condition; leave it at 1.")
            return None
        if prompt.condition is None:
            raise UsageError("This prior draws images of segmentation maps; give it one for each image.")
        _check_tokens(
            prompt.condition, prompt.count, self._condition_layout_for(self.output_layout(prompt)), "segmentation maps"
        )
        if sampling.guidance == 1:
            return prompt.condition
        if self.config.unconditional == 0:
            raise UsageError(
                f"guidance is {sampling.guidance}, but this prior was trained with every condition "
                "(task.unconditional 0); leave it at 1."
            )
        return torch.cat([prompt.condition, torch.full_like(prompt.condition, self.condition_layout.vocabulary)])

    def _condition_layout_for(self, layout: TokenLayout) -> TokenLayout:
        """The layout of the map of an image of `layout`: as many times as large."""
        own, maps = self.layout, self.condition_layout
        assert maps is not None
        height, up = divmod(layout.height * maps.height, own.height)
        width, across = divmod(layout.width * maps.width, own.width)
        if up or across:
            raise UsageError(
                f"{layout.height} x {layout.width} positions are no whole number of those of the segmentation map, "
                f"which has {maps.height} x {maps.width} for {own.height} x {own.width}."
            )
        return maps.resized(height, width)

    def _condition_in(self, condition: Int[Tensor, "b m"] | None, layout: TokenLayout, corner: Corner) -> Tensor | None:
        """The condition of a window, from its nearest positions at or before the corner."""
        if condition is None or self.condition_layout is None:
            return None
        y, x = (
            corner[0] * self.condition_layout.height // self.layout.height,
            corner[1] * self.condition_layout.width // self.layout.width,
        )
        return crop_window(condition, self._condition_layout_for(layout), self.condition_layout, (y, x))

    def _known(self, prompt: Prompt, layout: TokenLayout) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"], int]:
        """The known tokens, which of them are kept, and how many at the start are in every image."""
        shape, device = (prompt.count, layout.length), self.head.weight.device
        if prompt.known_tokens is None or prompt.keep_mask is None:
            return torch.zeros(shape, dtype=torch.int64, device=device), torch.zeros(shape, device=device).bool(), 0
        known, kept = prompt.known_tokens, prompt.keep_mask
        _check_tokens(torch.where(kept, known, 0), prompt.count, layout, "images")
        if bool((kept[:, 1:] & ~kept[:, :-1]).any()):
            raise UsageError(
                "A prior fills in all that follows a place of the raster order; here a token is kept behind a hidden "
                "one. A task that completes 'any' can do that."
            )
        return known, kept, int(kept.all(0).sum())


def _copies(tokens: Int[Tensor, "b m"], copies: int) -> Int[Tensor, "bs m"]:
    return tokens if copies == 1 else tokens.repeat(copies, 1)


def _check_tokens(tokens: Tensor, count: int, layout: TokenLayout, what: str) -> None:
    """Raises UsageError unless these are the tokens of so many images of the layout."""
    if tokens.shape != (count, layout.length):
        raise UsageError(
            f"The tokens of the {what} are {list(tokens.shape)}; {count} of {layout.height} x {layout.width} positions "
            f"of {layout.parts} are asked for."
        )
    if count and not 0 <= int(tokens.min()) <= int(tokens.max()) < layout.vocabulary:
        raise UsageError(
            f"Tokens {int(tokens.min())} to {int(tokens.max())} of the {what} do not fit a vocabulary of "
            f"{layout.vocabulary}; they are another tokenizer's."
        )


def _check_size(config: PriorConfig, layout: TokenLayout, condition_layout: TokenLayout | None) -> None:
    """Raises UsageError for a network that no machine has the memory for, before any is taken."""
    tables = (
        2 * layout.vocabulary
        + layout.length
        + (condition_layout.vocabulary + condition_layout.length if condition_layout is not None else 0)
    )
    numbers = config.width * (tables + 12 * config.layers * config.width)
    if numbers > MAX_PARAMETERS:
        raise UsageError(
            f"A prior of {numbers:,} numbers is too large, at most {MAX_PARAMETERS:,}: task.layers {config.layers}, "
            f"task.width {config.width}, a vocabulary of {layout.vocabulary:,}."
        )
