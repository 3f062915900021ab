"""What every metric is that needs all items at once: records by key, that processes put together."""

import json
from typing import Any

from tavq.core.errors import DataError
from tavq.core.files import parse_json
from tavq.ops.collective import all_gather_text


class KeyedMetric:
    """A metric whose whole memory is `records`, one of plain values (numbers, texts, lists) for each key.

    Results never depend on the order in which items came or on the process that saw them: records are read in the
    order of their keys, and sums are exact. Where a sampler showed an item to two processes it counts once.
    """

    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    def _add(self, key: str, record: Any) -> None:
        if self.records.setdefault(key, record) != record:
            raise DataError(f"{key!r} came twice with different contents; each key is scored once.")

    def merge(self, other: "KeyedMetric") -> None:
        """Counts what `other` has seen as seen here."""
        for key, record in other.records.items():
            self._add(key, record)

    def join(self) -> None:
        """Puts the records of all processes together, in each of them; alone, nothing happens."""
        for text in all_gather_text(json.dumps(self.records)):
            for key, record in parse_json(text, "Another process's records").items():
                self._add(key, record)

    def ordered(self) -> list[tuple[str, Any]]:
        """The records in the order of their keys."""
        return sorted(self.records.items())
