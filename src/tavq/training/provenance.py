"""Where a run comes from, and whether a resumed run is the same one."""

import json
import platform
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from tavq.core import files
from tavq.core.config import build_stored, flatten_settings, read_yaml, rename_settings
from tavq.core.errors import UsageError
from tavq.core.version import __version__
from tavq.data.folder import FolderDataset
from tavq.interfaces import TextSource
from tavq.model_folder import find_model, read_model_config
from tavq.recipes.identity import COSMETIC_SETTINGS
from tavq.recipes.schema import RunRecipe
from tavq.text.store import Manifest

_short = reprlib.Repr()  # of a setting that differs; VQCT's are thousands of words
_short.maxstring, _short.maxlist, _short.maxtuple = 80, 4, 4

PARTS = (
    ("data set", "data_sha256"),
    ("text store", "text"),
    ("tokenizer", "tokenizer"),
    ("tokenizer of segmentation maps", "segmentation_tokenizer"),
)
"""What a run goes on with, and its fact."""

NAMED: dict[str, Callable[[str], Any]] = {
    "train.start_from": lambda name: read_model_config(find_model(name)).get("sha256"),
    "train.perceptual.weights": lambda path: files.sha256(Path(path)),
}
"""Settings that name weights, and what tells these apart."""


def describe(dataset: FolderDataset, text: TextSource | None, device: torch.device) -> dict[str, Any]:
    """Versions, device, and what the data and the text are, ready for JSON."""
    return {
        "tavq": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "data": dataset.folder.resolve().name,
        "data_folder": str(dataset.folder.resolve()),
        "data_sha256": dataset.fingerprint,
        "images": len(dataset),
        "text": _describe_text(text),
    }


def _describe_text(text: TextSource | None) -> dict[str, Any] | None:
    """The store's manifest, where the source is a store."""
    manifest = getattr(text, "manifest", None)
    return manifest.model_dump(mode="json") if isinstance(manifest, BaseModel) else None


def method_hash(recipe: RunRecipe, metadata: Mapping[str, Any]) -> str:
    """A sha256 of all that decided a run but its seed: runs that share it are trainings of one and the same method.

    Of weights that the recipe names their content counts, and not their place.
    """
    free = COSMETIC_SETTINGS | {"train.seed"}
    settings = {key: value for key, value in flatten_settings(recipe.model_dump(mode="json")) if key not in free}
    for key, content in NAMED.items():
        if settings.get(key) is not None:
            settings[key] = content(settings[key])
    made_of = [settings, {key: metadata.get(key) for _, key in PARTS}]
    return files.sha256_bytes(json.dumps(made_of, sort_keys=True).encode())


def check_same_run(run: Path, recipe: RunRecipe, metadata: Mapping[str, Any]) -> None:
    """Raise UsageError unless `run` was started with these settings and the data, text and tokenizer of `metadata`."""
    path = run / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"There is no run in {run} to resume; start without --resume.")
    stored = build_stored(type(recipe), read_yaml(files.read_text(path), str(path)), str(path))
    before = dict(flatten_settings(stored.model_dump(mode="json")))
    now = dict(flatten_settings(recipe.model_dump(mode="json")))
    free = COSMETIC_SETTINGS | (
        {"train.steps"} if recipe.train.decay == "none" else set()
    )  # a decay follows from the steps
    fixed = sorted(key for key in {*before, *now} - free if before.get(key) != now.get(key))
    if fixed:
        changes = ", ".join(
            f"{key} was {_short.repr(before.get(key))}, now {_short.repr(now.get(key))}" for key in fixed
        )
        raise UsageError(f"{run} was started with other settings: {changes}. Use the same, or another --out.")
    started = files.read_json(run / "provenance.json")
    if isinstance(started.get("text"), Mapping):
        started["text"] = rename_settings(started["text"], Manifest.RENAMED, warn=False)
    for what, key in PARTS:
        if started.get(key) != metadata.get(key):
            raise UsageError(f"The {what} changed since {run} was started; resuming would mix the two.")
