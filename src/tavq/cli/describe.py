"""`tavq describe`: long texts of the images of a data set by a vision-language model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count
from tavq.describe import PROMPT

Positive = Annotated[float, Parameter(validator=validators.Number(gt=0))]

SHOWN_FAULTS = 10


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
    """Write a long text for each image that has none, by a vision-language model, to long_text.jsonl.

    Run the same command to resume after any stop. On several machines describe one shard on each (--shard); `tavq text`
    and `tavq train` read the files of all shards. The key of a server is read from the environment variable
    TAVQ_API_KEY only.

    Example: tavq describe images --model llava-hf/llava-1.5-7b-hf --endpoint http://localhost:8000/v1

    Args:
        folder: A folder data set.
        model: A folder or a hub name of a LLaVA-like model (safetensors); with --endpoint the server's name of the
            model.
        endpoint: URL of an OpenAI-compatible server (vLLM, SGLang).
        prompt: What the model is asked.
        split: Only this split.
        shard: Only shard i of n, given as i/n; it is written to long_text-i-of-n.jsonl.
        limit: Describe at most this many images in this run.
        retry_faults: Also describe images that failed in an earlier run.
        max_tokens: Maximum length of a description; one that is cut off is requested once more with twice as many.
        longest_side: Larger images are resized to this many pixels.
        batch: Images at a time, by default 8 (not with --endpoint).
        device: Where the model computes: cpu, cuda, cuda:1 or mps; by default a GPU where there is one (not with
            --endpoint).
        dtype: Precision of the model; by default bfloat16 on a GPU, else float32 (not with --endpoint).
        concurrency: Requests at a time, by default 32 (only with --endpoint).
        requests_per_minute: Maximum rate of requests (only with --endpoint).
        timeout: Seconds for one request, by default 300 (only with --endpoint).
        json: Also write the counts and faults to this file.
    """
    with console.bar("Describing") as bar:
        run = api.describe_images(
            folder, model=model, endpoint=endpoint, prompt=prompt, split=split, shard=shard, limit=limit,
            retry_faults=retry_faults, max_tokens=max_tokens, longest_side=longest_side, batch=batch, device=device,
            dtype=dtype, concurrency=concurrency, requests_per_minute=requests_per_minute, timeout=timeout,
            progress=bar,
        )  # fmt: skip
    counts = asdict(run.summary)
    counts["faults_total"] = run.faults.count
    counts["faults"] = [str(fault) for fault in run.faults.first]
    counts["truncated_images"] = [fault.where for fault in run.truncated.first]
    with console.saved_as_json(json, counts):
        _print(run)
    return _finish(run)


def _print(run: "api.DescriptionRun") -> None:
    summary = run.summary
    rows = [
        ("described", summary.described),
        ("of these truncated to complete sentences", summary.truncated),
        ("failed", summary.failed),
        ("remaining", summary.remaining),
        ("described in earlier runs", summary.described_before),
        ("failed in earlier runs", summary.failed_before),
        ("with a long text of their own", summary.has_long_text),
    ]
    console.print_table("Descriptions", ["", "images"], rows)
    for kind in (run.truncated, run.faults):
        for fault in kind.first[:SHOWN_FAULTS]:
            console.say(str(fault))
        if kind.count > SHOWN_FAULTS:
            console.say(f"... and {kind.count - SHOWN_FAULTS:,} more")


def _finish(run: "api.DescriptionRun") -> int:
    """Say what to do next, and return the exit code."""
    summary, place = run.summary, run.job.path
    if summary.stopped:
        console.say(f"{summary.stopped.rstrip('.')}. Finished descriptions are kept; run the same command to resume.")
        return 1
    if summary.failed or summary.failed_before:
        console.say("To retry failed images, add --retry-faults.")
    if summary.described or summary.described_before:
        written = place if summary.described else place.with_name(api.DESCRIPTION_FILES)
        console.say(f"The descriptions are in {written}. Next: tavq text {run.job.folder}")
    elif not summary.failed + summary.failed_before + summary.remaining:
        console.say(_nothing(summary.has_long_text, "" if run.job.covers_all else " in this split or shard"))
    return 1 if summary.failed and not summary.described else 0


def _nothing(own: int, part: str) -> str:
    if not own:
        return f"There are no images{part}; nothing to describe."
    return f"All {own:,} images{part} have a long text of their own in metadata.jsonl; nothing to describe."
