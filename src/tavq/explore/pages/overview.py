"""The first page: the data, the models and what is missing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tavq.core.version import __version__
from tavq.explore.answers.base import DataInfo, LevelInfo, Limits, Missing, ModelInfo, Overview
from tavq.explore.explorer import Explorer
from tavq.explore.images import UPLOAD_BYTES, UPLOAD_PIXELS
from tavq.explore.model import ExploredModel
from tavq.explore.pages.asking import list_askable, list_masks
from tavq.explore.requests import MAX_OPERATIONS, MAX_PAGE, MAX_SHARE
from tavq.interfaces import GRANULARITIES


def show_overview(explorer: Explorer) -> Overview:
    """Everything that the first page needs."""
    return Overview(
        tavq=__version__,
        data=_data(explorer),
        models=[_model(model) for model in explorer.models],
        limits=Limits(
            upload_bytes=UPLOAD_BYTES, upload_pixels=UPLOAD_PIXELS, page=MAX_PAGE, operations=MAX_OPERATIONS,
            share=MAX_SHARE,
        ),
        missing=_missing(explorer.models),
    )  # fmt: skip


def _missing(models: Sequence[ExploredModel]) -> list[Missing]:
    """What the models lack; where not all lack it, the reason names those that do."""
    lacking: dict[tuple[str, str, str], tuple[Missing, list[str]]] = {}
    for model in models:
        for part in model.missing:
            lacking.setdefault((part.part, part.reason, part.remedy), (part, []))[1].append(model.id)
    return [
        part if len(names) == len(models) else part.model_copy(update={"reason": f"{', '.join(names)}: {part.reason}"})
        for part, names in lacking.values()
    ]


def _data(explorer: Explorer) -> DataInfo:
    model = explorer.first
    has_text = any(len(table) for table in model.units.values())
    return DataInfo(
        name=explorer.dataset.name,
        images=len(explorer.dataset),
        unreadable=model.store.manifest.unreadable,
        with_text=int(model.counted.sum()) if has_text else 0,
        splits=dict(Counter(record.split for record in explorer.dataset)),
        units={name: len(model.units[name]) for name in GRANULARITIES if len(model.units[name])},
        held_out=int((model.held_out & model.readable).sum()),
    )


def _short_name(name: str) -> str:
    """A name without the folders above, which are private where a page is given to others."""
    return "/".join(Path(name).parts[-2:])


def _model(model: ExploredModel) -> ModelInfo:
    tokenizer, metadata = model.tokenizer, model.sources.metadata
    step = metadata.get("step")
    return ModelInfo(
        id=model.id,
        name=_short_name(model.sources.name),
        size=model.size,
        factor=tokenizer.factor,
        quantizer=tokenizer.quantizer.name,
        codebook=tokenizer.codebook.name,
        aligner=None if tokenizer.aligner is None else tokenizer.aligner.name,
        step=step if isinstance(step, int) else None,
        sha256=model.store.manifest.source.model,
        levels=[_level(model, name) for name in model.levels],
        held_out=list(model.store.manifest.held_out),
        tasks=list_askable(model),
        masks=list_masks(model),
        missing=model.missing,
    )


def _level(model: ExploredModel, name: str) -> LevelInfo:
    level = model.levels[name]
    shape = level.shape
    return LevelInfo(
        name=shape.name,
        height=shape.height,
        width=shape.width,
        parts=list(shape.sizes),
        entries=shape.entries,
        used=int((level.columns.count > 0).sum()),
        decodes=name == "deep",
        entries_decode=model.decodes_entries(name),
        aligned=[granularity for granularity in GRANULARITIES if model.is_aligned(name, granularity)],
    )
