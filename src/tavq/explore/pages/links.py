"""Addresses of the API, and the parts of answers that carry them."""

from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np

from tavq.explore.answers.base import PREFIX
from tavq.explore.answers.codes import CodeLink, Patch, UnitLink
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel

L = TypeVar("L", bound=CodeLink)

ORIGINAL, LARGEST_ORIGINAL = 256, 512
"""Side in pixels of an original in a list, and the largest one."""


def address(path: str, **query: object) -> str:
    """The address of an endpoint; values of None are left out."""
    given = {name: _text(value) for name, value in query.items() if value is not None}
    return f"{PREFIX}{path}" + (f"?{urlencode(given)}" if given else "")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def code_fields(model: ExploredModel, level: str, code: int) -> dict[str, Any]:
    """The fields of `CodeLink`."""
    statistics = model.level(level)
    names = model.codebook(level).words
    decodes = model.decodes_entries(level)
    return {
        "level": level,
        "code": code,
        "part": int(statistics.part_of[code]),
        "name": names[code] if names else None,
        "label": statistics.label(code),
        "tile": address(f"/models/{model.id}/levels/{level}/codes/{code}/tile.png") if decodes else None,
    }


def unit_fields(model: ExploredModel, granularity: str, unit: int) -> dict[str, Any]:
    """The fields of `UnitLink`."""
    return {"granularity": granularity, "unit": unit, "text": model.unit(granularity, unit)}


def unit_link(model: ExploredModel, granularity: str, unit: int) -> UnitLink:
    """A unit of text."""
    return UnitLink(**unit_fields(model, granularity, unit))


def original_address(image: str, size: int = ORIGINAL) -> str:
    """The address of an original at about `size` pixels."""
    return address(f"/images/{image}/original.webp", size=min(max(size, ORIGINAL), LARGEST_ORIGINAL))


def image_fields(explorer: Explorer, image: str, score: float | None = None) -> dict[str, Any]:
    """The fields of `ImageRow`."""
    record = explorer.images.record(image)
    uploaded = image.startswith("u")
    return {
        "image": image,
        "key": record.file_name,
        "split": None if uploaded else record.split,
        "caption": record.captions[0] if record.captions else None,
        "url": original_address(image),
        "score": score,
    }


def patch_fields(
    explorer: Explorer, model: ExploredModel, level: str, place: tuple[int, int, int], **more: Any
) -> dict[str, Any]:
    """The fields of `Patch` of an image, a row and a column; `more` has height, width and score where they matter."""
    image, row, column = place
    height, width = more.pop("height", 1), more.pop("width", 1)
    return {
        "image": str(image),
        "key": explorer.dataset[image].file_name,
        "row": row,
        "column": column,
        "height": height,
        "width": width,
        "url": patch_address(model, level, place, height=height, width=width),
        **more,
    }


def patch_address(model: ExploredModel, level: str, place: tuple[int, int, int], **query: object) -> str:
    """The address of a patch."""
    image, row, column = place
    path = f"/models/{model.id}/levels/{level}/images/{image}/patch.webp"
    return address(path, row=row, column=column, **query)


def patch(explorer: Explorer, model: ExploredModel, level: str, place: tuple[int, int, int], **more: Any) -> Patch:
    """A position of an image."""
    return Patch(**patch_fields(explorer, model, level, place, **more))


def finite(value: np.floating[Any]) -> float | None:
    """A number of a column; None where it has none."""
    return float(value) if np.isfinite(value) else None
