"""Read this first in this room: images as sequences of tokens, and what a task must do.

Axis letters beside those of interfaces.py: n tokens of an image, v the vocabulary.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
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

MAX_TOKENS = 1 << 16
"""Of an image; attention over more would not fit into any memory."""


class TokenLayout(Config):
    """How the indices of an image become its tokens: positions in raster order, the parts of a position in turn.

    A token is the index counted through all parts of the codebook, so part i holds the numbers from
    sizes[0] + … + sizes[i-1] on, and only one part may stand at each place of the sequence.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    sizes: tuple[Annotated[int, Field(ge=1, le=2**24)], ...] = Field(min_length=1, max_length=1024)
    """Entries of each part."""

    @model_validator(mode="after")
    def _some_memory(self) -> "TokenLayout":
        if self.length > MAX_TOKENS:
            raise ValueError(f"an image of {self.length:,} tokens is too long; at most {MAX_TOKENS:,} are modelled")
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
        """v, the tokens there are."""
        return sum(self.sizes)

    def resized(self, height: int, width: int) -> "TokenLayout":
        """That of another grid of the same tokens; UsageError where it is too large."""
        size = f"An image of {height:,} x {width:,} positions"
        if height * width * self.parts > MAX_TOKENS:
            raise UsageError(f"{size} of {self.parts} is too large; at most {MAX_TOKENS:,} tokens are drawn.")
        return build(TokenLayout, {"height": height, "width": width, "sizes": self.sizes}, size)

    def to_tokens(self, indices: Int[Tensor, "b h w *c"]) -> Int[Tensor, "b n"]:
        """The tokens of some images; UsageError where the grid is another one."""
        h, w = indices.shape[1:3]
        parts = indices.shape[3] if indices.ndim == 4 else 1
        if (h, w, parts) != (self.height, self.width, self.parts):
            raise UsageError(
                f"The codes are {h} x {w} positions of {parts}; this model was made for {self.height} x {self.width} "
                f"of {self.parts}."
            )
        return offset_indices(indices, self.sizes).reshape(len(indices), -1)

    def to_indices(self, tokens: Int[Tensor, "b n"]) -> Int[Tensor, "b h w *c"]:
        """The inverse of `tokens`."""
        grid = tokens.view(len(tokens), self.height, self.width, self.parts)
        if self.parts == 1:
            return grid[..., 0]
        return grid - torch.tensor([0, *self.sizes[:-1]], device=tokens.device).cumsum(0)

    def allowed_tokens(self, device: torch.device | None = None) -> Bool[Tensor, "n v"]:
        """Which tokens may stand at each place."""
        sizes = torch.tensor(self.sizes, device=device)
        part_of = torch.repeat_interleave(torch.arange(self.parts, device=device), sizes)
        places = torch.arange(self.length, device=device) % self.parts
        return places[:, None] == part_of[None]


@dataclass(frozen=True)
class GenerationBatch:
    """Images as tokens, with what is known of them; what a task learns from.

    `condition` are the tokens of another tokenizer for the same images: of their segmentation maps.
    """

    tokens: Int[Tensor, "b n"]
    keys: tuple[str, ...]
    text: TextFeatures | None = None
    condition: Int[Tensor, "b g"] | None = None


class Sampling(Config):
    """How tokens are drawn."""

    temperature: float = Field(1.0, ge=0, le=100)
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int | None = Field(None, ge=1)
    """Only so many of the likeliest tokens; None for all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Only the likeliest tokens that together have this probability; None for all."""
    guidance: float = Field(1.0, ge=0, le=100)
    """Classifier-free guidance: 1 is none; the logits go this many times as far from those without a condition."""
    steps: int | None = Field(None, ge=1, le=10_000)
    """Of the tasks that fill in many tokens at once: passes; None for the task's own number."""


@dataclass(frozen=True)
class Prompt:
    """What is asked for.

    `known_tokens` stay where `keep_mask` says so (of a completion); `text` or `condition` are the conditions. `size`
    is the height and width in positions of images that are not the task's own size.
    """

    count: int
    known_tokens: Int[Tensor, "b n"] | None = None
    keep_mask: Bool[Tensor, "b n"] | None = None
    text: TextFeatures | None = None
    condition: Int[Tensor, "b g"] | None = None
    size: tuple[int, int] | None = None

    def slice(self, start: int, stop: int) -> "Prompt":
        """The images from `start` up to `stop`."""
        rows = slice(start, stop)
        names = ("known_tokens", "keep_mask", "condition")
        tables = {name: table[rows] for name in names if (table := getattr(self, name)) is not None}
        return Prompt(stop - start, text=select_text(self.text, rows), size=self.size, **tables)


def select_text(value: Any, rows: slice | Tensor) -> Any:
    """Some rows of every tensor of a TextFeatures or TextUnits; None stays None."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, TextFeatures | TextUnits):
        return replace(value, **{field.name: select_text(getattr(value, field.name), rows) for field in fields(value)})
    return value


class Task(nn.Module):
    """A network on the codes of a tokenizer; it draws (DrawingTask) or reads (tasks/reading.ReadingTask).

    Subclasses are one registered class a file, `name` and `Config` their own. What is computed when it is made belongs
    into parameters and buffers that are saved: it is loaded without being computed again.
    """

    Config: ClassVar[type[NamedConfig]]
    name: ClassVar[str]
    commands: ClassVar[frozenset[str]]
    """What a trained model is used by, on the command line."""

    layout: TokenLayout

    @classmethod
    def required_conditions(cls, config: NamedConfig) -> frozenset[str]:
        """Of "text" and "segmentation" what it must be given beside images, in training and in use."""
        return frozenset()

    def loss(self, batch: Any) -> Losses:
        """The objective of a batch; draws from torch's global generator alone."""
        raise TypeError(f"{type(self).__name__} must define loss")

    def write_files(self, folder: Path) -> None:
        """Puts into the model folder what the task consists of beside weights and settings; most have nothing."""

    def read_files(self, folder: Path) -> None:
        """Reads what `write_files` has written."""


class GenerationTask(Task):
    """A network over tokens that can be trained and asked to draw.

    Made by `(config, layout, condition_layout=None, text_width=None)`: `condition_layout` is the layout of the
    segmentation maps where `required_conditions` names them, `text_width` t where it names text.
    """

    commands = frozenset({"generate", "complete"})
    completion: ClassVar[str] = ""
    """Which hidden tokens it can fill in: "end" (those after a place of the sequence), "any", or none."""
    sampling_options: ClassVar[frozenset[str]] = frozenset()
    """Of the sampling settings "steps" and "guidance" those that mean something to it."""
    supports_larger_grids: ClassVar[bool] = False
    """It also draws grids larger than its own, through a window of its own size."""

    def check_sampling(self, sampling: Sampling) -> None:
        """UsageError where a setting would be passed over."""
        given = {"steps": sampling.steps is not None, "guidance": sampling.guidance != 1}
        for name in ("steps", "guidance"):
            if given[name] and name not in self.sampling_options:
                raise UsageError(f"The task {self.name!r} reads no {name}; leave --{name} out.")

    def output_layout(self, prompt: Prompt) -> TokenLayout:
        """The layout of the images asked for; UsageError where the task does not draw such."""
        own = self.layout
        if prompt.size is None or prompt.size == (own.height, own.width):
            return own
        height, width = prompt.size
        if not self.supports_larger_grids:
            raise UsageError(
                f"The task {self.name!r} draws images of {own.height} x {own.width} positions alone, its own size; "
                f"{height} x {width} are asked for."
            )
        if height < own.height or width < own.width:
            raise UsageError(
                f"{height} x {width} positions are too few: this model draws {own.height} x {own.width} and more."
            )
        return own.resized(height, width)

    def decode_steps(
        self, prompt: Prompt, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[Int[Tensor, "b n"]]:
        """The tokens before any is drawn and as they come to be, at last those of `prompt.count` images.

        v, which is no token, stands where none is drawn yet. The same generator state gives the same tokens.
        """
        raise TypeError(f"{type(self).__name__} must define decode_steps")

    @torch.no_grad()
    def sample(self, prompt: Prompt, sampling: Sampling, generator: torch.Generator) -> Int[Tensor, "b n"]:
        """The last of `decode_steps`, of the network in evaluation mode: dropout would draw from another generator."""
        training = self.training
        self.eval()
        try:
            [tokens] = deque(self.decode_steps(prompt, sampling, generator), maxlen=1)
        finally:
            self.train(training)
        return tokens


tasks: Registry[type[Task]] = Registry("task", "tavq.tasks")


# --- drawing tokens ---------------------------------------------------------------------------------------------


def filter_logits(logits: Float[Tensor, "b v"], sampling: Sampling) -> Float[Tensor, "b v"]:
    """Logits by temperature (above 0) of the tokens that may be drawn; the others are -inf. The likeliest stays."""
    if sampling.temperature != 1:  # the greatest becomes 0: divided by next to nothing it would be no number
        logits = (logits - logits.amax(dim=1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        likeliest = logits.topk(sampling.top_k, dim=1).indices
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).scatter(1, likeliest, False), -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        shares = ordered.softmax(dim=1)
        beyond = shares.cumsum(dim=1) - shares >= sampling.top_p  # the sum before a token reaches p already
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return logits


def sample_tokens(logits: Float[Tensor, "b v"], sampling: Sampling, generator: torch.Generator) -> Int[Tensor, " b"]:
    """One token a row."""
    if sampling.temperature == 0:
        return logits.argmax(dim=1)
    shares = filter_logits(logits.float(), sampling).softmax(dim=1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]


def apply_guidance(
    conditional: Float[Tensor, "b v"], unconditional: Float[Tensor, "b v"], guidance: float
) -> Float[Tensor, "b v"]:
    """Logits of classifier-free guidance (Ho and Salimans 2022)."""
    return unconditional + guidance * (conditional - unconditional)
