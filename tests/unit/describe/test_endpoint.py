"""A real server that fails in every way: each image still gets its own true text once, or a reason."""

import gzip
import json
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from caption_server import Reply, Request, says, serving, truth
from huggingface_hub import constants

from tavq.core.errors import UsageError
from tavq.describe.answers import DescriptionResult
from tavq.describe.connection import completion_url
from tavq.describe.endpoint import API_KEY, Endpoint, EndpointError, EndpointSettings, check_url, read_api_key
from tavq.describe.rate_limit import RetryPolicy

Draw = Callable[[int], Path]
QUICK = RetryPolicy(attempts=5, attempts_before=5, first_wait=0.002, max_wait=0.01)


def ask(folder: Path, url: str, names: list[str] | None = None, **changes: Any) -> dict[str, DescriptionResult]:
    """The result of each image; there must be exactly one."""
    settings = EndpointSettings(url, "m", "Look.", max_tokens=50, longest_side=64, timeout=5, retry=QUICK)
    results: list[DescriptionResult] = []
    pending = iter(names if names is not None else sorted(path.name for path in folder.iterdir()))
    endpoint = Endpoint(folder, replace(settings, **changes))
    try:
        endpoint.run(pending, results.extend, lambda: False)
    finally:
        assert len({result.file_name for result in results}) == len(results)
        ask.results = results  # type: ignore[attr-defined]
    return {result.file_name: result for result in results}


def texts(count: int) -> dict[str, str]:
    return {f"{n:02}.png": f"The mean colour is {5 * n}, {5 * n}, {5 * n}. The image is small." for n in range(count)}


def got(results: dict[str, DescriptionResult]) -> dict[str, str | None]:
    return {name: result.text for name, result in sorted(results.items())}


def test_each_image_gets_its_own_text(draw: Draw) -> None:
    with serving() as (url, server):
        assert got(ask(draw(12), url, concurrency=4)) == texts(12)
    assert server.most <= 4
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 50, 0.0)
    assert body["messages"][0]["content"][1] == {"type": "text", "text": "Look."}


def test_large_images_are_sent_smaller_and_small_ones_as_they_are(tmp_path: Path, draw: Draw) -> None:
    import numpy as np

    from tavq.data.images import save_png

    folder = draw(1)
    save_png(folder / "large.png", np.full((100, 300, 3), 200, np.uint8))
    with serving() as (url, server):
        ask(folder, url)
    assert sorted(request.image.size for request in server.requests) == [(16, 12), (64, 21)]


FAILURES = {
    "500": Reply(500, b"oh"),
    "503": Reply(503, b'{"error": {"message": "loading"}}'),
    "429": Reply(429, b"slow down", {"Retry-After": "0"}),
    "slow": Reply(wait=0.6),
    "cut": Reply(body=says("A cat. " * 50).body, send=40),
    "nothing": Reply(body=says("A cat.").body, send=0),
    "short": Reply(body=says("A cat.").body[:-5]),
    "too-long": Reply(body=says("A cat.").body, length=10_000),
    "length-cuts": Reply(body=says("A cat.").body, length=20),
    "garbage": Reply(body=b"<html>busy</html>"),
    "no-utf8": Reply(body=b"\xff\xfe\xff"),
    "no-choices": Reply(body=b'{"choices": []}'),
    "null-choices": Reply(body=b'{"choices": null}'),
    "no-message": Reply(body=b'{"choices": [{"index": 0}]}'),
    "list": Reply(body=b"[]"),
    "number-text": says(3),
}


def failure_of(request: Request) -> Reply | None:
    """Every second image has a kind of failure of its own."""
    number = request.image.getpixel((0, 0))[0] // 5  # type: ignore[index]
    return list(FAILURES.values())[number // 2] if number % 2 else None


def test_transient_failures_are_retried(draw: Draw) -> None:
    """The first two requests of each image fail, of each in another way."""
    count = 2 * len(FAILURES)

    def answer(request: Request) -> Reply:
        return (failure_of(request) if request.again < 2 else None) or truth(request)

    with serving(answer) as (url, server):
        assert got(ask(draw(count), url, timeout=0.4, concurrency=6)) == texts(count)
    assert len(server.requests) == count + 2 * len(FAILURES)


def test_an_image_that_always_fails_is_a_fault_if_others_succeed(draw: Draw) -> None:
    count = 2 * len(FAILURES)
    with serving(lambda request: failure_of(request) or truth(request)) as (url, _):
        twice = replace(QUICK, attempts=2, attempts_before=2)
        found = ask(draw(count + 1), url, timeout=0.2, concurrency=1, retry=twice)
    faults = {name: result.fault for name, result in found.items() if result.fault}
    assert got(found) == texts(count + 1) | {f"{number:02}.png": None for number in range(1, count, 2)}
    for kind, fault in zip(FAILURES, (faults[name] for name in sorted(faults)), strict=True):
        assert fault.endswith("(2 times)"), (kind, fault)
    assert faults["03.png"] == "the server gave no answer: 503 loading (2 times)"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_server_that_fails_on_all_images_stops_the_run_without_faults(draw: Draw, concurrency: int) -> None:
    for failing in (FAILURES["503"], FAILURES["cut"]):
        with serving(lambda request, failing=failing: failing) as (url, server):
            with pytest.raises(EndpointError, match=r"answered none of the last 3 images"):
                ask(draw(20), url, concurrency=concurrency)
            assert ask.results == []  # type: ignore[attr-defined]
            assert len(server.requests) <= 5 * (3 + concurrency)


def test_an_outage_in_the_middle_stops_the_run_without_faults(draw: Draw) -> None:
    with serving(lambda request: truth(request) if request.number < 6 else FAILURES["503"]) as (url, _):
        with pytest.raises(EndpointError, match="answered none of the last 5 images"):
            ask(draw(30), url, concurrency=2)
        assert sorted(result.text or "" for result in ask.results) == sorted(texts(6).values())  # type: ignore[attr-defined]


def test_an_outage_at_the_end_leaves_its_images_pending(draw: Draw) -> None:
    with serving(lambda request: truth(request) if request.number < 3 else FAILURES["503"]) as (url, _):
        with pytest.raises(EndpointError, match=r"last 1 images, '03.png' for example: .*503 loading \(5 times\)"):
            ask(draw(4), url, concurrency=1)
        assert len(ask.results) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "rejects the key"), (403, "rejects the key"), (404, "does not know this address or model"), (405, "addr")],
)
def test_a_fatal_status_stops_at_once(draw: Draw, status: int, reason: str) -> None:
    reply = Reply(status, b'{"error": {"message": "The model `m` does not exist."}}')
    with serving(lambda request: reply) as (url, server):
        with pytest.raises(EndpointError, match=rf"{status} at .*{reason}.*`m` does not exist"):
            ask(draw(9), url, concurrency=2)
        assert len(server.requests) <= 2


def test_no_server(draw: Draw) -> None:
    with serving() as (url, _):
        pass
    with pytest.raises(EndpointError, match="answered none of the last 3 images"):
        ask(draw(9), url)


def test_a_rejected_image_is_a_fault_and_the_run_continues(draw: Draw) -> None:
    refusal = Reply(400, b'{"detail": "too many pixels"}')

    def answer(request: Request) -> Reply:
        return refusal if request.image.getpixel((0, 0)) in ((10,) * 3, (0,) * 3) else truth(request)

    with serving(answer) as (url, server):
        found = ask(draw(5), url, concurrency=1)
    assert got(found) == texts(5) | {"00.png": None, "02.png": None}
    assert found["02.png"].fault == "the server rejected it: 400 too many pixels"
    assert len(server.requests) == 5


def test_a_server_that_rejects_every_image_stops_the_run(draw: Draw) -> None:
    with serving(lambda request: Reply(400, b'{"message": "m is not multimodal"}')) as (url, server):
        with pytest.raises(EndpointError, match="m is not multimodal"):
            ask(draw(20), url, concurrency=1)
        assert len(server.requests) == 3
        assert ask.results == []  # type: ignore[attr-defined]
        found = ask(draw(20), url, ["05.png"])  # too few to tell: what the server said is the image's
        assert found["05.png"].fault == "the server rejected it: 400 m is not multimodal"


def test_unreadable_images_are_listed_and_not_sent(draw: Draw) -> None:
    folder = draw(2)
    (folder / "00.png").write_bytes(b"no image")
    with serving() as (url, server):
        found = ask(folder, url, ["00.png", "01.png", "gone.png", "../x.png"])
    assert len(server.requests) == 1
    assert "not an image" in (found["00.png"].fault or "")
    assert found["gone.png"].fault == "no such file or directory"
    assert "leads outside" in (found["../x.png"].fault or "")


# --- answers ----------------------------------------------------------------------------------------------------


def test_bad_answers_are_requested_again_by_sampling(draw: Draw) -> None:
    bad = [says(""), says("I'm sorry, I can't help with that."), says(None, "content_filter")]
    with serving(lambda request: bad[request.again] if request.again < 3 else truth(request)) as (url, server):
        assert got(ask(draw(1), url)) == texts(1)
    assert [request.body["temperature"] for request in server.requests] == [0.0, 0.7, 0.7, 0.7]
    assert [request.body.get("seed") for request in server.requests] == [None, 1, 2, 3]


def test_answers_that_stay_bad_are_faults(draw: Draw) -> None:
    with serving(lambda request: says("a cat and " * 40)) as (url, server):
        assert ask(draw(1), url)["00.png"].fault == "the answer repeated itself, 4 times"
    assert len(server.requests) == 4


def test_an_incomplete_answer_is_requested_once_more_with_more_tokens(draw: Draw) -> None:
    with serving(lambda request: says("A cat. It", "length") if request.again == 0 else truth(request)) as (
        url,
        server,
    ):
        assert got(ask(draw(1), url)) == texts(1)
    assert [request.body["max_tokens"] for request in server.requests] == [50, 100]
    with serving(lambda request: says("A cat. It sits", "length")) as (url, server):
        assert ask(draw(1), url)["00.png"] == DescriptionResult("00.png", "A cat.", truncated=True)
    assert len(server.requests) == 2


def test_a_server_that_rejects_more_tokens_keeps_the_first_answer(draw: Draw) -> None:
    def answer(request: Request) -> Reply:
        return says("A cat. It sits", "length") if request.again == 0 else Reply(400, b"max_tokens is too large")

    with serving(answer) as (url, _):
        assert ask(draw(1), url)["00.png"] == DescriptionResult("00.png", "A cat.", truncated=True)


# --- pace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_all_requests_wait_as_long_as_the_server_asks(draw: Draw, form: str) -> None:
    def answer(request: Request) -> Reply:
        if request.number:
            return truth(request)
        value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)  # dates have whole seconds
        return Reply(429, b"", {"Retry-After": value})

    with serving(answer) as (url, server):
        assert got(ask(draw(6), url, concurrency=1)) == texts(6)
    times = [request.time - server.requests[0].time for request in server.requests]
    assert times[1] > 0.9
    assert times[-1] < 5


def test_requests_keep_to_the_rate_limit(draw: Draw) -> None:
    with serving() as (url, server):
        ask(draw(8), url, concurrency=8, requests_per_minute=1200)
    times = [request.time for request in server.requests]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[-1] - times[0] > 7 * 0.05 * 0.8
    assert len([gap for gap in gaps if gap < 0.02]) <= 4  # not in bursts


def test_a_slow_trickle_of_bytes_times_out(draw: Draw) -> None:
    """Each byte comes in time, the whole never does."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not ended.wait(0.05):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        once = replace(QUICK, attempts_before=1)
        try:
            with pytest.raises(EndpointError, match=r"nothing within 0.4 seconds \(1 times\)"):
                ask(draw(1), f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.4, retry=once)
        finally:
            ended.set()
            thread.join()


def test_stopping_does_not_wait_for_answers(draw: Draw) -> None:
    settings = EndpointSettings("", "m", "p", 50, 64, concurrency=2, retry=QUICK)
    results: list[DescriptionResult] = []
    with serving(lambda request: truth(request) if request.number == 0 else Reply(wait=3)) as (url, _):
        started = time.monotonic()
        pending = iter(sorted(path.name for path in draw(6).iterdir()))
        Endpoint(draw(6), replace(settings, url=url)).run(pending, results.extend, lambda: bool(results))
        assert time.monotonic() - started < 2.5
    assert len(results) == 1


# --- keys and addresses -----------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_printed(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, "secret-1234567890")
    key = read_api_key()
    body = json.dumps({"error": {"message": f"{'x' * 190} Incorrect key: {key}"}}).encode()
    with serving(lambda request: Reply(401, body)) as (url, server), pytest.raises(EndpointError) as caught:
        ask(draw(1), url, key=key)
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(EndpointSettings(url, "m", "p", 1, 1, key=key))


SECRET = "Ab  C+/=-1234567890"
REPEATED = [
    SECRET,
    SECRET.upper(),
    SECRET.lower(),
    " ".join(SECRET.split()),
    "Ab\n\tC+/=-1234567890",
    quote(SECRET, ""),
]


@pytest.mark.parametrize("form", REPEATED)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_key_that_a_server_repeats_is_neither_shown_nor_stored(draw: Draw, status: int, form: str) -> None:
    sent = says(f"A house. {form} is on it.") if status == 200 else Reply(status, f"bad key: {form}".encode())
    once = replace(QUICK, attempts=1, attempts_before=1)
    with serving(lambda request: sent if request.number == 1 else truth(request)) as (url, _):
        shown = ""
        try:
            found = ask(draw(3), url, key=SECRET, concurrency=1, retry=once)
            shown = str(found)
            assert got(found) == texts(3) | {"01.png": None}
        except EndpointError as error:
            shown = str(error)
    assert "1234567890" not in shown.replace(repr(SECRET), "")
    assert shown


@pytest.mark.parametrize("key", ["none", "EMPTY", "house", "sunflower"])
def test_a_key_that_is_a_word_hides_no_answer(draw: Draw, key: str) -> None:
    with serving(lambda request: says(f"A house. A sunflower in an EMPTY field, {key}.")) as (url, _):
        assert key in (ask(draw(1), url, key=key)["00.png"].text or "")


@pytest.mark.parametrize("status", [200, 401, 503])
def test_a_key_in_the_url_is_sent_and_not_shown(draw: Draw, status: int) -> None:
    secret = "s3cret-0123456789"
    reply = says(f"It is {secret} here.") if status == 200 else Reply(status, f"no: {secret}".encode())
    with serving(lambda request: reply) as (url, _), pytest.raises(EndpointError) as caught:
        ask(draw(3), f"{url}?api-key={secret}", concurrency=1, retry=replace(QUICK, attempts_before=1))
    assert secret not in str(caught.value)
    assert url in str(caught.value)


def test_a_server_is_reached_where_the_hub_is_not(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with serving() as (url, _):
        assert got(ask(draw(2), url)) == texts(2)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/a", "http://h/a/v1/chat/completions"),
        ("http://h/a/v1?x=1", "http://h/a/v1/chat/completions?x=1"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
    ],
)
def test_where_a_server_answers(url: str, expected: str) -> None:
    assert completion_url(url) == expected


# --- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["large", "packed", "endless", "error"])
def test_a_reply_of_any_size_takes_little_memory(draw: Draw, kind: str) -> None:
    blank = b" " * 300_000_000
    replies = {
        "large": Reply(body=blank[:50_000_000]),
        "packed": Reply(body=gzip.compress(blank, 1), headers={"Content-Encoding": "gzip"}),
        "endless": Reply(body=blank[:50_000_000], length=10**12),
        "error": Reply(500, blank[:50_000_000]),
    }
    del blank
    once = replace(QUICK, attempts_before=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reason = "500" if kind == "error" else "more than 1,000,000 bytes"
    with serving(lambda request: replies[kind]) as (url, _), pytest.raises(EndpointError, match=reason):
        ask(draw(3), url, concurrency=2, retry=once)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_no_other_key_of_this_machine_is_sent(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-someone")
    monkeypatch.delenv(API_KEY, raising=False)
    with serving() as (url, server):
        ask(draw(1), url, key=read_api_key())
    assert not any("someone" in value for value in server.requests[0].headers.values())


def test_an_invalid_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, "a\nb")
    with pytest.raises(UsageError, match="holds characters that no key has"):
        read_api_key()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://", "", "http://[", "http://a:b/"])
def test_invalid_urls(url: str) -> None:
    with pytest.raises(UsageError, match="is not a URL"):
        check_url(url)


def test_a_password_in_the_url_is_refused_and_not_printed() -> None:
    with pytest.raises(UsageError) as caught:
        check_url("https://me:secret@host/v1")
    assert "secret" not in str(caught.value)
