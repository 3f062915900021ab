"""Finds the images of a data set without a description, has them described, and writes long_text.jsonl."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tavq.core.errors import UsageError
from tavq.core.jsonl import LineAppender
from tavq.core.locks import lock
from tavq.core.own_files import refuse_link
from tavq.core.signals import stop_on_signal
from tavq.data.descriptions import LONG_TEXT, PATTERN, Descriptions
from tavq.data.folder import is_dataset, iter_records
from tavq.data.records import MAX_TEXT, SPLITS, Description, Fault, Faults, Record, read_description
from tavq.data.sharding import ALL_IMAGES, Shard
from tavq.data.shards import find_home
from tavq.describe.answers import Describer, DescriptionResult
from tavq.describe.endpoint import EndpointError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note)."""


@dataclass(frozen=True)
class DescriptionJob:
    """What to describe: a data set, or one split or shard of it, by one model with one prompt."""

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
    def path(self) -> Path:
        """The file that is written: in the folder of the data set, or where what is made of shards is kept."""
        return find_home(self.folder) / self.file

    @property
    def covers_all(self) -> bool:
        """Whether the job is about every image of the data set."""
        return self.split is None and self.shard.of == 1

    def find_other_shards(self) -> list[str]:
        """The files in the folder that were written by runs with another number of shards."""
        stem, suffix = LONG_TEXT.split(".")
        shard_file = re.compile(rf"{stem}(?:-[0-9]+-of-([0-9]+))?\.{suffix}")
        matches = [shard_file.fullmatch(path.name) for path in find_home(self.folder).glob(PATTERN)]
        return sorted(match[0] for match in matches if match and int(match[1] or 1) != self.shard.of)

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLITS):
            raise UsageError(f"Unknown split {self.split!r}; known: {', '.join(SPLITS)}.")
        for name, text in (("model", self.model), ("prompt", self.prompt)):
            if not text.strip() or isinstance(read_description(Description("a", text, text, "a").to_line()), str):
                raise UsageError(f"--{name} {text[:80]!r} must be printable text of at most {MAX_TEXT:,} characters.")


@dataclass
class Summary:
    """Number of images by result; `stopped` says why the run ended early, if it did."""

    described: int = 0
    truncated: int = 0  # of these, to the last complete sentence
    failed: int = 0
    described_before: int = 0  # by an earlier run
    failed_before: int = 0  # in an earlier run, and not retried
    has_long_text: int = 0  # in the data set itself
    remaining: int = 0  # still to be described, also beyond the limit
    stopped: str = ""


class DescriptionRun:
    """One run of a job: finds pending images, has them described, writes each line, counts."""

    def __init__(self, job: DescriptionJob) -> None:
        self.job = job
        self.summary = Summary()
        self.faults = Faults()
        """Images that got no text, and errors in the data set's metadata."""
        self.truncated = Faults()
        """Images whose text was truncated to its last complete sentence."""
        self.stopping = False

    def execute(self, load: Callable[[], Describer], progress: Progress | None = None) -> Summary:
        """Describe the pending images; `load` returns the describer and is called only if there are any.

        Raises:
            UsageError: there is no such folder, or no image in it.
            FileError: another process writes the same file, or a line could not be written; earlier lines are complete.
        """
        job, path = self.job, self.job.path
        if not is_dataset(job.folder):
            raise UsageError(f"There is no folder {job.folder}; give the folder of a data set.")
        # Raises for an empty or broken data set before anything is written into its folder.
        next(iter_records(job.folder, Faults(), descriptions=False))
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_link(path)
        with (
            lock(path.with_name(f".{path.name}.lock"), path, "give each machine its own --shard i/n"),
            stop_on_signal(self.stop),
            Descriptions(path.parent, job.model, job.prompt) as known,
        ):
            count = sum(1 for _ in self._find_pending(known, self.summary, self.faults, progress))
            self.summary.remaining = count
            total = count if job.limit is None else min(count, job.limit)
            if total and not self.stopping:
                describer = load()
                with LineAppender(path) as lines:
                    pending = islice(self._find_pending(known, Summary(), Faults()), job.limit)
                    self._describe(describer, pending, lines, total, progress)
        if self.stopping and not self.summary.stopped:
            self.summary.stopped = "Stopped by a signal"
        return self.summary

    def stop(self) -> None:
        """End the run after the current images."""
        self.stopping = True

    def _describe(
        self, describer: Describer, pending: Iterator[str], lines: LineAppender, total: int, progress: Progress | None
    ) -> None:
        started = time.monotonic()

        def on_results(results: Sequence[DescriptionResult]) -> None:
            self._write(results, lines)
            if progress is not None:
                count = self.summary.described + self.summary.failed
                speed = format_speed(count, total, time.monotonic() - started)
                progress(count, total, f"{speed} {describer.note}".strip())

        try:
            describer.run(pending, on_results, lambda: self.stopping)
        except EndpointError as error:
            self.summary.stopped = str(error)

    def _write(self, results: Sequence[DescriptionResult], lines: LineAppender) -> None:
        if not results:
            return
        job, now = self.job, int(time.time())
        lines.append(
            Description(
                result.file_name, job.model, job.prompt, result.text, result.fault, result.truncated, now
            ).to_line()
            for result in results
        )
        self.summary.remaining -= len(results)
        for result in results:
            if result.text is None:
                self.summary.failed += 1
                self.faults.add([Fault(result.file_name, result.fault or "")])
            else:
                self.summary.described += 1
                if result.truncated:
                    self.summary.truncated += 1
                    self.truncated.add([Fault(result.file_name, "truncated to its last complete sentence")])

    # --- which images -----------------------------------------------------------------------------------------

    def _find_pending(
        self, known: Descriptions, counts: Summary, faults: Faults, progress: Progress | None = None
    ) -> Iterator[str]:
        """Yield the images that need a description, and count the others."""
        for read, record in enumerate(iter_records(self.job.folder, faults, descriptions=False), 1):
            if self.stopping:
                return
            if progress is not None and read % 1000 == 0:
                progress(0, 0, f"{read:,} images checked")
            if self._is_pending(record, known, counts):
                yield record.file_name

    def _is_pending(self, record: Record, known: Descriptions, counts: Summary) -> bool:
        job = self.job
        if job.split not in (None, record.split) or record.file_name not in job.shard:
            return False
        if record.long_text is not None:
            counts.has_long_text += 1
            return False
        earlier = known.find(record.file_name)
        if earlier is not None and earlier.text is not None:
            counts.described_before += 1
            return False
        if earlier is not None and not job.retry_faults:
            counts.failed_before += 1
            return False
        return True


def format_speed(count: int, total: int, seconds: float) -> str:
    """Speed and remaining time, like `3.1/s, 2 h 10 min left`."""
    if not count or seconds <= 0:
        return ""
    rate = count / seconds
    minutes, rest = divmod(round((total - count) / rate), 60)
    if minutes >= 60:
        remaining = f"{minutes // 60} h {minutes % 60} min"
    else:
        remaining = f"{minutes} min" if minutes else f"{rest} s"
    return f"{rate:.3g}/s, {remaining} left"
