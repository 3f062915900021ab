"""What the commands do, as functions that return values, print nothing and raise a `TavqError` where they cannot.

The command line and `import tavq` take their functions from here. Names are imported on first use, so that the help of
a command appears before torch is loaded.
"""

from typing import TYPE_CHECKING

from tavq.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from tavq.api.tasks import commands_of as commands_of
    from tavq.api.tasks import evaluate_task as evaluate_task
    from tavq.api.tasks import train_task as train_task
    from tavq.api.text import build_text_store as build_text_store
    from tavq.api.tokenizers import decode_tokens as decode_tokens
    from tavq.api.tokenizers import encode_folder as encode_folder
    from tavq.api.tokenizers import evaluate as evaluate
    from tavq.api.tokenizers import open_network as open_network
    from tavq.api.tokenizers import train as train
    from tavq.core.config import flatten_settings as flatten_settings
    from tavq.core.config import parse_overrides as parse_overrides
    from tavq.core.files import write_json as write_json
    from tavq.evaluation.protocol import versions as versions
    from tavq.text.statistics import StoreStatistics as StoreStatistics
    from tavq.text.statistics import read_statistics as read_statistics
    from tavq.text.store import TextStore as TextStore

_PLACES = {
    "tavq.api.tasks": ("commands_of", "evaluate_task", "train_task"),
    "tavq.api.text": ("build_text_store",),
    "tavq.api.tokenizers": ("decode_tokens", "encode_folder", "evaluate", "open_network", "train"),
    # what the command line prints with
    "tavq.core.config": ("flatten_settings", "parse_overrides"),
    "tavq.core.files": ("write_json",),
    "tavq.evaluation.protocol": ("versions",),
    "tavq.text.statistics": ("StoreStatistics", "read_statistics"),
    "tavq.text.store": ("TextStore",),
}

__getattr__ = lazy_attributes(__name__, {name: module for module, names in _PLACES.items() for name in names})
