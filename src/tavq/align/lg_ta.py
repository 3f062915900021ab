"""The aligners of LG-VQ and TA-VQ together: their losses, levels and embeddings combined.

Source: LG-VQ (arXiv 2405.14206), eq. 9, and TA-VQ (arXiv 2503.01261), eq. 6. No paper combines the two.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.align.lg import LGAligner
from tavq.align.ta import TransportAligner
from tavq.core.config import NamedConfig
from tavq.interfaces import Aligner, Losses, Quantized, TextFeatures, TextSource, aligners


@aligners.register("lg+ta")
class JointAligner(Aligner):
    """Both aligners on the same codes, each with its own networks.

    Args:
        config: the settings of both.
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
    """

    batchwise, sequential = True, True

    class Config(NamedConfig):
        """The settings of each."""

        name: Literal["lg+ta"] = "lg+ta"
        lg: LGAligner.Config = LGAligner.Config()
        ta: TransportAligner.Config = TransportAligner.Config()

    @classmethod
    def reads_full_text(cls, config: Config) -> bool:
        return LGAligner.reads_full_text(config.lg)

    @classmethod
    def resolve_config(cls, config: Config, source: TextSource) -> Config:
        return config.model_copy(update={"lg": LGAligner.resolve_config(config.lg, source)})

    def __init__(self, config: Config, width: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        self.lg = LGAligner(config.lg, width, text_width)
        self.ta = TransportAligner(config.ta, width, text_width)
        self.levels = tuple(sorted({*self.lg.levels, *self.ta.levels}))
        self.entry_levels = self.ta.entry_levels

    def load_vocabulary(self, source: TextSource) -> None:
        self.lg.load_vocabulary(source)
        self.ta.load_vocabulary(source)

    def matches_vocabulary(self, source: TextSource) -> bool:
        return self.lg.matches_vocabulary(source)

    @property
    def gradient_targets(self) -> frozenset[str]:
        return self.lg.gradient_targets | self.ta.gradient_targets

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        return {**self.lg(levels, text), **self.ta(levels, text)}

    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """Both embeddings concatenated; the dot product with `embed_text` is the mean of the two."""
        return torch.cat([self.lg.embed_images(levels), self.ta.embed_images(levels)], dim=1) / 2**0.5

    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """Both embeddings concatenated."""
        return torch.cat([self.lg.embed_text(text), self.ta.embed_text(text)], dim=1) / 2**0.5

    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """The map of TA-VQ; LG-VQ has none."""
        return self.ta.embed_entries(entries, granularity)

    def fill_words(
        self, levels: Mapping[int, Quantized], text: TextFeatures, noise: Float[Tensor, "b m"], count: int
    ) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Int[Tensor, " p"]] | None:
        return self.lg.fill_words(levels, text, noise, count)

    def relations(
        self, levels: Mapping[int, Quantized], text: TextFeatures
    ) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Int[Tensor, " p"]] | None:
        return self.lg.relations(levels, text)
