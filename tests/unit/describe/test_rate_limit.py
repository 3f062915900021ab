"""Waiting times: backoff, and never more than an hour, whatever a server asks."""

import time
from email.utils import formatdate

import pytest

from tavq.describe.rate_limit import MAX_WAIT, RetryPolicy, parse_retry_after


def test_waits_double_up_to_the_maximum_and_differ() -> None:
    retry = RetryPolicy(first_wait=1, max_wait=10)
    for failures, most in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (40, 10)]:
        waits = [retry.wait(failures) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most


def test_a_server_gets_some_minutes_to_restart() -> None:
    assert 120 < sum(RetryPolicy().wait(failures) for failures in range(1, RetryPolicy().attempts)) < 400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0),
        ("3", 3),
        (" 2.5 ", 2.5),
        ("-3", 0),
        ("soon", 0),
        ("1e99", MAX_WAIT),
        ("nan", 0),
        ("inf", MAX_WAIT),
    ],
)
def test_seconds_that_a_server_asks_for(value: str, seconds: float) -> None:
    assert parse_retry_after({"retry-after": value} if value else {}) == seconds


@pytest.mark.parametrize("ahead", [100, -100, 10**6])
def test_a_date_that_a_server_asks_for(ahead: float) -> None:
    found = parse_retry_after({"retry-after": formatdate(time.time() + ahead, usegmt=True)})
    assert found == pytest.approx(min(max(ahead, 0), MAX_WAIT), abs=2)
    assert parse_retry_after({"retry-after": formatdate(time.time() + 100)}) == pytest.approx(100, abs=2)  # "-0000"
    assert parse_retry_after({"retry-after": "Wed, 99 Oct 99999 07:28:00 GMT"}) == 0
