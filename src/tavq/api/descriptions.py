"""Describe images by a vision-language model."""

from collections.abc import Callable
from dataclasses import astuple, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tavq.api.calls import PathLike, Progress, warn
from tavq.core.errors import UsageError
from tavq.core.torchrun import launched_processes
from tavq.data.descriptions import PATTERN
from tavq.data.records import Fault
from tavq.data.sharding import Shard
from tavq.describe import PROMPT
from tavq.describe.answers import Describer
from tavq.describe.endpoint import Endpoint, EndpointSettings, check_url, read_api_key
from tavq.describe.job import DescriptionJob, DescriptionRun
from tavq.describe.local import LocalModel, load_model, model_key
from tavq.ops.collective import join_processes, rank, world_size
from tavq.ops.gathering import gather_values

DESCRIPTION_FILES = PATTERN
"""The files of all shards."""

BATCH, CONCURRENCY, TIMEOUT = 8, 32, 300.0
"""Images at a time, requests at a time, and seconds for a request, where the call does not say."""


def describe_images(
    folder: PathLike,
    *,
    model: str,
    endpoint: str | None = None,
    prompt: str = PROMPT,
    split: str | None = None,
    shard: str | None = None,
    limit: int | None = None,
    retry_faults: bool = False,
    max_tokens: int = 512,
    longest_side: int = 1024,
    batch: int | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    concurrency: int | None = None,
    requests_per_minute: float | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> DescriptionRun:
    """Write a long text for each image that has none, to long_text.jsonl in the data set.

    Images that were described before are skipped, so the same call resumes. Processes of torchrun each write a shard,
    long_text-i-of-n.jsonl. The key of a server is read from the
    environment variable TAVQ_API_KEY only.

    Args:
        folder: a folder data set.
        model: a folder or a hub name of a LLaVA-like model; with `endpoint` the server's name of the model.
        endpoint: the URL of an OpenAI-compatible server (vLLM, SGLang).
        prompt: what the model is asked.
        split: only this split.
        shard: only one part of the images, "i/n", which is written to long_text-i-of-n.jsonl.
        limit: describe at most this many images in this run; of several processes each.
        retry_faults: also describe images that failed in an earlier run.
        max_tokens: maximum length of a description; one that is cut off is requested once more with twice as many.
        longest_side: larger images are resized to this many pixels.
        batch: images at a time (8), without `endpoint`.
        device: cpu, cuda or cuda:1, without `endpoint`.
        dtype: precision of the model, without `endpoint`.
        concurrency: requests at a time (32), with `endpoint`.
        requests_per_minute: at most this many, with `endpoint`.
        timeout: seconds for one request (300), with `endpoint`.
        progress: called with (images, total, note).

    Returns:
        The run: its `summary` counts images by result, `faults` and `truncated` name the first of those.

    Raises:
        UsageError: there is no data set or model, or an argument is for the other kind of model.
        FileError: another process writes the same file, or a line cannot be written.
    """
    here = {"batch": batch, "device": device, "dtype": dtype}
    there = {"concurrency": concurrency, "requests-per-minute": requests_per_minute, "timeout": timeout}
    for name, value in (there if endpoint is None else here).items():
        if value is not None:
            kind = "behind --endpoint" if endpoint is None else "in this process"
            raise UsageError(f"--{name} is for a model {kind} only.")
    if not model.strip():
        raise UsageError(
            "--model is empty; give a model folder, a hub name, or with --endpoint the server's name of the model."
        )
    place = Path(folder)
    common: dict[str, Any] = {"prompt": prompt, "max_tokens": max_tokens, "longest_side": longest_side}
    load: Callable[[], Describer]
    if endpoint is None:
        name = model_key(Path(model)) if Path(model).is_dir() else model
        load = partial(
            _load_model, place, model, device or "auto", dtype or "auto", batch_size=batch or BATCH, **common
        )
    else:
        name = model
        requests = {"concurrency": concurrency or CONCURRENCY, "timeout": timeout or TIMEOUT}
        load = partial(_connect, place, model, endpoint, requests_per_minute=requests_per_minute, **requests, **common)
    if launched_processes() > 1 and shard is not None:
        raise UsageError("--shard and torchrun both divide the images; use one of them.")
    with join_processes():
        part = Shard.parse(shard) if world_size() == 1 else Shard(rank() + 1, world_size())
        run = DescriptionRun(DescriptionJob(place, name, prompt, split, part, limit, retry_faults))
        if others := run.job.find_other_shards():
            warn(
                f"Found descriptions of other shards ({', '.join(others[:3])}). Images that this model "
                "described there are skipped, but simultaneous runs with different numbers of shards describe images "
                "twice."
            )
        run.execute(load, progress)
        _add_others(run)
    return run


def _add_others(run: DescriptionRun) -> None:
    """Count what all processes did in the run of each; why one of them stopped is why the run did."""
    own = {field.name: getattr(run.summary, field.name) for field in fields(run.summary)}
    for name, values in zip(own, zip(*gather_values(list(own.values())), strict=True), strict=True):
        setattr(run.summary, name, next(filter(None, values), "") if name == "stopped" else sum(values))
    for faults in (run.faults, run.truncated):
        for number, (count, first) in enumerate(gather_values([faults.count, [astuple(f) for f in faults.first]])):
            if number != rank():
                faults.add(Fault(*values) for values in first)
                faults.count += count - len(first)


def _load_model(folder: Path, model: str, device: str, dtype: str, **settings: Any) -> Describer:
    return LocalModel(*load_model(model, device, dtype), folder=folder, **settings)


def _connect(folder: Path, model: str, url: str, **settings: Any) -> Describer:
    return Endpoint(folder, EndpointSettings(check_url(url), model, key=read_api_key(), **settings))
