"""A GPT-2 that reads image embeddings as a prefix of its text; pretrained, or small and trained from scratch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import Config, build, require_resolved
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.files import read_json
from tavq.core.pretrained import download_from_hub, quiet_transformers
from tavq.nets.transformer import check_heads

FILES = ("*.json", "*.txt", "model*.safetensors")
HEAD = "lm_head.weight"

SUPPORTED: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
"""The settings of a GPT-2 beside its sizes. A checkpoint with any other value would compute something else here."""

LOADED_SIZES = {
    "layers": "n_layer",
    "heads": "n_head",
    "width": "n_embd",
    "vocabulary": "vocab_size",
    "positions": "n_positions",
}
"""Our names of the sizes, and GPT-2's."""


class LanguageConfig(Config):
    """The sizes of a GPT-2; `pretrained` replaces them by those of its folder."""

    RENAMED: ClassVar = {"places": "positions"}

    pretrained: str | None = None
    """Folder or hub name of a GPT-2 to start from; null trains from scratch."""
    layers: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    width: int = Field(128, ge=8, le=4096)
    dropout: float = Field(0.1, ge=0, lt=1)
    positions: int | None = Field(None, ge=2, le=1 << 16)
    """Maximum sequence length, image tokens and words; null for what the task needs."""
    vocabulary: int | None = Field(None, ge=3, le=1 << 20)
    """Vocabulary size; null for that of the training texts."""

    _check_heads = model_validator(mode="after")(check_heads)

    def resolve(self, vocabulary: int, positions: int) -> "LanguageConfig":
        """The settings with all sizes filled in: those of the pretrained model, or those given here.

        Args:
            vocabulary: tokens of the text tokenizer.
            positions: length of the task's longest sequence.

        Raises:
            UsageError: the pretrained model is missing, is not a GPT-2, or has fewer positions.
            FileError: its files contradict each other.
        """
        if self.pretrained is None:
            sizes = {"vocabulary": self.vocabulary or vocabulary, "positions": self.positions or positions}
            return self.model_copy(update=sizes)
        settings = {**self.model_dump(), **gpt2_sizes(self.pretrained)}
        resolved = build(LanguageConfig, settings, f"The model {self.pretrained}")
        assert resolved.positions is not None, "gpt2_sizes returns every size"
        assert resolved.vocabulary is not None, "gpt2_sizes returns every size"
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
    """The sizes of a pretrained GPT-2, read from its config.json; UsageError if it is another model."""
    path = gpt2_folder(name) / "config.json"
    stored = read_json(path)
    model_type = stored.get("model_type") if isinstance(stored, dict) else None
    if model_type != "gpt2":
        raise UsageError(f"{name} has model_type {model_type!r}; expected 'gpt2'.")
    stored.setdefault("n_positions", stored.get("n_ctx"))  # n_ctx in old files
    sizes = {ours: stored.get(theirs) for ours, theirs in LOADED_SIZES.items()}
    for ours, size in sizes.items():
        if type(size) is not int:
            raise FileError(f"{path} lacks {LOADED_SIZES[ours]!r}, a whole number.")
    if stored.get("n_inner") == 4 * sizes["width"]:  # which is what null means
        stored["n_inner"] = None
    other = next((key for key, value in SUPPORTED.items() if stored.get(key, value) != value), None)
    if other is not None:
        raise UsageError(f"{name} has {other} {stored[other]!r:.40}; a GPT-2 with {SUPPORTED[other]!r} is needed.")
    return sizes


class DecodingConfig(Config):
    """How texts are generated: by beam search, or by sampling word by word."""

    beams: int = Field(5, ge=1, le=64)
    """Beam width; 1 is greedy decoding."""
    temperature: float = Field(0.0, ge=0, le=100)
    """Sampling temperature; 0 uses beam search instead."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Sample from the most likely words that together have this probability; null for all."""
    top_k: int | None = Field(None, ge=1)
    """Sample from the k most likely words; null for all."""

    @model_validator(mode="after")
    def _check_search_or_sampling(self) -> "DecodingConfig":
        if self.temperature and self.beams > 1:
            raise ValueError(f"choose sampling (temperature {self.temperature}) or beam search (beams {self.beams})")
        if not self.temperature and (self.top_p or self.top_k):
            raise ValueError("top_p and top_k apply to sampling; give a temperature above 0")
        return self


def gpt2_folder(name: str) -> Path:
    """The folder of a pretrained model; downloaded by the hub's client if `name` is not a folder."""
    return Path(name) if Path(name).is_dir() else download_from_hub(name, "language model", FILES)


class LanguageModel(nn.Module):
    """A GPT-2 over a prefix of image embeddings and the embeddings of a text.

    Source: Radford et al. (2019), GPT-2; ClipCap (arXiv 2111.09734) for the prefix.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.config = config
        vocabulary = require_resolved(config.vocabulary, "vocabulary")
        positions = require_resolved(config.positions, "positions")
        self.gpt = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_positions=positions,
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
        # The head shares the weight of the word embedding. safetensors refuses shared tensors, so it is saved once and
        # tied again when it is loaded.
        self.gpt.register_state_dict_post_hook(_drop_head)
        self.gpt.register_load_state_dict_post_hook(_tie_head)

    def load_pretrained(self) -> None:
        """Loads the weights of `config.pretrained`; does nothing if it is None."""
        if self.config.pretrained is None:
            return
        from transformers import GPT2LMHeadModel

        with quiet_transformers():
            try:
                loaded: Any = GPT2LMHeadModel.from_pretrained(
                    gpt2_folder(self.config.pretrained), use_safetensors=True, output_loading_info=True
                )
            except Exception as error:  # transformers raises a dozen types; each means that it cannot be loaded
                raise FileError(f"{self.config.pretrained} cannot be read: {first_line(error)[:300]}") from error
        pretrained, report = loaded
        missing = sorted(set(report["missing_keys"]) - {HEAD})
        if missing:  # transformers fills them with random weights and only logs it
            raise FileError(f"{self.config.pretrained} lacks {len(missing)} of its weights, for example {missing[0]}.")
        self.gpt.load_state_dict(pretrained.state_dict())

    def embed(self, ids: Int[Tensor, "b m"]) -> Float[Tensor, "b m c"]:
        """Word embeddings."""
        return self.gpt.transformer.wte(ids)

    def forward(self, embeddings: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """Hidden states of the last layer under causal attention; padding (mask False) must be at the end."""
        seen = mask.long()
        if mask.device.type != "cpu":  # transformers reads such a mask; no word sees the padding after it without one
            n = mask.shape[1]
            seen = torch.ones(n, n, dtype=torch.bool, device=mask.device).tril().expand(len(mask), 1, n, n)
        outputs = self.gpt.transformer(inputs_embeds=embeddings, attention_mask=seen, use_cache=False)
        return outputs.last_hidden_state

    def logits(self, hidden: Float[Tensor, "*b c"]) -> Float[Tensor, "*b v"]:
        """Next-word logits in float32, because bfloat16 is too coarse for a softmax over a large vocabulary."""
        return self.gpt.lm_head(hidden).float()

    @torch.no_grad()
    def generate(
        self,
        prefix: Float[Tensor, "b n c"],
        config: DecodingConfig,
        end_id: int,
        suppressed_ids: Sequence[int],
        max_length: int,
        count: int = 1,
        seeds: Sequence[Sequence[int]] | None = None,
    ) -> list[list[list[int]]]:
        """Generates `count` texts per image as token ids without the end, best first for beam search.

        An image's texts depend on its own prefix and seed alone, not on the rest of the batch.

        Args:
            prefix: embeddings of the images.
            config: beam search or sampling.
            end_id: the end-of-text token; never generated first.
            suppressed_ids: tokens that are never generated.
            max_length: maximum number of tokens.
            count: texts per image; at most the beam width for beam search.
            seeds: one seed per image for sampling, as integers; by default the image's index in the batch.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        sampling = config.temperature > 0
        if not sampling and count > config.beams:
            raise UsageError(
                f"{count} texts per image need a beam width of at least {count}, not {config.beams}, or a temperature."
            )
        processors: Any = LogitsProcessorList()
        if sampling:
            per_image = seeds or [[i] for i in range(len(prefix))]
            per_text = [[*seed, text] for seed in per_image for text in range(count)]
            prefix, processors = prefix.repeat_interleave(count, dim=0), _sampling_processors(config, per_text)
        generation = GenerationConfig(
            max_new_tokens=max_length,
            min_new_tokens=1,
            num_beams=config.beams,
            num_return_sequences=1 if sampling else count,
            do_sample=False,  # the processors add Gumbel noise, so that the argmax is the sample
            suppress_tokens=list(suppressed_ids) or None,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
        mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        gpt: Any = self.gpt  # the return type of generate depends on its settings
        generated = gpt.generate(
            inputs_embeds=prefix, attention_mask=mask, generation_config=generation, logits_processor=processors
        )
        texts = [_cut_at_end(ids, end_id) for ids in generated.tolist()]
        return [texts[start : start + count] for start in range(0, len(texts), count)]


def _sampling_processors(config: DecodingConfig, seeds: Sequence[Sequence[int]]) -> Any:
    """Logits processors after which the argmax is a sample (the Gumbel-max trick), with one generator per text.

    transformers samples a whole batch from one generator, so that a text would depend on the others in its batch.
    """
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    generators = [np.random.default_rng(seed) for seed in seeds]

    def add_gumbel_noise(ids: Tensor, logits: Tensor) -> Tensor:
        noise = np.stack([generator.gumbel(size=logits.shape[1]) for generator in generators])
        return logits + torch.from_numpy(noise).to(logits)

    processors = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k:
        processors.append(TopKLogitsWarper(config.top_k))
    if config.top_p:
        processors.append(TopPLogitsWarper(config.top_p))
    return LogitsProcessorList([*processors, add_gumbel_noise])


def _cut_at_end(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id)] if end_id in ids else ids


def _drop_head(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    state.pop(prefix + HEAD, None)


def _tie_head(module: Any, keys: Any) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(HEAD)]
    module.tie_weights()


def pad_sequences(sequences: list[list[int]], pad_id: int) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Token ids padded at the end to the longest sequence (at least 1), and a mask that is False for padding."""
    longest = max(1, *map(len, sequences)) if sequences else 1
    padded = [ids + [pad_id] * (longest - len(ids)) for ids in sequences]
    lengths = torch.tensor([len(ids) for ids in sequences])
    return torch.tensor(padded).view(len(sequences), longest), torch.arange(longest) < lengths[:, None]
