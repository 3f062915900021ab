"""Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.

The public names are imported on first use, so that the command line answers before torch is loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tavq.core.version import __version__

if TYPE_CHECKING:
    from tavq.data.folder import FolderDataset as FolderDataset
    from tavq.text.store import TextStore as TextStore
    from tavq.tokenizer import Tokenizer as Tokenizer
    from tavq.tokenizer import TokenizerConfig as TokenizerConfig

_HOMES = {
    "Tokenizer": "tavq.tokenizer",
    "TokenizerConfig": "tavq.tokenizer",
    "FolderDataset": "tavq.data.folder",
    "TextStore": "tavq.text.store",
}

__all__ = ["FolderDataset", "TextStore", "Tokenizer", "TokenizerConfig", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tavq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
