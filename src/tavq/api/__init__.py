"""What the commands do, as functions that return values, print nothing and raise a `TavqError` where they cannot.

The command line and `import tavq` take their functions from here. Names are imported on first use, so that the help of
a command appears before torch is loaded.
"""

from typing import TYPE_CHECKING

from tavq.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from tavq.api.benchmarks import check_floors as check_floors
    from tavq.api.benchmarks import run_bench as run_bench
    from tavq.api.benchmarks import write_bench as write_bench
    from tavq.api.checkpoints import export_model as export_model
    from tavq.api.checkpoints import import_checkpoint as import_checkpoint
    from tavq.api.checkpoints import list_export_targets as list_export_targets
    from tavq.api.data import check_dataset as check_dataset
    from tavq.api.data import export_dataset as export_dataset
    from tavq.api.data import import_dataset as import_dataset
    from tavq.api.data import list_exporters as list_exporters
    from tavq.api.data import list_importers as list_importers
    from tavq.api.data import make_scenes as make_scenes
    from tavq.api.descriptions import DESCRIPTION_FILES as DESCRIPTION_FILES
    from tavq.api.descriptions import DescriptionRun as DescriptionRun
    from tavq.api.descriptions import describe_images as describe_images
    from tavq.api.explore import check_explorer as check_explorer
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
    from tavq.api.recipes import show_recipe as show_recipe
    from tavq.api.reports import compare as compare
    from tavq.api.reports import write_report as write_report
    from tavq.api.scoring import convert_weights as convert_weights
    from tavq.api.scoring import score_answers as score_answers
    from tavq.api.scoring import score_boxes as score_boxes
    from tavq.api.scoring import score_captions as score_captions
    from tavq.api.scoring import score_images as score_images
    from tavq.api.search import build_index as build_index
    from tavq.api.search import search_index as search_index
    from tavq.api.studies import StudyResult as StudyResult
    from tavq.api.studies import list_studies as list_studies
    from tavq.api.studies import run_study as run_study
    from tavq.api.studies import tabulate_study as tabulate_study
    from tavq.api.tasks import commands_of as commands_of
    from tavq.api.tasks import evaluate_task as evaluate_task
    from tavq.api.tasks import train_task as train_task
    from tavq.api.text import build_text_store as build_text_store
    from tavq.api.token_shards import encode_shards as encode_shards
    from tavq.api.tokenizers import decode_tokens as decode_tokens
    from tavq.api.tokenizers import encode_folder as encode_folder
    from tavq.api.tokenizers import evaluate as evaluate
    from tavq.api.tokenizers import train as train
    from tavq.api.understanding import Answer as Answer
    from tavq.api.understanding import ask as ask
    from tavq.api.understanding import caption as caption
    from tavq.api.understanding import fill as fill
    from tavq.api.understanding import ground as ground
    from tavq.api.understanding import reference_captions as reference_captions
    from tavq.bench.page import BENCH_COLUMNS as BENCH_COLUMNS
    from tavq.bench.page import make_cells as make_cells
    from tavq.bench.run import BenchResult as BenchResult
    from tavq.bench.run import absent_lines as absent_lines
    from tavq.bench.run import write_floors as write_floors
    from tavq.core.config import flatten_settings as flatten_settings
    from tavq.core.config import parse_overrides as parse_overrides
    from tavq.core.config import read_yaml as read_yaml
    from tavq.core.devices import device_of_job as device_of_job
    from tavq.core.devices import use_device as use_device
    from tavq.core.files import write_json as write_json
    from tavq.core.precision import use_precision as use_precision
    from tavq.doctor.examination import examine as examine
    from tavq.doctor.finding import Finding as Finding
    from tavq.doctor.finding import findings_as_json as findings_as_json
    from tavq.doctor.finding import give_verdict as give_verdict
    from tavq.recipes.study import Study as Study
    from tavq.recipes.study import load_study as load_study
    from tavq.report.run import Run as Run
    from tavq.report.run import read_runs as read_runs
    from tavq.report.task.comparison import find_differences as find_differences
    from tavq.report.task.tables import format_cells as format_cells
    from tavq.report.task.tables import make_task_tables as make_task_tables
    from tavq.report.task.tables import table_as_json as table_as_json
    from tavq.text.statistics import StoreStatistics as StoreStatistics
    from tavq.text.statistics import read_statistics as read_statistics
    from tavq.text.store import TextStore as TextStore

_HOMES = {
    "BENCH_COLUMNS": "tavq.bench.page",
    "BenchResult": "tavq.bench.run",
    "absent_lines": "tavq.bench.run",
    "check_floors": "tavq.api.benchmarks",
    "make_cells": "tavq.bench.page",
    "run_bench": "tavq.api.benchmarks",
    "write_bench": "tavq.api.benchmarks",
    "write_floors": "tavq.bench.run",
    "Answer": "tavq.api.understanding",
    "ask": "tavq.api.understanding",
    "build_index": "tavq.api.search",
    "build_text_store": "tavq.api.text",
    "caption": "tavq.api.understanding",
    "check_dataset": "tavq.api.data",
    "device_of_job": "tavq.core.devices",
    "examine": "tavq.doctor.examination",
    "Finding": "tavq.doctor.finding",
    "findings_as_json": "tavq.doctor.finding",
    "give_verdict": "tavq.doctor.finding",
    "use_device": "tavq.core.devices",
    "use_precision": "tavq.core.precision",
    "check_explorer": "tavq.api.explore",
    "commands_of": "tavq.api.tasks",
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
    "leaderboard": "tavq.api.leaderboards",
    "list_export_targets": "tavq.api.checkpoints",
    "list_exporters": "tavq.api.data",
    "list_finetuning_recipes": "tavq.api.recipes",
    "list_importers": "tavq.api.data",
    "list_recipes": "tavq.api.recipes",
    "list_studies": "tavq.api.studies",
    "list_task_recipes": "tavq.api.recipes",
    "load_study": "tavq.recipes.study",
    "make_scenes": "tavq.api.data",
    "open_explorer": "tavq.api.explore",
    "push_model": "tavq.api.hub",
    "reference_captions": "tavq.api.understanding",
    "run_study": "tavq.api.studies",
    "score_answers": "tavq.api.scoring",
    "score_boxes": "tavq.api.scoring",
    "score_captions": "tavq.api.scoring",
    "score_images": "tavq.api.scoring",
    "search_index": "tavq.api.search",
    "serve_explorer": "tavq.api.explore",
    "show_recipe": "tavq.api.recipes",
    "tabulate_study": "tavq.api.studies",
    "train": "tavq.api.tokenizers",
    "train_task": "tavq.api.tasks",
    "write_report": "tavq.api.reports",
    # what the command line prints with
    "DESCRIPTION_FILES": "tavq.api.descriptions",
    "DescriptionRun": "tavq.api.descriptions",
    "Run": "tavq.report.run",
    "Study": "tavq.recipes.study",
    "StudyResult": "tavq.api.studies",
    "StoreStatistics": "tavq.text.statistics",
    "TextStore": "tavq.text.store",
    "table_as_json": "tavq.report.task.tables",
    "format_cells": "tavq.report.task.tables",
    "find_differences": "tavq.report.task.comparison",
    "flatten_settings": "tavq.core.config",
    "parse_overrides": "tavq.core.config",
    "read_yaml": "tavq.core.config",
    "read_runs": "tavq.report.run",
    "read_statistics": "tavq.text.statistics",
    "make_task_tables": "tavq.report.task.tables",
    "write_json": "tavq.core.files",
}

__getattr__ = lazy_attributes(__name__, _HOMES)
