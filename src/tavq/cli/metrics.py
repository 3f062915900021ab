"""`tavq metrics`: score files of predictions, of this program or any other."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console


def add_to(app: App) -> None:
    """Adds the commands."""
    metrics = App(
        name="metrics",
        help="Score files of predictions as the published tools do, with 95 % intervals.\n\n"
        "Example: tavq metrics captions --predictions captions.json --references captions_val2017.json",
    )
    metrics.command(captions)
    metrics.command(vqa)
    metrics.command(grounding)
    app.command(metrics)


def captions(
    *,
    predictions: Path,
    references: Path,
    subset: bool = False,
    nltk_data: Path | None = None,
    json: Path | None = None,
) -> None:
    """Scores captions by BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D and METEOR, equal to coco-caption's.

    Example: tavq metrics captions --predictions captions.json --references captions_val2017.json --subset

    Args:
        predictions: JSON: COCO's results ([{"image_id", "caption"}]) or {id: caption}.
        references: JSON: COCO's annotations ({"annotations": [{"image_id", "caption"}]}) or {id: [caption, ...]}.
        subset: Score only the pictures that have a prediction; otherwise one that lacks is an error.
        nltk_data: A folder with corpora/wordnet, for meteor_nltk where METEOR's own tool (Java and the package
            pycocoevalcap) is not installed.
        json: Also write the figures, each picture's too, to this file.
    """
    from tavq.metrics.captions import CaptionScores
    from tavq.metrics.submitted import read_captions

    scores = CaptionScores()
    for key, (caption, truths) in read_captions(predictions, references, subset).items():
        scores.add(key, caption, truths)
    result = scores.compute() | {"meteor": None}
    _add_meteor(result, scores, nltk_data)
    title = f"{result['pictures']:,} captions against {result['references']:,} references"
    console.table(title, ["metric", "value", "95 %"], [[name, *_cells(at)] for name, at in result["scores"].items()])
    if result["captions_without_words"]:
        console.say(f"{result['captions_without_words']:,} captions hold punctuation only and score 0.")
    if result["pictures"] == 1:
        console.say("CIDEr-D weighs words by how few of the pictures have them; with one picture it is always 0.")
    _write(json, result, predictions, references)


def vqa(
    *,
    predictions: Path,
    references: Path,
    subset: bool = False,
    nltk_data: Path | None = None,
    json: Path | None = None,
) -> None:
    """Scores answers by accuracy and WUPS, or by VQA accuracy where ten people answered, over all and by type.

    Example: tavq metrics vqa --predictions answers.json --references questions.json --nltk-data nltk_data

    Args:
        predictions: JSON: [{"question_id", "answer"}] or {id: answer}.
        references: JSON: [{"question_id", "answer", "type"}], or VQA's annotations with the answers of ten people.
        subset: Score only the questions that have a prediction; otherwise one that lacks is an error.
        nltk_data: A folder with corpora/wordnet, for WUPS; by default where NLTK looks.
        json: Also write the figures, each question's too, to this file.
    """
    from tavq.metrics.answers import AnswerScores
    from tavq.metrics.submitted import read_answers

    read = read_answers(predictions, references, subset)
    one_truth = any(isinstance(question.truth, str) for _, question in read.values())
    scores = AnswerScores(_wups(nltk_data) if one_truth else None)
    for key, (answer, question) in read.items():
        scores.add(key, answer, question.truth, question.kind, question.picture)
    result = scores.compute()
    groups = {"all": {"scores": result["scores"], "count": result["questions"]}, **result["by_type"]}
    columns = [column for name in result["scores"] for column in (name, "95 %")]
    rows = [
        [kind, group["count"], *(cell for at in group["scores"].values() for cell in _cells(at))]
        for kind, group in groups.items()
    ]
    console.table("Answers", ["questions", "count", *columns], rows)
    _write(json, result, predictions, references)


def grounding(
    *, predictions: Path, references: Path, subset: bool = False, corners: bool = False, json: Path | None = None
) -> None:
    """Scores the boxes found for phrases by the accuracy at an IoU of 0.5 and the mean IoU.

    Example: tavq metrics grounding --predictions boxes.json --references phrases.json

    Args:
        predictions: JSON: [{"id", "box"}] or {id: box}; a box is [x, y, width, height].
        references: JSON: the same, with "image_id" where it is known.
        subset: Score only the phrases that have a prediction; otherwise one that lacks is an error.
        corners: Boxes are [x1, y1, x2, y2], in both files.
        json: Also write the figures, each phrase's too, to this file.
    """
    from tavq.metrics.grounding import GroundingScores
    from tavq.metrics.submitted import look_like_corners, read_boxes

    scores = GroundingScores()
    read = read_boxes(predictions, references, subset, corners)
    if not corners and look_like_corners([target.box for _, target in read.values()]):
        console.say(f"Every box of {references} could be [x1, y1, x2, y2]; if so, score again with --corners.")
    for key, (box, target) in read.items():
        scores.add(key, box, target.box, target.picture)
    result = scores.compute()
    rows = [[name, *_cells(at)] for name, at in result["scores"].items()]
    console.table(f"{result['phrases']:,} phrases", ["metric", "value", "95 %"], rows)
    if result["boxes_without_area"]:
        console.say(f"{result['boxes_without_area']:,} boxes have no area and are wrong.")
    _write(json, result, predictions, references)


def _add_meteor(result: dict[str, Any], scores: Any, nltk_data: Path | None) -> None:
    from tavq.core.errors import FileError
    from tavq.metrics.meteor import meteor

    try:
        with console.bar("METEOR"):
            found = meteor(scores.tokenized(), nltk_data)
    except FileError as error:
        if nltk_data is not None:
            raise
        console.say(f"METEOR is left out: Java and the package pycocoevalcap are not both installed. {error}")
        return
    result["meteor"] = found["tool"]
    result["scores"] |= found["scores"]
    for key, each in found["per_picture"].items():
        result["per_picture"][key] |= each


def _wups(nltk_data: Path | None) -> Any:
    from tavq.core.errors import FileError
    from tavq.metrics.wups import Wups

    try:
        return Wups(nltk_data)
    except FileError as error:
        if nltk_data is not None:
            raise
        console.say(f"WUPS is left out: {error}")
        return None


def _cells(score: Mapping[str, Any]) -> Sequence[Any]:
    """A value and its interval."""
    ends = score["interval"]
    return [score["value"], "-" if ends is None else f"{console.number(ends[0])} to {console.number(ends[1])}"]


def _write(json: Path | None, result: Mapping[str, Any], predictions: Path, references: Path) -> None:
    from tavq.core import files

    read = {"predictions": predictions, "references": references}
    sources = {name: {"file": str(path), "sha256": files.sha256(path)} for name, path in read.items()}
    console.write_json(json, {**result, "sources": sources, "versions": _versions()})


def _versions() -> dict[str, str]:
    from tavq.core.version import __version__

    found = {"tavq": __version__}
    for package in ("numpy", "torch", "nltk", "pycocoevalcap"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
