"""`--device`, for every command that computes, and `--precision`, for those that use a trained tokenizer."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import Parameter

from tavq import api

HELP = "Where to compute: cpu, cuda, cuda:1 or mps; by default a GPU where there is one."
Device = Annotated[str | None, Parameter(help=HELP)]

PRECISION_HELP = (
    "Precision of the tokenizer's convolutions: fp32, which is exact, or bf16, which is faster and gives a few other "
    "indices; by default fp32."
)
Precision = Annotated[str | None, Parameter(help=PRECISION_HELP)]


def with_device(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` to a command, which then computes there."""
    return _within(command, "device", Device)


def with_precision(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--precision` to a command, whose tokenizers then compute in it."""
    return _within(command, "precision", Precision)


def _within(command: Callable[..., Any], name: str, annotation: Any) -> Callable[..., Any]:
    """Add an option to a command, which then runs within `tavq.use_NAME` of its value."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        value = options.pop(name, None)
        if value is None:
            return command(*arguments, **options)
        with getattr(api, f"use_{name}")(value):  # looked up here, because it loads torch
            return command(*arguments, **options)

    own = inspect.signature(command)
    added = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    parameters = list(own.parameters.values())
    before_json = next((i for i, parameter in enumerate(parameters) if parameter.name == "json"), len(parameters))
    parameters.insert(before_json, added)  # --json comes last everywhere
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, name: annotation}
    return run
