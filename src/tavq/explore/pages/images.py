"""Pages of images: lists, an image as a model sees it, heat maps of a unit, and the files of all of these."""

import numpy as np
from jaxtyping import Float, Int

from tavq.explore.answers.base import Missing
from tavq.explore.answers.codes import UnitLink
from tavq.explore.answers.images import AlignedScore, HeatMap, ImageList, ImagePage
from tavq.explore.answers.units import ImageRow
from tavq.explore.edits import remove_code
from tavq.explore.errors import BadRequest, NotFound
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel, Pixels
from tavq.explore.pages.links import address, image_fields, original_address, unit_link
from tavq.explore.pages.units import find_link
from tavq.explore.pixels import difference, difference_map, window
from tavq.explore.units import iter_units
from tavq.interfaces import GRANULARITIES

MAX_SCORES = 64
"""Units of an image whose aligned scores are shown."""

SHOWN_WORDS = 4
"""Words of each code of an image."""

SHOWN_SIDE = 192
"""Side in pixels that a patch is enlarged to reach, by whole factors."""


def list_images(explorer: Explorer, query: str, split: str | None, offset: int, limit: int) -> ImageList:
    """The images of a split whose captions or file names contain a query."""
    wanted = query.casefold().strip()
    records = explorer.dataset.records
    found = [
        image
        for image in (range(len(records)) if not wanted else find_captions(explorer, wanted))
        if split is None or records[image].split == split
    ]
    rows = [ImageRow(**image_fields(explorer, str(image))) for image in found[offset : offset + limit]]
    return ImageList(total=len(found), offset=offset, images=rows, missing=[])


def find_captions(explorer: Explorer, wanted: str) -> list[int]:
    """The images with a text in captions or file names, ignoring case."""
    return [image for image, text in enumerate(explorer.captions) if wanted in text]


def grids_of(explorer: Explorer, model: ExploredModel, image: str) -> dict[str, Int[np.ndarray, "h w c"]]:
    """The codes of an image at each level; DataError where it cannot be read."""
    number = explorer.images.number(image)
    if number is None:
        return model.encode(explorer.images.batch(image, model.size))
    if not model.readable[number]:
        raise NotFound(f"Image {image} cannot be read; list the reasons with: tavq data check")
    return {name: level.grid(number) for name, level in model.levels.items()}


def show_image(explorer: Explorer, model: ExploredModel, image: str) -> ImagePage:
    """An image with its codes, its text and its reconstruction."""
    grids = grids_of(explorer, model, image)
    record = explorer.images.record(image)
    original, shape = explorer.images.pixels(image, model.size), model.level("deep").shape
    decoded = model.decode(grids["deep"])
    error = difference_map(original, decoded, shape.height, shape.width)
    units = image_units(explorer, model, image)
    base = f"/models/{model.id}/images/{image}"
    return ImagePage(
        **image_fields(explorer, image),
        captions=list(record.captions),
        long_text=record.long_text,
        units=units,
        original=original_address(image, model.size),
        reconstruction=address(f"{base}/reconstruction.png"),
        difference=address(f"{base}/difference.png"),
        difference_max=int(difference(original, decoded).max()),
        error=error.tolist(),
        grids={name: grid.tolist() for name, grid in grids.items()},
        labels={name: _labels(model, name, grid) for name, grid in grids.items()},
        words={name: _words(model, name, grid) for name, grid in grids.items()},
        aligned=score_units(explorer, model, image, grids["deep"], units),
        missing=model.missing,
    )


def _labels(model: ExploredModel, level: str, grid: Int[np.ndarray, "h w c"]) -> dict[str, str]:
    labels = {code: model.level(level).label(code) for code in np.unique(grid).tolist()}
    return {str(code): label for code, label in labels.items() if label is not None}


def _words(model: ExploredModel, level: str, grid: Int[np.ndarray, "h w c"]) -> dict[str, list[str]]:
    """The words that go most with each code of a grid, of those that codes are compared by."""
    codes, texts = np.unique(grid), model.units["words"].texts
    lifts = model.level(level).profiles[codes]
    count = min(SHOWN_WORDS, lifts.shape[1])
    if not count:
        return {}
    best = np.argpartition(-lifts, count - 1, axis=1)[:, :count]
    found = {}
    for code, own, words in zip(codes.tolist(), lifts, best, strict=True):
        if chosen := [texts[word] for word in words[np.argsort(-own[words], kind="stable")] if own[word] > 0]:
            found[str(code)] = chosen
    return found


def image_units(explorer: Explorer, model: ExploredModel, image: str) -> dict[str, list[UnitLink]]:
    """The units of an image's text by granularity; empty for an upload or an image without text."""
    number = explorer.images.number(image)
    if number is None or not model.counted[number] or not any(len(table) for table in model.units.values()):
        return {}
    one = explorer.dataset.subset([explorer.dataset[number]])
    [units] = iter_units(one, model.sources.text)
    return {name: [find_link(model, name, text) for text in dict.fromkeys(units[name])] for name in GRANULARITIES}


def score_units(
    explorer: Explorer,
    model: ExploredModel,
    image: str,
    codes: Int[np.ndarray, "h w c"],
    units: dict[str, list[UnitLink]],
) -> list[AlignedScore]:
    """The cosines of an image with deep codes `codes` and its own units, largest first; empty without alignment."""
    chosen = [unit for own in units.values() for unit in own if unit.unit is not None][:MAX_SCORES]
    if not model.scores_text or not chosen:
        return []
    [vector] = model.embed_grids([codes], explorer.images.batch(image, model.size))
    vectors = model.embed_units([(unit.granularity, unit.unit or 0) for unit in chosen])
    cosines = (vectors @ vector).tolist()
    scored = [AlignedScore(**dict(unit), cosine=cosine) for unit, cosine in zip(chosen, cosines, strict=True)]
    return sorted(scored, key=lambda score: -score.cosine)


def heat_map(
    explorer: Explorer, model: ExploredModel, level: str, image: str, granularity: str, unit: int, source: str
) -> HeatMap:
    """How much the code of each position goes with a unit: log2 of the lift, or the cosine in the aligned space."""
    statistics = model.level(level)
    link = unit_link(model, granularity, unit)
    grid = grids_of(explorer, model, image)[level]
    missing: list[Missing] = []
    if source == "statistics":
        values = np.log2(statistics.with_unit(granularity, unit).lift.clip(1e-3))[grid].mean(axis=2)
    elif model.is_aligned(level, granularity):
        values = model.cosines(level, granularity)[unit].astype(np.float64)[grid].mean(axis=2)
    else:
        values = np.zeros(grid.shape[:2])
        reason = f"Codes of level {level} and {granularity} share no aligned space in this model."
        missing = [part for part in model.missing if part.part == "alignment"]
        missing = missing or [Missing(part="alignment", reason=reason)]
    return HeatMap(unit=link, level=statistics.shape.name, source=source, values=values.tolist(), missing=missing)


# --- files ------------------------------------------------------------------------------------------------------


def reconstruct(explorer: Explorer, model: ExploredModel, image: str) -> Pixels:
    """The reconstruction of an image."""
    return model.decode(grids_of(explorer, model, image)["deep"])


def show_difference(explorer: Explorer, model: ExploredModel, image: str) -> Pixels:
    """The absolute difference of an image and its reconstruction."""
    return difference(explorer.images.pixels(image, model.size), reconstruct(explorer, model, image))


def crop_patch(
    explorer: Explorer,
    model: ExploredModel,
    level: str,
    image: str,
    box: tuple[int, int, int, int],
    around: int,
    decoded: bool,
    without: int | None,
) -> Pixels:
    """A patch with its surroundings, of the original or of a reconstruction, enlarged by a whole factor.

    Args:
        explorer: has the image.
        model: reconstructs it.
        level: whose cells the box counts.
        image: its id.
        box: row, column, height and width in cells.
        around: cells on each side.
        decoded: of the reconstruction.
        without: of the reconstruction after this code was removed from the patch.
    """
    shape = model.level(level).shape
    row, column, height, width = box
    if row + height > shape.height or column + width > shape.width:
        raise NotFound(f"The grid of level {level} has {shape.height} x {shape.width} positions.")
    pixels = _pixels_of(explorer, model, level, image, box, decoded, without)
    cell = pixels.shape[0] // shape.height, pixels.shape[1] // shape.width
    part = window(pixels, (
        (row - around) * cell[0], (column - around) * cell[1],
        (row + height + around) * cell[0], (column + width + around) * cell[1],
    ))  # fmt: skip
    factor = max(1, min(8, SHOWN_SIDE // max(part.shape[:2])))
    return part.repeat(factor, axis=0).repeat(factor, axis=1)


def _pixels_of(
    explorer: Explorer,
    model: ExploredModel,
    level: str,
    image: str,
    box: tuple[int, int, int, int],
    decoded: bool,
    without: int | None,
) -> Pixels:
    if without is None:
        return reconstruct(explorer, model, image) if decoded else explorer.images.pixels(image, model.size)
    if level != "deep":
        raise BadRequest("Codes can be removed from the deep grid only; the decoder reads no other.")
    row, column, height, width = box
    grid = grids_of(explorer, model, image)["deep"]
    cells = np.zeros(grid.shape[:2], bool)
    cells[row : row + height, column : column + width] = True
    return model.decode(remove_code(grid, cells, model.level("deep").part_of, without))


def mean_error(values: Float[np.ndarray, "h w"], cells: np.ndarray) -> float:
    """The mean of a map over some cells; 0 without any."""
    return float(values[cells].mean()) if cells.any() else 0.0
