"""The settings of a tokenizer's parts, and whether they fit together."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tavq.core.config import Config, config_of
from tavq.core.errors import RenamedWarning, UsageError
from tavq.interfaces import TOKENS, TextSource, aligners, codebooks, quantizers
from tavq.nets.convnet import ConvNetConfig


class HierarchyConfig(Config):
    """How the two upper levels are quantized; they exist only where an aligner reads them."""

    codebook: Literal["shared", "own"] = "shared"
    """`shared`: with the entries that the decoder reads; `own`: each level has a codebook with the same settings,
    which starts from its own features. The paper does not say."""
    weight: float = Field(1.0, ge=0, le=100)
    """Factor on the codebook and commitment losses of the two levels."""


class TokenizerConfig(Config):
    """The parts of a tokenizer and their settings."""

    net: ConvNetConfig = ConvNetConfig()
    codebook: config_of(codebooks) = Field(default_factory=lambda: codebooks["learned"].Config(name="learned"))
    quantizer: config_of(quantizers) = Field(default_factory=lambda: quantizers["nearest"].Config(name="nearest"))
    align: config_of(aligners) | None = None
    hierarchy: HierarchyConfig = HierarchyConfig()
    text_width: int | None = Field(None, ge=1, le=16384)
    """t, the width of the text vectors that the aligner reads; training fills this in from the text store."""

    @model_validator(mode="before")
    @classmethod
    def _accept_hierarchy_weight(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping) or "hierarchy_weight" not in settings:
            return settings
        new = "model.hierarchy.weight"
        warnings.warn(f"The setting 'model.hierarchy_weight' is now called {new!r}.", RenamedWarning, stacklevel=2)
        rest = {key: value for key, value in settings.items() if key != "hierarchy_weight"}
        return {**rest, "hierarchy": {**settings.get("hierarchy", {}), "weight": settings["hierarchy_weight"]}}

    @field_validator("net")
    @classmethod
    def _check_width(cls, net: ConvNetConfig) -> ConvNetConfig:
        if max(net.widths) > 8192 or net.channels * sum(net.multipliers) > 32768:
            raise ValueError("a stage may have at most 8,192 channels")
        return net

    @model_validator(mode="after")
    def _check_stages(self) -> "TokenizerConfig":
        if self.align is not None and len(self.net.multipliers) < 3:
            raise ValueError("an aligner reads three levels, so net.multipliers needs at least three stages")
        return self

    @property
    def reads_text(self) -> bool:
        """Training needs a text store."""
        return self.align is not None or codebooks[self.codebook.name].reads_text

    @property
    def reads_full_text(self) -> bool:
        """Training needs a text store with token-level text (`--full-text`)."""
        return self.align is not None and aligners[self.align.name].reads_full_text(self.align)

    def resolve_config(self, source: TextSource | None) -> "TokenizerConfig":
        """Fill in the settings that depend on the text store: the width of its vectors, its words.

        Raises:
            UsageError: a store is needed and there is none, or it does not fit the settings.
        """
        codebook = codebooks[self.codebook.name].resolve_config(self.codebook, source)
        if self.align is None:
            return self.model_copy(update={"codebook": codebook})
        if source is None:
            flag = " --full-text" if self.reads_full_text else ""
            raise UsageError(f"The aligner {self.align.name!r} needs encoded text; make it with: tavq text DIR{flag}")
        if self.reads_full_text:
            source.vocabulary(TOKENS)  # raises if the store has no token-level text
        if self.text_width not in (None, source.width):
            raise UsageError(
                f"model.text_width is {self.text_width}, but the text store's vectors are {source.width} wide; "
                "remove model.text_width."
            )
        align = aligners[self.align.name].resolve_config(self.align, source)
        return self.model_copy(update={"codebook": codebook, "align": align, "text_width": source.width})


def with_literal_alignment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored model settings in which an aligner from before `standardize` and `center` existed goes without them.

    Stored settings name every setting, so one that is absent did not exist when they were written.
    """
    align = settings.get("align")
    literal = {"standardize": False, "center": False}
    if not isinstance(align, Mapping):
        return dict(settings)
    if align.get("name") == "ta":
        return {**settings, "align": {**literal, **align}}
    if align.get("name") == "lg+ta" and isinstance(align.get("ta"), Mapping):
        return {**settings, "align": {**align, "ta": {**literal, **align["ta"]}}}
    return dict(settings)
