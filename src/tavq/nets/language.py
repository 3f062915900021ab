"""A language model that reads rows of a picture before its words: GPT-2, pretrained or small and new."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import Config, build
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import read_json
from tavq.core.pretrained import hub_folder, quiet_transformers

FILES = ("*.json", "*.txt", "model*.safetensors")
HEAD = "lm_head.weight"


class LanguageConfig(Config):
    """The sizes of a GPT-2; with `pretrained` they are those of its folder and need not be given."""

    pretrained: str | None = None
    """Folder or hub name of a GPT-2 whose weights training begins with; null begins from drawn ones."""
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    width: int = Field(128, ge=8, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    places: int | None = Field(None, ge=2, le=1 << 16)
    """Rows and words that it can read; null for as many as are needed."""
    vocabulary: int | None = Field(None, ge=3, le=1 << 20)
    """Words that it knows; null for those of the training texts."""

    @model_validator(mode="after")
    def _whole_heads(self) -> "LanguageConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    def fitted(self, vocabulary: int, places: int) -> "LanguageConfig":
        """With the sizes of the pretrained model, or of a new one that knows `vocabulary` words and reads `places`.

        Raises UsageError where the pretrained model is not there, is no GPT-2 or reads fewer places.
        """
        if self.pretrained is None:
            sizes = {"vocabulary": self.vocabulary or vocabulary, "places": self.places or places}
            return self.model_copy(update=sizes)
        stored = read_json(gpt2_folder(self.pretrained) / "config.json")
        if not isinstance(stored, dict) or stored.get("model_type") != "gpt2":
            kind = stored.get("model_type") if isinstance(stored, dict) else None
            raise UsageError(f"{self.pretrained} is a model of the kind {kind!r}; a GPT-2 is needed.")
        names = {"layers": "n_layer", "heads": "n_head", "width": "n_embd", "vocabulary": "vocab_size"}
        found: dict[str, Any] = {own: stored.get(theirs) for own, theirs in names.items()}
        found["places"] = stored.get("n_positions", stored.get("n_ctx"))
        fitted = build(LanguageConfig, {**self.model_dump(), **found}, f"The model {self.pretrained}")
        if fitted.places is None or fitted.places < places:
            raise UsageError(
                f"{self.pretrained} reads {fitted.places} rows and words and {places} are needed; choose a larger "
                "task.picture.patch or a smaller task.longest."
            )
        return fitted


def gpt2_folder(name: str) -> Path:
    """The folder of a pretrained model, fetched by the hub's client where it is no folder here."""
    return Path(name) if Path(name).is_dir() else hub_folder(name, "language model", FILES)


class LanguageModel(nn.Module):
    """GPT-2 over rows of a picture and then words.

    Source: Radford et al. (2019), GPT-2; ClipCap (arXiv 2111.09734) for the prefix.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.config = config
        assert config.vocabulary is not None, "the settings were not fitted"
        assert config.places is not None, "the settings were not fitted"
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocabulary,
                n_positions=config.places,
                n_layer=config.layers,
                n_head=config.heads,
                n_embd=config.width,
                bos_token_id=None,
                eos_token_id=None,
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
            )
        )
        # The head is the table of words once more; kept once, and tied again when it is loaded.
        self.gpt.register_state_dict_post_hook(_without_head)
        self.gpt.register_load_state_dict_post_hook(_tie)

    def take(self) -> None:
        """Brings the pretrained weights in, where the settings name such."""
        if self.config.pretrained is None:
            return
        from transformers import GPT2LMHeadModel

        with quiet_transformers():
            try:
                other = GPT2LMHeadModel.from_pretrained(gpt2_folder(self.config.pretrained), use_safetensors=True)
            except Exception as error:  # transformers raises a dozen kinds; each means that it cannot be had
                raise FileError(f"{self.config.pretrained} cannot be read: {first_line(error)[:300]}") from error
        self.gpt.load_state_dict(other.state_dict())

    def embed(self, ids: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
        """The rows of words."""
        return self.gpt.transformer.wte(ids)

    def forward(self, rows: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """What it makes of each row, having read those before it; padding (mask False) stands at the end."""
        return self.gpt.transformer(inputs_embeds=rows, attention_mask=mask.long(), use_cache=False).last_hidden_state

    def logits(self, rows: Float[Tensor, "*b c"]) -> Float[Tensor, "*b v"]:
        """Of the word that follows."""
        return rows @ self.gpt.transformer.wte.weight.T


def _without_head(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    state.pop(prefix + HEAD, None)


def _tie(module: Any, keys: Any) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(HEAD)]
    module.tie_weights()


def padded(rows: list[list[int]], pad: int) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Rows of numbers filled up to the longest (at least one), and where they are not filled up."""
    longest = max(1, *map(len, rows)) if rows else 1
    table = torch.tensor([row + [pad] * (longest - len(row)) for row in rows]).view(len(rows), longest)
    lengths = torch.tensor([len(row) for row in rows])
    return table, torch.arange(longest) < lengths[:, None]
