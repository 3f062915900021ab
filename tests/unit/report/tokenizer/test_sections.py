"""What single sections say."""

import re
from typing import Any

import pytest

from tavq.report.page import write_report
from tavq.report.tokenizer.sections import format_value


def test_tells_sizes_and_settings_as_they_are(runs: Any) -> None:
    words = re.sub(r"<[^>]+>", " ", write_report(runs.aligned).read_text())
    counts = [int(found.replace(",", "")) for found in re.findall(r"(?:encoder|decoder|aligner) ([\d,]+)", words)]
    assert len(counts) >= 3
    assert min(counts) > 100
    assert re.search(r"train\.seed\s+0\b", words)
    assert re.search(r"model\.net\.blocks\s+1\b", words)
    assert re.search(r"train\.l2\s+0\.0\b", words)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1, "1"),
        (0.0, "0.0"),
        ({}, "{}"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_setting_is_shown_as_written(value: object, text: str) -> None:
    assert format_value(value) == text
