"""Decisions that several processes share: what one of them finds out, or fails at, is the same in all of them."""

import json
from collections.abc import Callable
from typing import Any

from tavq.core import errors
from tavq.core.errors import TavqError
from tavq.core.files import parse_json
from tavq.ops.collective import all_gather_text, rank, world_size


def decide_first(decide: Callable[[], Any]) -> Any:
    """What `decide` returns in the first process, in every process; JSON must be able to hold it.

    Raises the error for users that `decide` raises, in every process: none of them waits for a process that stopped.
    """
    if world_size() == 1:
        return decide()
    own = _report(decide) if rank() == 0 else ""
    return _open_report(all_gather_text(own)[0])


def run_together(work: Callable[[], Any]) -> Any:
    """What `work` returns in this process, once it has succeeded in every process.

    Raises the first error for users of any process, in every process.
    """
    if world_size() == 1:
        return work()
    result: list[Any] = []
    own = _report(lambda: result.append(work()))
    for report in all_gather_text(own):
        _open_report(report)
    return result[0]


def _report(work: Callable[[], Any]) -> str:
    try:
        return json.dumps({"value": work()})
    except TavqError as error:
        return json.dumps({"kind": type(error).__name__, "message": str(error)})


def _open_report(report: str) -> Any:
    """The value in a report, or its error again."""
    found = parse_json(report, "What another process told")
    if "message" in found:
        raise getattr(errors, found["kind"], TavqError)(found["message"])
    return found["value"]
