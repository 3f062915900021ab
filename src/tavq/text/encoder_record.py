"""The record of a text encoder, which stores, word graphs and models keep beside its vectors."""

from collections.abc import Callable
from typing import Any

from pydantic import model_serializer

from tavq.core.config import Config


class EncoderRecord(Config):
    """The encoder that made the vectors of a file."""

    name: str
    sha256: str
    width: int
    precision: str = "float32"
    """Dtype of the computation; bfloat16's vectors have a cosine above 0.9999 with float32's."""
    projected: bool = False
    """The vectors of whole texts went through CLIP's text projection; those of tokens and words never do."""

    @model_serializer(mode="wrap")
    def _leave_out_default(self, serialize: Callable[[Any], Any]) -> dict[str, Any]:
        """Write `projected` only if it is true: files of other encoders stay as they were before it existed."""
        settings: dict[str, Any] = serialize(self)
        return settings if self.projected else {key: settings[key] for key in settings if key != "projected"}

    @property
    def description(self) -> str:
        """For messages."""
        return f"{self.name} in {self.precision}{', with its projection' if self.projected else ''}"
