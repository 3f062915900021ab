"""The tokenizer of Chameleon and Anole."""

from collections.abc import Collection
from typing import ClassVar

from tavq.interop.kind import checkpoint_kinds
from tavq.interop.kinds.taming import Taming


@checkpoint_kinds.register("chameleon")
class Chameleon(Taming):
    """A VQ-GAN of taming-transformers' layout with attention in the middle only, for images of 512 pixels.

    Source: layout of facebookresearch/chameleon, `chameleon/inference/vqgan.py`. What transformers has of it
    (`ChameleonVQVAE`) is the encoder alone.
    """

    title = "VQ-GAN of Chameleon"
    quantizers: ClassVar[tuple[str, ...]] = ("nearest",)
    attention: ClassVar[tuple[str, ...]] = ("middle",)
    size = 512

    @classmethod
    def suggests(cls, tensors: Collection[str]) -> bool:
        return False  # `taming` computes the same
