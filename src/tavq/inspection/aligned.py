"""Single units of text as an aligner reads texts."""

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.interfaces import TextFeatures, TextUnits


def text_of_units(vectors: Float[Tensor, "u t"]) -> TextFeatures:
    """Texts of one unit each, which is its own word, phrase, sentence and full text."""
    units = TextUnits(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))
    return TextFeatures(units, units, units, units, vectors)
