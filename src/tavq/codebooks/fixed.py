"""A frozen table, with which a trained model is saved in place of a generated codebook."""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Distance, codebooks

Size = Annotated[int, Field(ge=1, le=2**20)]


@codebooks.register("fixed")
class FixedCodebook(Codebook):
    """Frozen entries, standard normal until a checkpoint is loaded, with their words if they have any."""

    class Config(NamedConfig):
        """Size of each part and the names of the entries."""

        name: Literal["fixed"] = "fixed"
        sizes: tuple[Size, ...] = Field((1024,), min_length=1, max_length=64)
        """Entries of each part."""
        width: int = Field(256, ge=1, le=4096)
        distance: Distance = "l2"
        words: tuple[str, ...] = ()
        """The name of each entry, part after part; either none or one for each entry."""

        @property
        def parts(self) -> int:
            """The number of tables."""
            return len(self.sizes)

        @model_validator(mode="after")
        def _check_words(self) -> "FixedCodebook.Config":
            if self.words and len(self.words) != sum(self.sizes):
                raise ValueError(
                    f"{len(self.words)} words name {sum(self.sizes)} entries; give one word per entry, or none"
                )
            return self

    table: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width, self.distance, self.words = config.sizes, config.width, config.distance, config.words
        self.register_buffer("table", torch.randn(self.size, config.width))

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table
