"""The model folder of a task: its network, and the tokenizers that it was made for, so that it loads by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core import files
from tavq.core.config import Config, build_stored, config_of
from tavq.core.errors import FileError, UsageError
from tavq.data.palette import Colours, load_colours
from tavq.model_folder import find_model, match_tensors, read_model_config
from tavq.tasks.base import Task, TokenLayout, tasks
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer

FORMAT = 2
"""Format 1 has other names of weights, which `RENAMED_TENSORS` of the networks' classes map to the current ones."""

READABLE_FORMATS = (1, 2)
BATCH = 16
"""Images of a model's own size that are decoded at once."""

KIND = "task"
TOKENIZER, CONDITION_TOKENIZER = "tokenizer", "segmentation_tokenizer"
"""Folders inside the model folder."""


class TaskConfig(Config):
    """Everything that decides the network of a task."""

    RENAMED: ClassVar = {"given": "condition_layout", "row_width": "feature_width"}

    task: config_of(tasks)
    layout: TokenLayout
    """Of the images' tokens."""
    condition_layout: TokenLayout | None = None
    """Of the segmentation maps' tokens."""
    text_width: int | None = None
    feature_width: int | None = Field(None, ge=1, le=1 << 20)
    """d of the rows that a reading task sees of an image; None of a task that draws."""

    def make(self) -> Task:
        """The network, with drawn weights."""
        kind: Any = tasks[self.task.name]
        made: Task
        if issubclass(kind, UnderstandingTask):
            made = kind(self.task, self.layout, self.feature_width)
        else:
            made = kind(self.task, self.layout, condition_layout=self.condition_layout, text_width=self.text_width)
        return made


@dataclass(frozen=True)
class TaskModel:
    """A trained task with the tokenizers it stands on, in evaluation mode."""

    config: TaskConfig
    task: Any  # a Task; of which kind, `load_task` has checked
    tokenizer: Tokenizer
    condition_tokenizer: Tokenizer | None
    metadata: dict[str, Any]
    """What its maker said of it: data, steps, text encoder, sizes of images."""
    colours: Colours | None = None
    """Of the classes of segmentation maps, where they are not the palette's."""

    def to(self, device: torch.device) -> "TaskModel":
        """All networks on a device."""
        for module in (self.task, self.tokenizer, self.condition_tokenizer):
            if module is not None:
                module.to(device)
        return self

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "b n"], layout: TokenLayout) -> Float[Tensor, "b 3 y x"]:
        """Images in [-1, 1], on the device of the model; some are decoded at a time."""
        device = next(self.tokenizer.parameters()).device
        some = max(1, BATCH * self.config.layout.length // layout.length)
        parts = [self.tokenizer.decode(layout.to_indices(part.to(device))) for part in tokens.split(some)]
        return torch.cat(parts).clamp(-1, 1)


def save_task(
    folder: Path,
    config: TaskConfig,
    task: Task,
    tokenizer: Tokenizer,
    condition_tokenizer: Tokenizer | None,
    card: str,
    metadata: dict[str, Any],
    colours: Colours | None = None,
) -> None:
    """Writes a model folder in one atomic step; `colours` are those on which `condition_tokenizer` was trained."""
    with files.write_folder(folder) as place:
        tokenizer.save_pretrained(place / TOKENIZER)
        if condition_tokenizer is not None:
            kept = {"kind_of_images": "segmentation", "colours": colours}
            condition_tokenizer.save_pretrained(place / CONDITION_TOKENIZER, metadata=kept)
        inner = [path.name for path in place.iterdir()]
        task.write_files(place)
        own = sorted(path.name for path in place.iterdir() if path.name not in inner)
        weights = place / "model.safetensors"
        files.write_tensors(weights, task.state_dict())
        files.write_json(
            place / "config.json",
            {
                "format": FORMAT,
                "kind": KIND,
                "model": config.model_dump(mode="json"),
                "sha256": files.sha256(weights),
                "tokenizers": {name: _weights_of(place / name) for name in inner},
                "files": {name: files.sha256(place / name) for name in own},
                **metadata,
            },
        )
        files.write_text(place / "README.md", card)


def _weights_of(folder: Path) -> str:
    """The sha256 of a tokenizer's weights, as its folder tells; loading it checks them."""
    return str(read_model_config(folder).get("sha256"))


def _own_tokenizer(folder: Path, name: str, stored: dict[str, Any]) -> Tokenizer:
    """A tokenizer inside a task's model folder; FileError where it is not there, or not the one of the training."""
    inner = folder / name
    if not (inner / "config.json").is_file():
        raise FileError(f"{folder} lacks {name}/, the tokenizer that the task was made for.")
    made = stored.get("tokenizers")
    if not isinstance(made, dict):
        raise FileError(f"{folder / 'config.json'} lacks 'tokenizers', the hashes of those the task was made for.")
    expected = made.get(name)
    if _weights_of(inner) != expected:
        raise FileError(
            f"{inner} is another tokenizer (weights {_weights_of(inner)[:12]}…) than the one that the task was trained "
            f"on ({str(expected)[:12]}…); put that one back."
        )
    return Tokenizer.from_pretrained(inner)


def load_task(name_or_path: str | Path, command: str | None = None) -> TaskModel:
    """A trained task from a model folder, a run folder (its `model/`) or a hub name.

    Raises:
        FileError: a file is missing, cut, altered or does not fit its settings.
        UsageError: there is none, it is a tokenizer, or a task that `command` is not for.
    """
    folder = find_model(name_or_path)
    path = folder / "config.json"
    stored = files.read_json(path)
    if isinstance(stored, dict) and stored.get("kind") == "tokenizer":
        raise UsageError(f"{folder} holds a tokenizer; train a task on it first: tavq task train")
    if not isinstance(stored, dict) or stored.get("kind") != KIND or stored.get("format") not in READABLE_FORMATS:
        raise FileError(f"{path} does not describe a task of this project in format {FORMAT} or older.")
    if not isinstance(stored.get("model"), dict):
        raise FileError(f"{path} lacks 'model', the settings of the task.")
    config = build_stored(TaskConfig, stored["model"], str(path))
    _check_command(folder, tasks[config.task.name], command)
    weights = folder / "model.safetensors"
    files.check_sha256(weights, str(stored.get("sha256")))
    with torch.device("meta"):  # refuses what does not fit before memory is taken
        task = config.make()
    task.load_state_dict(match_tensors(task, files.read_tensors(weights), weights), assign=True)
    for name, sha256 in (stored.get("files") or {}).items():
        files.check_sha256(files.resolve_inside(folder, str(name)), str(sha256))
    task.read_files(folder)
    task.eval().requires_grad_(False)
    condition_tokenizer, colours = None, None
    if config.condition_layout is not None:
        condition_tokenizer = _own_tokenizer(folder, CONDITION_TOKENIZER, stored)
        colours = load_colours(
            read_model_config(folder / CONDITION_TOKENIZER), str(folder / CONDITION_TOKENIZER / "config.json")
        )
    metadata = {
        key: value for key, value in stored.items() if key not in ("format", "kind", "model", "tokenizers", "files")
    }
    return TaskModel(config, task, _own_tokenizer(folder, TOKENIZER, stored), condition_tokenizer, metadata, colours)


def _check_command(folder: Path, kind: type[Task], command: str | None) -> None:
    if command is not None and command not in kind.commands:
        able = " or ".join(f"tavq {name}" for name in sorted(kind.commands))
        raise UsageError(f"{folder} holds a model of the task {kind.name!r}, which is used by: {able}")
