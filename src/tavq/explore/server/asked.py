"""What the routes share: the explorer, models, ids and pages of lists in addresses.

These functions are coroutines because a plain function would take a thread.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from tavq.explore.answers.base import Granularity, Level
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.requests import MAX_PAGE


async def explorer_of(request: Request) -> Explorer:
    """What the server shows."""
    explorer = request.app.state.explorer
    assert isinstance(explorer, Explorer)
    return explorer


Shown = Annotated[Explorer, Depends(explorer_of)]


async def model_of(explorer: Shown, model: Annotated[str, Path(max_length=100)]) -> ExploredModel:
    """The model of an address; NotFound where there is none."""
    return explorer.model(model)


Model = Annotated[ExploredModel, Depends(model_of)]
LevelName = Annotated[Level, Path()]
GranularityName = Annotated[Granularity, Path()]
ImageName = Annotated[str, Path(pattern=r"^u?[0-9]{1,9}$")]
Index = Annotated[int, Path(ge=0, le=1 << 24)]
Offset = Annotated[int, Query(ge=0, le=1 << 30)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Text = Annotated[str, Query(max_length=500)]

PAGE = 60
"""Length of a list where the request says nothing."""
