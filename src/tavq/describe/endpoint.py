"""A vision-language model behind any OpenAI-compatible server, such as vLLM or SGLang."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tavq.core.errors import TavqError, UsageError
from tavq.describe.answers import TEMPERATURE, Answer, Ask, Attempts, Describer, Outcome
from tavq.describe.images import data_url, load
from tavq.describe.pace import Pace, Patience, retry_after

KEY = "TAVQ_API_KEY"
NO_KEY = "none"  # sent where there is no key: for want of one the client would send the Hugging Face token it finds
CONNECTIONS = 50  # that one client of the library is given; its pool has 100
TICK = 0.1  # seconds between looks at whether to stop

UNUSABLE = {
    401: f"it refuses the key; put the right one into the environment variable {KEY}",
    402: "it wants to be paid",
    403: f"it refuses the key; put the right one into the environment variable {KEY}",
    404: "it does not know this address or model; see --endpoint and --model",
    405: "it does not take requests at this address; see --endpoint",
}
PASSING = frozenset({408, 409, 421, 425, 429, 500, 502, 503, 504, 507, 508, 520, 521, 522, 523, 524, 529})


class EndpointError(TavqError):
    """The server cannot be used, for any image."""


class _Refused(Exception):
    """The server does not take this request, and would not take it later."""


class _Unanswered(Exception):
    """Every attempt failed, each in a way that may pass."""


@dataclass(frozen=True)
class EndpointSettings:
    """How a server is asked.

    `timeout` is in seconds for one request; `key` is kept out of every text and file.
    """

    url: str
    model: str
    prompt: str
    tokens: int
    longest_side: int
    concurrency: int = 32
    per_minute: float | None = None
    timeout: float = 300.0
    patience: Patience = field(default_factory=Patience)
    key: str = field(default=NO_KEY, repr=False)


def key_from_environment() -> str:
    """The key in TAVQ_API_KEY, or one that says that there is none."""
    key = os.environ.get(KEY, "").strip()
    if not key.isprintable() or not key.isascii():
        raise UsageError(f"The environment variable {KEY} holds characters that no key has; set it again.")
    return key or NO_KEY


def check_url(url: str) -> str:
    """The address itself, or a UsageError; one with a password in it is refused, for it would be shown."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--endpoint {url!r} is not an address; give one such as http://localhost:8000/v1.")
    if "@" in parts.netloc:
        raise UsageError(f"--endpoint holds a password; leave it out and put the key into {KEY}.")
    return url


class Endpoint(Describer):
    """Describes images by asking a server, several at a time.

    An image that the server refuses, or on which it fails while it answers others, is a fault of the image. Where
    it answers none, the work stops with the reason, and the images it failed on are left for the next run.
    """

    def __init__(self, folder: Path, settings: EndpointSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.pace = Pace(settings.per_minute)
        self.answered = False
        self.held: list[tuple[Outcome, bool]] = []  # with whether the server said no, or nothing usable

    def run(self, pending: Iterator[str], done: Callable[[Sequence[Outcome]], None], stop: Callable[[], bool]) -> None:
        """Hands each outcome to `done`; ends within a second after `stop` says so.

        Raises EndpointError where the server cannot be used.
        """
        asyncio.run(self._run(pending, done, stop))

    async def _run(
        self, pending: Iterator[str], done: Callable[[Sequence[Outcome]], None], stop: Callable[[], bool]
    ) -> None:
        self.done, self._pending, self._turn = done, pending, asyncio.Lock()
        tasks = {
            asyncio.create_task(self._connect(first)) for first in range(0, self.settings.concurrency, CONNECTIONS)
        }
        try:
            while tasks and not stop():
                ended, tasks = await asyncio.wait(tasks, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()
            if not stop():
                self._settle()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self, first: int) -> None:
        """One client of the library and the workers that share it."""
        from huggingface_hub import AsyncInferenceClient

        client = AsyncInferenceClient(
            base_url=self.settings.url, api_key=self.settings.key, timeout=self.settings.timeout
        )
        workers = [
            asyncio.create_task(self._work(client)) for _ in range(min(CONNECTIONS, self.settings.concurrency - first))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await client.close()

    async def _work(self, client: Any) -> None:
        while True:
            async with self._turn:  # the names come from files: not in this thread, and from one place at a time
                name = await asyncio.to_thread(next, self._pending, None)
            if name is None:
                return
            try:
                self.done([await self._describe(client, name)])
            except _Refused as error:
                self._hold(Outcome(name, fault=f"the server refused it: {error}"), refused=True)
            except _Unanswered as error:
                self._hold(Outcome(name, fault=f"the server gave no answer: {error}"), refused=False)

    async def _describe(self, client: Any, name: str) -> Outcome:
        attempts = Attempts(name, self.settings.tokens)
        try:
            url = await asyncio.to_thread(lambda: data_url(load(self.folder, name, self.settings.longest_side)))
        except TavqError as error:
            return Outcome(name, fault=str(error))
        outcome = None
        while outcome is None:
            try:
                outcome = attempts.judge(await self._ask(client, url, attempts.ask))
            except _Refused as error:
                outcome = attempts.end("")  # twice the tokens may be more than the model takes
                if outcome.text is None:
                    raise error
        return outcome

    # --- one request ------------------------------------------------------------------------------------------------

    async def _ask(self, client: Any, url: str, ask: Ask) -> Answer:
        patience, reason, failures = self.settings.patience, "", 0
        while failures < (patience.attempts if self.answered else patience.attempts_before):
            if failures:
                await asyncio.sleep(patience.seconds(failures))
            await self.pace.turn()
            answer = await self._request(client, url, ask)
            if isinstance(answer, Answer):
                self._alive()
                return answer
            reason, failures = answer, failures + 1
            self.note = f"waiting for the server: {reason}"
            self.done([])
        raise _Unanswered(f"{reason} ({failures} times)")

    async def _request(self, client: Any, url: str, ask: Ask) -> Answer | str:
        """The answer, or why there is none yet."""
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.settings.prompt}]
        sampling = {"temperature": 0.0} if ask.seed is None else {"temperature": TEMPERATURE, "seed": ask.seed}
        try:
            async with asyncio.timeout(self.settings.timeout):  # the library's counts from byte to byte
                reply = await client.chat_completion(
                    [{"role": "user", "content": content}], model=self.settings.model, max_tokens=ask.tokens, **sampling
                )
            return _answer(reply)
        except TimeoutError:
            return f"nothing within {self.settings.timeout:g} seconds"
        except Exception as error:  # cut connections, broken JSON, missing fields: the library lets all kinds out
            response = getattr(error, "response", None)
            if response is None:
                return self._clean(f"{type(error).__name__}: {error}")
            return self._status(response)

    def _status(self, response: Any) -> str:
        status = int(response.status_code)
        said = self._clean(_said(response))
        if status in UNUSABLE:
            asked = f"{self.settings.url} for {self.settings.model!r}"
            raise EndpointError(f"The server answers {status} at {asked}: {UNUSABLE[status]}. {said}")
        if status not in PASSING:
            raise _Refused(f"{status} {said}")
        self.pace.hold(retry_after(response.headers))
        return f"{status} {said}"

    def _clean(self, text: str) -> str:
        """One short line without the key, which a server may send back."""
        line = " ".join(text.split())
        return (line if self.settings.key == NO_KEY else line.replace(self.settings.key, "…"))[:200]

    # --- what failed ------------------------------------------------------------------------------------------------

    def _alive(self) -> None:
        """The server answered: what it failed on before is a fault of those images."""
        self.answered, self.note = True, ""
        if self.held:
            self.done([outcome for outcome, _ in self.held])
            self.held = []

    def _hold(self, outcome: Outcome, refused: bool) -> None:
        if refused and self.answered:
            self.done([outcome])
            return
        self.held.append((outcome, refused))
        if len(self.held) >= (self.settings.concurrency + 3 if self.answered else 3):
            raise self._unusable()

    def _settle(self) -> None:
        """At the end: an image that the server refused is a fault; where it only failed, the next run tries again."""
        if refused := [outcome for outcome, refused in self.held if refused]:
            self.done(refused)
        self.held = [(outcome, refused) for outcome, refused in self.held if not refused]
        if self.held:
            raise self._unusable()

    def _unusable(self) -> EndpointError:
        last = self.held[-1][0]
        return EndpointError(
            f"The server {self.settings.url} answered none of the last {len(self.held)} images, "
            f"{last.file_name!r} for example: {last.fault}."
        )


def _answer(reply: Any) -> Answer:
    """The answer in a reply; any exception where the reply has none."""
    choice = reply.choices[0]
    text, reason = choice.message.content, choice.finish_reason
    if text is not None and not isinstance(text, str):
        raise TypeError(f"the answer is not text but {type(text).__name__}")
    return Answer(text or "", whole=reason != "length", withheld=reason == "content_filter")


def _said(response: Any) -> str:
    """What the server says of an error."""
    try:
        value = response.json()
        value = value.get("error", value)
        return str(value.get("message") or value.get("detail") or value) if isinstance(value, dict) else str(value)
    except Exception:  # no JSON, or none with these fields
        return str(response.text)
