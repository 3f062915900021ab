"""The settings of loading images: the `data` section of a recipe."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tavq.core.parallel import MAX_WORKERS
from tavq.data.palette import Colours
from tavq.data.transforms import AugmentConfig


def parse_fault_budget(value: Any) -> Any:
    """Parse `200` (images), `5%` or `0.05` (a fraction of the images), also as text; refuse anything else."""
    number: Any = value
    try:
        if isinstance(value, str):
            percent = value.strip().endswith("%")
            number = float(value.strip().removesuffix("%")) / (100 if percent else 1)
            if not percent and number.is_integer() and "." not in value:
                number = int(number)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError
        if not (number >= 0 and (isinstance(number, int) or number <= 1)):
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise ValueError("give a number of images such as 200, or a share of them such as 5% or 0.05") from error
    return number


FaultBudget = Annotated[int | float, BeforeValidator(parse_fault_budget)]
"""How many images may be unreadable before the work stops: an int counts them, a float is a fraction of them."""


def _accept_pictures(value: Any) -> Any:
    """Accept `pictures`, the old name of `images`, in recipes and model folders of earlier versions."""
    return "images" if value == "pictures" else value


class DataConfig(AugmentConfig):
    """How images are loaded.

    `size` is the side of the square in pixels, `workers` the number of loading processes (0 loads in the training
    process itself), `fault_budget` how many images may be unreadable before the work stops: a number (100) or a share
    of the images (5%). With `images: segmentation` the images are the segmentation maps, coloured by the palette or
    by `colours`, which maps every class index to a colour; an image without a map cannot be read.
    """

    RENAMED: ClassVar = {"pictures": "images"}

    images: Annotated[Literal["images", "segmentation"], BeforeValidator(_accept_pictures)] = "images"
    colours: Colours | None = None
    size: int = Field(default=256, ge=16, le=2048)
    workers: int = Field(default=0, ge=0, le=MAX_WORKERS)
    fault_budget: FaultBudget = 100

    @model_validator(mode="after")
    def _check_colours(self) -> "DataConfig":
        if self.colours is not None and self.images != "segmentation":
            raise ValueError("data.colours applies to segmentation maps; set data.images to segmentation")
        return self

    def max_faults(self, images: int) -> int:
        """The number of unreadable images that `fault_budget` allows of so many."""
        return int(self.fault_budget * images) if isinstance(self.fault_budget, float) else self.fault_budget

    def for_segmentation(self, colours: Colours | None) -> "DataConfig":
        """The same settings for the segmentation maps, in the colours that a tokenizer was trained on."""
        return self.model_copy(update={"images": "segmentation", "colours": colours})
