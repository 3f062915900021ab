"""`tavq evaluate`, `encode` and `decode`: use a trained tokenizer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.cli import console
from tavq.cli.console import Count
from tavq.core.errors import DataError, UsageError

BATCH = 32
UNLISTED = ("size", "top_entries", "feature_weights", "intervals", "protocol")
"""What an evaluation's JSON holds beside its figures; the table leaves it out."""


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
    json: Path | None = None,
) -> None:
    """Measures reconstruction, codebook and alignment on a split; also written into the run folder.

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m tavq evaluate …

    Example: tavq evaluate run --data scenes --split test

    Args:
        model: A model folder, a run folder or a hub name.
        data: A folder data set.
        split: train, val or test.
        text: The text store; by default DATA/text where it exists.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        limit: Measure only so many images.
        size: Side of the images; by default the size the model was trained at.
        json: Write the figures to this file too.
    """
    from tavq.ops.collective import join_processes, rank

    with join_processes():
        result = run_evaluation(model, data, split, text, features, limit, size)
        if rank() == 0:
            _tell(f"{model} on {data} ({split})", result)
            console.write_json(json, result)


def _tell(title: str, result: Mapping[str, Any]) -> None:
    from tavq.core.config import flatten_settings

    figures = {key: value for key, value in result.items() if key not in UNLISTED and not key.endswith("_warning")}
    ends = result["intervals"]
    rows = [
        [key, value, console.interval(ends.get(key))]
        for key, value in flatten_settings(figures)
        if not isinstance(value, str)
    ]
    console.table(title, ["metric", "value", "95 %"], rows)
    for key, value in result.items():
        if key.endswith("_warning") and value:
            console.say(f"{key.removesuffix('_warning')}: {value}")


def run_evaluation(
    model: str,
    data: Path,
    split: str,
    text: Path | None = None,
    features: tuple[str, ...] = ("scenes",),
    limit: int | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """Evaluates and, where the model lies in a run folder, writes evaluation.json there.

    Processes that were started together each measure a part, and all return the whole.
    """
    from tavq.cli.protocol import protocol
    from tavq.core import files
    from tavq.core.devices import default_device
    from tavq.data.folder import FolderDataset
    from tavq.data.loader import EvaluationLoader
    from tavq.evaluation.tokenizer import evaluate as measure
    from tavq.model_folder import find_model, read_model_config
    from tavq.ops.collective import rank, world_size
    from tavq.text.store import TextStore
    from tavq.tokenizer import Tokenizer

    folder = find_model(model)
    tokenizer = Tokenizer.from_pretrained(folder).to(default_device())
    dataset = FolderDataset(data, split)
    store = TextStore.find(data, text, verify=True)
    if store is not None and tokenizer.aligner is not None:
        store.check_encoder(read_model_config(folder).get("text"))
    loader = EvaluationLoader(dataset, data_config(folder, size), BATCH, store, limit, rank(), world_size())
    batches: Iterable[Any] = loader
    if store is not None and tokenizer.aligner is not None and not tokenizer.aligner.matches_vocabulary(store):
        _say_once("The text store has other tokens than the one of the training; masked words are not measured.")
        batches = (without_tokens(batch) for batch in loader)
    networks = [open_network(name).to(default_device()) for name in features]
    total = min(len(dataset), limit or len(dataset))
    with console.bar(f"Evaluating {model}", total) if rank() == 0 else nullcontext() as bar:
        shown = None if bar is None else lambda done: bar(min(done * world_size(), total))
        measured = measure(tokenizer, batches, networks, shown)
    loader.join_faults()
    made = protocol(measured["protocol"], folder, dataset, store, tokenizer, limit, BATCH)
    result = {"model": str(model), "data": data.name, "data_sha256": dataset.fingerprint, "split": split}
    result |= measured | {"faults": len(loader.faults), "protocol": made}
    if rank() == 0:
        console.tell_faults(loader.faults)
        if folder.name == "model" and (folder.parent / "recipe.yaml").is_file():
            files.write_json(folder.parent / "evaluation.json", result)
    return result


def _say_once(text: str) -> None:
    from tavq.ops.collective import rank

    if rank() == 0:
        console.say(text)


def without_tokens(batch: Any) -> Any:
    """A batch whose whole texts do not say which tokens they are."""
    if batch.text is None or batch.text.full_text is None:
        return batch
    return replace(batch, text=replace(batch.text, full_text=replace(batch.text.full_text, ids=None)))


def open_network(name: str) -> Any:
    """A feature network from `scenes` or `NAME=WEIGHTS`."""
    from tavq.nets.features.loading import feature_network

    kind, _, weights = name.partition("=")
    return feature_network(kind, Path(weights) if weights else None)


def data_config(folder: Path, size: int | None) -> Any:
    """How images are brought to the size a model was trained at, or another."""
    from tavq.core.config import build
    from tavq.data.loader import DataConfig
    from tavq.model_folder import read_model_config

    trained = read_model_config(folder).get("size")
    if size is None and not isinstance(trained, int):
        raise UsageError(f"{folder / 'config.json'} does not say which image size it was trained at; give --size.")
    return build(DataConfig, {"size": trained if size is None else size}, "The images")


def encode(model: str, source: Path, /, *, out: Path, size: Count | None = None, split: str | None = None) -> None:
    """Turns images into indices.

    Example: tavq encode run scenes --out tokens.safetensors

    Args:
        model: A model folder, a run folder or a hub name.
        source: A folder data set, a folder of images or one image.
        out: The safetensors file: `indices` [n h w] ([n h w c] where the codebook has c > 1 parts), and the file names
            in its metadata.
        size: Side of the images; by default the size the model was trained at.
        split: Only this split of the data set.
    """
    import json

    import torch

    from tavq.core import files
    from tavq.core.devices import default_device
    from tavq.model_folder import find_model, read_model_config
    from tavq.tokenizer import Tokenizer

    folder = find_model(model)
    tokenizer = Tokenizer.from_pretrained(folder).to(default_device())
    keys: list[str] = []
    parts = []
    batches, faults = open_images(source, folder, size, split)
    with console.bar("Encoding") as bar:
        for batch in batches:
            parts.append(tokenizer.encode(batch.images.to(default_device())).cpu())
            keys.extend(batch.keys)
            bar(len(keys))
    if not keys:
        raise DataError(f"Not one image of {source} could be read: {faults[0] if faults else 'it holds none'}.")
    metadata = {
        "keys": json.dumps(keys, ensure_ascii=False),
        "entries": str(tokenizer.entries),
        "model": str(read_model_config(folder).get("sha256")),
    }
    files.write_tensors(out, {"indices": torch.cat(parts).to(torch.int32)}, metadata)
    console.tell_faults(faults)
    console.say(f"{len(keys):,} images are in {out}.")


def open_images(source: Path, folder: Path, size: int | None, split: str | None) -> tuple[Any, list[Any]]:
    """Ordered batches of a data set, a folder of images or one image, and the list of what could not be read."""
    from tavq.data.folder import FolderDataset
    from tavq.data.images import load_image
    from tavq.data.loader import EvaluationLoader
    from tavq.data.transforms import crop_and_resize, to_float
    from tavq.interfaces import Batch

    config = data_config(folder, size)
    if source.is_file():
        return [Batch(to_float(crop_and_resize(load_image(source), config.size)[None]), (source.name,))], []
    loader = EvaluationLoader(FolderDataset(source, split), config, BATCH)
    return loader, loader.faults


def decode(model: str, tokens: Path, /, *, out: Path) -> None:
    """Turns indices back into images.

    Example: tavq decode run tokens.safetensors --out images

    Args:
        model: The model that made the indices.
        tokens: A file that `tavq encode` wrote.
        out: A folder; each image keeps its name, with the ending .png.
    """
    import torch

    from tavq.core import files
    from tavq.core.devices import default_device
    from tavq.core.errors import FileError
    from tavq.data.images import save_png
    from tavq.data.transforms import to_uint8
    from tavq.model_folder import find_model
    from tavq.tokenizer import Tokenizer

    folder = find_model(model)
    tokenizer = Tokenizer.from_pretrained(folder).to(default_device())
    indices, keys = read_tokens(tokens)
    check_maker(tokens, folder, tokenizer.entries)
    if not keys:
        raise FileError(f"{tokens} holds no images.")
    names = png_names(keys)
    with console.bar("Decoding", len(keys)) as bar:
        for start in range(0, len(keys), BATCH):
            part = indices[start : start + BATCH].to(default_device(), torch.int64)
            images = to_uint8(tokenizer.decode(part)).permute(0, 2, 3, 1).cpu().numpy()
            for name, image in zip(names[start : start + BATCH], images, strict=True):
                save_png(files.resolve_inside(out, name), image)
            bar(min(start + BATCH, len(keys)))
    console.say(f"{len(keys):,} images are in {out}.")


def check_maker(tokens: Path, folder: Path, entries: int) -> None:
    """Refuses tokens of a codebook of another size, and says so where the same size is another model's.

    A file without a maker in its metadata is taken as it is.
    """
    from tavq.core.mmap_tensors import MappedTensors
    from tavq.model_folder import read_model_config

    told = MappedTensors(tokens).metadata
    if told.get("entries", str(entries)) != str(entries):
        raise UsageError(
            f"{tokens} was made by a model of {told['entries']} entries, and {folder} has {entries}; decode it with "
            "the model that made it."
        )
    own = read_model_config(folder).get("sha256")
    if told.get("model", own) != own:
        console.say(f"{tokens} was made by another model than {folder}; the images may mean nothing.")


def png_names(keys: Sequence[str]) -> list[str]:
    """Each file name with the ending .png; it is added to the old ending where two would become one."""
    plain = [str(PurePosixPath(key).with_suffix(".png")) for key in keys]
    counts = Counter(plain)
    return [name if counts[name] == 1 else f"{key}.png" for key, name in zip(keys, plain, strict=True)]


def read_tokens(path: Path) -> tuple[Any, list[str]]:
    """Indices [n h w] or [n h w c] and file names of a tokens file."""
    import torch

    from tavq.core import files
    from tavq.core.errors import FileError
    from tavq.core.mmap_tensors import MappedTensors

    tensors = files.read_tensors(path)
    indices = tensors.get("indices")
    keys = files.parse_json(MappedTensors(path).metadata.get("keys", "[]"), f"The metadata of {path}")
    whole = indices is not None and indices.ndim in (3, 4) and indices.dtype in (torch.int32, torch.int64)
    named = isinstance(keys, list) and all(isinstance(key, str) and PurePosixPath(key).name for key in keys)
    if indices is None or not (whole and named and len(keys) == len(indices)):
        raise FileError(f"{path} is not a tokens file: it needs `indices` [n h w] and as many names in its metadata.")
    return indices, keys
