"""What every answer is made of, and what there is to explore.

Every address in an answer starts with /api/v1/ and needs no more than the cookie that the page's address sets.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

VERSION: Literal[1] = 1
PREFIX = f"/api/v{VERSION}"

Level = Literal["low", "middle", "deep"]
Granularity = Literal["words", "phrases", "sentences"]
Interval = tuple[float, float]
"""The ends of a 95 % interval."""

Grid = list[list[float]]
"""Values [h][w] by row and column."""


class Answer(BaseModel):
    """Base of all answers: immutable, with finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Missing(Answer):
    """Something that an answer lacks, and what would add it."""

    part: Literal["text", "alignment", "decoder", "usage", "held_out", "task", "umap", "text_encoder"]
    reason: str
    remedy: str = ""
    """What the user can do; empty where nothing helps."""


class Problem(Answer):
    """Why a request was refused."""

    code: Literal["bad_request", "forbidden", "not_found", "too_large", "busy", "failed"]
    message: str
    """Names the value, what is accepted and what to do."""


class Refusal(Answer):
    """The body of every answer with a status of 400 or more."""

    error: Problem


# --- what there is ----------------------------------------------------------------------------------------------


class LevelInfo(Answer):
    """A grid of a model's hierarchy and its codebook."""

    name: Level
    height: int
    width: int
    parts: list[int]
    """Entries of each part of the codebook; a position has one code of each part."""
    entries: int
    """k, the entries of all parts; codes are 0 to k - 1, part after part."""
    used: int
    """Entries that were chosen at least once."""
    decodes: bool
    """Whether the decoder reads this grid; only such a level can be edited."""
    entries_decode: bool
    """Whether its entries are those that the decoder reads, so that a code can be decoded alone."""
    aligned: list[Granularity]
    """Granularities whose units are ranked in the aligned space of this level's entries."""


class HeldOutScore(Answer):
    """How well words are guessed from the codes of images that were kept apart.

    `auc` is the mean, over words, of the probability that an image with the word scores higher than one without.
    """

    level: Level
    images: int
    """Images kept apart."""
    words: int
    """Words that were guessed."""
    auc: float
    interval: Interval
    shuffled: float
    """The same after the texts of the other images were shuffled: the level of chance."""
    shuffled_interval: Interval
    codes: int
    """Codes with a certain label on the other images."""
    confirmed: int
    """Those whose label has a lift above 1 on the images kept apart, by the interval's lower end."""
    confirmed_shuffled: int
    """The same for labels that were exchanged among the codes."""


class ModelInfo(Answer):
    """A tokenizer that is explored."""

    id: str
    """Its name in addresses."""
    name: str
    size: int
    """Side of its images in pixels."""
    factor: int
    quantizer: str
    codebook: str
    aligner: str | None
    step: int | None
    sha256: str
    levels: list[LevelInfo]
    """Fine to coarse; the last one is `deep`, which the decoder reads."""
    held_out: list[HeldOutScore]
    tasks: list[str]
    """Names of the tasks that can be asked after an edit: captioning, vqa, masked-words, prior, ..."""
    masks: dict[str, list[str]]
    """Of tasks that complete images, the hidden parts that each can complete."""
    missing: list[Missing]


class DataInfo(Answer):
    """The images that are explored."""

    name: str
    images: int
    unreadable: int
    with_text: int
    splits: dict[str, int]
    units: dict[Granularity, int]
    """Number of units with statistics; empty without text."""
    held_out: int
    """Images kept apart for the held-out scores, by a hash of their names."""


class Limits(Answer):
    """Bounds of requests."""

    upload_bytes: int
    upload_pixels: int
    page: int
    """The largest `limit` of a list."""
    operations: int
    """Operations of an edit."""
    share: int
    """Characters of a share string."""


class Overview(Answer):
    """Everything that the first page needs."""

    version: Literal[1] = VERSION
    tavq: str
    data: DataInfo
    models: list[ModelInfo]
    limits: Limits
    missing: list[Missing]
