"""The record of where a run comes from, and the check that a resumed run is the same one."""

import json
import platform
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from tavq.core import files
from tavq.core.config import build_stored, flatten_settings, read_yaml
from tavq.core.errors import FileError, UsageError
from tavq.core.version import __version__
from tavq.data.folder import FolderDataset
from tavq.interfaces import TextSource
from tavq.model_folder import find_model, read_model_config
from tavq.recipes.identity import COSMETIC_SETTINGS
from tavq.recipes.schema import RunRecipe
from tavq.text.store import Manifest
from tavq.tokenizer_config import with_literal_alignment

_short = reprlib.Repr()
"""Shortens a setting that differs: VQCT's are thousands of words."""
_short.maxstring, _short.maxlist, _short.maxtuple = 80, 4, 4

MAY_CHANGE = COSMETIC_SETTINGS | {"train.steps"}
"""Settings that may change when a run is resumed."""

INPUTS = (
    ("data set", "data_sha256"),
    ("text store", "text"),
    ("tokenizer", "tokenizer"),
    ("tokenizer of segmentation maps", "segmentation_tokenizer"),
)
"""What a run is trained on, and its key in the metadata."""

WEIGHT_SETTINGS: dict[str, Callable[[str], Any]] = {
    "train.start_from": lambda name: read_model_config(find_model(name)).get("sha256"),
    "train.perceptual.weights": lambda path: files.sha256(Path(path)),
}
"""Settings that name weights by a path, and the hash of these weights."""


def describe(dataset: FolderDataset, text: TextSource | None, device: torch.device) -> dict[str, Any]:
    """Versions, device, data and text of a run, ready for JSON."""
    return {
        "tavq": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "data": dataset.name,
        "data_folder": dataset.address,
        "data_sha256": dataset.fingerprint,
        "images": len(dataset),
        "text": _describe_text(text),
    }


def _describe_text(text: TextSource | None) -> dict[str, Any] | None:
    """The manifest, if the text comes from a store."""
    manifest = getattr(text, "manifest", None)
    return manifest.model_dump(mode="json") if isinstance(manifest, BaseModel) else None


def read_provenance(run: Path) -> dict[str, Any]:
    """The provenance.json of a run; FileError if it is not one that `write_json` can write again."""
    path = run / "provenance.json"
    started = files.read_json(path)
    try:
        json.dumps(started, allow_nan=False)
    except ValueError:
        started = None
    if not isinstance(started, dict):
        raise FileError(f"{path} was altered: it must be a JSON object with finite numbers. Restore it from a backup.")
    return started


def method_hash(recipe: RunRecipe, metadata: Mapping[str, Any]) -> str:
    """A sha256 of everything that decides a run except its seed; runs that share it are replicates of one method.

    Weights that the recipe names count by their content, not by their path.
    """
    ignored = COSMETIC_SETTINGS | {"train.seed"}
    settings = {key: value for key, value in flatten_settings(recipe.model_dump(mode="json")) if key not in ignored}
    for key, hash_weights in WEIGHT_SETTINGS.items():
        if settings.get(key) is not None:
            settings[key] = hash_weights(settings[key])
    inputs = {key: metadata.get(key) for _, key in INPUTS}
    return files.sha256_bytes(json.dumps([settings, inputs], sort_keys=True).encode())


def changed_method_hash(method: str, changes: Sequence[Mapping[str, Any]]) -> str:
    """The hash of a method whose schedule changed while it ran, by `RunFolder.schedule_changes`."""
    return files.sha256_bytes(json.dumps([method, list(changes)], sort_keys=True).encode())


def _as_extended(started: dict[str, Any], now: Any) -> dict[str, Any]:
    """The manifest of a store as it is after token-level text was added, which leaves all that was there the same."""
    added = isinstance(now, Mapping) and now.get("full_text") and not started["full_text"]
    return started | {name: now[name] for name in ("full_text", "bytes", "sha256")} if added else started


def check_same_run(run: Path, recipe: RunRecipe, metadata: Mapping[str, Any]) -> RunRecipe:
    """Return the recipe of `run`; UsageError if its settings, data, text or tokenizer differ from those given.

    The number of steps may differ, and what changes no weight.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"There is no run in {run} to resume; start without --resume.")
    written = read_yaml(files.read_text(path, files.MAX_SETTINGS), str(path))
    if isinstance(written.get("model"), Mapping):
        written["model"] = with_literal_alignment(written["model"])
    stored = build_stored(type(recipe), written, str(path))
    before = dict(flatten_settings(stored.model_dump(mode="json")))
    now = dict(flatten_settings(recipe.model_dump(mode="json")))
    changed = sorted(key for key in {*before, *now} - MAY_CHANGE if before.get(key) != now.get(key))
    if changed:
        listed = [f"{key} was {_short.repr(before.get(key))}, now {_short.repr(now.get(key))}" for key in changed]
        raise UsageError(
            f"{run} was started with other settings: {', '.join(listed)}. Use the same settings, or another --out."
        )
    started = read_provenance(run)
    if isinstance(started.get("text"), Mapping):  # an older version may have written other names
        manifest = build_stored(Manifest, started["text"], str(run / "provenance.json"))
        started["text"] = _as_extended(manifest.model_dump(mode="json"), metadata.get("text"))
    for name, key in INPUTS:
        if started.get(key) != metadata.get(key):
            raise UsageError(
                f"The {name} changed since {run} was started, and resuming would mix the two. Restore it, or start "
                "another run with another --out."
            )
    return stored
