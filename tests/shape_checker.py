"""The run-time checker of signatures: beartype, taking an int where a float is asked for, as Python's types do.

Building the checks of all functions takes a third of the time in which the tests are collected, and a test process
calls a part of them: those of a function are built when it is first called, not when its module is imported.
"""

import functools
import types
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def check_when_called(*, typechecker: Any) -> Any:
    """`jaxtyping.jaxtyped` as a decorator that does its work for a function at the first call, for a class at once."""

    def decorate(target: Any) -> Any:
        if not isinstance(target, types.FunctionType):
            return _jaxtyped(target, typechecker=typechecker)
        if target.__module__.startswith("tavq.ops.kernels.") and target.__name__.startswith("_"):
            return target  # Triton compiles the source of a kernel in the globals of its function
        checked: Any = None

        @functools.wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked
            if torch.compiler.is_exporting():  # sizes are symbols then, which no check takes for numbers
                return target(*args, **kwargs)
            if checked is None:
                checked = _jaxtyped(target, typechecker=typechecker)
            return checked(*args, **kwargs)

        return call

    return decorate


jaxtyping.jaxtyped = check_when_called
