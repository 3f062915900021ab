"""The settings of loading images: the `data` section of a recipe."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tavq.data.palette import Colours
from tavq.data.transforms import AugmentConfig


def _accept_pictures(value: Any) -> Any:
    """Accept `pictures`, the old name of `images`, in recipes and model folders of earlier versions."""
    return "images" if value == "pictures" else value


class DataConfig(AugmentConfig):
    """How images are loaded.

    `size` is the side of the square in pixels, `workers` the number of loading processes (0 loads in the training
    process itself), `fault_budget` the number of images that may be unreadable before the run stops. With
    `images: segmentation` the images are the segmentation maps, coloured by the palette or by `colours`, which maps
    every class index to a colour; an image without a map cannot be read.
    """

    RENAMED: ClassVar = {"pictures": "images"}

    images: Annotated[Literal["images", "segmentation"], BeforeValidator(_accept_pictures)] = "images"
    colours: Colours | None = None
    size: int = Field(default=256, ge=16, le=2048)
    workers: int = Field(default=0, ge=0, le=64)
    fault_budget: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _check_colours(self) -> "DataConfig":
        if self.colours is not None and self.images != "segmentation":
            raise ValueError("data.colours applies to segmentation maps; set data.images to segmentation")
        return self

    def for_segmentation(self, colours: Colours | None) -> "DataConfig":
        """The same settings for the segmentation maps, in the colours that a tokenizer was trained on."""
        return self.model_copy(update={"images": "segmentation", "colours": colours})
