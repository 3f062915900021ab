"""VQ-Diffusion: tokens from masks and noise, a little more of each image at every step, by what a text says."""

import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import GRANULARITIES, Loss, Losses, TextFeatures, TextUnits
from tavq.nets.time_conditioned import TimedTransformer, draw_small
from tavq.ops import collective
from tavq.ops.transitions import (
    LOG_ZERO,
    add_noise,
    kl_divergence,
    log_one_hot,
    log_posterior,
    log_uniform,
    make_schedule,
)
from tavq.tasks.base import (
    GenerationBatch,
    GenerationTask,
    Prompt,
    Sampling,
    TokenLayout,
    apply_guidance,
    filter_logits,
    sample_tokens,
    tasks,
)

Share = Annotated[float, Field(gt=0, lt=1)]

LEAST_SEEN = 10
"""How often each step must have been drawn before steps are drawn by their loss."""


class DiffusionNet(nn.Module):
    """Logits of the clean tokens from noisy ones, their step and a text; the mask is the token v.

    The step counts from 1 to T. One learned vector stands before each text, and alone where there is none.
    """

    def __init__(
        self, layout: TokenLayout, width: int, layers: int, heads: int, steps: int, text_width: int | None
    ) -> None:
        super().__init__()
        self.layout = layout
        self.tokens = nn.Embedding(layout.vocabulary + 1, width)
        self.rows, self.columns = nn.Embedding(layout.height, width), nn.Embedding(layout.width, width)
        self.parts = nn.Embedding(layout.parts, width) if layout.parts > 1 else None
        self.text = nn.Linear(text_width, width) if text_width is not None else None
        self.blank = nn.Embedding(1, width) if text_width is not None else None
        self.blocks = TimedTransformer(width, layers, heads, steps, text_width is not None)
        self.logits = nn.Linear(width, layout.vocabulary)
        draw_small(self)

    def forward(
        self,
        noisy: Int[Tensor, "b n"],
        step: Int[Tensor, " b"],
        vectors: Float[Tensor, "b m t"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n v"]:
        rows = self.tokens(noisy) + self._places()
        if self.text is None or self.blank is None:
            return self.logits(self.blocks(rows, step - 1))
        assert vectors is not None, "this network reads text"
        assert mask is not None, "and which of it"
        units = self.text(F.layer_norm(vectors, vectors.shape[2:]))
        source = torch.cat([self.blank.weight.expand(len(units), 1, -1).to(units.dtype), units], dim=1)
        mask = F.pad(mask, (1, 0), value=True)
        return self.logits(self.blocks(rows, step - 1, source, mask))

    def _places(self) -> Float[Tensor, "n c"]:
        grid = self.rows.weight[:, None, None] + self.columns.weight[None, :, None]
        if self.parts is not None:
            grid = grid + self.parts.weight
        return grid.flatten(0, 2)


@tasks.register("diffusion")
class Diffusion(GenerationTask):
    """Text to image, or images without a text, by mask-and-replace diffusion on tokens.

    A step is one of 1 to T. The network tells the clean tokens; the distribution of the tokens a step or several
    before follows exactly. Units of a text are read in their order, words, phrases, sentences, or the tokens of the
    whole text where there are such.

    Source: Gu et al., Vector quantized diffusion model for text-to-image synthesis (arXiv 2111.14822), eq. 7 to 12,
    sections 4.1 to 4.3; Tang et al., Improved vector quantized diffusion models (arXiv 2205.16007), section 3.1, the
    learned classifier-free guidance. The shares, the weight of the auxiliary loss that falls from 2 to 1 with the
    step, and steps drawn by the root of their mean squared loss (Nichol and Dhariwal 2021) are those of their code.
    Differs from the paper: the share replaced is even over the tokens that may stand at a place; text is any store's
    units and not CLIP's 77 tokens; no text is one learned vector, which stands before each text too; the squared
    losses of one step are averaged within a batch and over processes before they are remembered.
    """

    class Config(NamedConfig):
        """Sizes of the transformer, the noise, and how text is read."""

        name: Literal["diffusion"] = "diffusion"
        layers: int = Field(19, ge=1, le=1000)
        heads: int = Field(16, ge=1, le=1024)
        width: int = Field(1024, ge=1, le=65536)
        steps: int = Field(100, ge=2, le=10_000)
        """T, of the noise; fewer may be taken when drawing."""
        kept: tuple[Share, Share] = (0.99999, 0.000009)
        """ᾱ of the first step and of the last: the share of tokens that are as they were."""
        masked: tuple[Share, Share] = (0.000009, 0.99999)
        """γ̄ of the first step and of the last: the share of masks. What both leave is replaced."""
        auxiliary: float = Field(5e-4, ge=0, le=1000)
        """Weight of the auxiliary loss, the clean tokens' own."""
        text: bool = True
        """Images are drawn by a text; false needs none."""
        text_dropout: float = Field(0.1, ge=0, lt=1)
        """Share of images whose text is hidden in training; guidance needs some."""

        @model_validator(mode="after")
        def _heads_that_divide(self) -> "Diffusion.Config":
            if self.width % self.heads:
                raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
            return self

        @model_validator(mode="after")
        def _noise_that_grows(self) -> "Diffusion.Config":
            (stays, stays_last), (hides, hides_last) = self.kept, self.masked
            moves, moves_last = 1 - stays - hides, 1 - stays_last - hides_last
            if not (stays > stays_last and hides < hides_last and moves > 0 and moves_last > 0):
                raise ValueError("kept must fall and masked rise, and their sum stay below 1")
            if moves_last * stays < moves * stays_last:
                raise ValueError("the share that kept and masked leave must not fall faster than kept does")
            return self

    def __init__(
        self,
        config: Config,
        layout: TokenLayout,
        condition_layout: TokenLayout | None = None,
        text_width: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        if config.text and text_width is None:
            raise UsageError("The task 'diffusion' was asked to read text and got none; or set task.text to false.")
        width = text_width if config.text else None
        self.network = DiffusionNet(layout, config.width, config.layers, config.heads, config.steps, width)
        self.register_buffer("shares", make_schedule(config.steps, config.kept, config.masked))
        self.register_buffer("squares", torch.zeros(config.steps))
        self.register_buffer("seen", torch.zeros(config.steps, dtype=torch.int64))

    sampling_options = frozenset({"steps", "guidance"})

    shares: Tensor
    squares: Tensor
    """The running mean of the squared loss of each step, from 1 on."""
    seen: Tensor
    """How often each was drawn."""

    @classmethod
    def required_conditions(cls, config: NamedConfig) -> frozenset[str]:
        return frozenset({"text"}) if isinstance(config, cls.Config) and config.text else frozenset()

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, codes: GenerationBatch) -> Losses:
        """The variational bound in nats a token, estimated at one step an image, and the auxiliary loss."""
        tokens, steps = codes.tokens, self.config.steps
        step, chance = self._drawn_steps(len(tokens))
        vectors, mask = self._text(codes.text, len(tokens))
        if self.training and mask is not None:
            mask = mask & (torch.rand(len(tokens), 1, device=mask.device) >= self.config.text_dropout)
        variational, auxiliary = self.terms(tokens, step, vectors, mask)
        if self.training:
            self._remember(step, variational.detach())
        scale = 1 / (chance * self.layout.length)
        falling = 2 - (step - 1) / steps
        return {
            "diffusion/variational": Loss((variational * scale).mean(), 1.0),
            "diffusion/auxiliary": Loss((auxiliary * scale * falling).mean(), self.config.auxiliary),
        }

    def terms(
        self,
        tokens: Int[Tensor, "b n"],
        step: Int[Tensor, " b"],
        vectors: Float[Tensor, "b m t"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """L_{t-1} of each image at its step t, and -log p(x_0 | x_t), both in nats.

        L_{t-1} = KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)), which at step 1 is -log p(x_0 | x_1).
        """
        allowed = self.layout.allowed_tokens(tokens.device)
        now, before = self.shares[step], self.shares[step - 1]
        noisy = add_noise(tokens, now, allowed)
        log_start = self._log_start(self.network(noisy, step, vectors, mask), Sampling())
        even = log_uniform(allowed, log_start.dtype)
        model = log_posterior(log_start, noisy, before, now, even)
        true = log_posterior(log_one_hot(tokens, even), noisy, before, now, even)
        auxiliary = -log_start.gather(2, tokens[..., None]).sum((1, 2))
        return kl_divergence(true, model), auxiliary

    @torch.no_grad()
    def bound(self, codes: GenerationBatch) -> Float[Tensor, " b"]:
        """An upper bound of -log p(image) in nats: L_T + Σ L_{t-1}, noise drawn once a step; T passes."""
        tokens = codes.tokens
        vectors, mask = self._text(codes.text, len(tokens))
        found = self._first_divergence().expand(len(tokens))
        for step in range(1, self.config.steps + 1):
            found = found + self.terms(tokens, tokens.new_full((len(tokens),), step), vectors, mask)[0]
        return found

    def _first_divergence(self) -> Float[Tensor, ""]:
        """L_T = KL(q(x_T | x_0) ‖ p(x_T)) of an image: how much the last step's noise still tells."""
        stays, moves, _ = self.shares[-1]
        sizes = torch.tensor(self.layout.sizes, device=stays.device)
        same, other, drawn = stays + moves / sizes, moves / sizes, (stays + moves) / sizes
        each = same * (same / drawn).log() + (sizes - 1) * other * (other / drawn).log()
        return (each.sum() * (self.layout.length // self.layout.parts)).float()

    def _drawn_steps(self, count: int) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
        """A step an image, and the chance with which each was drawn."""
        weights = (self.squares + 1e-10).sqrt() + 1e-4
        weights = torch.cat([weights[1:2], weights[1:]])  # the first is of another kind and would take too many
        weights = torch.where((self.seen > LEAST_SEEN).all(), weights, torch.ones_like(weights))
        chances = weights / weights.sum()
        drawn = torch.multinomial(chances, count, replacement=True)
        return drawn + 1, chances[drawn]

    def _remember(self, step: Int[Tensor, " b"], losses: Float[Tensor, " b"]) -> None:
        """Keeps a running mean of the squared losses of each step; the same in all processes."""
        drawn = F.one_hot(step - 1, self.config.steps).float()  # summed so, not scattered: the same bits on any device
        found = collective.all_reduce_sum(
            torch.stack([drawn.sum(0), (losses.float().square()[:, None] * drawn).sum(0)])
        )
        mean = 0.9 * self.squares + 0.1 * found[1] / found[0].clamp(min=1)
        self.squares.copy_(torch.where(found[0] > 0, mean, self.squares))
        self.seen.add_(found[0].long())

    # --- text ---------------------------------------------------------------------------------------------------

    def _text(
        self, text: TextFeatures | None, count: int
    ) -> tuple[Float[Tensor, "b m t"] | None, Bool[Tensor, "b m"] | None]:
        """What the network reads of a batch's text, and which of it is no padding."""
        if not self.config.text:
            return None, None
        if text is None:
            raise UsageError("The task 'diffusion' was made to draw by text; give a sentence for each image.")
        kinds: list[TextUnits] = (
            [text.full_text] if text.full_text is not None else [getattr(text, k) for k in GRANULARITIES]
        )
        vectors, mask = (torch.cat([getattr(kind, name) for kind in kinds], dim=1) for name in ("vectors", "mask"))
        if len(vectors) != count:
            raise UsageError(f"{count} images were asked for and {len(vectors)} texts given; give one for each.")
        return vectors, mask

    # --- drawing ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens of the last step's noise and of each step at which the network was asked, masks among them.

        `top_p` and `top_k` cut the distribution of the clean tokens (truncated sampling), `steps` fewer than T go
        several at once (fast sampling), by the same network.
        """
        self.output_layout(
            prompt
        )  # its positions are learned row by row and column by column, and noise knows no window
        if prompt.known_tokens is not None or prompt.keep_mask is not None:
            raise UsageError("The task 'diffusion' draws whole images and completes none.")
        if sampling.guidance != 1 and not (self.config.text and self.config.text_dropout):
            raise UsageError(
                "Guidance needs a task.diffusion that was trained with text and task.text_dropout above 0."
            )
        vectors, mask = self._text(prompt.text, prompt.count)
        allowed = self.layout.allowed_tokens(self.shares.device)
        even = log_uniform(allowed, torch.float32)
        noisy = self._first_noise(prompt.count, allowed, generator)
        times = self._times(sampling.steps)
        yield noisy
        for now, before in itertools.pairwise(times):
            logits = self._guided_logits(noisy, now, vectors, mask, sampling.guidance)
            shares = [self.shares[t].expand(prompt.count, 3) for t in (before, now)]
            chances = log_posterior(self._log_start(logits, sampling), noisy, shares[0], shares[1], even)
            noisy = sample_tokens(chances.flatten(0, 1), Sampling(), generator).view_as(noisy)
            yield noisy

    def _times(self, passes: int | None) -> list[int]:
        """The steps at which the network is asked, from T down, and 0."""
        last = self.config.steps
        count = last if passes is None else passes
        if count > last:
            raise UsageError(
                f"The noise of this task has {last} steps, so it can be drawn in 1 to {last}, not {count}."
            )
        return [round(last * left / count) for left in range(count, -1, -1)]

    def _first_noise(self, count: int, allowed: Bool[Tensor, "n v"], generator: torch.Generator) -> Tensor:
        """Tokens of the last step, where nothing is left of an image: masks, and some that stand for nothing."""
        hides = self.shares[-1, 2].float()
        even = torch.cat([allowed / allowed.sum(1, keepdim=True) * (1 - hides), hides.expand(len(allowed), 1)], dim=1)
        return sample_tokens(even.log().repeat(count, 1), Sampling(), generator).view(count, -1)

    def _guided_logits(
        self, noisy: Tensor, step: int, vectors: Tensor | None, mask: Tensor | None, guidance: float
    ) -> Float[Tensor, "b n v"]:
        steps = torch.full((len(noisy),), step, device=noisy.device)
        if guidance == 1 or vectors is None or mask is None:
            return self.network(noisy, steps, vectors, mask)
        twice = noisy.repeat(2, 1), steps.repeat(2), vectors.repeat(2, 1, 1)
        logits: Tensor = self.network(*twice, torch.cat([mask, torch.zeros_like(mask)]))
        conditional, unconditional = logits.flatten(1).chunk(2)
        return apply_guidance(conditional, unconditional, guidance).view_as(logits[: len(noisy)])

    def _log_start(self, logits: Float[Tensor, "b n v"], sampling: Sampling) -> Float[Tensor, "b n v"]:
        """log p(x_0) of the network's logits, over the tokens that may stand at each place."""
        logits = logits.float().masked_fill(~self.layout.allowed_tokens(logits.device), -torch.inf)
        if sampling.temperature == 0:
            return log_one_hot(logits.argmax(2), torch.zeros_like(logits[0]))
        if sampling != Sampling():
            logits = filter_logits(logits.flatten(0, 1), sampling).view_as(logits)
        return logits.log_softmax(2).clamp(min=LOG_ZERO)
