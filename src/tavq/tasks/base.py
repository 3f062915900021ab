"""Read this first in this room: images as sequences of tokens, and the interface of tasks.

Axis letters in addition to those of interfaces.py: n tokens of an image, g tokens of its condition, v the vocabulary.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import Config, NamedConfig, build
from tavq.core.errors import UsageError
from tavq.core.registry import Registry
from tavq.interfaces import Losses, TextFeatures, TextUnits
from tavq.ops.grids import offset_indices
from tavq.ops.waiting import constant

MAX_TOKENS = 1 << 16
"""Of an image; attention over more does not fit into any memory."""


class TokenLayout(Config):
    """How the indices of an image become its tokens: positions in raster order, the parts of a position in turn.

    A token is an index counted through all parts of the codebook: part i has the tokens from
    sizes[0] + … + sizes[i-1] on. At each place of the sequence only the tokens of one part are valid.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    sizes: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = Field(min_length=1, max_length=1024)
    """Number of entries of each part."""

    @model_validator(mode="after")
    def _check_length(self) -> "TokenLayout":
        if self.length > MAX_TOKENS:
            raise ValueError(f"an image of {self.length:,} tokens is too long; at most {MAX_TOKENS:,} are supported")
        return self

    @property
    def parts(self) -> int:
        """Tokens of a position."""
        return len(self.sizes)

    @property
    def length(self) -> int:
        """n, the tokens of an image."""
        return self.height * self.width * self.parts

    @property
    def vocabulary(self) -> int:
        """v, the number of different tokens; as a token, v itself is the mask or the start token."""
        return sum(self.sizes)

    def resized(self, height: int, width: int) -> "TokenLayout":
        """The layout of the same tokens on another grid; UsageError if the grid is too large."""
        size = f"An image of {height:,} x {width:,} positions"
        if height * width * self.parts > MAX_TOKENS:
            raise UsageError(f"{size} of {self.parts} is too large; at most {MAX_TOKENS:,} tokens are supported.")
        return build(TokenLayout, {"height": height, "width": width, "sizes": self.sizes}, size)

    def to_tokens(self, indices: Int[Tensor, "b h w *c"]) -> Int[Tensor, "b n"]:
        """The tokens of images; UsageError if their grid differs from the layout."""
        h, w = indices.shape[1:3]
        parts = indices.shape[3] if indices.ndim == 4 else 1
        if (h, w, parts) != (self.height, self.width, self.parts):
            raise UsageError(
                f"The codes are {h} x {w} positions of {parts}; this model expects {self.height} x {self.width} of "
                f"{self.parts}."
            )
        return offset_indices(indices, self.sizes).reshape(len(indices), -1)

    def to_indices(self, tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b h w *c"]:
        """The inverse of `to_tokens`."""
        grid = tokens.view(len(tokens), self.height, self.width, self.parts)
        if self.parts == 1:
            return grid[..., 0]
        return grid - constant(tuple(accumulate(self.sizes[:-1], initial=0)), tokens.device)

    def allowed_tokens(self, device: torch.device | None = None) -> Bool[Tensor, "n v"]:
        """Which tokens are valid at each place of the sequence."""
        sizes = constant(self.sizes, device or torch.device("cpu"))
        part_of_token = torch.repeat_interleave(sizes, output_size=sum(self.sizes))
        part_of_place = torch.arange(self.length, device=device) % self.parts
        return part_of_place[:, None] == part_of_token[None]


@dataclass(frozen=True)
class GenerationBatch:
    """A training batch of a generation task: tokens of images, and their conditions.

    `condition` has the tokens of the images' segmentation maps, from another tokenizer.
    """

    tokens: Int[Tensor, "b n"]
    keys: tuple[str, ...]
    text: TextFeatures | None = None
    condition: Int[Tensor, "b g"] | None = None


class Sampling(Config):
    """How tokens are sampled from logits."""

    temperature: float = Field(1.0, ge=0, le=100)
    """Divides the logits; 0 takes the most likely token."""
    top_k: int | None = Field(None, ge=1)
    """Sample from the k most likely tokens; None for all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Sample from the fewest tokens whose probabilities sum to at least p; None for all."""
    guidance: float = Field(1.0, ge=0, le=100)
    """Classifier-free guidance scale; 1 turns it off."""
    steps: int | None = Field(None, ge=1, le=10_000)
    """Number of decoding steps, for tasks that decode many tokens at once; None for the task's default."""


@dataclass(frozen=True)
class Prompt:
    """What to generate.

    Attributes:
        count: number of images.
        known_tokens: tokens of images to complete; read only where `keep_mask` is True.
        keep_mask: True at the tokens that stay as they are.
        text: condition of a task that reads text.
        condition: condition of a task that reads segmentation maps, as their tokens.
        size: height and width in positions, if not the size that the model was trained at.
    """

    count: int
    known_tokens: Int[Tensor, "b n"] | None = None
    keep_mask: Bool[Tensor, "b n"] | None = None
    text: TextFeatures | None = None
    condition: Int[Tensor, "b g"] | None = None
    size: tuple[int, int] | None = None

    def slice(self, start: int, stop: int) -> "Prompt":
        """The prompt of the images from `start` up to `stop`."""
        images = slice(start, stop)
        names = ("known_tokens", "keep_mask", "condition")
        tensors = {name: tensor[images] for name in names if (tensor := getattr(self, name)) is not None}
        return Prompt(stop - start, text=index_text(self.text, images), size=self.size, **tensors)


def index_text(value: Any, index: slice | Tensor) -> Any:
    """Every tensor of a TextFeatures or TextUnits, indexed along the batch; None stays None."""
    if isinstance(value, Tensor):
        return value[index]
    if isinstance(value, TextFeatures | TextUnits):
        return replace(value, **{field.name: index_text(getattr(value, field.name), index) for field in fields(value)})
    return value


class Task(nn.Module, ABC):
    """A network on the codes of a tokenizer: a GenerationTask, or an UnderstandingTask (tasks/understanding).

    Subclasses are one registered class a file, each with its own `name` and `Config`. Whatever is computed when a task
    is built belongs in saved parameters and buffers: a loaded task is not computed again.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    commands: ClassVar[frozenset[str]]
    """The commands that use a trained model."""

    layout: TokenLayout
    contrasts_batch: ClassVar[bool] = False
    """Compares the samples of a batch with one another, so that its loss needs all of them at once."""
    parts: int = 1
    """For such a task: parts of a batch that training lets it embed one after the other."""

    @classmethod
    def required_conditions(cls, config: NamedConfig) -> frozenset[str]:
        """Which of "text" and "segmentation" it needs besides images, in training and in use."""
        return frozenset()

    @abstractmethod
    def loss(self, batch: Any) -> Losses:
        """The training loss of a batch. Random numbers come from torch's global generator only.

        Every trained parameter must take part in it. Losses are means over the samples, or all of them means over
        as many `elements`.
        """

    def finish_step(self) -> None:
        """Called in training when a batch is done, after `loss` of each of its parts. Default: nothing."""

    def write_files(self, folder: Path) -> None:
        """Writes to the model folder what is neither weights nor settings, such as a vocabulary; most have nothing."""

    def read_files(self, folder: Path) -> None:
        """Reads what `write_files` wrote."""


class GenerationTask(Task):
    """A network over tokens that generates images.

    It is built by `(config, layout, condition_layout=None, text_width=None)`: `condition_layout` is the layout of
    segmentation maps if `required_conditions` names them, and `text_width` is t if it names text.
    """

    commands = frozenset({"generate", "complete"})
    completion: ClassVar[str] = ""
    """Which hidden tokens it can fill in: "end" (all after some place of the sequence), "any", or "" for none."""
    sampling_options: ClassVar[frozenset[str]] = frozenset()
    """Which of the sampling settings "steps" and "guidance" it uses."""
    supports_larger_grids: ClassVar[bool] = False
    """It generates grids larger than its own, through a sliding window."""

    def check_sampling(self, sampling: Sampling) -> None:
        """Raises UsageError if the task ignores a setting that was given."""
        given = {"steps": sampling.steps is not None, "guidance": sampling.guidance != 1}
        for name in ("steps", "guidance"):
            if given[name] and name not in self.sampling_options:
                raise UsageError(f"Task {self.name!r} does not use --{name}; leave it out.")

    def output_layout(self, prompt: Prompt) -> TokenLayout:
        """The layout of the images to generate; UsageError if the task does not support their size."""
        own = self.layout
        if prompt.size is None or prompt.size == (own.height, own.width):
            return own
        height, width = prompt.size
        if not self.supports_larger_grids:
            raise UsageError(
                f"Task {self.name!r} only generates images of {own.height} x {own.width} positions, the size it was "
                f"trained at; got {height} x {width}."
            )
        if height < own.height or width < own.width:
            raise UsageError(
                f"{height} x {width} positions are too few: this model generates {own.height} x {own.width} or more."
            )
        return own.resized(height, width)

    @abstractmethod
    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """Yields the tokens before the first decoding step and after each one; the last ones are complete.

        The mask token v marks what is not decoded yet. The same generator state gives the same tokens.

        Args:
            prompt: what to generate.
            sampling: how to sample.
            generator: source of all random numbers.
        """

    @torch.no_grad()
    def sample(self, prompt: Prompt, sampling: Sampling, generator: torch.Generator) -> Int[Tensor, "b n"]:
        """The tokens of `prompt.count` images; see `decode_steps`."""
        training = self.training
        self.eval()  # dropout would use the global generator
        try:
            [tokens] = deque(self.decode_steps(prompt, sampling, generator), maxlen=1)
        finally:
            self.train(training)
        return tokens


tasks: Registry[type[Task]] = Registry("task", "tavq.tasks")


# --- sampling tokens --------------------------------------------------------------------------------------------


def filter_logits(logits: Float[Tensor, "b v"], sampling: Sampling) -> Float[Tensor, "b v"]:
    """Logits divided by the temperature, with -inf at the tokens that top-k or top-p exclude.

    The temperature is above 0. The most likely token is always kept.
    """
    if sampling.temperature != 1:  # shifted to a maximum of 0, so that a tiny temperature does not overflow
        logits = (logits - logits.amax(dim=1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        top = logits.topk(sampling.top_k, dim=1).indices
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).scatter(1, top, False), -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        probabilities = ordered.softmax(dim=1)
        # Exclude a token if those before it already sum to p.
        excluded = probabilities.cumsum(dim=1) - probabilities >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(excluded).scatter(1, order, excluded), -torch.inf)
    return logits


def sample_tokens(logits: Float[Tensor, "b v"], sampling: Sampling, generator: torch.Generator) -> Int[Tensor, " b"]:
    """One token for each row of logits."""
    if sampling.temperature == 0:
        return logits.argmax(dim=1)
    probabilities = filter_logits(logits.float(), sampling).softmax(dim=1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def apply_guidance(
    conditional: Float[Tensor, "b v"], unconditional: Float[Tensor, "b v"], guidance: float
) -> Float[Tensor, "b v"]:
    """Logits of classifier-free guidance (Ho and Salimans 2022); a scale of 1 gives the conditional ones."""
    return unconditional + guidance * (conditional - unconditional)
