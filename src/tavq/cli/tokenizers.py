"""`tavq evaluate`, `encode` and `decode`: use a trained tokenizer."""

from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Workers
from tavq.cli.devices import with_device, with_precision
from tavq.cli.metric_table import print_evaluation
from tavq.cli.tracking import LogTo
from tavq.core.errors import UsageError
from tavq.metrics.record import evaluation_as_json


@with_device
@with_precision
def evaluate(
    model: str,
    /,
    *,
    data: Path,
    split: str = "test",
    text: Path | None = None,
    features: tuple[str, ...] = ("scenes",),
    limit: Count | None = None,
    size: Count | None = None,
    fault_budget: str | None = None,
    workers: Workers | None = None,
    log_to: LogTo = (),
    json: Path | None = None,
) -> None:
    """Measure a tokenizer's reconstructions, codebook and alignment on a split.

    The result is also written to evaluation.json in the run folder.

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m tavq evaluate …

    Example: tavq evaluate run --data scenes --split test

    Args:
        model: A model folder, a run folder or a hub name.
        data: A folder data set.
        split: train, val or test.
        text: The text store; by default DATA/text where it exists.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        limit: Measure only the first images.
        size: Side of the images; by default the size that the model was trained at.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the result to this file.
    """
    with console.bar(f"Evaluating {model}") as bar:
        result = api.evaluate(
            model, data=data, split=split, text=text, features=features, limit=limit, size=size,
            fault_budget=fault_budget, workers=workers, log_to=log_to, progress=bar,
        )  # fmt: skip
    if console.is_first_process():
        with console.saved_as_json(json, evaluation_as_json(result)):
            print_evaluation(f"{model} on {data} ({split})", result)


@with_device
@with_precision
def encode(
    model: str,
    source: Path,
    /,
    *,
    out: Path,
    size: Count | None = None,
    split: str | None = None,
    fault_budget: str | None = None,
    workers: Workers | None = None,
    shard_size: Count | None = None,
    shard: str | None = None,
    merge: bool = False,
    resume: bool = False,
) -> None:
    """Encode images as token indices, into one file or a folder of packed shards.

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m tavq encode …

    Example: tavq encode run scenes --out tokens.safetensors

    Example: tavq encode run photographs --out tokens --shard-size 10000 --resume

    Args:
        model: A model folder, a run folder or a hub name.
        source: A folder data set, a folder of images or one image.
        out: The safetensors file: `indices` [n h w] ([n h w c] where the codebook has c > 1 parts), and the file names
            in its metadata. With --shard-size the folder of the shards.
        size: Side of the images; by default the size that the model was trained at.
        split: Only this split of the data set.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        shard_size: Write bit-packed shards of so many images into the folder OUT.
        shard: Write only part i of n of the shards, given as i/n; all parts may write into the same folder.
        merge: Complete a folder into which the shards of all parts were copied; nothing is encoded.
        resume: Keep the shards that are there, and write those that are missing or damaged.
    """
    if shard_size is None:
        given = {"--shard": shard, "--merge": merge, "--resume": resume}
        for flag in (flag for flag, value in given.items() if value):
            raise UsageError(f"{flag} is for token shards; add --shard-size.")
        with console.bar("Encoding") as bar:
            tokens = api.encode_folder(
                model, source, out=out, size=size, split=split, fault_budget=fault_budget, workers=workers,
                progress=bar,
            )  # fmt: skip
        console.say(f"The tokens of {len(tokens.keys):,} images are in {out}.")
        return
    with console.bar("Encoding") as bar:
        shards = api.encode_shards(
            model, source, out=out, size=size, split=split, fault_budget=fault_budget, shard_size=shard_size,
            shard=shard, merge=merge, resume=resume, workers=workers, progress=bar,
        )  # fmt: skip
    if shards is not None and console.is_first_process():
        console.say(f"The tokens of {len(shards):,} images are in {out}, {len(shards.manifest.shards):,} shards.")


@with_device
@with_precision
def decode(model: str, tokens: Path, /, *, out: Path) -> None:
    """Decode token indices to images.

    Example: tavq decode run tokens.safetensors --out images

    Args:
        model: The model that made the tokens.
        tokens: A file that `tavq encode` wrote.
        out: A folder; each image keeps its name, with the suffix .png.
    """
    with console.bar("Decoding") as bar:
        written = api.decode_tokens(model, tokens, out=out, progress=bar)
    console.say(f"{len(written):,} images are in {out}.")
