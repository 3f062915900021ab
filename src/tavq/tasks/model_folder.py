"""The model folder of a task: its network with the tokenizers it was trained on, so that it can be loaded alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core import files
from tavq.core.config import Config, build_stored, config_of
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.inside import resolve_inside
from tavq.data.palette import Colours, load_colours
from tavq.model_folder import find_model, match_tensors, read_config, read_model_config, write_config
from tavq.tasks.base import Task, TokenLayout, tasks
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer

FORMAT = 2
"""Format 1 has other names of settings and weights; `RENAMED` and `RENAMED_TENSORS` of the classes map them."""

READABLE_FORMATS = (1, 2)
BATCH = 16
"""Images of the model's own size that are decoded at once."""

MIN_SIZE, MAX_SIZE = 16, 2048
"""Sides of images in pixels that training accepts."""

KIND = "task"
TOKENIZER, CONDITION_TOKENIZER = "tokenizer", "segmentation_tokenizer"
"""Folders inside the model folder."""


class TaskConfig(Config):
    """Everything that determines the network of a task."""

    RENAMED: ClassVar = {"given": "condition_layout", "row_width": "feature_width"}

    task: config_of(tasks)
    layout: TokenLayout
    """Of the images' tokens."""
    condition_layout: TokenLayout | None = None
    """Of the segmentation maps' tokens."""
    text_width: int | None = None
    """t, of the text vectors."""
    feature_width: int | None = Field(None, ge=1, le=1 << 20)
    """d, of the image features that an understanding task reads; None for a generation task."""

    def make(self) -> Task:
        """The network with initial weights."""
        kind: Any = tasks[self.task.name]
        task: Task
        if issubclass(kind, UnderstandingTask):
            task = kind(self.task, self.layout, self.feature_width)
        else:
            task = kind(self.task, self.layout, condition_layout=self.condition_layout, text_width=self.text_width)
        return task

    def make_empty(self) -> Task:
        """The network without memory for its weights, to which `load_state_dict` assigns some."""
        with torch.device("meta"):
            return self.make()


@dataclass(frozen=True)
class TaskModel:
    """A trained task with its tokenizers, in evaluation mode."""

    config: TaskConfig
    task: Any  # a Task of the kind that the caller asked `load_task` for
    tokenizer: Tokenizer
    condition_tokenizer: Tokenizer | None
    metadata: dict[str, Any]
    """Where it comes from: data, steps, text encoder, size of its images."""
    colours: Colours | None = None
    """Of the classes of segmentation maps, if they are not the default palette's."""

    @property
    def size(self) -> int:
        """Side of its images in pixels; FileError where config.json does not say it."""
        size = self.metadata.get("size")
        if type(size) is not int or not MIN_SIZE <= size <= MAX_SIZE:
            raise FileError(
                f"The model's config.json has size {size!r:.40}; the side of its images must be {MIN_SIZE} to "
                f"{MAX_SIZE} pixels."
            )
        return size

    def to(self, device: torch.device) -> "TaskModel":
        """The model, with all networks moved to a device and its tokenizers prepared for it (`Tokenizer.prepare`)."""
        self.task.to(device)
        for tokenizer in (self.tokenizer, self.condition_tokenizer):
            if tokenizer is not None:
                tokenizer.prepare(device)
        return self

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "b n"], layout: TokenLayout) -> Float[Tensor, "b 3 y x"]:
        """Images in [-1, 1], decoded in batches, on the device of the model."""
        device = next(self.tokenizer.parameters()).device
        batch = max(1, BATCH * self.config.layout.length // layout.length)
        images = [self.tokenizer.decode(layout.to_indices(part.to(device))) for part in tokens.split(batch)]
        return torch.cat(images).clamp(-1, 1)


def save_task(
    folder: Path,
    config: TaskConfig,
    task: Task,
    tokenizer: Tokenizer,
    condition_tokenizer: Tokenizer | None,
    card: str,
    metadata: dict[str, Any],
    colours: Colours | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a model folder in one atomic step.

    Args:
        folder: to write; it is replaced.
        config: from which the task was built.
        task: the network.
        tokenizer: of the images.
        condition_tokenizer: of the segmentation maps, if the task reads these.
        card: text of README.md.
        metadata: to store in config.json, ready for JSON.
        colours: that `condition_tokenizer` was trained on.
        weights: the state dict of `task`, where it holds only parts of them itself.
    """
    with files.write_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary / TOKENIZER)
        if condition_tokenizer is not None:
            kept = {"kind_of_images": "segmentation", "colours": colours}
            condition_tokenizer.save_pretrained(temporary / CONDITION_TOKENIZER, metadata=kept)
        tokenizers = {path.name: _weights_sha256(path) for path in temporary.iterdir()}
        task.write_files(temporary)
        own_files = sorted(path.name for path in temporary.iterdir() if path.name not in tokenizers)
        hashes = {name: files.sha256(temporary / name) for name in own_files}
        weights_file = temporary / "model.safetensors"
        files.write_tensors(weights_file, task.state_dict() if weights is None else weights)
        record = {
            "format": FORMAT,
            "kind": KIND,
            "model": config.model_dump(mode="json"),
            "sha256": files.sha256(weights_file),
            "tokenizers": tokenizers,
            "files": hashes,
        }
        write_config(temporary, {**record, **metadata})
        files.write_text(temporary / "README.md", card)


def _weights_sha256(folder: Path) -> str:
    """The hash of a tokenizer's weights that its folder states; loading the tokenizer verifies it."""
    return str(read_model_config(folder).get("sha256"))


def _load_tokenizer(folder: Path, name: str, stored: dict[str, Any]) -> Tokenizer:
    """A tokenizer inside a task's model folder; FileError if it is missing or not the one of the training."""
    inner = folder / name
    if not (inner / "config.json").is_file():
        raise FileError(f"{folder} lacks {name}/, the tokenizer that the task was trained on.")
    hashes = stored.get("tokenizers")
    if not isinstance(hashes, dict):
        raise FileError(f"{folder / 'config.json'} lacks 'tokenizers', the hashes of the task's tokenizers.")
    expected, found = hashes.get(name), _weights_sha256(inner)
    if found != expected:
        raise FileError(
            f"{inner} (weights {found[:12]}…) is not the tokenizer that the task was trained on "
            f"({str(expected)[:12]}…); put that one back."
        )
    return Tokenizer.from_pretrained(inner).prepare()


def load_task(name_or_path: str | Path, command: str | None = None) -> TaskModel:
    """Loads a trained task from a model folder, a run folder (its `model/`) or a hub name.

    Args:
        name_or_path: where the model is.
        command: that will use it, such as "generate"; by default any task is accepted.

    Raises:
        FileError: a file is missing, truncated, altered or does not fit its settings.
        UsageError: there is no model, it is a tokenizer, or a task that `command` cannot use.
    """
    folder = find_model(name_or_path)
    path = folder / "config.json"
    stored = read_config(folder)
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
    task = _make(config, path)
    task.load_state_dict(match_tensors(task, files.read_tensors(weights), weights), assign=True)
    hashes = stored.get("files") or {}
    if not isinstance(hashes, dict):
        raise FileError(f"{path} was altered: 'files' must be the hashes of files by their names.")
    for name, sha256 in hashes.items():
        files.check_sha256(resolve_inside(folder, str(name)), str(sha256))
    task.read_files(folder)
    task.eval().requires_grad_(False)
    condition_tokenizer, colours = None, None
    if config.condition_layout is not None:
        condition_tokenizer = _load_tokenizer(folder, CONDITION_TOKENIZER, stored)
        maps = folder / CONDITION_TOKENIZER
        colours = load_colours(read_model_config(maps), str(maps / "config.json"))
    structure = ("format", "kind", "model", "tokenizers", "files")
    metadata = {key: value for key, value in stored.items() if key not in structure}
    return TaskModel(config, task, _load_tokenizer(folder, TOKENIZER, stored), condition_tokenizer, metadata, colours)


def _make(config: TaskConfig, path: Path) -> Task:
    """The network, without memory for its weights, so that weights that do not fit are refused before there is any."""
    try:
        return config.make_empty()
    except UsageError as error:
        raise FileError(f"{path} was altered: {error}") from error
    except (RuntimeError, ValueError, TypeError, ArithmeticError, KeyError, IndexError) as error:  # by sizes and widths
        raise FileError(f"{path} has settings that no network fits: {first_line(error)}.") from error


def _check_command(folder: Path, kind: type[Task], command: str | None) -> None:
    if command is not None and command not in kind.commands:
        able = " or ".join(f"tavq {name}" for name in sorted(kind.commands))
        raise UsageError(f"{folder} holds a model of the task {kind.name!r}; it is used by: {able}")
