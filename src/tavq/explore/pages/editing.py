"""The causal test: an image after some of its codes were changed, and how its text scores move."""

import time

import numpy as np

from tavq.explore.answers.base import Missing
from tavq.explore.answers.codes import UnitLink
from tavq.explore.answers.edits import EditResult, ScoreChange
from tavq.explore.edits import Codes, Editor, hash_key, pack_edit, unpack_edit
from tavq.explore.errors import BadRequest
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.pages.images import MAX_SCORES, grids_of, image_units, mean_error
from tavq.explore.pages.links import unit_link
from tavq.explore.pixels import as_uri, difference, difference_map, encode
from tavq.explore.requests import EditRequest
from tavq.explore.statistics.codes import NONE

MAX_LABELS = 16
"""Labels of changed codes that are scored."""


def edit_image(explorer: Explorer, model: ExploredModel, request: EditRequest) -> EditResult:
    """Apply operations to the codes of an image and decode the result."""
    start = time.monotonic()
    before = grids_of(explorer, model, request.image)["deep"]

    def open(share: str) -> Codes:
        of, image, _, shared = read_share(explorer, share)
        if of is not model or image != request.image:
            raise BadRequest(f"The share string is of image {image} and the model {of.id}; edit that one.")
        return shared

    editor = Editor(model.level("deep").part_of, lambda image: grids_of(explorer, model, image)["deep"], open)
    after = editor.apply(before, request.operations)
    return _show(explorer, model, request.image, before, after, start)


def open_share(explorer: Explorer, share: str) -> EditResult:
    """The edit that a share string holds."""
    start = time.monotonic()
    model, image, before, after = read_share(explorer, share)
    return _show(explorer, model, image, before, after, start)


def read_share(explorer: Explorer, share: str) -> tuple[ExploredModel, str, Codes, Codes]:
    """Model, image and grids before and after the edit of a share string.

    Raises BadRequest where it is damaged, or of a model or images that are not explored here.
    """
    edit = unpack_edit(share)
    models = [model for model in explorer.models if _short_hash(model) == edit.model]
    if not models:
        raise BadRequest("The share string is of another model; start the explorer with that model.")
    record = explorer.images.record(edit.image)
    if hash_key(record.file_name) != edit.key:
        raise BadRequest("The share string is of another data set: its image has another name here.")
    before = grids_of(explorer, models[0], edit.image)["deep"]
    return models[0], edit.image, before, edit.apply(before, models[0].level("deep").part_of)


def _short_hash(model: ExploredModel) -> bytes:
    return bytes.fromhex(model.store.manifest.source.model[:24])


def _show(
    explorer: Explorer, model: ExploredModel, image: str, before: Codes, after: Codes, start: float
) -> EditResult:
    original, edited = model.decode(before), model.decode(after)
    changed = (before != after).any(axis=2)
    pixels, change = difference(original, edited), difference_map(original, edited, *changed.shape)
    scores, missing = _score_changes(explorer, model, image, before, after)
    name = explorer.images.record(image).file_name
    return EditResult(
        model=model.id,
        image=image,
        share=pack_edit(model.store.manifest.source.model, image, name, before, after),
        changed=int(changed.sum()),
        codes=after.tolist(),
        edited=as_uri(encode(edited)),
        change=as_uri(encode(pixels)),
        change_max=int(pixels.max()),
        change_map=change.tolist(),
        outside=mean_error(change, ~changed),
        aligned=scores,
        milliseconds=(time.monotonic() - start) * 1000,
        missing=missing,
    )


def _score_changes(
    explorer: Explorer, model: ExploredModel, image: str, before: Codes, after: Codes
) -> tuple[list[ScoreChange], list[Missing]]:
    """The cosines before and after of the image's own units, or frequent words, and of the labels of changed codes."""
    missing = [part for part in model.missing if part.part in ("alignment", "text")]
    if not model.scores_text:
        return [], missing
    labels = _labels_of_changes(model, before, after)
    units = _units_to_score(explorer, model, image, list(labels))
    if not units:
        return [], missing
    square = explorer.images.batch(image, model.size)
    vectors = model.embed_units([(unit.granularity, unit.unit or 0) for unit in units])
    cosines = (model.embed_grids([before, after], square) @ vectors.T).tolist()
    changes = [
        ScoreChange(**dict(unit), before=old, after=new, label_of=_codes_of(labels, unit))
        for unit, old, new in zip(units, *cosines, strict=True)
    ]
    return sorted(changes, key=lambda change: -abs(change.after - change.before)), missing


def _labels_of_changes(model: ExploredModel, before: Codes, after: Codes) -> dict[int, list[int]]:
    """The changed codes, from before and after an edit, by the word that is their label, most frequent first."""
    different = before != after
    codes, counts = np.unique(np.concatenate([before[different], after[different]]), return_counts=True)
    found: dict[int, list[int]] = {}
    for code in codes[np.argsort(-counts, kind="stable")].tolist():
        label = int(model.level("deep").columns.label[code])
        if label != NONE:
            found.setdefault(label, []).append(code)
    return found


def _codes_of(labels: dict[int, list[int]], unit: UnitLink) -> list[int]:
    return labels.get(unit.unit, []) if unit.granularity == "words" and unit.unit is not None else []


def _units_to_score(explorer: Explorer, model: ExploredModel, image: str, labels: list[int]) -> list[UnitLink]:
    own = [unit for units in image_units(explorer, model, image).values() for unit in units if unit.unit is not None]
    if not own:
        own = [unit_link(model, "words", unit) for unit in range(len(model.units["words"]))[:MAX_SCORES]]
    own = own[:MAX_SCORES]
    known = {unit.unit for unit in own if unit.granularity == "words"}
    return own + [unit_link(model, "words", unit) for unit in labels[:MAX_LABELS] if unit not in known]
