"""The base of metrics that need all items at once: records by key, which processes gather."""

import json
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import parse_json
from tavq.ops.collective import all_gather_text


class KeyedMetric:
    """A metric whose only state is `records`: plain values (numbers, texts, lists) by key.

    Results do not depend on the order of the items or on the process that saw them: records are read in the order of
    their keys, and sums are exact. An item that a sampler gave to two processes counts once.
    """

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    def _add(self, key: str, record: Any) -> None:
        if self.records.setdefault(key, record) != record:
            raise DataError(f"{key!r} came twice with different contents; each key is scored once.")

    def merge(self, other: "KeyedMetric") -> None:
        """Adds the records of another metric of the same kind."""
        for key, record in other.records.items():
            self._add(key, record)

    def join(self) -> None:
        """Gathers the records of all processes, in each of them; without other processes nothing changes."""
        for text in all_gather_text(json.dumps(self.records)):
            for key, record in parse_json(text, "Another process's records").items():
                self._add(key, record)

    def ordered(self) -> list[tuple[str, Any]]:
        """The records in the order of their keys."""
        return sorted(self.records.items())
