"""Predictions and references from the files of other programs, checked against each other.

A model may give nothing: an empty text, null or no box is a prediction that scores 0, but an empty reference is a fault
of its file.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tavq.core.errors import DataError
from tavq.core.files import MAX_JSON, read_json
from tavq.metrics.grounding import LARGEST

T = TypeVar("T")

EMPTY: tuple[Any, ...] = (None, "", [])
"""Predictions of a model that gave nothing."""

NO_BOX = [0.0, 0.0, 0.0, 0.0]
"""A box that overlaps no other."""


class Question(NamedTuple):
    """A question's true answer (or those of several people), its type and its image."""

    truth: str | list[str]
    kind: str
    image: str | None


class Target(NamedTuple):
    """A phrase's true box and its image."""

    box: list[float]
    image: str | None


# --- captions ---------------------------------------------------------------------------------------------------


def read_captions(predictions: Path, references: Path, subset: bool = False) -> dict[str, tuple[str, list[str]]]:
    """The caption and the references of each image.

    Args:
        predictions: COCO's results ([{"image_id", "caption"}]) or {id: caption}.
        references: COCO's annotations ({"annotations": [{"image_id", "caption"}]}) or {id: [caption, ...]}.
        subset: score only the images that have a prediction, instead of requiring all.
    """
    given = _unique(_read_rows(predictions, "image_id", "caption"), "caption", predictions, _read_result)
    known: dict[str, list[str]] = {}
    for key, row in _read_rows(references, "image_id", "caption"):
        texts = row["caption"] if isinstance(row["caption"], list) else [row["caption"]]
        known.setdefault(key, []).extend(_read_text(text, key, references) for text in texts)
    empty = next((key for key, texts in known.items() if not texts), None)
    if empty is not None:
        raise DataError(f"{references}: {empty!r} has no caption; each image needs at least one.")
    return {key: (given[key], known[key]) for key in _match_ids(given, known, predictions, references, subset)}


# --- answers ----------------------------------------------------------------------------------------------------


def read_answers(predictions: Path, references: Path, subset: bool = False) -> dict[str, tuple[str, Question]]:
    """The answer and the truth of each question.

    Args:
        predictions: [{"question_id", "answer"}] or {id: answer}.
        references: [{"question_id", "answer", "type", "image_id"}], the last two optional, or {id: answer}; or VQA's
            annotations ({"annotations": [{"question_id", "answers": [{"answer"}, ...], "answer_type", ...}]}).
        subset: score only the questions that have a prediction, instead of requiring all.
    """
    given = _unique(_read_rows(predictions, "question_id", "answer"), "answer", predictions, _read_result)
    known: dict[str, Question] = {}
    for key, row in _read_rows(references, "question_id", "answer", "answers"):
        _check_new(key, known, references)
        known[key] = _read_question(row, key, references)
    return {key: (given[key], known[key]) for key in _match_ids(given, known, predictions, references, subset)}


def _read_question(row: Mapping[str, Any], key: str, path: Path) -> Question:
    truth: str | list[str]
    if isinstance(row.get("answers"), list) and row["answers"]:
        people = [answer.get("answer") if isinstance(answer, dict) else answer for answer in row["answers"]]
        truth = [answer if isinstance(answer, str) else _read_text(answer, key, path) for answer in people]
    else:
        truth = _read_text(row.get("answer"), key, path)
    kind = row.get("type", row.get("answer_type", ""))
    if not isinstance(kind, str):
        raise DataError(f"{path}: the type of {key!r} is {kind!r:.60}; a string is needed.")
    return Question(truth, kind, _read_image_id(row, path))


# --- boxes ------------------------------------------------------------------------------------------------------


def read_boxes(
    predictions: Path, references: Path, subset: bool = False, corners: bool = False
) -> dict[str, tuple[list[float], Target]]:
    """The box and the true box of each phrase, as [x, y, width, height].

    Args:
        predictions: [{"id", "box"}] or {id: box}; a box that is empty or not finite becomes one without area.
        references: [{"id", "box", "image_id"}] (the last is optional) or {id: box}.
        subset: score only the phrases that have a prediction, instead of requiring all.
        corners: the boxes of both files are [x1, y1, x2, y2].
    """

    def box(value: Any, key: str, path: Path) -> list[float]:
        numbers = isinstance(value, list) and len(value) == 4 and all(type(part) in (int, float) for part in value)
        if not numbers:
            raise DataError(f"{path}: the box of {key!r} is {value!r:.60}; four numbers are needed.")
        x, y, *rest = value
        return [x, y, rest[0] - x, rest[1] - y] if corners else value

    def found_box(value: Any, key: str, path: Path) -> list[float]:
        found = box(value, key, path) if value not in EMPTY else NO_BOX
        return found if all(abs(number) < LARGEST for number in found) else NO_BOX

    given = _unique(_read_rows(predictions, "id", "box"), "box", predictions, found_box)
    known: dict[str, Target] = {}
    for key, row in _read_rows(references, "id", "box"):
        _check_new(key, known, references)
        known[key] = Target(box(row["box"], key, references), _read_image_id(row, references))
    return {key: (given[key], known[key]) for key in _match_ids(given, known, predictions, references, subset)}


def look_like_corners(boxes: Sequence[Sequence[float]]) -> bool:
    """Whether all of at least 20 boxes have a third and fourth number above the first and second.

    Corners read as [x, y, width, height] give plausible but wrong scores, and no other check notices. Among 20 true
    boxes in that format some are narrower than their distance from the image's edge.
    """
    return len(boxes) >= 20 and all(box[2] > box[0] and box[3] > box[1] for box in boxes)


# --- shared by all files ---------------------------------------------------------------------------------------


def _read_rows(path: Path, name: str, *fields: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The id and the fields of each row of a list, of a list under "annotations", or of a mapping by id.

    Args:
        path: the JSON file.
        name: the key of the id.
        fields: the keys of which a row needs at least one.
    """
    content = read_json(path, MAX_JSON)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    elif isinstance(content, dict):
        content = [{name: key, fields[0]: value} for key, value in content.items()]
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{path} must hold a list of rows with {name!r} and {fields[0]!r}, or a mapping by id; it holds neither."
        )
    for number, row in enumerate(content):
        if not isinstance(row, dict) or name not in row or not any(field in row for field in fields):
            raise DataError(f"{path}: row {number} is {row!r:.80}; it needs {name!r} and {fields[0]!r}.")
        yield _read_id(row[name], path), row


def _read_id(value: Any, path: Path) -> str:
    if type(value) not in (int, str) or value == "":
        raise DataError(f"{path}: {value!r:.60} is not an id; ids are integers or strings.")
    return str(value)


def _read_image_id(row: Mapping[str, Any], path: Path) -> str | None:
    return _read_id(row["image_id"], path) if row.get("image_id") is not None else None


def _read_text(value: Any, key: str, path: Path) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}: the text of {key!r} is {value!r:.60}; a string that is not empty is needed.")
    return value


def _read_result(value: Any, key: str, path: Path) -> str:
    """The text that a model gave; "" where it gave none."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    is_empty = value in EMPTY or (isinstance(value, str) and not value.strip())
    return "" if is_empty else _read_text(value, key, path)


def _unique(
    rows: Iterable[tuple[str, Mapping[str, Any]]], field: str, path: Path, read: Callable[[Any, str, Path], T]
) -> dict[str, T]:
    """The prediction of each id; DataError where an id comes twice."""
    found: dict[str, T] = {}
    for key, row in rows:
        _check_new(key, found, path)
        found[key] = read(row[field], key, path)
    return found


def _check_new(key: str, found: Mapping[str, Any], path: Path) -> None:
    if key in found:
        raise DataError(f"{path} has {key!r} twice; each id must be unique.")


def _match_ids(
    given: Mapping[str, Any], known: Mapping[str, Any], predictions: Path, references: Path, subset: bool
) -> Sequence[str]:
    """The ids to score: all of the references, or with `subset` those that have a prediction."""
    unknown = [key for key in given if key not in known]
    if unknown:
        raise DataError(
            f"{references} lacks {len(unknown):,} of {len(given):,} ids of {predictions}: {_list_first(unknown)}."
        )
    missing = [key for key in known if key not in given]
    if missing and not subset:
        raise DataError(
            f"{predictions} lacks {len(missing):,} of {len(known):,} ids of {references}: {_list_first(missing)}; "
            "predict them too, or score only those with a prediction: --subset."
        )
    return list(given)


def _list_first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
