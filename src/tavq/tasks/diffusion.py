"""VQ-Diffusion: discrete diffusion on image tokens, conditioned on text.

Source: Gu et al. (arXiv 2111.14822) and Tang et al. (arXiv 2205.16007); see `Diffusion`.
"""

import itertools
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Losses, TextFeatures, TextUnits
from tavq.nets.time_conditioned import TimeConditionedTransformer, init_weights
from tavq.nets.transformer import check_heads
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

Probability = Annotated[float, Field(gt=0, lt=1)]

MIN_STEP_COUNT = 10
"""How often each timestep must have been sampled before timesteps are sampled by their loss."""


class DiffusionNet(nn.Module):
    """Logits of the clean tokens from noisy ones, the timestep and a text; v is the mask token.

    Timesteps count from 1 to T. One learned vector precedes each text, and stands alone where there is no text.

    Args:
        layout: of the images' tokens.
        width: of the hidden states.
        layers: number of blocks.
        heads: attention heads.
        steps: T.
        text_width: t of the text vectors; None for a network without text.
    """

    RENAMED_TENSORS: ClassVar = {
        "tokens": "token_embedding",
        "rows": "row_embedding",
        "columns": "column_embedding",
        "parts": "part_embedding",
        "text": "text_proj",
        "blank": "null_text",
        "blocks": "transformer",
        "logits": "head",
    }

    def __init__(
        self, layout: TokenLayout, width: int, layers: int, heads: int, steps: int, text_width: int | None
    ) -> None:
        super().__init__()
        self.layout = layout
        self.token_embedding = nn.Embedding(layout.vocabulary + 1, width)
        self.row_embedding = nn.Embedding(layout.height, width)
        self.column_embedding = nn.Embedding(layout.width, width)
        self.part_embedding = nn.Embedding(layout.parts, width) if layout.parts > 1 else None
        self.text_proj = nn.Linear(text_width, width) if text_width is not None else None
        self.null_text = nn.Embedding(1, width) if text_width is not None else None
        self.transformer = TimeConditionedTransformer(width, layers, heads, steps, text_width is not None)
        self.head = nn.Linear(width, layout.vocabulary)
        init_weights(self)

    def forward(
        self,
        noisy: Int[Tensor, "b n"],
        step: Int[Tensor, " b"],
        vectors: Float[Tensor, "b m t"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n v"]:
        """The logits.

        Args:
            noisy: tokens at timestep `step`.
            step: timestep of each image, from 1.
            vectors: of the text.
            mask: False at the padding of `vectors`.
        """
        x = self.token_embedding(noisy) + self._position_embedding()
        if self.text_proj is None or self.null_text is None:
            return self.head(self.transformer(x, step - 1))
        assert vectors is not None, "this network needs text"
        assert mask is not None, "this network needs the mask of its text"
        text = self.text_proj(F.layer_norm(vectors, vectors.shape[2:]))
        null = self.null_text.weight.expand(len(text), 1, -1).to(text.dtype)
        context = torch.cat([null, text], dim=1)
        return self.head(self.transformer(x, step - 1, context, F.pad(mask, (1, 0), value=True)))

    def _position_embedding(self) -> Float[Tensor, "n c"]:
        grid = self.row_embedding.weight[:, None, None] + self.column_embedding.weight[None, :, None]
        if self.part_embedding is not None:
            grid = grid + self.part_embedding.weight
        return grid.flatten(0, 2)


@tasks.register("diffusion")
class Diffusion(GenerationTask):
    """Mask-and-replace diffusion on tokens: text to image, or images without text.

    Timesteps are 1 to T. The network predicts the clean tokens; the distribution of the tokens at any earlier
    timestep follows in closed form. The text is read as its units in order (words, phrases, sentences), or as the
    tokens of the full text where the store has them.

    Source: Gu et al., Vector quantized diffusion model for text-to-image synthesis (arXiv 2111.14822), eq. 7 to 12,
    sections 4.1 to 4.3; Tang et al., Improved vector quantized diffusion models (arXiv 2205.16007), section 3.1, the
    learned classifier-free guidance. The noise schedule, the auxiliary loss whose weight falls from 2 to 1 with the
    timestep, and timesteps sampled by the root of their mean squared loss (Nichol and Dhariwal 2021) are those of
    their code.
    Differs from the paper: a replaced token is uniform over the tokens that are valid at its position; the text is the
    units of any store and not CLIP's 77 tokens; no text is one learned vector, which precedes every text too; the
    squared losses of a timestep are averaged within a batch and over processes before they enter the running mean.
    """

    class Config(NamedConfig):
        """The size of the transformer, the noise schedule, and the text."""

        RENAMED: ClassVar = {"kept": "keep_probability", "masked": "mask_probability", "auxiliary": "auxiliary_weight"}

        name: Literal["diffusion"] = "diffusion"
        layers: int = Field(19, ge=1, le=1000)
        heads: int = Field(16, ge=1, le=1024)
        width: int = Field(1024, ge=1, le=65536)
        steps: int = Field(100, ge=2, le=10_000)
        """T, the number of timesteps; sampling may use fewer."""
        keep_probability: tuple[Probability, Probability] = (0.99999, 0.000009)
        """ᾱ at the first and at the last timestep: the probability that a token is unchanged."""
        mask_probability: tuple[Probability, Probability] = (0.000009, 0.99999)
        """γ̄ at the first and at the last timestep: the probability that it is masked. Otherwise it is replaced."""
        auxiliary_weight: float = Field(5e-4, ge=0, le=1000)
        """Weight of the auxiliary loss, the negative log-likelihood of the clean tokens."""
        text: bool = True
        """Condition on text."""
        text_dropout: float = Field(0.1, ge=0, lt=1)
        """Fraction of the texts dropped in training; guidance needs it above 0."""

        _check_heads = model_validator(mode="after")(check_heads)

        @model_validator(mode="after")
        def _check_schedule(self) -> "Diffusion.Config":
            (keep, last_keep), (mask, last_mask) = self.keep_probability, self.mask_probability
            replace, last_replace = 1 - keep - mask, 1 - last_keep - last_mask
            if not (keep > last_keep and mask < last_mask and replace > 0 and last_replace > 0):
                raise ValueError("keep_probability must fall, mask_probability rise, and their sum stay below 1")
            if last_replace * keep < replace * last_keep:
                raise ValueError(
                    "1 - keep_probability - mask_probability must not fall faster than keep_probability does"
                )
            return self

    sampling_options = frozenset({"steps", "guidance"})
    RENAMED_TENSORS: ClassVar = {"shares": "schedule", "squares": "mean_squared_losses", "seen": "step_counts"}

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
            raise UsageError(
                "The task 'diffusion' needs the width of the text vectors; set task.text to false for none."
            )
        width = text_width if config.text else None
        self.network = DiffusionNet(layout, config.width, config.layers, config.heads, config.steps, width)
        self.register_buffer("schedule", make_schedule(config.steps, config.keep_probability, config.mask_probability))
        self._sampled: list[tuple[Tensor, Tensor]] = []  # timesteps and losses of this step's parts
        self.register_buffer("mean_squared_losses", torch.zeros(config.steps))
        self.register_buffer("step_counts", torch.zeros(config.steps, dtype=torch.int64))

    schedule: Tensor
    """Probabilities that a token is kept, replaced and masked, at each timestep from 0."""
    mean_squared_losses: Tensor
    """The running mean of the squared loss of each timestep, from 1."""
    step_counts: Tensor
    """How often each timestep was sampled."""

    @classmethod
    def required_conditions(cls, config: NamedConfig) -> frozenset[str]:
        return frozenset({"text"}) if isinstance(config, cls.Config) and config.text else frozenset()

    # --- training -----------------------------------------------------------------------------------------------

    def loss(self, batch: GenerationBatch) -> Losses:
        """The variational bound in nats a token, estimated at one timestep an image, and the auxiliary loss."""
        tokens, steps = batch.tokens, self.config.steps
        step, probability = self._sample_steps(len(tokens))
        vectors, mask = self._text_vectors(batch.text, len(tokens))
        if self.training and mask is not None:
            mask = mask & (torch.rand(len(tokens), 1, device=mask.device) >= self.config.text_dropout)
        variational, auxiliary = self.terms(tokens, step, vectors, mask)
        if self.training:
            self._sampled.append((step, variational.detach()))
        scale = 1 / (probability * self.layout.length)  # importance weights of the sampled timesteps
        falling = 2 - (step - 1) / steps
        return {
            "diffusion/variational": Loss((variational * scale).mean(), 1.0),
            "diffusion/auxiliary": Loss((auxiliary * scale * falling).mean(), self.config.auxiliary_weight),
        }

    def terms(
        self,
        tokens: Int[Tensor, "b n"],
        step: Int[Tensor, " b"],
        vectors: Float[Tensor, "b m t"] | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """L_{t-1} of each image at its timestep t, and -log p(x_0 | x_t), both in nats.

        L_{t-1} = KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)), which at timestep 1 is -log p(x_0 | x_1).
        """
        allowed = self.layout.allowed_tokens(tokens.device)
        now, before = self.schedule[step], self.schedule[step - 1]
        noisy = add_noise(tokens, now, allowed)
        log_start = self._log_start(self.network(noisy, step, vectors, mask), Sampling())
        uniform = log_uniform(allowed, log_start.dtype)
        model = log_posterior(log_start, noisy, before, now, uniform)
        true = log_posterior(log_one_hot(tokens, uniform), noisy, before, now, uniform)
        auxiliary = -log_start.gather(2, tokens[..., None]).sum((1, 2))
        return kl_divergence(true, model), auxiliary

    @torch.no_grad()
    def bound(self, batch: GenerationBatch) -> Float[Tensor, " b"]:
        """An upper bound of -log p(image) in nats: L_T + Σ L_{t-1}, with one noise sample a timestep; T passes."""
        tokens = batch.tokens
        vectors, mask = self._text_vectors(batch.text, len(tokens))
        bound = self._prior_divergence().expand(len(tokens))
        for step in range(1, self.config.steps + 1):
            bound = bound + self.terms(tokens, tokens.new_full((len(tokens),), step), vectors, mask)[0]
        return bound

    def _prior_divergence(self) -> Float[Tensor, ""]:
        """L_T = KL(q(x_T | x_0) ‖ p(x_T)) of an image: the information about it that is left at timestep T."""
        keep, replace, _ = self.schedule[-1]
        sizes = torch.tensor(self.layout.sizes, device=keep.device)
        same, other, prior = keep + replace / sizes, replace / sizes, (keep + replace) / sizes
        each = same * (same / prior).log() + (sizes - 1) * other * (other / prior).log()
        return (each.sum() * (self.layout.length // self.layout.parts)).float()

    def _sample_steps(self, count: int) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"]]:
        """A timestep for each image, and the probability with which it was sampled."""
        weights = (self.mean_squared_losses + 1e-10).sqrt() + 1e-4
        # The loss of timestep 1 is a likelihood, not a KL, and would take too many samples; it gets the weight of 2.
        weights = torch.cat([weights[1:2], weights[1:]])
        weights = torch.where((self.step_counts > MIN_STEP_COUNT).all(), weights, torch.ones_like(weights))
        probabilities = weights / weights.sum()
        index = torch.multinomial(probabilities, count, replacement=True)
        return index + 1, probabilities[index]

    def finish_step(self) -> None:
        """Update the statistics that timesteps are sampled by with those of the whole batch."""
        step, losses = (torch.cat(values) for values in zip(*self._sampled, strict=True))
        self._sampled.clear()
        self._update_mean_losses(step, losses)

    def _update_mean_losses(self, step: Int[Tensor, " b"], losses: Float[Tensor, " b"]) -> None:
        """Updates the running mean of the squared loss of each timestep, with the samples of all processes."""
        # A sum over one-hot rows: scatter_add sums in an undefined order on GPUs, so its bits would vary.
        sampled = (step[:, None] - 1 == torch.arange(self.config.steps, device=step.device)).float()
        counts, sums = collective.all_reduce_sum(
            torch.stack([sampled.sum(0), (losses.float().square()[:, None] * sampled).sum(0)])
        )
        mean = 0.9 * self.mean_squared_losses + 0.1 * sums / counts.clamp(min=1)
        self.mean_squared_losses.copy_(torch.where(counts > 0, mean, self.mean_squared_losses))
        self.step_counts.add_(counts.long())

    # --- text ---------------------------------------------------------------------------------------------------

    def _text_vectors(
        self, text: TextFeatures | None, count: int
    ) -> tuple[Float[Tensor, "b m t"] | None, Bool[Tensor, "b m"] | None]:
        """The vectors that the network reads of a batch's text, and their padding mask."""
        if not self.config.text:
            return None, None
        if text is None:
            raise UsageError("The task 'diffusion' was trained with text; give a text for each image.")
        units: list[TextUnits] = [text.words, text.phrases, text.sentences]
        if text.full_text is not None:
            units = [text.full_text]
        vectors = torch.cat([unit.vectors for unit in units], dim=1)
        mask = torch.cat([unit.mask for unit in units], dim=1)
        if len(vectors) != count:
            raise UsageError(f"Got {len(vectors)} texts for {count} images; give one text for each image.")
        return vectors, mask

    # --- sampling -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The noise of the last timestep, and the tokens after each denoising step, with mask tokens among them.

        `top_p` and `top_k` truncate the distribution of the clean tokens (truncated sampling); with fewer `steps` than
        T each one goes back several timesteps (fast sampling), with the same network.
        """
        self.output_layout(prompt)  # refuses other sizes: rows and columns have learned embeddings
        if prompt.known_tokens is not None or prompt.keep_mask is not None:
            raise UsageError("The task 'diffusion' generates whole images and cannot complete one.")
        if sampling.guidance != 1 and not (self.config.text and self.config.text_dropout):
            raise UsageError(
                "Guidance needs a task.diffusion that was trained with text and task.text_dropout above 0."
            )
        vectors, mask = self._text_vectors(prompt.text, prompt.count)
        allowed = self.layout.allowed_tokens(self.schedule.device)
        uniform = log_uniform(allowed, torch.float32)
        noisy = self._sample_noise(prompt.count, allowed, generator)
        steps = self._sampling_steps(sampling.steps)
        yield noisy
        for now, before in itertools.pairwise(steps):
            logits = self._guided_logits(noisy, now, vectors, mask, sampling.guidance)
            at_before, at_now = (self.schedule[step].expand(prompt.count, 3) for step in (before, now))
            log_probabilities = log_posterior(self._log_start(logits, sampling), noisy, at_before, at_now, uniform)
            noisy = sample_tokens(log_probabilities.flatten(0, 1), Sampling(), generator).view_as(noisy)
            yield noisy

    def _sampling_steps(self, count: int | None) -> list[int]:
        """The timesteps at which the network runs, from T down, and 0."""
        last = self.config.steps
        count = last if count is None else count
        if count > last:
            raise UsageError(f"This task has {last} timesteps; --steps {count} must be between 1 and {last}.")
        return [round(last * left / count) for left in range(count, -1, -1)]

    def _sample_noise(self, count: int, allowed: Bool[Tensor, "n v"], generator: torch.Generator) -> Tensor:
        """Tokens at timestep T, which say almost nothing about an image: masks, and some uniform tokens."""
        mask = self.schedule[-1, 2].float()
        uniform = allowed / allowed.sum(1, keepdim=True) * (1 - mask)
        probabilities = torch.cat([uniform, mask.expand(len(allowed), 1)], dim=1)
        return sample_tokens(probabilities.log().repeat(count, 1), Sampling(), generator).view(count, -1)

    def _guided_logits(
        self, noisy: Tensor, step: int, vectors: Tensor | None, mask: Tensor | None, guidance: float
    ) -> Float[Tensor, "b n v"]:
        """The network's logits; with guidance it runs on text and no text in one batch."""
        steps = torch.full((len(noisy),), step, device=noisy.device)
        if guidance == 1 or vectors is None or mask is None:
            return self.network(noisy, steps, vectors, mask)
        twice = noisy.repeat(2, 1), steps.repeat(2), vectors.repeat(2, 1, 1)
        logits: Tensor = self.network(*twice, torch.cat([mask, torch.zeros_like(mask)]))
        conditional, unconditional = logits.flatten(1).chunk(2)
        return apply_guidance(conditional, unconditional, guidance).view_as(logits[: len(noisy)])

    def _log_start(self, logits: Float[Tensor, "b n v"], sampling: Sampling) -> Float[Tensor, "b n v"]:
        """log p(x_0) from the network's logits, over the tokens that are valid at each position."""
        logits = logits.float().masked_fill(~self.layout.allowed_tokens(logits.device), -torch.inf)
        if sampling.temperature == 0:
            return log_one_hot(logits.argmax(2), torch.zeros_like(logits[0]))
        if sampling != Sampling():
            logits = filter_logits(logits.flatten(0, 1), sampling).view_as(logits)
        return logits.log_softmax(2).clamp(min=LOG_ZERO)
