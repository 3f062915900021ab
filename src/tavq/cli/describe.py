"""`tavq describe`: long texts of the images of a data set by a vision-language model."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from tavq.cli import console
from tavq.cli.console import Count
from tavq.core.errors import UsageError
from tavq.describe import PROMPT

Positive = Annotated[float, Parameter(validator=validators.Number(gt=0))]


def describe(
    folder: Path,
    /,
    *,
    model: str,
    endpoint: str | None = None,
    prompt: str = PROMPT,
    split: str | None = None,
    shard: str | None = None,
    limit: Count | None = None,
    retry_faults: bool = False,
    max_tokens: Count = 512,
    longest_side: Count = 1024,
    batch: Count | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    concurrency: Count | None = None,
    requests_per_minute: Positive | None = None,
    timeout: Positive | None = None,
    json: Path | None = None,
) -> int:
    """Writes long_text.jsonl: a long text of each image that has none, by a vision-language model.

    The same command goes on where it was stopped, however it was stopped. On many machines give each its own --shard;
    text and train read all of their files. The key of a server is read from the environment variable TAVQ_API_KEY and
    from nowhere else.

    Example: tavq describe images --model llava-hf/llava-1.5-7b-hf --endpoint http://localhost:8000/v1

    Args:
        folder: A folder data set.
        model: Without --endpoint a folder or a hub name of a LLaVA-like model (safetensors); with it the name that
            the server knows the model by.
        endpoint: The address of an OpenAI-compatible server (vLLM, SGLang).
        prompt: What the model is asked.
        split: Only this split.
        shard: Only one part of the images, i/n; it writes long_text-i-of-n.jsonl.
        limit: At most so many images in this run.
        retry_faults: Also those that failed in an earlier run.
        max_tokens: The longest answer; one that is cut off is asked for once more with twice as many.
        longest_side: Larger images are made smaller, to so many pixels, before the model sees them.
        batch: Without --endpoint: images at a time (8).
        device: Without --endpoint: cpu, cuda, cuda:1 (a GPU where there is one).
        dtype: Without --endpoint: the kind of number (bfloat16 on a GPU, else float32).
        concurrency: With --endpoint: requests at a time (32).
        requests_per_minute: With --endpoint: at most so many.
        timeout: With --endpoint: seconds for one request (300).
        json: Also write the counts and faults to this file.
    """
    here = {"batch": batch, "device": device, "dtype": dtype}
    there = {"concurrency": concurrency, "requests-per-minute": requests_per_minute, "timeout": timeout}
    for name, value in (there if endpoint is None else here).items():
        if value is not None:
            raise UsageError(
                f"--{name} is for a model {'behind --endpoint' if endpoint is None else 'in this process'} only."
            )
    from tavq.data.sharding import Shard
    from tavq.describe.job import Job, Run

    common = {"prompt": prompt, "tokens": max_tokens, "longest_side": longest_side}
    if not model.strip():
        raise UsageError(
            "--model is empty; give a model folder, a hub name, or with --endpoint the server's name of it."
        )
    if endpoint is None:
        name = _key(model)
        load = partial(_local, folder, model, device or "auto", dtype or "auto", batch=batch or 8, **common)
    else:
        name = model
        how = {"concurrency": concurrency or 32, "per_minute": requests_per_minute, "timeout": timeout or 300.0}
        load = partial(_endpoint, folder, model, endpoint, **how, **common)
    return _work(Run(Job(folder, name, prompt, split, Shard.parse(shard), limit, retry_faults)), load, json)


def _key(model: str) -> str:
    from tavq.describe.local import model_key

    return model_key(Path(model)) if Path(model).is_dir() else model


def _local(folder: Path, model: str, device: str, dtype: str, **how: Any) -> Any:
    from tavq.describe.local import LocalModel, load_model

    return LocalModel(*load_model(model, device, dtype), folder=folder, **how)


def _endpoint(folder: Path, model: str, url: str, **how: Any) -> Any:
    from tavq.describe.endpoint import Endpoint, EndpointSettings, check_url, key_from_environment

    return Endpoint(folder, EndpointSettings(check_url(url), model, key=key_from_environment(), **how))


def _work(run: Any, load: Any, json: Path | None) -> int:
    if others := run.job.other_divisions():
        console.say(
            f"There are descriptions of another division ({', '.join(others[:3])}): what this model wrote there is not "
            "done again, but runs of two divisions at once describe images twice."
        )
    with console.bar("Describing") as bar:
        summary = run.work(load, bar)
    console.table("Descriptions", ["", "images"], [list(row) for row in _rows(summary)])
    for kind in (run.cut, run.faults):
        for fault in kind.first[: console.SHOWN_FAULTS]:
            console.say(str(fault))
        if kind.count > console.SHOWN_FAULTS:
            console.say(f"... and {kind.count - console.SHOWN_FAULTS:,} more")
    facts = asdict(summary)
    facts["faults_total"] = run.faults.count
    facts["faults"] = [str(fault) for fault in run.faults.first]
    facts["cut_back"] = [fault.where for fault in run.cut.first]
    console.write_json(json, facts)
    return _end(run, summary)


def _rows(summary: Any) -> list[tuple[str, int]]:
    return [
        ("described", summary.described),
        ("of these cut back to whole sentences", summary.cut),
        ("failed", summary.failed),
        ("left", summary.left),
        ("described before", summary.before),
        ("failed before", summary.failed_before),
        ("with a long text of their own", summary.own),
    ]


def _nothing(own: int, part: str) -> str:
    if not own:
        return f"There are no images{part}; nothing to describe."
    return f"All {own:,} images{part} have a long text of their own in metadata.jsonl; nothing to describe."


def _end(run: Any, summary: Any) -> int:
    from tavq.data.descriptions import PATTERN

    folder, place = run.job.folder, run.job.folder / run.job.file
    if summary.stopped:
        console.say(f"{summary.stopped.rstrip('.')}. Nothing is lost; to go on, give the same command again.")
        return 1
    if summary.failed or summary.failed_before:
        console.say("To try those that failed again, add --retry-faults.")
    if summary.described or summary.before:
        written = place if summary.described else place.with_name(PATTERN)
        console.say(f"The descriptions are in {written}. Next: tavq text {folder}")
    elif not summary.failed + summary.failed_before + summary.left:
        console.say(_nothing(summary.own, "" if run.job.whole else " of this split or shard"))
    return 1 if summary.failed and not summary.described else 0
