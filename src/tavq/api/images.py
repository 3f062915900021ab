"""Images and models as callers give them."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from tavq.api.calls import Budget, PathLike
from tavq.core.config import build
from tavq.core.cores import one_worker_a_core
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.images import convert_image, load_image, read_shape, shape_of
from tavq.data.squares import load_square
from tavq.data.storage import StoredFile
from tavq.data.transforms import to_float
from tavq.tasks.model_folder import TaskModel, load_task

ImageLike = str | os.PathLike[str] | Image.Image
"""An image file, or an image of Pillow."""


def read_pixels(image: ImageLike) -> UInt8[np.ndarray, "y x 3"]:
    """Return the RGB pixels of an image; raises DataError where a file is not an image."""
    return convert_image(image) if isinstance(image, Image.Image) else load_image(Path(image))


def read_size(image: ImageLike) -> tuple[int, int]:
    """Return (height, width) of an image; raises DataError where a file is not an image."""
    return shape_of(image) if isinstance(image, Image.Image) else read_shape(Path(image))[:2]


def read_square(image: ImageLike | StoredFile, size: int) -> Float[Tensor, "1 3 {size} {size}"]:
    """Return the centre square of an image at the size of a model, in [-1, 1]; the same as of a file in a data set."""
    return to_float(load_square(image if isinstance(image, Image.Image | StoredFile) else Path(image), size))[None]


def image_config(size: int, fault_budget: Budget | None, workers: int | None = None) -> DataConfig:
    """Return how images are read: at which size, how many may be unreadable, by how many processes.

    Raises UsageError where a value is not accepted.
    """
    budget = {} if fault_budget is None else {"fault_budget": fault_budget}
    settings = {"size": size, "workers": count_workers(workers), **budget}
    return build(DataConfig, settings, "The images")


def count_workers(workers: int | None) -> int:
    """Return the number of processes that read images: as given, or what suits the device.

    On a CPU the model itself uses all cores, so that none is the default. A GPU waits for its images: it gets one
    process a core, at most 8, and the processes of torchrun share the cores of their machine.
    """
    if workers is not None or default_device().type == "cpu":
        return workers or 0
    return one_worker_a_core()


def open_task(model: PathLike | TaskModel, command: str) -> TaskModel:
    """Return a task's model that `command` can use, on the default device; one that is loaded is used as it is."""
    if not isinstance(model, TaskModel):
        return load_task(os.fspath(model), command).to(default_device())
    if command not in model.task.commands:
        able = " or ".join(sorted(model.task.commands))
        raise UsageError(f"This is a model of the task {model.task.name!r}, which is used by: {able}.")
    return model
