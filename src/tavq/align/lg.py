"""The aligner of LG-VQ: global semantics, masked words and relations between words, on the codes of any backbone.

Source: LG-VQ (arXiv 2405.14206), §3.2, eqs. 3-9; constants that the paper leaves out are those of its public code.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.align.ta import require_text
from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import (
    DEEP,
    FULL_TEXT,
    TOKENS,
    Aligner,
    Loss,
    Losses,
    Quantized,
    TextFeatures,
    TextSource,
    aligners,
)
from tavq.nets.transformer import Transformer, sinusoidal_positions
from tavq.ops.collective import all_gather
from tavq.ops.gradients import GradientTarget, route_gradient
from tavq.ops.masking import mask_least_noise, sample_mask_ratios
from tavq.ops.waiting import select_rows

SMOOTHING = 0.1
MASKED_SCORE = -1e4  # vanishes in a softmax; finite, so that a row of nothing else has a gradient of 0, not NaN


class TextTokens(NamedTuple):
    """The first tokens of each text, cut or padded to a fixed length, so that no sum depends on the batch's padding."""

    vectors: Float[Tensor, "b n t"]  # 0 at padding
    mask: Bool[Tensor, "b n"]
    ids: Int[Tensor, "b n"] | None


class TextProjection(nn.Sequential):
    """Linear, GELU, LayerNorm: to the width of the text."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__(nn.Linear(width, text_width), nn.GELU(), nn.LayerNorm(text_width))


class VisualTower(nn.Module):
    """A vision transformer over a quantized grid (eq. 4): e_CLS and then one token a position, as wide as the text.

    Differs from the paper: position embeddings are fixed sinusoids, so that grids may have any size, and a linear layer
    maps codes to the tower's width, where the paper uses the width of the codes.

    Args:
        width: d, of a code.
        text_width: t, of the output tokens.
        inner: the width of the transformer.
        layers: its layers.
        heads: its attention heads.
    """

    def __init__(self, width: int, text_width: int, inner: int, layers: int, heads: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, inner)
        self.first = nn.Parameter(torch.randn(inner).mul_(0.02))
        self.transformer = Transformer(inner, layers, heads)
        self.leave = nn.Linear(inner, text_width, bias=False)

    def forward(self, grid: Float[Tensor, "b d h w"]) -> Float[Tensor, "b n t"]:
        b, _, h, w = grid.shape
        tokens = self.enter(grid.flatten(2).transpose(1, 2))
        tokens = tokens + sinusoidal_positions(h, w, tokens.shape[2], tokens.device)
        return self.leave(self.transformer(torch.cat([self.first.expand(b, 1, -1), tokens], dim=1)))


class MaskedWordPredictor(nn.Module):
    """Predicts masked words from the other words and the visual tokens (eq. 6).

    Differs from the paper's code: layers are pre-norm, not post-norm, and have no dropout.

    Args:
        text_width: t.
        tokens: n, the most words of a text; each position has a mask embedding of its own.
        vocabulary: u, the number of distinct tokens.
        layers: of the transformer.
        heads: its attention heads.
    """

    table: Tensor

    def __init__(self, text_width: int, tokens: int, vocabulary: int, layers: int, heads: int) -> None:
        super().__init__()
        self.masks = nn.Parameter(torch.randn(tokens, text_width).mul_(0.01))
        self.transformer = Transformer(text_width, layers, heads, mlp_width=text_width, cross=True)
        self.to_table = TextProjection(text_width, text_width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.register_buffer("table", torch.zeros(vocabulary, text_width))

    def forward(
        self, words: TextTokens, masked: Bool[Tensor, "b n"], visual: Float[Tensor, "b v t"]
    ) -> Float[Tensor, "p u"]:
        """Logits of the masked words, in the order of `masked`; on a GPU of all words, as `select_rows` says."""
        inputs = torch.where(masked[:, :, None], self.masks, words.vectors)
        hidden = self.transformer(inputs, words.mask, visual).flatten(0, 1)
        hidden = hidden.index_select(0, select_rows(masked.flatten()))
        return self.to_table(hidden) @ self.table.T + self.bias


# --- the three losses, one value per image ---------------------------------------------------------------------


def semantic_loss(
    images: Float[Tensor, "b t"], texts: Float[Tensor, "b t"], present: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """InfoNCE of e_CLS and the pooled vector of the full text, over the texts of the batch in all processes (eq. 5).

    Without a temperature cosines lie in [-1, 1], so the loss stays within 2 of log(batch).
    """
    images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    has_text = all_gather(present[:, None].float())[:, 0] > 0
    scores = (images @ all_gather(texts).T).masked_fill(~has_text, MASKED_SCORE)
    return scores.logsumexp(1) - (images * texts).sum(1)


def masked_loss(
    logits: Float[Tensor, "p u"], ids: Int[Tensor, "b n"], masked: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """Cross-entropy with label smoothing, averaged over the masked words of an image (eq. 6)."""
    rows = select_rows(masked.flatten())
    each = F.cross_entropy(logits, ids.flatten()[rows], reduction="none", label_smoothing=SMOOTHING)
    each = torch.where(masked.flatten()[rows], each, 0)
    return logits.new_zeros(len(ids)).index_add(0, rows // ids.shape[1], each) / masked.sum(1).clamp(min=1)


def relation_loss(
    words: Float[Tensor, "b n t"], codes: Float[Tensor, "b n t"], mask: Bool[Tensor, "b n"]
) -> Float[Tensor, " b"]:
    """Squared difference of the cosines between words and between their codes, averaged over all pairs (eq. 8)."""
    pairs = mask[:, :, None] & mask[:, None]
    gap = (pairwise_cosines(words) - pairwise_cosines(codes)).square()
    return torch.where(pairs, gap, 0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def pairwise_cosines(vectors: Float[Tensor, "b n t"]) -> Float[Tensor, "b n n"]:
    """The cosine of each pair of vectors of an image."""
    vectors = F.normalize(vectors, dim=2)
    return vectors @ vectors.transpose(1, 2)


def match_words(words: Float[Tensor, "b n t"], visual: Float[Tensor, "b v t"]) -> Int[Tensor, "b n"]:
    """The position whose visual token is most similar to each word (eq. 7)."""
    return (F.normalize(words, dim=2) @ F.normalize(visual, dim=2).transpose(1, 2)).argmax(2)


@aligners.register("lg")
class LGAligner(Aligner):
    """Global semantic alignment, masked word prediction and relationship alignment (eq. 9).

    Images without text add nothing. Each loss is the mean over the batch, where the paper writes sums.

    Source: LG-VQ (arXiv 2405.14206); the public code for weights, sizes and the fraction of masked words.
    Differs from the paper: the text is all captions of an image, or as in the paper a random one where the text store
    keeps them apart, encoded by the encoder of the text store without its start and end tokens; at least one word is
    masked; no loss counts padding (the code compares padded words in eq. 8); the visual tower and the masked word
    predictor share `layers` and `heads`.

    Args:
        config: the settings below.
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
    """

    batchwise, sequential = True, True

    class Config(NamedConfig):
        """The weights of the three losses and the sizes of the networks."""

        name: Literal["lg"] = "lg"
        semantic: float = Field(0.001, ge=0, le=1000)
        """α: weight of the global semantic alignment; 0 turns it off, as for the other two."""
        masked: float = Field(0.001, ge=0, le=1000)
        """β: weight of the masked word prediction."""
        relation: float = Field(0.001, ge=0, le=1000)
        """γ: weight of the relationship alignment, which matches words and codes by the tower but does not train it."""
        tokens: int = Field(30, ge=1, le=512)
        """Only the first tokens of a text are used, as many as this."""
        layers: int = Field(2, ge=1, le=64)
        heads: int = Field(1, ge=1, le=64)
        width: int = Field(256, ge=1, le=4096)
        """Of the visual tower."""
        gradient: GradientTarget = "encoder"
        """What the losses train: the encoder (straight through), the chosen entries, or both."""
        vocabulary: int = Field(0, ge=0, le=2**20)
        """Distinct tokens of the text store; training fills this in."""

        @model_validator(mode="after")
        def _check(self) -> "LGAligner.Config":
            if not (self.semantic or self.masked or self.relation):
                raise ValueError("every weight is 0; set model.align to null to train without alignment")
            if self.width % self.heads:
                raise ValueError(f"heads {self.heads} must divide width {self.width}")
            return self

    @classmethod
    def reads_full_text(cls, config: Config) -> bool:
        return True

    @classmethod
    def resolve_config(cls, config: Config, source: TextSource) -> Config:
        return config.model_copy(update={"vocabulary": len(source.vocabulary(TOKENS)[1])})

    def __init__(self, config: Config, width: int, text_width: int) -> None:
        super().__init__()
        if text_width % config.heads:
            raise UsageError(f"heads {config.heads} must divide the text width, {text_width}, too.")
        self.config = config
        self.levels = (DEEP,)
        self.tower = VisualTower(width, text_width, config.width, config.layers, config.heads)
        self.filler: MaskedWordPredictor | None = None
        self.to_words: TextProjection | None = None
        if config.masked:
            self.filler = MaskedWordPredictor(text_width, config.tokens, config.vocabulary, config.layers, config.heads)
        if config.relation:
            self.to_words = TextProjection(width, text_width)

    def load_vocabulary(self, source: TextSource) -> None:
        if self.filler is not None:
            self.filler.table.copy_(_token_embeddings(source))

    def matches_vocabulary(self, source: TextSource) -> bool:
        return self.filler is None or torch.equal(self.filler.table.cpu(), _token_embeddings(source))

    def _tokens(self, text: TextFeatures) -> TextTokens:
        units = require_text(text, FULL_TEXT)
        n = self.config.tokens
        padding = max(n - units.mask.shape[1], 0)
        mask = F.pad(units.mask[:, :n], (0, padding))
        vectors = F.pad(units.vectors[:, :n].float(), (0, 0, 0, padding))
        ids = None if units.ids is None else torch.where(mask, F.pad(units.ids[:, :n], (0, padding)), 0)
        return TextTokens(torch.where(mask[:, :, None], vectors, 0), mask, ids)

    @property
    def gradient_targets(self) -> frozenset[str]:
        return frozenset({self.config.gradient})

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        words = self._tokens(text)
        present = words.mask.any(1)
        with torch.autocast(words.vectors.device.type, enabled=False):
            grid = route_gradient(levels[DEEP].quantized, levels[DEEP].entries, self.config.gradient).float()
            visual = self.tower(grid)
            values = {}
            if self.config.semantic:
                pooled = torch.where(present[:, None], _pooled(text), 0)
                values["semantic"] = semantic_loss(visual[:, 0], pooled, present)
            if self.filler is not None:
                values["masked"] = self._masked_loss(words, visual)
            if self.to_words is not None:
                values["relation"] = relation_loss(words.vectors, self._match_codes(words, grid, visual), words.mask)
        return {
            f"align/{name}": Loss(torch.where(present, value, 0).mean(), getattr(self.config, name))
            for name, value in values.items()
        }

    def _masked_loss(self, words: TextTokens, visual: Tensor) -> Float[Tensor, " b"]:
        assert self.filler is not None
        if words.ids is None:
            raise UsageError("The text store has no token ids; rebuild it with: tavq text DATA --full-text")
        ratios = sample_mask_ratios(len(words.mask), words.mask.device)
        count = (ratios * words.mask.sum(1)).round().long().clamp(min=1)
        masked = mask_least_noise(torch.rand(words.mask.shape, device=words.mask.device), words.mask, count)
        return masked_loss(self.filler(words, masked, visual), words.ids, masked)

    def _match_codes(self, words: TextTokens, grid: Tensor, visual: Tensor) -> Float[Tensor, "b n t"]:
        """For each word the code at the position that it matches, mapped to the width of the text."""
        assert self.to_words is not None
        positions = match_words(words.vectors, visual[:, 1:].detach())
        codes = grid.flatten(2).transpose(1, 2)
        return self.to_words(codes.gather(1, positions[:, :, None].expand(-1, -1, codes.shape[2])))

    # --- the common space, and what evaluation measures ---------------------------------------------------------

    @torch.no_grad()
    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """e_CLS of each image."""
        return F.normalize(self.tower(levels[DEEP].quantized.float())[:, 0], dim=1)

    @torch.no_grad()
    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """The pooled vector of each full text; 0 for an image without text."""
        return F.normalize(_pooled(text), dim=1)

    @torch.no_grad()
    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """None: the relationship alignment fixes angles between codes, not their positions in the text's space."""
        return None

    @torch.no_grad()
    def fill_words(
        self, levels: Mapping[int, Quantized], text: TextFeatures, noise: Float[Tensor, "b m"], count: int
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Int[Tensor, " p"]] | None:
        words = self._tokens(text)
        if self.filler is None or words.ids is None:
            return None
        noise = noise[:, : self.config.tokens]
        noise = F.pad(noise, (0, words.mask.shape[1] - noise.shape[1]))
        masked = mask_least_noise(noise, words.mask, torch.full_like(words.ids[:, 0], count))
        logits = self.filler(words, masked, self.tower(levels[DEEP].quantized.float()))
        predicted = logits.argmax(1)[masked.flatten()[select_rows(masked.flatten())]]
        return predicted, words.ids[masked], masked.nonzero()[:, 0]

    @torch.no_grad()
    def relations(
        self, levels: Mapping[int, Quantized], text: TextFeatures
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Int[Tensor, " p"]] | None:
        if self.to_words is None:
            return None
        words, grid = self._tokens(text), levels[DEEP].quantized.float()
        codes = self._match_codes(words, grid, self.tower(grid))
        pairs = (words.mask[:, :, None] & words.mask[:, None]).triu(1)
        return pairwise_cosines(words.vectors)[pairs], pairwise_cosines(codes)[pairs], pairs.nonzero()[:, 0]


def _pooled(text: TextFeatures) -> Float[Tensor, "b t"]:
    if text.pooled is None:
        raise UsageError("The text store has no vectors of full texts; rebuild it with: tavq text DATA --full-text")
    return text.pooled.float()


def _token_embeddings(source: TextSource) -> Float[Tensor, "u t"]:
    vectors: Any = source.vocabulary(TOKENS)[1]
    return torch.tensor(vectors).float()
