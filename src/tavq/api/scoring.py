"""Score images, captions, answers and boxes of any program, as the published tools do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tavq.api.calls import PathLike, Progress, warn, without_note
from tavq.api.images import count_workers
from tavq.api.measuring import open_network
from tavq.core import files
from tavq.core.devices import default_device
from tavq.core.download import fetch_if_url
from tavq.core.errors import FileError, UsageError
from tavq.data.workers import explain_dead_workers
from tavq.evaluation.folders import FolderComparison, ImageFolder, is_same_set
from tavq.evaluation.protocol import versions
from tavq.metrics.answers import AnswerScores
from tavq.metrics.captions import CaptionScores
from tavq.metrics.grounding import GroundingScores
from tavq.metrics.meteor import meteor
from tavq.metrics.predictions import look_like_corners, read_answers, read_boxes, read_captions
from tavq.metrics.record import Evaluation
from tavq.metrics.reference import read_statistics, write_statistics
from tavq.metrics.wups import Wups
from tavq.nets.features import inception, lpips
from tavq.nets.features.extractors import FeatureNetwork
from tavq.ops.collective import barrier, join_processes, rank

PACKAGES = ("numpy", "torch", "nltk", "pycocoevalcap")
"""Packages whose versions a result records."""


@explain_dead_workers()
def score_images(
    folder: PathLike,
    reference: PathLike | None = None,
    *,
    paired: bool = False,
    features: Iterable[str] = ("scenes",),
    reference_statistics: PathLike | None = None,
    save_statistics: PathLike | None = None,
    split: str | None = None,
    reference_split: str | None = None,
    size: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the distance of a folder of images to another one, or to saved statistics.

    Args:
        folder: generated or reconstructed images: a folder of images or a folder data set.
        reference: the images to compare with.
        paired: compare images of the same name too: PSNR, SSIM, MS-SSIM, l1, l2 and, with its weights, LPIPS.
        features: feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE` (FID), `lpips=FILE`.
        reference_statistics: a file of `save_statistics`, instead of `reference`.
        save_statistics: write the statistics of `folder` to this file.
        split: only this split of `folder`.
        reference_split: only this split of `reference`.
        size: resize every image to a square of this side; by default images are used as they are.
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note).

    Returns:
        The metrics with their 95 % intervals (`result["psnr"].value`); `result.details` has those of each pair.

    Raises:
        UsageError: arguments exclude each other, or there is no such folder or network.
        DataError: images differ in size, or a pair is not complete.
        FileError: a file is damaged.
    """
    _check_images_call(reference, reference_statistics, save_statistics, paired)
    with join_processes():
        networks = [open_network(name).to(default_device()) for name in features]
        _check_networks(networks, paired, save_statistics)
        readers = count_workers(workers)
        other = None if reference is None else ImageFolder(Path(reference), reference_split, size, readers)
        saved_at = None if reference_statistics is None else Path(reference_statistics)
        saved = None if saved_at is None else read_statistics(saved_at)
        own = ImageFolder(Path(folder), split, size, readers)
        comparison = FolderComparison(own, other or saved, networks, saved_at)
        read = comparison.read_pairs if paired else comparison.read
        read(without_note(progress) or (lambda done, total: None))
        comparison.join()
        if save_statistics is not None and rank() == 0:
            write_statistics(Path(save_statistics), comparison.statistics())
        result = comparison.result()
        barrier()
    if is_same_set(result):
        warn("Both sets consist of the same files; their distances mean nothing.")
    return replace(result, details={**result.details, "versions": versions(*PACKAGES)})


def _check_images_call(reference: PathLike | None, saved: PathLike | None, save: PathLike | None, paired: bool) -> None:
    if reference is not None and saved is not None:
        raise UsageError("Give a second folder or --reference-statistics, not both.")
    if reference is None and saved is None and save is None:
        raise UsageError("There is nothing to compare with; give a second folder or --reference-statistics.")
    if paired and reference is None:
        raise UsageError("--paired needs a second folder, with images of the same names.")


def _check_networks(networks: Sequence[FeatureNetwork], paired: bool, save: PathLike | None) -> None:
    """Refuse networks that do not fit the call, before hours of reading images."""
    if any(network.heads for network in networks) and not paired:
        raise UsageError("LPIPS compares images in pairs; add --paired.")
    sets = [network for network in networks if not network.heads]
    if save is not None and len(sets) != 1:
        raise UsageError(f"--save-statistics needs exactly one feature network; got {len(sets)}.")
    names = [network.metric_name("distance") for network in networks]
    if len(set(names)) < len(names):
        raise UsageError("A feature network is given twice; name each once.")


def score_captions(
    predictions: PathLike, references: PathLike, *, subset: bool = False, nltk_data: PathLike | None = None
) -> Evaluation:
    """Score captions by BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D and METEOR; the scores equal those of coco-caption.

    Args:
        predictions: JSON file: COCO's results ([{"image_id", "caption"}]) or {id: caption}.
        references: JSON file: COCO's annotations ({"annotations": [{"image_id", "caption"}]}) or {id: [caption, ...]}.
        subset: score only the images that have a prediction; otherwise a missing prediction is an error.
        nltk_data: a folder with corpora/wordnet, for `meteor_nltk` where METEOR's own tool is not installed.

    Returns:
        The metrics with their 95 % intervals; `result.details` has those of each image. METEOR is left out, which is
        logged, where neither its tool (Java and the package pycocoevalcap) nor WordNet is installed.

    Raises:
        FileError: a file is missing or is not in one of these formats.
        DataError: a prediction or a reference is missing.
    """
    scores = CaptionScores()
    for key, (caption, truths) in read_captions(Path(predictions), Path(references), subset).items():
        scores.add(key, caption, truths)
    result = scores.compute() | {"meteor": None}
    _add_meteor(result, scores, None if nltk_data is None else Path(nltk_data))
    empty = result["empty_captions"]
    if empty:
        warn(f"{empty:,} captions are empty and score 0.")
    if result["captions_without_words"] > empty:
        warn(f"{result['captions_without_words'] - empty:,} captions consist of punctuation only and score 0.")
    if result["images"] == 1:
        warn("CIDEr-D weights words by how few images have them; with one image it is always 0.")
    return _with_sources(result, predictions, references)


def _add_meteor(result: dict[str, Any], scores: CaptionScores, nltk_data: Path | None) -> None:
    try:
        found = meteor(scores.tokenized(), nltk_data)
    except FileError as error:
        if nltk_data is not None:
            raise
        warn(f"METEOR is left out: Java and the package pycocoevalcap are not both installed. {error}")
        return
    result["meteor"] = found["tool"]
    result["metrics"] += found["metrics"]
    for key, each in found["per_image"].items():
        result["per_image"][key] |= each


def score_answers(
    predictions: PathLike, references: PathLike, *, subset: bool = False, nltk_data: PathLike | None = None
) -> Evaluation:
    """Score answers by accuracy and WUPS, or by VQA accuracy where ten people answered; overall and by type.

    Args:
        predictions: JSON file: [{"question_id", "answer"}] or {id: answer}.
        references: JSON file: [{"question_id", "answer", "type"}], or VQA's annotations with the answers of ten people.
        subset: score only the questions that have a prediction; otherwise a missing prediction is an error.
        nltk_data: a folder with corpora/wordnet, for WUPS; by default where NLTK looks.

    Returns:
        The metrics with their 95 % intervals; `result.details` has those of each question. WUPS is left out, which is
        logged, where WordNet is not installed.

    Raises:
        FileError: a file is missing or is not in one of these formats.
        DataError: a prediction or a reference is missing.
    """
    answers = read_answers(Path(predictions), Path(references), subset)
    one_truth = any(isinstance(question.truth, str) for _, question in answers.values())
    corpora = None if nltk_data is None else Path(nltk_data)
    scores = AnswerScores(_open_wups(corpora) if one_truth else None)
    for key, (answer, question) in answers.items():
        scores.add(key, answer, question.truth, question.kind, question.image)
    result = scores.compute()
    if result["empty_answers"]:
        warn(f"{result['empty_answers']:,} answers are empty and score 0.")
    return _with_sources(result, predictions, references)


def _open_wups(nltk_data: Path | None) -> Wups | None:
    try:
        return Wups(nltk_data)
    except FileError as error:
        if nltk_data is not None:
            raise
        warn(f"WUPS is left out: {error}")
        return None


def score_boxes(
    predictions: PathLike, references: PathLike, *, subset: bool = False, corners: bool = False
) -> Evaluation:
    """Score the boxes found for phrases by the accuracy at an IoU of 0.5 and the mean IoU.

    Args:
        predictions: JSON file: [{"id", "box"}] or {id: box}; a box is [x, y, width, height].
        references: JSON file: the same, with "image_id" where it is known.
        subset: score only the phrases that have a prediction; otherwise a missing prediction is an error.
        corners: boxes are [x1, y1, x2, y2] in both files.

    Returns:
        The metrics with their 95 % intervals; `result.details` has those of each phrase.

    Raises:
        FileError: a file is missing or is not in one of these formats.
        DataError: a prediction or a reference is missing.
    """
    boxes = read_boxes(Path(predictions), Path(references), subset, corners)
    if not corners and look_like_corners([target.box for _, target in boxes.values()]):
        warn(f"Every box of {references} could be [x1, y1, x2, y2]; if so, score again with --corners.")
    scores = GroundingScores()
    for key, (box, target) in boxes.items():
        scores.add(key, box, target.box, target.image)
    result = scores.compute()
    if result["boxes_without_area"]:
        warn(f"{result['boxes_without_area']:,} boxes are missing or have no area and count as wrong.")
    return _with_sources(result, predictions, references)


def _with_sources(result: Mapping[str, Any], predictions: PathLike, references: PathLike) -> Evaluation:
    read = {"predictions": Path(predictions), "references": Path(references)}
    sources = {name: {"file": str(path), "sha256": files.sha256(path)} for name, path in read.items()}
    details = {key: value for key, value in result.items() if key != "metrics"}
    details |= {"sources": sources, "versions": versions(*PACKAGES)}
    return Evaluation(tuple(result["metrics"]), details)


def convert_weights(
    kind: Literal["inception", "lpips-vgg", "lpips-alex"], weights: str, *, out: PathLike, heads: str | None = None
) -> Path:
    """Convert a network's published weights, a pickle, to the safetensors file that the metrics read.

    Args:
        kind: FID's Inception network, or LPIPS with VGG-16 or AlexNet.
        weights: the published file, or its URL; a download must have the SHA-256 of the published file.
        out: the file to write.
        heads: for LPIPS its vgg.pth or alex.pth of version 0.1, or its URL.

    Returns:
        The file that was written. Weights other than the published ones are logged: results do not carry the published
        name then.

    Raises:
        UsageError: `heads` is missing, or is given for Inception.
        FileError: a file cannot be fetched or is not what it should be.
    """
    _, _, backbone = kind.partition("-")
    if (heads is None) == bool(backbone):
        needs = "needs" if backbone else "does not use"
        raise UsageError(f"{kind} {needs} --heads; only LPIPS has a file of its own for them.")
    place = Path(out)
    expected = lpips.PUBLISHED[backbone]["backbone"] if backbone else inception.PUBLISHED
    with fetch_if_url(weights, expected, place) as source:
        if heads is not None:
            wanted = lpips.PUBLISHED[backbone]["heads"]
            with fetch_if_url(heads, wanted, place.with_name(f"heads-{place.name}")) as own:
                origin = lpips.convert_lpips(backbone, source, own, place)
            published = dict(origin.sources) == lpips.PUBLISHED[backbone]
        else:
            origin = inception.convert_inception(source, place)
            published = origin.sources == {"weights": inception.PUBLISHED}
    if not published:
        warn("These are not the published weights (SHA-256), so results will not carry the published name.")
    return place
