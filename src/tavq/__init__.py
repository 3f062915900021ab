"""Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.

Each command has a function here that does the same: `tavq.train`, `tavq.evaluate`, `tavq.encode_folder` and so on.
Names are imported on first use, so that the command line answers before torch is loaded.
"""

from typing import TYPE_CHECKING

from tavq.core.lazy import lazy_attributes
from tavq.core.version import __version__

if TYPE_CHECKING:
    from tavq.api.checkpoints import export_model as export_model
    from tavq.api.checkpoints import import_checkpoint as import_checkpoint
    from tavq.api.data import check_dataset as check_dataset
    from tavq.api.data import export_dataset as export_dataset
    from tavq.api.data import import_dataset as import_dataset
    from tavq.api.data import make_scenes as make_scenes
    from tavq.api.descriptions import describe_images as describe_images
    from tavq.api.explore import export_explorer as export_explorer
    from tavq.api.explore import open_explorer as open_explorer
    from tavq.api.explore import serve_explorer as serve_explorer
    from tavq.api.exports import export_tokens as export_tokens
    from tavq.api.exports import export_vocabulary as export_vocabulary
    from tavq.api.generation import complete as complete
    from tavq.api.generation import generate as generate
    from tavq.api.hub import push_model as push_model
    from tavq.api.leaderboards import leaderboard as leaderboard
    from tavq.api.recipes import list_finetuning_recipes as list_finetuning_recipes
    from tavq.api.recipes import list_recipes as list_recipes
    from tavq.api.recipes import list_task_recipes as list_task_recipes
    from tavq.api.reports import compare as compare
    from tavq.api.reports import write_report as write_report
    from tavq.api.scoring import convert_weights as convert_weights
    from tavq.api.scoring import score_answers as score_answers
    from tavq.api.scoring import score_boxes as score_boxes
    from tavq.api.scoring import score_captions as score_captions
    from tavq.api.scoring import score_images as score_images
    from tavq.api.search import build_index as build_index
    from tavq.api.search import search_index as search_index
    from tavq.api.studies import run_study as run_study
    from tavq.api.tasks import evaluate_task as evaluate_task
    from tavq.api.tasks import train_task as train_task
    from tavq.api.text import build_text_store as build_text_store
    from tavq.api.token_shards import encode_shards as encode_shards
    from tavq.api.tokenizers import decode_tokens as decode_tokens
    from tavq.api.tokenizers import encode_folder as encode_folder
    from tavq.api.tokenizers import evaluate as evaluate
    from tavq.api.tokenizers import train as train
    from tavq.api.understanding import ask as ask
    from tavq.api.understanding import caption as caption
    from tavq.api.understanding import fill as fill
    from tavq.api.understanding import ground as ground
    from tavq.core.devices import use_device as use_device
    from tavq.core.precision import use_precision as use_precision
    from tavq.data.folder import FolderDataset as FolderDataset
    from tavq.tasks.model_folder import load_task as load_task
    from tavq.text.store import TextStore as TextStore
    from tavq.token_file import Tokens as Tokens
    from tavq.token_folder.reading import TokenShards as TokenShards
    from tavq.tokenizer import Tokenizer as Tokenizer
    from tavq.tokenizer import TokenizerConfig as TokenizerConfig

_HOMES = {
    "FolderDataset": "tavq.data.folder",
    "TextStore": "tavq.text.store",
    "TokenShards": "tavq.token_folder.reading",
    "Tokenizer": "tavq.tokenizer",
    "TokenizerConfig": "tavq.tokenizer",
    "Tokens": "tavq.token_file",
    "ask": "tavq.api.understanding",
    "build_index": "tavq.api.search",
    "build_text_store": "tavq.api.text",
    "caption": "tavq.api.understanding",
    "check_dataset": "tavq.api.data",
    "compare": "tavq.api.reports",
    "complete": "tavq.api.generation",
    "convert_weights": "tavq.api.scoring",
    "decode_tokens": "tavq.api.tokenizers",
    "describe_images": "tavq.api.descriptions",
    "encode_folder": "tavq.api.tokenizers",
    "encode_shards": "tavq.api.token_shards",
    "evaluate": "tavq.api.tokenizers",
    "evaluate_task": "tavq.api.tasks",
    "export_dataset": "tavq.api.data",
    "export_explorer": "tavq.api.explore",
    "export_model": "tavq.api.checkpoints",
    "export_tokens": "tavq.api.exports",
    "export_vocabulary": "tavq.api.exports",
    "fill": "tavq.api.understanding",
    "generate": "tavq.api.generation",
    "ground": "tavq.api.understanding",
    "import_checkpoint": "tavq.api.checkpoints",
    "import_dataset": "tavq.api.data",
    "list_finetuning_recipes": "tavq.api.recipes",
    "leaderboard": "tavq.api.leaderboards",
    "list_recipes": "tavq.api.recipes",
    "list_task_recipes": "tavq.api.recipes",
    "load_task": "tavq.tasks.model_folder",
    "make_scenes": "tavq.api.data",
    "open_explorer": "tavq.api.explore",
    "push_model": "tavq.api.hub",
    "run_study": "tavq.api.studies",
    "score_answers": "tavq.api.scoring",
    "score_boxes": "tavq.api.scoring",
    "score_captions": "tavq.api.scoring",
    "score_images": "tavq.api.scoring",
    "search_index": "tavq.api.search",
    "serve_explorer": "tavq.api.explore",
    "train": "tavq.api.tokenizers",
    "train_task": "tavq.api.tasks",
    "use_device": "tavq.core.devices",
    "use_precision": "tavq.core.precision",
    "write_report": "tavq.api.reports",
}

__all__ = [
    "FolderDataset",
    "TextStore",
    "TokenShards",
    "Tokenizer",
    "TokenizerConfig",
    "Tokens",
    "__version__",
    "ask",
    "build_index",
    "build_text_store",
    "caption",
    "check_dataset",
    "compare",
    "complete",
    "convert_weights",
    "decode_tokens",
    "describe_images",
    "encode_folder",
    "encode_shards",
    "evaluate",
    "evaluate_task",
    "export_dataset",
    "export_explorer",
    "export_model",
    "export_tokens",
    "export_vocabulary",
    "fill",
    "generate",
    "ground",
    "import_checkpoint",
    "import_dataset",
    "leaderboard",
    "list_finetuning_recipes",
    "list_recipes",
    "list_task_recipes",
    "load_task",
    "make_scenes",
    "open_explorer",
    "push_model",
    "run_study",
    "score_answers",
    "score_boxes",
    "score_captions",
    "score_images",
    "search_index",
    "serve_explorer",
    "train",
    "train_task",
    "use_device",
    "use_precision",
    "write_report",
]

__getattr__ = lazy_attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
