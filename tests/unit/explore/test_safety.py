"""Only the explorer's own page is answered, no address leads to a file, and load stays bounded."""

import asyncio
import io
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.to_thread import current_default_thread_limiter
from PIL import Image
from starlette.testclient import TestClient

from tavq.explore.explorer import Explorer
from tavq.explore.images import UPLOAD_BYTES, UPLOAD_PIXELS, UPLOADS
from tavq.explore.server.app import THREADS, make_api, make_app
from tavq.explore.server.security import Guard

API = "/api/v1"
PORT, TOKEN = 8123, "secret-token"
BASE = f"http://127.0.0.1:{PORT}"
OPEN = {"x-tavq-token": TOKEN}


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> Iterator[TestClient]:
    with TestClient(make_app(explorer, TOKEN, PORT), base_url=BASE, raise_server_exceptions=False) as client:
        yield client


# --- who may ask ------------------------------------------------------------------------------------------------


def test_the_token_in_the_address_opens_the_page(explorer: Explorer) -> None:
    with TestClient(make_app(explorer, TOKEN, PORT), base_url=BASE) as client:
        assert client.get("/").status_code == 403
        assert "address with the token" in client.get("/").text
        entered = client.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", f"tavq-explore-{PORT}="))
        assert client.get(f"{API}/overview").status_code == 200


@pytest.mark.parametrize("given", [{}, {"x-tavq-token": "wrong"}, {"x-tavq-token": ""}, {"cookie": "tavq-explore=x"},
                                   {"cookie": f"tavq-explore-1={TOKEN}"}, {"x-tavq-token": "ä"}])  # fmt: skip
@pytest.mark.parametrize("path", ["/", f"{API}/overview", f"{API}/openapi.json", "/static/index.html", "/nothing"])
def test_nothing_is_answered_without_the_token(client: TestClient, path: str, given: dict[str, str]) -> None:
    headers = {name.encode(): value.encode("latin-1") for name, value in given.items()}
    assert client.get(path, headers=headers).status_code == 403


def test_a_token_in_another_address_does_not_open(client: TestClient) -> None:
    assert client.get(f"{API}/overview?token={TOKEN}").status_code == 403
    assert client.get("/?token=wrong").status_code == 403


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}",
                                  f"127.0.0.1:{PORT}.evil.example", f"[::1]:{PORT}", ""])  # fmt: skip
def test_other_names_of_the_host_are_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name leads to 127.0.0.1."""
    answer = client.get(f"{API}/overview", headers={**OPEN, "host": host})
    assert answer.status_code == 403
    assert "host must be" in answer.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"origin": "null"},
                                     {"origin": f"https://127.0.0.1:{PORT}"}, {"origin": "http://127.0.0.1:9"},
                                     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_pages_are_refused(client: TestClient, method: str, headers: dict[str, str]) -> None:
    answer = client.request(method, f"{API}/overview", headers={**OPEN, **headers})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_is_answered(client: TestClient) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = {"host": f"{name}:{PORT}", "origin": f"http://{name}:{PORT}", "sec-fetch-site": "same-origin"}
        assert client.get(f"{API}/overview", headers={**OPEN, **own}).status_code == 200


# --- answers ----------------------------------------------------------------------------------------------------

PATHS = ["/", f"{API}/overview", f"{API}/nothing", f"{API}/images/0/original.webp", f"{API}/images/x/original.webp"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", [True, False])
def test_every_answer_has_the_headers_of_safety(client: TestClient, path: str, token: bool) -> None:
    headers = client.get(path, headers=OPEN if token else {}, follow_redirects=False).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "no-referrer"


BAD: list[tuple[str, str, Any, int]] = [
    ("GET", "/nothing", None, 404),
    ("PUT", "/overview", None, 405),
    ("GET", "/models/nobody/levels/deep/codes", None, 404),
    ("GET", "/models/plain/levels/low/codes", None, 404),
    ("GET", "/models/plain/levels/deepest/codes", None, 400),
    ("GET", "/models/plain/levels/deep/codes?limit=100000", None, 400),
    ("GET", "/models/plain/levels/deep/codes?limit=-1", None, 400),
    ("GET", "/models/plain/levels/deep/codes?sort=beauty", None, 400),
    ("GET", "/models/plain/levels/deep/codes?min_bias=nan", None, 400),
    ("GET", "/models/plain/levels/deep/codes?unknown=1", None, 400),
    ("GET", "/models/plain/levels/deep/codes/12", None, 404),
    ("GET", "/models/plain/levels/deep/codes/-1", None, 400),
    ("GET", "/models/plain/levels/deep/codes/99999999999999999999", None, 400),
    ("GET", "/models/plain/levels/deep/codes/x", None, 400),
    ("GET", "/models/plain/levels/deep/codes/0/../../../../../../etc/passwd", None, 404),
    ("GET", "/models/aligned/levels/low/codes/0/tile.png", None, 404),
    ("GET", "/models/plain/levels/deep/atlas/9.webp", None, 404),
    ("GET", "/models/plain/levels/deep/map?part=1", None, 404),
    ("GET", "/units/letters", None, 400),
    ("GET", "/units/words/9999/images", None, 404),
    ("GET", "/images/60/original.webp", None, 404),
    ("GET", "/images/u0123456789/original.webp", None, 400),
    ("GET", "/images/u5/original.webp", None, 404),
    ("GET", "/images/0/original.webp?size=100000", None, 400),
    ("GET", "/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd/original.webp", None, 404),
    ("GET", "/models/plain/levels/deep/images/0/patch.webp?row=99&column=0", None, 404),
    ("GET", "/models/plain/levels/deep/images/0/patch.webp?row=0&column=0&without=99", None, 400),
    ("GET", "/models/aligned/levels/low/images/0/patch.webp?row=0&column=0&without=1", None, 400),
    ("GET", "/models/plain/levels/deep/images/0/heat", None, 400),
    ("GET", "/models/plain/levels/deep/images/0/heat?unit=9999", None, 404),
    ("GET", "/models/plain/search?text=", None, 400),
    ("GET", "/models/plain/search", None, 400),
    ("GET", "/models/plain/search?text=" + "x" * 501, None, 400),
    ("GET", "/compare/codes?first=a&second=b", None, 400),
    ("GET", "/compare/codes?first=plain:deep:99&second=plain:deep:1", None, 404),
    ("GET", "/compare/models?models=nobody", None, 404),
    ("GET", "/edits/AAAA", None, 400),
    ("POST", "/models/plain/edits", {}, 400),
    ("POST", "/models/plain/edits", [], 400),
    ("POST", "/models/plain/edits", "text", 400),
    ("POST", "/models/plain/edits", {"image": "../etc", "operations": []}, 400),
    ("POST", "/models/plain/edits", {"image": "0", "operations": [{"op": "burn"}]}, 400),
    ("POST", "/models/plain/edits", {"image": "0", "operations": [{"op": "remove_code", "code": 12}]}, 400),
    ("POST", "/models/plain/edits", {"image": "0", "operations": [{"op": "remove", "cells": []}]}, 400),
    ("POST", "/models/plain/edits", {"image": "0", "operations": [], "more": 1}, 400),
    ("POST", "/models/plain/edits", {"image": "0", "operations": [{"op": "remove_code", "code": 1}] * 257}, 400),
    ("POST", "/models/plain/search/patch", {"image": "0", "row": 15, "column": 15, "height": 4}, 400),
    ("POST", "/models/plain/game", {"puzzle": "deep:0:4:0", "choice": "x"}, 400),
    ("POST", "/edits/ask", {"share": "AAAA", "task": "vqa"}, 400),
    ("POST", "/edits/open", {"share": "A" * 20_000}, 400),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status"), BAD, ids=[f"{m} {p:.60} {b!s:.40}" for m, p, b, _ in BAD]
)
def test_a_bad_request_gets_an_error_as_json(
    client: TestClient, method: str, path: str, body: Any, status: int
) -> None:
    answer = client.request(method, f"{API}{path}", headers=OPEN, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert "Traceback" not in answer.text


def test_a_fault_of_the_server_is_json_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("tavq.explore.server.codes.show_overview", fail)
    answer = client.get(f"{API}/overview", headers=OPEN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "failed")


# --- bodies -----------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not an image"),
        (b"<svg onload=alert(1)>", 400, "not an image"),
        (png(40, 40)[:45], 400, "truncated"),
        (png(5000, 5000), 413, "pixels"),
        (bytes(UPLOAD_BYTES + 1), 413, "bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 400, "not an image"),
    ],
    ids=["empty", "svg", "cut", "pixels", "bytes", "eps"],
)
def test_hostile_uploads_are_refused(client: TestClient, body: bytes, status: int, message: str) -> None:
    assert UPLOAD_PIXELS < 5000 * 5000
    answer = client.post(f"{API}/models/plain/search/image", headers=OPEN, content=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_a_body_without_a_length_is_limited_too(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(UPLOAD_BYTES // 65536 + 2):
            yield bytes(65536)

    answer = client.post(f"{API}/models/plain/search/image", headers=OPEN, content=endless())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert "at most" in answer.text


def test_a_json_body_without_a_length_is_limited_too(client: TestClient) -> None:
    parts = (b" " * 65536 for _ in range(40))
    headers = {**OPEN, "content-type": "application/json"}
    answer = client.post(f"{API}/models/plain/edits", headers=headers, content=parts)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_uploads_beyond_the_limit_are_refused_before_they_are_read(explorer: Explorer) -> None:
    """Two uploads whose bodies never end hold the places; a third is refused, and a dropped one leaves its place."""
    app, path = make_app(explorer, TOKEN, PORT), f"{API}/models/plain/search/image"

    async def upload_three() -> list[Any]:
        drops = [asyncio.Event(), asyncio.Event()]
        held = [asyncio.create_task(_ask(app, "POST", path, b"x", drop)) for drop in drops]
        await asyncio.sleep(0.2)
        third = await _ask(app, "POST", path, png(20, 30), unread := asyncio.Event())
        assert not unread.is_set()
        for drop in drops:
            drop.set()
        dropped = await asyncio.gather(*held)
        return [third, *dropped, await _ask(app, "POST", path, png(20, 30))]

    third, *dropped, after = asyncio.run(upload_three())
    assert third[0] == 503
    assert [status for status, _ in dropped] == [400, 400]
    assert "broken off" in dropped[0][1].decode()
    assert after[0] == 200


def test_a_large_json_body_is_refused(client: TestClient) -> None:
    body = b'{"image":"0","operations":[' + b" " * (1 << 20) + b"]}"
    assert client.post(f"{API}/models/plain/edits", headers=OPEN, content=body).status_code == 413


def test_uploads_displace_each_other(client: TestClient, explorer: Explorer) -> None:
    ids = []
    for _ in range(UPLOADS + 1):
        answer = client.post(f"{API}/models/plain/search/image", headers=OPEN, content=png(20, 30))
        ids.append(answer.json()["upload"]["image"])
    assert client.get(f"{API}/images/{ids[0]}/original.webp", headers=OPEN).status_code == 404
    assert client.get(f"{API}/images/{ids[1]}/original.webp", headers=OPEN).status_code == 200
    assert len(explorer.images._uploads) == UPLOADS


# --- caches and load --------------------------------------------------------------------------------------------


def test_images_are_kept_by_browsers(client: TestClient) -> None:
    path = f"{API}/images/0/original.webp"
    first = client.get(path, headers=OPEN)
    assert first.headers["cache-control"].startswith("private, max-age=")
    again = client.get(path, headers={**OPEN, "if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{path}?size=64", headers=OPEN).headers["etag"] != first.headers["etag"]


def test_two_hundred_requests_at_once(explorer: Explorer) -> None:
    """Pages, images and edits side by side: all are answered, and correctly."""
    app = make_app(explorer, TOKEN, PORT)
    answers = asyncio.run(_ask_at_once(app, 200))
    assert [status for status, _ in answers] == [200] * 200
    assert len({body for _, body in answers[0::4]}) == 1  # the same question, the same answer


async def _ask_at_once(app: Guard, count: int) -> list[tuple[int, bytes]]:
    edit = b'{"image":"3","operations":[{"op":"remove_code","code":1}]}'
    kinds = [("GET", f"{API}/models/plain/levels/deep/codes/1", b""), ("POST", f"{API}/models/aligned/edits", edit),
             ("GET", f"{API}/models/aligned/images/2/reconstruction.png", b""),
             ("GET", f"{API}/models/plain/levels/deep/units/words/1", b"")]  # fmt: skip
    current_default_thread_limiter().total_tokens = THREADS  # as the server sets it when it starts
    with anyio.fail_after(300):
        return list(await asyncio.gather(*(_ask(app, *kinds[number % 4]) for number in range(count))))


async def _ask(app: Guard, method: str, path: str, body: bytes, drop: asyncio.Event | None = None) -> tuple[int, bytes]:
    """Status and body of an answer; with `drop` the request's body goes on until the event, and then breaks off."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "scheme": "http", "root_path": "",
        "server": ("127.0.0.1", PORT), "client": ("127.0.0.1", 1), "headers": [(b"host", f"127.0.0.1:{PORT}".encode()),
        (b"x-tavq-token", TOKEN.encode()), (b"content-type", b"application/json")],
    }  # fmt: skip
    messages: list[Any] = []

    parts = iter([body])

    async def receive() -> Any:
        part = next(parts, None)
        if drop is not None and part is None:
            await drop.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part or b"", "more_body": drop is not None}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages[1:])


def test_more_requests_than_the_limit_are_told_to_come_again(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tavq.explore.server.security.MAX_REQUESTS", 8)
    answers = asyncio.run(_ask_at_once(make_app(explorer, TOKEN, PORT), 40))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 8


def test_quick_requests_are_answered_while_many_edits_wait(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    app, release = make_app(explorer, TOKEN, PORT), threading.Event()
    decode = type(explorer.models[0]).decode

    def decode_slowly(model: Any, codes: Any) -> Any:
        assert release.wait(60)
        return decode(model, codes)

    monkeypatch.setattr(type(explorer.models[0]), "decode", decode_slowly)
    body = b'{"image":"3","operations":[{"op":"remove_code","code":1}]}'

    async def ask() -> tuple[list[int], list[int]]:
        edits = [asyncio.create_task(_ask(app, "POST", f"{API}/models/plain/edits", body)) for _ in range(60)]
        await asyncio.sleep(0.2)
        try:
            with anyio.fail_after(30):
                quick = [await _ask(app, "GET", path, b"") for path in QUICK]
        finally:
            release.set()
        return [status for status, _ in quick], [status for status, _ in await asyncio.gather(*edits)]

    quick, edits = asyncio.run(ask())
    assert quick == [200] * len(QUICK)
    assert edits == [200] * 60


QUICK = (f"{API}/overview", f"{API}/models/plain/levels/deep/codes", f"{API}/models/plain/levels/deep/codes/1",
         f"{API}/units/words", f"{API}/images", f"{API}/images/5/original.webp",
         f"{API}/models/plain/levels/deep/codes/1/tile.png")  # fmt: skip


def test_more_edits_than_may_wait_are_told_to_come_again(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.explore.server.lanes.EDITS.most", 3)
    app, body = make_app(explorer, TOKEN, PORT), b'{"image":"3","operations":[{"op":"remove_code","code":1}]}'

    async def ask() -> list[tuple[int, bytes]]:
        return list(await asyncio.gather(*(_ask(app, "POST", f"{API}/models/plain/edits", body) for _ in range(20))))

    assert {status for status, _ in asyncio.run(ask())} == {200, 503}


@pytest.mark.parametrize("path", ["/", f"{API}/overview", f"{API}/images/0/original.webp", f"{API}/nothing"])
def test_the_head_of_a_page_is_that_of_its_get(client: TestClient, path: str) -> None:
    got, head = (client.request(method, path, headers=OPEN) for method in ("GET", "HEAD"))
    assert head.content == b""
    assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])
    assert head.headers["content-length"] == str(len(got.content))
    assert client.head(path).status_code == 403


def test_a_model_that_is_busy_for_long_says_so(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.explore.model.WAIT_SECONDS", 0.05)
    client = TestClient(make_api(explorer))
    body = {"image": "9", "operations": [{"op": "remove_code", "code": 2}]}
    with explorer.models[0].working():
        answer = client.post(f"{API}/models/plain/edits", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.post(f"{API}/models/plain/edits", json=body).status_code == 200
