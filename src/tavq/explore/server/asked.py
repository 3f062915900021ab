"""What the routes share: the explorer, and the model of an address.

These functions are coroutines because a plain function would take a thread.
"""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel


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
Text = Annotated[str, Query(max_length=500)]
