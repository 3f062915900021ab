"""A language model that reads rows of an image before its words: GPT-2, pretrained or small and new."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import Config, build
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import read_json
from tavq.core.pretrained import download_from_hub, quiet_transformers
from tavq.nets.transformer import check_heads

FILES = ("*.json", "*.txt", "model*.safetensors")
HEAD = "lm_head.weight"

PLAIN: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
"""What a GPT-2 has beside its sizes; a model that was trained with anything else would compute something else here."""


class LanguageConfig(Config):
    """The sizes of a GPT-2; with `pretrained` they are those of its folder and need not be given."""

    RENAMED: ClassVar = {"places": "positions"}

    pretrained: str | None = None
    """Folder or hub name of a GPT-2 whose weights training begins with; null begins from drawn ones."""
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    width: int = Field(128, ge=8, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    positions: int | None = Field(None, ge=2, le=1 << 16)
    """Rows and words that it can read; null for as many as are needed."""
    vocabulary: int | None = Field(None, ge=3, le=1 << 20)
    """Words that it knows; null for those of the training texts."""

    _check_heads = model_validator(mode="after")(check_heads)

    def resolve(self, vocabulary: int, positions: int) -> "LanguageConfig":
        """With the sizes of the pretrained model, or of a new one that knows `vocabulary` words and reads `positions`.

        Raises UsageError where the pretrained model is not there, is no GPT-2 or reads fewer positions.
        """
        if self.pretrained is None:
            sizes = {"vocabulary": self.vocabulary or vocabulary, "positions": self.positions or positions}
            return self.model_copy(update=sizes)
        resolved = build(
            LanguageConfig, {**self.model_dump(), **gpt2_sizes(self.pretrained)}, f"The model {self.pretrained}"
        )
        assert resolved.positions is not None, "gpt2_sizes gives all"
        assert resolved.vocabulary is not None, "gpt2_sizes gives all"
        if resolved.positions < positions:
            raise UsageError(
                f"{self.pretrained} has {resolved.positions} positions and the image and text need {positions}; choose "
                "a larger task.image.patch or a smaller task.max_length."
            )
        if resolved.vocabulary < vocabulary:
            raise FileError(
                f"{self.pretrained} has a tokenizer of {vocabulary:,} tokens and a model of {resolved.vocabulary:,}; "
                "they do not belong together."
            )
        return resolved


def gpt2_sizes(name: str) -> dict[str, int]:
    """The sizes of a pretrained GPT-2, from its config.json."""
    path = gpt2_folder(name) / "config.json"
    stored = read_json(path)
    kind = stored.get("model_type") if isinstance(stored, dict) else None
    if kind != "gpt2":
        raise UsageError(f"{name} is a model of the kind {kind!r}; a GPT-2 is needed.")
    names = {"layers": "n_layer", "heads": "n_head", "width": "n_embd", "vocabulary": "vocab_size"}
    found = {own: stored.get(theirs) for own, theirs in names.items()}
    found["positions"] = stored.get("n_positions", stored.get("n_ctx"))
    for own, size in found.items():
        if type(size) is not int:
            raise FileError(f"{path} lacks {names.get(own, 'n_positions')!r}, a whole number.")
    if stored.get("n_inner") == 4 * found["width"]:  # what null stands for
        stored["n_inner"] = None
    odd = next((key for key, plain in PLAIN.items() if stored.get(key, plain) != plain), None)
    if odd is not None:
        raise UsageError(f"{name} has {odd} {stored[odd]!r:.40}; a GPT-2 with {PLAIN[odd]!r} is needed.")
    return found


class DecodingConfig(Config):
    """How texts are written: searched by beams, or drawn word by word."""

    beams: int = Field(5, ge=1, le=64)
    """Beginnings that the search keeps; 1 takes the likeliest word each time."""
    temperature: float = Field(0.0, ge=0, le=100)
    """0 searches; above, words are drawn, their logits divided by it."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draws among the likeliest words that together have this probability; null for all."""
    top_k: int | None = Field(None, ge=1)
    """Draws among so many of the likeliest words; null for all."""

    @model_validator(mode="after")
    def _search_or_draw(self) -> "DecodingConfig":
        if self.temperature and self.beams > 1:
            raise ValueError(f"words are drawn (temperature {self.temperature}) or searched (beams {self.beams})")
        if not self.temperature and (self.top_p or self.top_k):
            raise ValueError("top_p and top_k choose among words that are drawn; give a temperature above 0")
        return self


def gpt2_folder(name: str) -> Path:
    """The folder of a pretrained model, fetched by the hub's client where it is no folder here."""
    return Path(name) if Path(name).is_dir() else download_from_hub(name, "language model", FILES)


class LanguageModel(nn.Module):
    """GPT-2 over rows of an image and then words.

    Source: Radford et al. (2019), GPT-2; ClipCap (arXiv 2111.09734) for the prefix.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.config = config
        assert config.vocabulary is not None, "the sizes were not resolved"
        assert config.positions is not None, "the sizes were not resolved"
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocabulary,
                n_positions=config.positions,
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

    def load_pretrained(self) -> None:
        """Brings the pretrained weights in, where the settings name such."""
        if self.config.pretrained is None:
            return
        from transformers import GPT2LMHeadModel

        with quiet_transformers():
            try:
                loaded: Any = GPT2LMHeadModel.from_pretrained(
                    gpt2_folder(self.config.pretrained), use_safetensors=True, output_loading_info=True
                )
            except Exception as error:  # transformers raises a dozen kinds; each means that it cannot be had
                raise FileError(f"{self.config.pretrained} cannot be read: {first_line(error)[:300]}") from error
        other, told = loaded
        missing = sorted(set(told["missing_keys"]) - {HEAD})
        if missing:  # transformers draws them anew and only remarks it
            raise FileError(f"{self.config.pretrained} lacks {len(missing)} of its weights, for example {missing[0]}.")
        self.gpt.load_state_dict(other.state_dict())

    def embed(self, ids: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
        """The rows of words."""
        return self.gpt.transformer.wte(ids)

    def forward(self, rows: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """What it makes of each row, having read those before it; padding (mask False) stands at the end."""
        return self.gpt.transformer(inputs_embeds=rows, attention_mask=mask.long(), use_cache=False).last_hidden_state

    def logits(self, rows: Float[Tensor, "*b c"]) -> Float[Tensor, "*b v"]:
        """Of the word that follows; in full precision, which a softmax over many words needs."""
        return self.gpt.lm_head(rows).float()

    @torch.no_grad()
    def write(
        self,
        rows: Float[Tensor, "b n c"],
        config: DecodingConfig,
        end: int,
        unwritten: Sequence[int],
        max_length: int,
        count: int = 1,
        seeds: Sequence[Sequence[int]] | None = None,
    ) -> list[list[list[int]]]:
        """Of each image so many texts that follow its rows, as words up to the end; of a search the best first.

        The same rows and seeds give the same texts, whatever is written beside them.

        Args:
            rows: of images.
            config: how words are chosen.
            end: the word that ends a text; it is never the first.
            unwritten: words that are never chosen.
            longest: words of a text at most.
            count: texts of an image.
            seeds: of the words that are drawn, some numbers for each image; by default its place.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        drawn = config.temperature > 0
        if not drawn and count > config.beams:
            raise UsageError(f"{count} texts of an image need as many beams, not {config.beams}, or a temperature.")
        chosen: Any = LogitsProcessorList()
        if drawn:  # of noisy logits the likeliest, which is a draw; each text has noise of its own
            own = [[*seed, text] for seed in seeds or [[row] for row in range(len(rows))] for text in range(count)]
            rows, chosen = rows.repeat_interleave(count, dim=0), _draws(config, own)
        how = GenerationConfig(
            max_new_tokens=max_length,
            min_new_tokens=1,
            num_beams=config.beams,
            num_return_sequences=1 if drawn else count,
            do_sample=False,
            suppress_tokens=list(unwritten) or None,
            eos_token_id=end,
            pad_token_id=end,  # what follows the end
        )
        seen = torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)
        gpt: Any = self.gpt  # what generate returns depends on its settings
        found = gpt.generate(inputs_embeds=rows, attention_mask=seen, generation_config=how, logits_processor=chosen)
        texts = [_until(text, end) for text in found.tolist()]
        return [texts[place : place + count] for place in range(0, len(texts), count)]


def _draws(config: DecodingConfig, seeds: Sequence[Sequence[int]]) -> Any:
    """What turns the logits of some texts into noisy ones, of which the largest is a draw (the Gumbel-max trick).

    transformers draws from one generator for all texts of a batch, so that a text would depend on its neighbours.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    generators = [np.random.default_rng(seed) for seed in seeds]

    def noisy(words: Tensor, logits: Tensor) -> Tensor:
        noise = np.stack([generator.gumbel(size=logits.shape[1]) for generator in generators])
        return logits + torch.from_numpy(noise).to(logits)

    found = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    found += [TopKLogitsWarper(config.top_k)] if config.top_k else []
    found += [TopPLogitsWarper(config.top_p)] if config.top_p else []
    return LogitsProcessorList([*found, noisy])


def _until(words: list[int], end: int) -> list[int]:
    return words[: words.index(end)] if end in words else words


def _without_head(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    state.pop(prefix + HEAD, None)


def _tie(module: Any, keys: Any) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(HEAD)]
    module.tie_weights()


def padded(rows: list[list[int]], pad: int) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Rows of numbers filled up to the longest (at least one), and where they are not filled up."""
    max_length = max(1, *map(len, rows)) if rows else 1
    table = torch.tensor([row + [pad] * (max_length - len(row)) for row in rows]).view(len(rows), max_length)
    lengths = torch.tensor([len(row) for row in rows])
    return table, torch.arange(max_length) < lengths[:, None]
