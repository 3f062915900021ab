"""Import the tokenizers of other projects, and export ours to them."""

from pathlib import Path
from typing import Any

from tavq.api.calls import PathLike, warn
from tavq.core.errors import UsageError, unknown_name
from tavq.interop.card import import_card, import_metadata
from tavq.interop.exporting import export_tokenizer
from tavq.interop.hub import download_checkpoint, is_on_hub
from tavq.interop.importing import import_tokenizer
from tavq.interop.kind import checkpoint_kinds
from tavq.interop.onnx import export_onnx
from tavq.model_folder import DISCRIMINATOR, find_model, read_model_config
from tavq.tokenizer import Tokenizer


def import_checkpoint(
    kind: str,
    source: PathLike,
    *,
    out: PathLike,
    size: int | None = None,
    licence: str | None = None,
    origin: str | None = None,
    file: str | None = None,
) -> Path:
    """Import another project's tokenizer as a model folder, which every other function here takes.

    Args:
        kind: `taming`, `ibq`, `llamagen`, `janus`, `chameleon`, `maskgit`, `open-magvit2` or `diffusers`; `auto`
            recognises all but `ibq`, whose tensors are named as taming's.
        source: a file of weights (safetensors, or torch's), the folder of a diffusers `VQModel`, or a name on the
            Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION.
        out: the model folder to write; new or empty.
        size: side of the images that it was trained on, which `encode_folder` and others use by default.
        licence: of the weights, for the model card.
        origin: where the weights come from, such as a URL, for the model card; by default the name of the file, or the
            commit on the hub.
        file: the file of weights in a repository of the hub; by default the one of a usual name.

    Returns:
        The model folder. Its card says what of the checkpoint was not read; that is logged too.

    Raises:
        UsageError: there is no such kind or source, the source is of another kind, or `out` is not empty.
        FileError: the source is damaged, holds objects instead of weights, or lacks a tensor or has one more.
    """
    place = _new_place(out)
    path = Path(source)
    if is_on_hub(str(source)):
        loaded = download_checkpoint(str(source), file)
        path, origin, licence = loaded.path, origin or loaded.origin, licence or loaded.licence
    elif file is not None:
        raise UsageError(f"--file is for the hub, and {source} is not OWNER/NAME; remove it.")
    imported = import_tokenizer(kind, path)
    size = imported.kind.size if size is None else size
    _check_size(size, imported.tokenizer.factor)
    record = import_metadata(imported, licence, origin)
    metadata: dict[str, Any] = {"imported": record} if size is None else {"imported": record, "size": size}
    discriminator = imported.discriminator
    if discriminator.tensors:
        metadata[DISCRIMINATOR] = discriminator.record()
    imported.tokenizer.save_pretrained(place, import_card(imported, record, size), metadata, discriminator.tensors)
    if record["dropped"]:
        warn(f"Not read: {', '.join(record['dropped'])}.")
    return place


def _new_place(out: PathLike) -> Path:
    place = Path(out)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{place} already exists and is not empty; choose another path.")
    return place


def _check_size(size: int | None, factor: int) -> None:
    if size is not None and (size < 1 or size % factor):
        raise UsageError(f"--size {size} is not accepted: this tokenizer needs multiples of {factor}.")


FOR_LANGUAGE_MODELS = ("tokens", "vocabulary")
"""Targets that need more than a model, and have functions of their own."""


def list_export_targets() -> list[str]:
    """Return every name that `tavq export --to` takes."""
    return sorted([*checkpoint_kinds, "onnx", *FOR_LANGUAGE_MODELS])


def export_model(model: PathLike, *, to: str, out: PathLike) -> Path:
    """Export a tokenizer for other projects; an aligner is left out, as nobody else has one.

    Args:
        model: a model folder, a run folder or a hub name.
        to: the checkpoint of another project, `taming`, `ibq`, `llamagen`, `janus`, `chameleon`, `maskgit`,
            `open-magvit2` or `diffusers`; or `onnx`, which needs the extra `tavq[onnx]`.
        out: what to write: for diffusers the folder of a `VQModel`, for onnx a folder with encoder.onnx (images to
            indices), decoder.onnx (indices to images) and a README.md, else a safetensors file.

    Returns:
        The file or folder. Importing a checkpoint gives the same weights, bit for bit.

    Raises:
        UsageError: there is no such model or kind, the kind's code computes something else, or `out` exists.
        FileError: the model is damaged, or `out` cannot be written.
    """
    if to not in list_export_targets():
        raise UsageError(unknown_name("target of the export", to, list_export_targets()))
    if to in FOR_LANGUAGE_MODELS:
        raise UsageError(f"export_model does not write {to}; call tavq.export_{to}.")
    place, folder = _new_place(out), find_model(str(model))
    tokenizer, stored = Tokenizer.from_pretrained(folder), read_model_config(folder)
    if to == "onnx":
        agreement = export_onnx(tokenizer, place, stored.get("size"), stored.get("sha256"))
        if agreement.equal < agreement.indices or agreement.pixel > 1e-4:
            warn(
                f"onnxruntime and torch agree on {agreement.equal:,} of {agreement.indices:,} indices of a random "
                f"image, and their pixels differ by {agreement.pixel:.1e} at most."
            )
    else:
        kind = checkpoint_kinds[to]()
        kind.write(place, export_tokenizer(tokenizer, kind, stored.get("size")))
    if tokenizer.aligner is not None:
        warn("The aligner is not exported: codes and images are the same without it.")
    return place
