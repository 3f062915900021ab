"""A data set as image tokens beside its captions: JSON-lines shards that Hugging Face's `datasets` reads."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError, UsageError
from tavq.core.locks import lock
from tavq.data.records import SPLITS, Record
from tavq.interop.image_vocabulary import BEGIN, END, PREFIX, ROW, ImageVocabulary, escape_caption

Form = Literal["text", "ids"]
Order = Literal["image-text", "text-image", "both"]

LOCK, MANIFEST = ".lock", "manifest.json"
FORMAT = 1

PUBLISHED_SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""The names that `datasets` gives to our splits."""

Encoder = Callable[[list[Record]], Iterable[tuple[Record, Int[Tensor, "h w *c"]]]]
"""Gives the indices of each record's image, without those that cannot be read."""


@dataclass(frozen=True)
class ShardSettings:
    """What decides about every byte of the shards, besides the images and their captions.

    Attributes:
        model: SHA-256 of the tokenizer's weights.
        data: fingerprint of the data set.
        sizes: entries of each part of the codebook.
        form: `text` for prompts as text, one a line; `ids` for one image a line, with its captions.
        order: of a prompt; both gives two of each.
        rows: whether a row token follows each row.
        shard_size: images of a shard.
        image_size: side of the images in pixels; None where finished tokens are read.
    """

    model: str
    data: str
    sizes: tuple[int, ...]
    form: Form
    order: Order
    rows: bool
    shard_size: int
    image_size: int | None


def write_shards(
    out: Path,
    settings: ShardSettings,
    records: Mapping[str, list[Record]],
    encode: Encoder,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write SPLIT-00000.jsonl and so on, README.md and manifest.json; return the manifest.

    Each shard is written in one atomic step and then noted in the manifest with its hash. With `resume`, shards that
    are noted and intact are kept, and the result is the same as that of one run.

    Args:
        out: the folder; new or empty unless `resume` is set.
        settings: what decides about the bytes.
        records: of each split.
        encode: gives the indices of images.
        resume: continue an export that was stopped.
        progress: called with (images, total).

    Raises:
        UsageError: `out` holds something else, or an export with other settings.
        FileError: another process writes there, or a file cannot be written.
    """
    _check_place(out, resume)
    with lock(out / LOCK, out):
        manifest = _open_manifest(out, settings, records, resume)
        done, total = 0, sum(map(len, records.values()))
        for name, chunk in _chunks(records, settings.shard_size):
            if not _is_intact(out / name, manifest["shards"].get(name)):
                manifest["shards"][name] = _write_shard(out / name, settings, chunk, encode)
                files.write_json(out / MANIFEST, manifest)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        manifest["complete"] = True
        files.write_text(out / "README.md", _card(settings, manifest, records))
        files.write_json(out / MANIFEST, manifest)
    return manifest


def _check_place(out: Path, resume: bool) -> None:
    if not out.exists() or (out.is_dir() and all(path.name == LOCK for path in out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise UsageError(f"{out} already exists and is not empty; choose another path.")
    if not resume:
        raise UsageError(f"{out} holds exported tokens; continue them with --resume, or choose another path.")


def _open_manifest(
    out: Path, settings: ShardSettings, records: Mapping[str, list[Record]], resume: bool
) -> dict[str, Any]:
    """The manifest to continue; raises UsageError if it is of other settings."""
    vocabulary = ImageVocabulary(settings.sizes, settings.rows)
    new: dict[str, Any] = {
        "format": FORMAT,
        "kind": "image tokens",
        "complete": False,
        "settings": {**asdict(settings), "sizes": list(settings.sizes)},
        "images": {split: len(chosen) for split, chosen in records.items()},
        "vocabulary": {
            "entry": f"{PREFIX}{{}}>",
            "entries": vocabulary.entries,
            "special": {name: vocabulary.entries + i for i, name in enumerate((BEGIN, END, ROW))},
        },
        "shards": {},
    }
    if not resume or not (out / MANIFEST).is_file():
        files.write_json(out / MANIFEST, new)
        return new
    stored = files.read_json(out / MANIFEST)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT or not isinstance(stored.get("shards"), dict):
        raise FileError(f"{out / MANIFEST} is not the manifest of exported tokens; choose another path.")
    for key in ("settings", "images", "vocabulary"):
        if stored.get(key) != new[key]:
            raise UsageError(f"{out} cannot be resumed: its {_difference(stored.get(key), new[key])}.")
    return {**new, "shards": stored["shards"]}


def _difference(stored: Any, new: Mapping[str, Any]) -> str:
    found = stored if isinstance(stored, dict) else {}
    name = next((name for name in new if found.get(name) != new[name]), None)
    if name is None:
        return f"splits are {sorted(found)}, and now {sorted(new)}"
    return f"{name} is {str(found.get(name))[:80]}, and now {str(new[name])[:80]}"


def _chunks(records: Mapping[str, list[Record]], size: int) -> Iterator[tuple[str, list[Record]]]:
    for split, chosen in records.items():
        for number, start in enumerate(range(0, len(chosen), size)):
            yield f"{split}-{number:05d}.jsonl", chosen[start : start + size]


def _is_intact(path: Path, noted: Any) -> bool:
    return isinstance(noted, dict) and path.is_file() and files.sha256(path) == noted.get("sha256")


def _write_shard(path: Path, settings: ShardSettings, records: list[Record], encode: Encoder) -> dict[str, Any]:
    lines, images = [], 0
    for record, indices in encode(records):
        images += 1
        lines += [json.dumps(line, ensure_ascii=False) + "\n" for line in to_lines(record, indices, settings)]
    data = "".join(lines).encode()
    files.write_bytes(path, data)
    return {"sha256": files.sha256_bytes(data), "lines": len(lines), "images": images, "missing": len(records) - images}


def to_lines(record: Record, indices: Int[Tensor, "h w *c"], settings: ShardSettings) -> list[dict[str, Any]]:
    """The lines of one image: one with ids and captions, or one for each prompt.

    A caption is the long text and each caption of the record; an image without any is a prompt by itself.
    """
    vocabulary = ImageVocabulary(settings.sizes, settings.rows)
    [ids] = vocabulary.to_ids(indices[None])
    captions = [*record.captions, *([record.long_text] if record.long_text else [])]
    if settings.form == "ids":
        return [{"file_name": record.file_name, "image_ids": ids, "captions": captions}]
    image, lines = vocabulary.to_text(ids), []
    for caption in map(escape_caption, captions or [""]):
        prompts = {"image-text": image + caption, "text-image": caption + image}
        orders = list(prompts) if settings.order == "both" else [settings.order]
        chosen = dict.fromkeys(prompts[order] for order in orders)  # without a caption both are the same
        lines += [{"file_name": record.file_name, "text": prompt} for prompt in chosen]
    return lines


def _card(settings: ShardSettings, manifest: Mapping[str, Any], records: Mapping[str, list[Record]]) -> str:
    """The README.md; its head says to `datasets` which files belong to which split."""
    splits = [split for split in SPLITS if records.get(split)]
    files_of = "".join(f'  - split: {PUBLISHED_SPLITS[split]}\n    path: "{split}-*.jsonl"\n' for split in splits)
    images = sum(shard["images"] for shard in manifest["shards"].values())
    vocabulary = ImageVocabulary(settings.sizes, settings.rows)
    columns = (
        "`file_name`, `image_ids` (the sequence of the image) and `captions`"
        if settings.form == "ids"
        else "`file_name` and `text`, a prompt of image tokens and a caption"
    )
    return f"""---
configs:
- config_name: default
  data_files:
{files_of}---

# Image tokens

The tokens of {images:,} images beside their captions. Each line has {columns}.

| | |
|---|---|
| sha256 of the tokenizer's weights | {settings.model} |
| data set | metadata {settings.data[:12]}… |
| tokens | `{PREFIX}0>` to `{PREFIX}{vocabulary.entries - 1}>`, ids 0 to {vocabulary.entries - 1} |
| special tokens | `{BEGIN}` {vocabulary.entries}, `{END}` {vocabulary.entries + 1}, `{ROW}` {vocabulary.entries + 2} |
| entries of each part | {" + ".join(map(str, settings.sizes))}; at a position its parts follow each other |
| row tokens | {"after each row" if settings.rows else "none"} |

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder")
```
"""
