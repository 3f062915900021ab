"""What requests may hold, version 1: ids, pages of lists, and the bodies of edits, questions and guesses."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tavq.explore.answers.base import Level

MAX_OPERATIONS = 256
MAX_CELLS = 1 << 14
"""A grid of 128 x 128, as of images of 512 px with one position for 4 x 4 pixels."""
MAX_SHARE = 16_384
MAX_QUESTION = 500
MAX_PAGE, PAGE = 200, 60
"""Length of a list: at most, and where the request says nothing."""

Index = Annotated[int, Field(ge=0, le=1 << 24)]
Cell = tuple[Index, Index]
"""Row and column of a position of the deep grid."""

ImageId = Annotated[str, Field(pattern=r"^u?[0-9]{1,9}$")]
"""An image's number in the data set, or "u" and the number of an upload."""


Offset = Annotated[int, Field(ge=0, le=1 << 30)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE)]


class Request(BaseModel):
    """Base of all bodies: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Paint(Request):
    """Put a code at positions; the code's own part decides which of a position's codes it replaces."""

    op: Literal["paint"]
    cells: list[Cell] = Field(min_length=1, max_length=MAX_CELLS)
    code: Index


class Remove(Request):
    """Replace the codes at positions by those most frequent around them."""

    op: Literal["remove"]
    cells: list[Cell] = Field(min_length=1, max_length=MAX_CELLS)


class RemoveCode(Request):
    """Replace a code wherever the image has it by the code most frequent around each position."""

    op: Literal["remove_code"]
    code: Index


class Replace(Request):
    """Replace a code wherever the image has it by another code of the same part."""

    op: Literal["replace"]
    code: Index
    by: Index


class Swap(Request):
    """Exchange two codes of the same part wherever the image has them."""

    op: Literal["swap"]
    first: Index
    second: Index


class Copy(Request):
    """Copy all codes of a rectangle, of this or another image, to a position; what leaves the grid is cut off."""

    op: Literal["copy"]
    image: ImageId | None = None
    """The image that is copied from; by default the edited one, before this operation."""
    row: Index
    column: Index
    height: Annotated[int, Field(ge=1, le=4096)] = 1
    width: Annotated[int, Field(ge=1, le=4096)] = 1
    to_row: Index
    to_column: Index


class Open(Request):
    """Take the edited grid that a share string of this image holds."""

    op: Literal["open"]
    share: str = Field(max_length=MAX_SHARE)


Operation = Annotated[Paint | Remove | RemoveCode | Replace | Swap | Copy | Open, Field(discriminator="op")]


class EditRequest(Request):
    """Operations on the codes of an image, in order; undo is a request without the last one."""

    image: ImageId
    operations: list[Operation] = Field(max_length=MAX_OPERATIONS)


class ShareRequest(Request):
    """An edit that is not in the address: a share string too long for one."""

    share: str = Field(max_length=MAX_SHARE)


Mask = Literal["right", "left", "top", "bottom", "centre"]
"""The hidden part of an image that a task completes."""


class QuestionRequest(Request):
    """Ask a task about an image before and after an edit."""

    share: str = Field(max_length=MAX_SHARE)
    """The edit, of `EditResult`."""
    task: str = Field(max_length=40)
    question: str | None = Field(None, max_length=MAX_QUESTION)
    """The question of vqa, or the caption with ___ for each gap of masked-words."""
    mask: Mask = "right"
    """The hidden part of a completion."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class PatchRequest(Request):
    """Find patches with the codes of a rectangle of an image."""

    image: ImageId
    level: Level = "deep"
    row: Index
    column: Index
    height: Annotated[int, Field(ge=1, le=8)] = 1
    width: Annotated[int, Field(ge=1, le=8)] = 1
    limit: Limit = 24


class GuessRequest(Request):
    """A guess in the guessing game."""

    puzzle: str = Field(max_length=200)
    choice: str = Field(max_length=200)
    seconds: float | None = Field(None, ge=0, le=86_400)


# --- queries of lists -------------------------------------------------------------------------------------------


class CodeQuery(Request):
    """Sorting and filters of a list of codes; a filter that is None keeps all."""

    sort: Literal[
        "usage", "index", "entropy", "specificity", "certainty", "precision", "held_out", "position_bias", "images"
    ] = "usage"
    order: Literal["desc", "asc"] = "desc"
    offset: Offset = 0
    limit: Limit = PAGE
    query: str = Field("", max_length=100)
    """In the label or the word of the entry, or the index itself."""
    dead: bool | None = None
    labelled: bool | None = None
    part: Annotated[int, Field(ge=0, le=4096)] | None = None
    min_count: int | None = None
    max_count: int | None = None
    min_bias: float | None = None
    max_bias: float | None = None
    max_entropy: float | None = None
    min_lift: float | None = None
