"""An OpenAI-compatible server for tests: true sentences about each image, or any failure of a server."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Request:
    """One request: its number among all requests, and among those for its image."""

    number: int
    again: int
    body: dict[str, Any]
    headers: dict[str, str]
    image: Image.Image
    time: float


@dataclass(frozen=True)
class Reply:
    """The response, sent exactly as given here."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    length: int | None = None  # a wrong Content-Length
    send: int | None = None  # bytes after which the connection is closed


def says(text: Any, reason: str = "stop", **more: Any) -> Reply:
    """A regular answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    value = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}
    return Reply(body=json.dumps(value).encode())


def colour(image: Image.Image) -> str:
    """The true description of an image; no other image of a test has it."""
    return ", ".join(str(int(value)) for value in np.asarray(image).reshape(-1, 3).mean(0).round())


def truth(request: Request) -> Reply:
    """A description that identifies the image that was sent."""
    return says(f"The mean colour is {colour(request.image)}. The image is small.")


class Server:
    """The requests so far, and how they are answered; `answer` may be changed at any time."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.busy = self.most = 0
        self.guard = threading.Lock()
        self.seen: dict[str, int] = {}

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self.guard:
            self.seen[url] = self.seen.get(url, 0) + 1
            request = Request(len(self.requests), self.seen[url] - 1, body, headers, image, time.monotonic())
            self.requests.append(request)
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            self.reply(handler, self.answer(request))
        finally:
            with self.guard:
                self.busy -= 1

    def reply(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.wait)
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
        handler.end_headers()
        handler.wfile.write(reply.body[: reply.send])
        if reply.send is not None or reply.length is not None:
            handler.close_connection = True


@contextmanager
def serving(answer: Callable[[Request], Reply] = truth) -> Iterator[tuple[str, Server]]:
    """The URL and the server, until the block ends."""
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with suppress(ConnectionError):  # the client was killed or timed out
                server.take(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}/v1", server
        finally:
            http.shutdown()
            thread.join()
