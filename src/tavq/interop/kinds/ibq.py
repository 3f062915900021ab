"""IBQ, whose network is taming's and whose entries are chosen by dot product."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from torch import Tensor

from tavq.interop.kind import checkpoint_kinds
from tavq.interop.kinds.taming import Taming


@checkpoint_kinds.register("ibq")
class IBQ(Taming):
    """IBQ, and the tokenizer of Emu3.5: the tensors are named as taming's, so that a file cannot show that it is one.

    Source: layout of TencentARC/SEED-Voken, `src/IBQ`; its published models have four blocks a stage.
    """

    title = "IBQ"
    quantizers: ClassVar[tuple[str, ...]] = ("dot",)

    @classmethod
    def suggests(cls, tensors: Collection[str]) -> bool:
        return cls.recognizes(tensors) and "encoder.down.0.block.3.conv1.weight" in tensors

    def quantizer(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"name": "dot"}
