"""Records gathered from several processes."""

import pytest

from tavq.core.errors import DataError
from tavq.metrics.keyed import KeyedMetric


def of(**records: int) -> KeyedMetric:
    collected = KeyedMetric()
    collected.records = dict(records)
    return collected


def test_joined_parts_are_ordered_by_key() -> None:
    whole = of(c=1, a=2)
    whole.merge(of(b=3, a=2))
    assert whole.ordered() == [("a", 2), ("b", 3), ("c", 1)]
    with pytest.raises(DataError, match="'a' came twice"):
        whole.merge(of(a=3))


def test_joining_a_single_process_changes_nothing() -> None:
    collected = of(b=1, a=2)
    collected.join()
    assert collected.records == {"b": 1, "a": 2}
