"""Everything that is explored: the images, the models, and where guesses are logged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tavq.data.folder import FolderDataset
from tavq.explore.errors import NotFound
from tavq.explore.images import ImageSource
from tavq.explore.model import ExploredModel


@dataclass
class Explorer:
    """The images and the models of a server.

    Args:
        dataset: the images.
        models: explored side by side, one or more, all on these images.
        folder: where guesses are logged.
    """

    dataset: FolderDataset
    models: Sequence[ExploredModel]
    folder: Path
    images: ImageSource = field(init=False)

    def __post_init__(self) -> None:
        self.images = ImageSource(self.dataset)

    def model(self, id: str) -> ExploredModel:
        """A model by its id; NotFound where there is none."""
        for model in self.models:
            if model.id == id:
                return model
        raise NotFound(f"There is no model {id!r:.60}; there are: {', '.join(model.id for model in self.models)}.")

    @property
    def first(self) -> ExploredModel:
        """The model that units of text and lists of images come from; they are the same for all."""
        return self.models[0]

    @cached_property
    def captions(self) -> list[str]:
        """File name and captions of each image in one text, without case, to be searched."""
        return ["\n".join([record.file_name, *record.captions]).casefold() for record in self.dataset]
