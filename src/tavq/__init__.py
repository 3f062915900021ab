"""Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.

Each command has a function here that does the same: `tavq.train`, `tavq.evaluate`, `tavq.encode_folder` and so on.
Names are imported on first use, so that the command line answers before torch is loaded.
"""

from typing import TYPE_CHECKING

from tavq.core.lazy import lazy_attributes
from tavq.core.version import __version__

if TYPE_CHECKING:
    from tavq.api.tasks import evaluate_task as evaluate_task
    from tavq.api.tasks import train_task as train_task
    from tavq.api.text import build_text_store as build_text_store
    from tavq.api.tokenizers import decode_tokens as decode_tokens
    from tavq.api.tokenizers import encode_folder as encode_folder
    from tavq.api.tokenizers import evaluate as evaluate
    from tavq.api.tokenizers import train as train
    from tavq.data.folder import FolderDataset as FolderDataset
    from tavq.text.store import TextStore as TextStore
    from tavq.token_file import Tokens as Tokens
    from tavq.tokenizer import Tokenizer as Tokenizer
    from tavq.tokenizer import TokenizerConfig as TokenizerConfig

_HOMES = {
    "FolderDataset": "tavq.data.folder",
    "TextStore": "tavq.text.store",
    "Tokenizer": "tavq.tokenizer",
    "TokenizerConfig": "tavq.tokenizer",
    "Tokens": "tavq.token_file",
    "build_text_store": "tavq.api.text",
    "decode_tokens": "tavq.api.tokenizers",
    "encode_folder": "tavq.api.tokenizers",
    "evaluate": "tavq.api.tokenizers",
    "evaluate_task": "tavq.api.tasks",
    "train": "tavq.api.tokenizers",
    "train_task": "tavq.api.tasks",
}

__all__ = [
    "FolderDataset",
    "TextStore",
    "Tokenizer",
    "TokenizerConfig",
    "Tokens",
    "__version__",
    "build_text_store",
    "decode_tokens",
    "encode_folder",
    "evaluate",
    "evaluate_task",
    "train",
    "train_task",
]

__getattr__ = lazy_attributes(__name__, _HOMES)
