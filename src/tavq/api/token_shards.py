"""Encode a collection into a folder of token shards."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tavq.api.calls import Budget, PathLike, Progress, inform, select_faults, warn, warn_of_faults
from tavq.api.measuring import BATCH
from tavq.api.tokenizers import image_settings
from tavq.core.devices import default_device
from tavq.core.errors import DataError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, is_dataset
from tavq.data.loader import EvaluationLoader
from tavq.data.sharding import Shard as Part
from tavq.model_folder import find_model, read_model_config
from tavq.ops.agreement import decide_first
from tavq.ops.collective import barrier, join_processes, rank, world_size
from tavq.token_folder import writing
from tavq.token_folder.manifest import Manifest
from tavq.token_folder.reading import TokenShards
from tavq.token_folder.shard import TokenImage, TokenSettings
from tavq.tokenizer import Tokenizer


def encode_shards(
    model: PathLike,
    source: PathLike,
    *,
    out: PathLike,
    shard_size: int,
    size: int | None = None,
    split: str | None = None,
    shard: str | None = None,
    merge: bool = False,
    resume: bool = False,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TokenShards | None:
    """Encode a data set as packed token indices, in shards that any number of processes write.

    A shard holds the same bytes with one process or several, at once or after a stop. The folder is
    complete, and its manifest lists every shard, as soon as the last one is there.

    Args:
        model: a model folder, a run folder or a hub name.
        source: a folder data set or a folder of images.
        out: the folder to write.
        shard_size: images of a shard.
        size: side of the images; by default the size that the model was trained at.
        split: only this split of the data set.
        shard: only one part of the shards, "i/n", for a job of an array; all jobs may write into one folder.
        merge: encode nothing, and complete a folder into which the shards of all parts were copied.
        resume: keep the shards that are there and intact, and write the others.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note) after each batch.

    Returns:
        The images; None where shards of other parts are still missing.

    Raises:
        UsageError: there is no such model or data set, or `out` holds something else.
        DataError: too many images cannot be read.
        FileError: a file is damaged, another process writes there, or `out` cannot be written.
    """
    if merge and shard is not None:
        raise UsageError("--merge joins the shards of all parts; remove --shard.")
    place, part = Path(out), Part.parse(shard)
    with join_processes():
        folder = find_model(model if isinstance(model, str) else Path(model))
        tokenizer = Tokenizer.from_pretrained(folder).prepare(default_device())
        config = image_settings(folder, size, fault_budget, workers)
        if Path(source).is_file() and not is_dataset(Path(source)):
            raise UsageError(f"{source} is one image; leave --shard-size out to write its tokens to a file.")
        dataset = FolderDataset(Path(source), split)
        settings = TokenSettings(
            model=str(read_model_config(folder).get("sha256")), entries=tuple(tokenizer.codebook.sizes),
            size=config.size, split=split, data=dataset.fingerprint, images=len(dataset), shard_size=shard_size,
            precision=tokenizer.precision,
        )  # fmt: skip
        with ExitStack() as held:
            decide_first(lambda: held.enter_context(writing.begin(place, settings, part, resume or merge)))
            if not merge:
                _encode_part(place, settings, part, tokenizer, dataset, config, progress)
            barrier()
            done = decide_first(lambda: _finish(place, settings, merge, config) is not None)
    return TokenShards(place, verify=False) if done else None


def _encode_part(
    out: Path,
    settings: TokenSettings,
    part: Part,
    tokenizer: Tokenizer,
    dataset: FolderDataset,
    config: DataConfig,
    progress: Progress | None,
) -> None:
    """Write the shards of a part that are missing; each process those of its own share."""
    numbers = writing.numbers_of(settings, part)
    if len(numbers) < world_size():
        warn(
            f"{world_size() - len(numbers)} of {world_size()} processes have nothing to do: there are {len(numbers)} "
            "shards; use a smaller --shard-size."
        )
    own = numbers[rank() :: world_size()]
    pending = writing.find_pending(out, settings, own, warn)
    images = dataset.subset(writing.records_of(dataset.records, settings, pending))
    if not pending:
        return
    loader = EvaluationLoader(images, config, BATCH, group=settings.shard_size, whole=settings.images)
    total = len(writing.records_of(dataset.records, settings, numbers))
    kept = len(writing.records_of(dataset.records, settings, own)) - len(images)
    encoded = _encode(loader, tokenizer, kept, total, progress)
    writing.write_shards(out, settings, dataset.records, pending, encoded)
    warn_of_faults(select_faults(loader.faults))


def _encode(
    loader: EvaluationLoader, tokenizer: Tokenizer, kept: int, total: int, progress: Progress | None
) -> Iterator[TokenImage]:
    splits = {record.file_name: record.split for record in loader.dataset}
    done = kept
    for batch in loader:
        indices = tokenizer.encode(batch.images.to(default_device())).cpu().numpy()
        for key, grid in zip(batch.keys, indices, strict=True):
            yield TokenImage(key, splits[key], grid)
        done += len(batch.keys)
        if progress is not None:
            progress(min(done * world_size(), total), total, "")


def _finish(out: Path, settings: TokenSettings, merge: bool, config: DataConfig) -> Manifest | None:
    """Complete the folder if all shards are there; raises where `merge` asks for it and some are not."""

    def check(manifest: Manifest) -> None:
        allowed = config.max_faults(settings.images)
        if not manifest.images:
            raise DataError("None of the images can be read. List what is wrong with: tavq data check DATA")
        if manifest.missing > allowed:
            raise DataError(
                f"{manifest.missing:,} of {settings.images:,} images cannot be read; the fault_budget is {allowed:,}. "
                "To complete the folder without them, repeat the call with --resume and a larger --fault-budget."
            )

    manifest = writing.finish(out, settings, check)
    if manifest is None:
        missing = writing.find_missing(out, settings)
        told = f"{out} lacks {len(missing):,} of {settings.shards:,} shards: {writing.list_missing(missing)}."
        if merge:
            raise UsageError(f"{told} Encode them, or copy them there, and merge again.")
        inform(f"{told} Other parts write them; where each writes a folder of its own, copy all into one and --merge.")
    return manifest
