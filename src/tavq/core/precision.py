"""Choosing the precision in which trained tokenizers compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

from tavq.core.errors import UsageError, unknown_name

Precision = Literal["fp32", "bf16"]
"""`fp32` is exact: indices are those of every other run. `bf16` rounds the operands of convolutions to bfloat16."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_chosen: Precision = "fp32"
"""The precision of `use_precision`. Not a context variable: threads started within must compute in it too."""


def select_precision(name: str | None) -> Precision:
    """The precision called `name`; of None the one of `use_precision`, else fp32.

    Raises:
        UsageError: there is no such precision.
    """
    if name is None:
        return _chosen
    if name not in PRECISIONS:
        raise UsageError(unknown_name("precision", name, PRECISIONS))
    return name


@contextmanager
def use_precision(name: str | None) -> Iterator[None]:
    """Let tokenizers that are put to use within this context compute in `name`: fp32 or bf16; None changes nothing.

    Encoder and decoder alone are concerned. The nearest entries, metrics and tasks are computed as ever.

    Raises:
        UsageError: there is no such precision.
    """
    global _chosen
    before, chosen = _chosen, select_precision(name)
    _chosen = chosen
    try:
        yield
    finally:
        _chosen = before
