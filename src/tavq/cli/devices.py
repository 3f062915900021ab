"""`--device`, for every command that computes."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from tavq import api

HELP = "Where to compute: cpu, cuda, cuda:1 or mps; by default a GPU where there is one."
Device = Annotated[str | None, Parameter(help=HELP)]


def with_device(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` to a command, which then computes there."""

    @functools.wraps(command)
    def compute(*arguments: Any, device: str | None = None, **options: Any) -> Any:
        if device is None:
            return command(*arguments, **options)
        with api.use_device(device):
            return command(*arguments, **options)

    own = inspect.signature(command)
    added = inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Device)
    parameters = list(own.parameters.values())
    before_json = next((i for i, parameter in enumerate(parameters) if parameter.name == "json"), len(parameters))
    parameters.insert(before_json, added)  # --json comes last everywhere
    compute.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    compute.__annotations__ = {**command.__annotations__, "device": Device}
    return compute
