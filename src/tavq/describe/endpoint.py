"""A vision-language model behind any OpenAI-compatible server, such as vLLM or SGLang."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tavq.core.errors import TavqError, UsageError
from tavq.core.files import parse_json
from tavq.describe.answers import (
    TEMPERATURE,
    Answer,
    Describer,
    DescriptionResult,
    OnResults,
    RetryState,
    SamplingParams,
)
from tavq.describe.connection import MAX_REPLY, Connection, Reply, Secrets, hide_query
from tavq.describe.images import load_resized, to_data_url
from tavq.describe.rate_limit import RateLimiter, RetryPolicy, parse_retry_after

API_KEY = "TAVQ_API_KEY"
NO_KEY = "none"  # sent if there is no key: some servers want a header
CONNECTIONS = 50  # per pool of the library, which has 100
TICK = 0.1  # seconds between checks of whether to stop

FATAL = {
    401: f"it rejects the key; put the right one into the environment variable {API_KEY}",
    402: "it asks for payment",
    403: f"it rejects the key; put the right one into the environment variable {API_KEY}",
    404: "it does not know this address or model; check --endpoint and --model",
    405: "it does not accept requests at this address; check --endpoint",
}
"""Status codes that no repetition changes, for any image."""

TRANSIENT = frozenset({408, 409, 421, 425, 429, 500, 502, 503, 504, 507, 508, 520, 521, 522, 523, 524, 529})
"""Status codes that may pass; any other is a fault of the one request."""


class EndpointError(TavqError):
    """The server cannot be used, for any image."""


class _RequestRejected(Exception):
    """The server rejects this request, and would reject it again."""


class _NoAnswer(Exception):
    """Every attempt failed, each for a reason that may pass."""


@dataclass(frozen=True)
class EndpointSettings:
    """How requests are sent to a server.

    Attributes:
        url: the server's base URL.
        model: the server's name of the model.
        prompt: the instruction sent with each image.
        max_tokens: upper limit of an answer.
        longest_side: larger images are downscaled to this many pixels.
        concurrency: requests at a time.
        requests_per_minute: upper limit; None for none.
        timeout: seconds for one request.
        retry: how often failed requests are repeated.
        key: the API key; never printed or written to a file.
    """

    url: str
    model: str
    prompt: str
    max_tokens: int
    longest_side: int
    concurrency: int = 32
    requests_per_minute: float | None = None
    timeout: float = 300.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    key: str = field(default=NO_KEY, repr=False)


def read_api_key() -> str:
    """The key in the environment variable TAVQ_API_KEY, or a placeholder."""
    key = os.environ.get(API_KEY, "").strip()
    if not key.isprintable() or not key.isascii():
        raise UsageError(f"The environment variable {API_KEY} holds characters that no key has; set it again.")
    return key or NO_KEY


def check_url(url: str) -> str:
    """Return the URL, or raise UsageError; one with a password is refused, because it would be printed."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--endpoint {url.partition('?')[0]!r} is not a URL; use one like http://localhost:8000/v1.")
    if "@" in parts.netloc:
        raise UsageError(f"--endpoint holds a password; remove it and put the key into {API_KEY}.")
    return url


class Endpoint(Describer):
    """Describes images by requests to a server, several at a time.

    If the server rejects an image, or fails on it while it answers others, the image is reported as a fault. If it
    answers no image, the run stops with the reason, and the next run tries these images again.
    """

    def __init__(self, folder: Path, settings: EndpointSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.limiter = RateLimiter(settings.requests_per_minute)
        self.answered = False
        """The server has answered at least once."""
        self.secrets = Secrets(None if settings.key == NO_KEY else settings.key, settings.url)
        self.unsettled: list[tuple[DescriptionResult, bool]] = []
        """Failures since the last answer, and whether the server rejected the request."""

    def run(self, pending: Iterator[str], on_results: OnResults, should_stop: Callable[[], bool]) -> None:
        """Pass each result to `on_results`; ends within a second once `should_stop()` is true.

        Raises EndpointError if the server cannot be used.
        """
        asyncio.run(self._run(pending, on_results, should_stop))

    async def _run(self, pending: Iterator[str], on_results: OnResults, should_stop: Callable[[], bool]) -> None:
        self.on_results, self._pending, self._pending_lock = on_results, pending, asyncio.Lock()
        tasks = {
            asyncio.create_task(self._connect(first)) for first in range(0, self.settings.concurrency, CONNECTIONS)
        }
        try:
            while tasks and not should_stop():
                ended, tasks = await asyncio.wait(tasks, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            if not should_stop():
                self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, first: int) -> None:
        """Run one pool of connections and the workers that share it."""
        connection = Connection(self.settings.url, self.settings.key, self.settings.timeout)
        count = min(CONNECTIONS, self.settings.concurrency - first)
        workers = [asyncio.create_task(self._work(connection)) for _ in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await connection.close()

    async def _work(self, connection: Connection) -> None:
        while True:
            async with self._pending_lock:  # the iterator reads files: in a thread, and one call at a time
                name = await asyncio.to_thread(next, self._pending, None)
            if name is None:
                return
            try:
                self.on_results([await self._describe(connection, name)])
            except _RequestRejected as error:
                self._record_failure(DescriptionResult(name, fault=f"the server rejected it: {error}"), rejected=True)
            except _NoAnswer as error:
                failure = DescriptionResult(name, fault=f"the server gave no answer: {error}")
                self._record_failure(failure, rejected=False)

    async def _describe(self, connection: Connection, name: str) -> DescriptionResult:
        state = RetryState(name, self.settings.max_tokens)
        try:
            url = await asyncio.to_thread(self._encode_image, name)
        except TavqError as error:
            return DescriptionResult(name, fault=str(error))
        result = None
        while result is None:
            try:
                result = state.judge(await self._generate(connection, url, state.params))
            except _RequestRejected as error:
                result = state.give_up("")  # twice the tokens may be more than the model accepts
                if result.text is None:
                    raise error
        return result

    def _encode_image(self, name: str) -> str:
        return to_data_url(load_resized(self.folder, name, self.settings.longest_side))

    # --- one request ------------------------------------------------------------------------------------------------

    async def _generate(self, connection: Connection, url: str, params: SamplingParams) -> Answer:
        """The model's answer, after as many attempts as needed."""
        retry, reason, failures = self.settings.retry, "", 0
        while failures < (retry.attempts if self.answered else retry.attempts_before):
            if failures:
                await asyncio.sleep(retry.wait(failures))
            await self.limiter.acquire()
            answer = await self._request(connection, url, params)
            if isinstance(answer, Answer):
                self._record_answer()
                return answer
            reason, failures = answer, failures + 1
            self.note = f"waiting for the server: {reason}"
            self.on_results([])  # shows the note
        raise _NoAnswer(f"{reason} ({failures} times)")

    async def _request(self, connection: Connection, url: str, params: SamplingParams) -> Answer | str:
        """Send one request; returns the answer, or why there is none yet."""
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.settings.prompt}]
        payload: dict[str, Any] = {
            "messages": [{"role": "user", "content": content}],
            "model": self.settings.model,
            "max_tokens": params.max_tokens,
            "temperature": 0.0,
            "stream": False,
        }
        if params.seed is not None:
            payload |= {"temperature": TEMPERATURE, "seed": params.seed}
        try:
            async with asyncio.timeout(self.settings.timeout):  # the library's own limits the time between two bytes
                reply = await connection.post(payload)
            return self._handle_status(reply) if reply.status >= 300 else self._read_answer(reply)
        except TimeoutError:
            return f"nothing within {self.settings.timeout:g} seconds"
        except (EndpointError, _RequestRejected):
            raise
        except Exception as error:  # lost connections, broken JSON, missing fields: the library raises many kinds
            return self._clean(f"{type(error).__name__}: {error}")

    def _read_answer(self, reply: Reply) -> Answer | str:
        if not reply.whole:
            return f"its answer has more than {MAX_REPLY:,} bytes"
        answer = _parse_reply(reply.body)
        return f"its answer repeats the key in {API_KEY}" if self.secrets.occur_in(answer.text) else answer

    def _handle_status(self, reply: Reply) -> str:
        """Raise if repeating is useless; else pause as the server asks, and return the reason."""
        status = reply.status
        message = self._clean(_read_message(reply.body))
        if status in FATAL:
            target = f"{hide_query(self.settings.url)} for {self.settings.model!r}"
            raise EndpointError(f"The server answers {status} at {target}: {FATAL[status]}. {message}")
        if status not in TRANSIENT:
            raise _RequestRejected(f"{status} {message}")
        self.limiter.pause(parse_retry_after(reply.headers))
        return f"{status} {message}"

    def _clean(self, text: str) -> str:
        """One short line without the key, which a server may echo."""
        return " ".join(self.secrets.hide(text).split())[:200]

    # --- failures ---------------------------------------------------------------------------------------------------

    def _record_answer(self) -> None:
        """The server works, so what it failed on before are faults of those images."""
        self.answered, self.note = True, ""
        if self.unsettled:
            self.on_results([result for result, _ in self.unsettled])
            self.unsettled = []

    def _record_failure(self, result: DescriptionResult, rejected: bool) -> None:
        if rejected and self.answered:
            self.on_results([result])
            return
        self.unsettled.append((result, rejected))
        limit = self.settings.concurrency + 3 if self.answered else 3
        if len(self.unsettled) >= limit:
            raise self._no_answers()

    def _settle(self) -> None:
        """At the end: rejected images are faults; images on which the server failed are left for the next run."""
        if rejected := [result for result, rejected in self.unsettled if rejected]:
            self.on_results(rejected)
        self.unsettled = [(result, rejected) for result, rejected in self.unsettled if not rejected]
        if self.unsettled:
            raise self._no_answers()

    def _no_answers(self) -> EndpointError:
        last = self.unsettled[-1][0]
        return EndpointError(
            f"The server {hide_query(self.settings.url)} answered none of the last {len(self.unsettled)} images, "
            f"{last.file_name!r} for example: {last.fault}."
        )


def _parse_reply(body: bytes) -> Answer:
    """The answer in a reply; any exception if the reply has none."""
    choice = parse_json(body.decode("utf-8"), "The answer")["choices"][0]
    text, reason = choice["message"].get("content"), choice.get("finish_reason")
    if text is not None and not isinstance(text, str):
        raise TypeError(f"the answer is not text but {type(text).__name__}")
    return Answer(text or "", complete=reason != "length", filtered=reason == "content_filter")


def _read_message(body: bytes) -> str:
    """The server's error message."""
    try:
        value = parse_json(body.decode("utf-8"), "The answer")
        value = value.get("error", value)
        return str(value.get("message") or value.get("detail") or value) if isinstance(value, dict) else str(value)
    except Exception:  # not JSON, or without these fields
        return body.decode("utf-8", "replace")
