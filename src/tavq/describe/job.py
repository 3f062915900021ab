"""The images of a data set that still want a description, and their lines in long_text.jsonl."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tavq.core.errors import UsageError
from tavq.core.files import lock
from tavq.core.jsonl import LineAppender
from tavq.core.signals import stop_on_signal
from tavq.data.descriptions import LONG_TEXT, PATTERN, Descriptions
from tavq.data.folder import iter_records
from tavq.data.records import SPLITS, Description, Fault, Faults, Record, read_description
from tavq.data.sharding import ALL_IMAGES, Shard
from tavq.describe.answers import Describer, Outcome
from tavq.describe.endpoint import EndpointError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, a remark)."""


@dataclass(frozen=True)
class Job:
    """What is to be described: a data set, or one split or shard of it, by one model with one prompt."""

    folder: Path
    model: str
    prompt: str
    split: str | None = None
    shard: Shard = ALL_IMAGES
    limit: int | None = None
    retry_faults: bool = False

    @property
    def file(self) -> str:
        """The name of the file that is written."""
        stem, suffix = LONG_TEXT.split(".")
        return f"{self.shard.add_suffix(stem)}.{suffix}"

    @property
    def whole(self) -> bool:
        """Whether every image of the data set is meant."""
        return self.split is None and self.shard.of == 1

    def other_divisions(self) -> list[str]:
        """The files of the folder that runs with another number of shards wrote."""
        stem, suffix = LONG_TEXT.split(".")
        known = re.compile(rf"{stem}(?:-[0-9]+-of-([0-9]+))?\.{suffix}")
        found = [(path.name, known.fullmatch(path.name)) for path in self.folder.glob(PATTERN)]
        return sorted(name for name, parts in found if parts and int(parts[1] or 1) != self.shard.of)

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLITS):
            raise UsageError(f"Unknown split {self.split!r}; known: {', '.join(SPLITS)}.")
        for name, text in (("model", self.model), ("prompt", self.prompt)):
            if not text.strip() or isinstance(read_description(Description("a", text, text, "a").to_line()), str):
                raise UsageError(f"--{name} {text[:80]!r} must be text that can be shown.")


@dataclass
class Summary:
    """What a run did: images by what came of them; `stopped` says why it ended early, if it did."""

    described: int = 0
    cut: int = 0  # of these, back to the last whole sentence
    failed: int = 0
    before: int = 0  # have a description of an earlier run
    failed_before: int = 0  # and are not tried again
    own: int = 0  # have a long text of their own
    left: int = 0  # still to be described, also beyond the limit
    stopped: str = ""


class Run:
    """One run of a job: finds what is pending, has it described, writes each line, counts."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.summary = Summary()
        self.faults = Faults()
        """The images without a text and what the data set's metadata got wrong."""
        self.cut = Faults()
        """The images whose text was cut back to whole sentences."""
        self.stopping = False

    def work(self, load: Callable[[], Describer], progress: Progress | None = None) -> Summary:
        """Describes what is pending; `load` gives the describer, and is not called where nothing is.

        Raises:
            UsageError: there is no such folder, or no image in it.
            FileError: another process writes the same file; a line could not be written. All lines before it are whole.
        """
        job, place = self.job, self.job.folder / self.job.file
        if not job.folder.is_dir():
            raise UsageError(f"There is no folder {job.folder}; give the folder of a data set.")
        # an empty or broken data set is an error before anything is written into its folder
        next(iter_records(job.folder, Faults(), descriptions=False))
        with (
            lock(place.with_name(f".{place.name}.lock"), place, "give each machine its own --shard i/n"),
            stop_on_signal(self.stop),
            Descriptions(job.folder, job.model, job.prompt) as known,
        ):
            self.summary.left = sum(1 for _ in self._pending(known, self.summary, self.faults, progress))
            total = min(self.summary.left, self.summary.left if job.limit is None else job.limit)
            if total and not self.stopping:
                describer = load()
                with LineAppender(place) as lines:
                    pending = islice(self._pending(known, Summary(), Faults()), job.limit)
                    self._describe(describer, pending, lines, total, progress)
        if self.stopping and not self.summary.stopped:
            self.summary.stopped = "Stopped by a signal"
        return self.summary

    def stop(self) -> None:
        """Ends the run after what is under way."""
        self.stopping = True

    def _describe(
        self, describer: Describer, pending: Iterator[str], lines: LineAppender, total: int, progress: Progress | None
    ) -> None:
        started = time.monotonic()

        def done(outcomes: Sequence[Outcome]) -> None:
            self._write(outcomes, lines)
            if progress is not None:
                count = self.summary.described + self.summary.failed
                progress(count, total, f"{_pace(count, total, time.monotonic() - started)} {describer.note}".strip())

        try:
            describer.run(pending, done, lambda: self.stopping)
        except EndpointError as error:
            self.summary.stopped = str(error)

    def _write(self, outcomes: Sequence[Outcome], lines: LineAppender) -> None:
        if not outcomes:
            return
        job, now = self.job, int(time.time())
        lines.append(
            Description(one.file_name, job.model, job.prompt, one.text, one.fault, one.cut, now).to_line()
            for one in outcomes
        )
        self.summary.left -= len(outcomes)
        for one in outcomes:
            if one.text is None:
                self.summary.failed += 1
                self.faults.add([Fault(one.file_name, one.fault or "")])
            else:
                self.summary.described += 1
                if one.cut:
                    self.summary.cut += 1
                    self.cut.add([Fault(one.file_name, "cut back to its last whole sentence")])

    # --- which images -----------------------------------------------------------------------------------------

    def _pending(
        self, known: Descriptions, counts: Summary, faults: Faults, progress: Progress | None = None
    ) -> Iterator[str]:
        for seen, record in enumerate(iter_records(self.job.folder, faults, descriptions=False), 1):
            if self.stopping:
                return
            if progress is not None and seen % 1000 == 0:
                progress(0, 0, f"{seen:,} images looked up")
            if self._wanted(record, known, counts):
                yield record.file_name

    def _wanted(self, record: Record, known: Descriptions, counts: Summary) -> bool:
        job = self.job
        if job.split not in (None, record.split) or record.file_name not in job.shard:
            return False
        if record.long_text is not None:
            counts.own += 1
            return False
        before = known.find(record.file_name)
        if before is not None and before.text is not None:
            counts.before += 1
            return False
        if before is not None and not job.retry_faults:
            counts.failed_before += 1
            return False
        return True


def _pace(count: int, total: int, seconds: float) -> str:
    """`3.1/s, 2 h 10 min left`."""
    if not count or seconds <= 0:
        return ""
    rate = count / seconds
    minutes, rest = divmod(round((total - count) / rate), 60)
    left = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{rest} s"
    return f"{rate:.3g}/s, {left} left"
