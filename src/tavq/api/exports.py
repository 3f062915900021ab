"""Export what language models train on: image tokens beside captions, and a vocabulary that has them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tavq.api.calls import TEXTS, PathLike, Progress, inform, select_faults, warn, warn_of_faults, without_note
from tavq.api.stored_tokens import open_tokens
from tavq.api.tokenizers import BATCH, image_settings
from tavq.core.devices import default_device
from tavq.core.errors import DataError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.records import SPLITS, Record
from tavq.data.workers import explain_dead_workers
from tavq.interop.language_vocabulary import Words, extend_language_model
from tavq.interop.token_shards import Encoder, Form, Order, ShardSettings, write_shards
from tavq.model_folder import find_model, read_model_config
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer


@explain_dead_workers()
def export_tokens(
    model: PathLike,
    data: PathLike,
    *,
    out: PathLike,
    split: str | None = None,
    tokens: PathLike | None = None,
    size: int | None = None,
    form: Form = "text",
    order: Order = "image-text",
    row_tokens: bool = True,
    shard_size: int = 1000,
    resume: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export a data set as image tokens beside its captions, in shards that Hugging Face's `datasets` reads.

    Args:
        model: a model folder, a run folder or a hub name.
        data: a folder data set.
        out: the folder to write: SPLIT-00000.jsonl and so on, README.md and manifest.json.
        split: only this split.
        tokens: what `encode_folder` or `encode_shards` wrote for these images with this model, so that nothing is
            encoded again.
        size: side of the images; by default the size that the model was trained at.
        form: `text` for prompts as text, one a line; `ids` for one image a line, with its captions.
        order: of a prompt; `both` writes two.
        row_tokens: write a token after each row of an image.
        shard_size: images of a shard.
        resume: continue an export that was stopped; the result is that of one run.
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note) after each shard.

    Returns:
        The folder.

    Raises:
        UsageError: there is no such model or data set, or `out` holds something else.
        DataError: no image could be read.
        FileError: a file is damaged or was made by another model, or `out` cannot be written.
    """
    folder = find_model(str(model))
    sha256 = str(read_model_config(folder).get("sha256"))
    tokenizer = Tokenizer.from_pretrained(folder)
    dataset = FolderDataset(Path(data), split)
    records = {name: [record for record in dataset if record.split == name] for name in SPLITS}
    records = {name: chosen for name, chosen in records.items() if chosen}
    config = None if tokens is not None else image_settings(folder, size, None, workers)
    settings = ShardSettings(
        sha256, dataset.fingerprint, tuple(tokenizer.codebook.sizes), form, order, row_tokens, shard_size,
        None if config is None else config.size,
    )  # fmt: skip
    encoder = (
        _encode_images(tokenizer, dataset, config)
        if config is not None
        else _look_up(Path(str(tokens)), tokenizer, sha256, records)
    )
    warn_of_faults(select_faults(dataset.faults, *TEXTS))
    manifest = write_shards(Path(out), settings, records, encoder, resume, without_note(progress))
    missing = sum(shard["missing"] for shard in manifest["shards"].values())
    if missing == sum(map(len, records.values())):
        raise DataError(f"No image of {data} could be read; list the faults: tavq data check {data}")
    if missing:
        warn(f"{missing:,} images have no tokens and are left out.")
    return Path(out)


def _encode_images(tokenizer: Tokenizer, dataset: FolderDataset, config: DataConfig) -> Encoder:
    device = default_device()
    tokenizer = tokenizer.prepare(device, "fp32")

    def encode(records: list[Record]) -> Iterator[tuple[Record, Int[Tensor, "h w *c"]]]:
        by_name = {record.file_name: record for record in records}
        shard = dataset.subset(records)
        shard.faults = []  # those of the metadata are named once, not with each shard
        loader = EvaluationLoader(shard, config, BATCH, whole=len(dataset))
        for batch in loader:
            for key, indices in zip(batch.keys, tokenizer.encode(batch.images.to(device)).cpu(), strict=True):
                yield by_name[key], indices
        warn_of_faults(loader.faults)

    return encode


def _look_up(path: Path, tokenizer: Tokenizer, sha256: str, splits: Mapping[str, Sequence[Record]]) -> Encoder:
    """Finished tokens by the names of their images.

    Raises UsageError if another model made them, or if they are of other splits than those to export.
    """
    found = open_tokens(path)
    if found.model != sha256:
        raise UsageError(f"{path} was made by another model than the one given; make it with: tavq encode")
    found.check_codebook(tokenizer)
    positions = {key: position for position, key in enumerate(found.keys)}
    for split, records in splits.items():
        if not any(record.file_name in positions for record in records):
            raise UsageError(
                f"{path} holds no tokens of the split {split!r}; say with --split which one it holds, or make it of "
                "the whole data set with: tavq encode"
            )

    def encode(records: list[Record]) -> Iterator[tuple[Record, Int[Tensor, "h w *c"]]]:
        for record in records:
            if record.file_name in positions:
                position = positions[record.file_name]
                yield record, found.read(position, position + 1)[0]

    return encode


def export_vocabulary(
    model: PathLike, language_model: PathLike, *, out: PathLike, text: PathLike | None = None, seed: int = 0
) -> Path:
    """Extend a Hugging Face causal language model and its tokenizer by the tokens of a tokenizer's images.

    Args:
        model: the tokenizer: a model folder, a run folder or a hub name.
        language_model: the folder of a causal language model with its tokenizer, or a hub name.
        out: the folder to write, which `AutoModelForCausalLM` and `AutoTokenizer` load; new or empty.
        text: the text store that the tokenizer was aligned with; rows that begin from the codebook are then turned so
            that its words come near to the language model's own embeddings of them.
        seed: of the rows that begin at random.

    Returns:
        The folder. Its README.md has the ids, and says how the rows of the new tokens began.

    Raises:
        UsageError: there is no such model, the language model has image tokens already, or the text store is that of
            another encoder.
        FileError: a file is damaged, or `out` cannot be written.
    """
    folder = find_model(str(model))
    tokenizer, stored = Tokenizer.from_pretrained(folder), read_model_config(folder)
    words = None if text is None else _read_words(Path(text), stored)
    begun = extend_language_model(tokenizer, str(language_model), Path(out), str(stored.get("sha256")), seed, words)
    if begun.granularity is None:
        inform("The rows of the image tokens are random: the tokenizer has no map of its entries to text.")
    else:
        inform(f"The rows of the image tokens begin from the codebook, through the map of {begun.granularity} to text.")
    return Path(out)


def _read_words(path: Path, stored: dict[str, Any]) -> Words:
    """The words of a text store and their vectors; raises UsageError if the model was aligned with another encoder."""
    store = TextStore.open(path)
    store.check_encoder(stored.get("text"))
    words, vectors = store.vocabulary("words")
    if not words:
        raise UsageError(f"The text store {path} has no words.")
    return words, torch.tensor(vectors).float()
