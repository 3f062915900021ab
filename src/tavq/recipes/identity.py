"""Which settings decide what a run computes, and how two runs are recognised as the same method."""

from collections.abc import Mapping
from typing import Any

COSMETIC_SETTINGS = frozenset({
    "description", "published", "data.workers", "data.fault_budget", "train.log_every", "train.sample_every",
    "train.checkpoint_every", "train.keep", "train.profile", "train.alarm_usage", "train.evaluate_first",
    "train.sharding",
    "train.accumulate", "train.recompute", "train.compile", "train.tf32", "train.cudnn_benchmark",
})  # fmt: skip
"""Settings of a recipe, as `flat` names them, that change no weight but by rounding: runs that differ only in these are
the same."""

METHOD_HASH = "method_hash"
"""Key of `training.provenance.method_hash` in a model folder's config.json and in provenance.json."""

TOKENIZER_METHOD_HASH = "tokenizer_method_hash"
"""The method hash of the tokenizer that a task was trained on, in the same two files of the task."""

_OLD_KEYS = {METHOD_HASH: "seedless", TOKENIZER_METHOD_HASH: "tokenizer_seedless"}


def stored_hash(metadata: Mapping[str, Any], key: str) -> str | None:
    """Read METHOD_HASH or TOKENIZER_METHOD_HASH from a config.json or provenance.json of any version."""
    value = metadata.get(key, metadata.get(_OLD_KEYS[key]))
    return None if value is None else str(value)
