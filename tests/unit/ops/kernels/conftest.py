"""Kernels run by Triton's interpreter in a process of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import interpreted as process
import pytest


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """Calls a function with the arguments that follow where the kernels are interpreted, and returns its result."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'tavq[triton]'")
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=process.start) as pool:
        yield lambda function, *given: pool.submit(function, *given).result(timeout=300)
