"""`tavq metrics`: score files of predictions and folders of images, of this program or any other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count
from tavq.cli.metric_table import print_metrics
from tavq.core.errors import UsageError
from tavq.metrics.record import Evaluation, evaluation_as_json

PACKAGES = ("numpy", "torch", "nltk", "pycocoevalcap")
"""Whose versions a result tells."""


app = App(
    name="metrics",
    help="Score files of predictions and folders of images as the published tools do, with 95 % intervals.\n\n"
    "Example: tavq metrics captions --predictions captions.json --references captions_val2017.json",
)


@app.command
def images(
    folder: Path,
    reference: Path | None = None,
    /,
    *,
    paired: bool = False,
    features: tuple[str, ...] = ("scenes",),
    reference_statistics: Path | None = None,
    save_statistics: Path | None = None,
    split: str | None = None,
    reference_split: str | None = None,
    size: Count | None = None,
    json: Path | None = None,
) -> None:
    """Measures how near a folder of images is to another one, or to the saved statistics of one.

    Example: tavq metrics images reconstructed originals --paired --features inception=inception.safetensors

    Args:
        folder: A folder of images or a folder data set: what was generated or reconstructed.
        reference: Another one, which it is measured against.
        paired: Images of one name belong together: PSNR, SSIM, MS-SSIM, l1, l2 and, with its weights, LPIPS too.
        features: Networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE` (FID), `lpips=FILE`.
        reference_statistics: What --save-statistics wrote, in the place of a second folder.
        save_statistics: Write the statistics of FOLDER to this file, for later runs.
        split: Only this split of FOLDER.
        reference_split: Only this split of the reference.
        size: Bring every image to a square of this side; by default they are taken as they are.
        json: Also write the metrics, each image's too, to this file.
    """
    from tavq.api.tokenizers import open_network
    from tavq.core.devices import default_device
    from tavq.evaluation.folders import Comparison, ImageFolder, same_files
    from tavq.metrics.reference import read_statistics, write_statistics

    _check_call(reference, reference_statistics, save_statistics, paired)
    networks = [open_network(name).to(default_device()) for name in features]
    _check_networks(networks, paired, save_statistics)
    other = None if reference is None else ImageFolder(reference, reference_split, size)
    saved = None if reference_statistics is None else read_statistics(reference_statistics)
    comparison = Comparison(ImageFolder(folder, split, size), other or saved, networks, reference_statistics)
    with console.bar("Measuring") as bar:
        (comparison.read_pairs if paired else comparison.read)(bar)
    result = comparison.result()
    if save_statistics is not None:
        write_statistics(save_statistics, comparison.statistics())
        console.say(f"The statistics of {result.details['images']['count']:,} images are in {save_statistics}.")
    _print_images(result, same_files(result))
    console.write_json(json, {**evaluation_as_json(result), "versions": api.versions(*PACKAGES)})


@app.command
def convert(
    kind: Literal["inception", "lpips-vgg", "lpips-alex"], weights: str, /, *, out: Path, heads: str | None = None
) -> None:
    """Converts a network's published weights, a pickle, to the safetensors file that the metrics read.

    Example: tavq metrics convert inception pt_inception-2015-12-05-6726825d.pth --out inception.safetensors

    Args:
        kind: FID's Inception network, or LPIPS with VGG-16 or AlexNet.
        weights: The published file, or its web address; what is fetched must have the published file's sha256.
        out: The file to write.
        heads: For LPIPS: its vgg.pth or alex.pth of version 0.1, or its web address.
    """
    from tavq.core.download import fetch_if_url
    from tavq.nets.features import inception, lpips

    _, _, backbone = kind.partition("-")
    if (heads is None) == bool(backbone):
        raise UsageError(f"{kind} {'needs' if backbone else 'takes no'} --heads; LPIPS has a file of its own for them.")
    expected = lpips.PUBLISHED[backbone]["backbone"] if backbone else inception.PUBLISHED
    with fetch_if_url(weights, expected, out) as source:
        if heads is not None:
            wanted = lpips.PUBLISHED[backbone]["heads"]
            with fetch_if_url(heads, wanted, out.with_name(f"heads-{out.name}")) as own:
                origin = lpips.convert_lpips(backbone, source, own, out)
            published = dict(origin.sources) == lpips.PUBLISHED[backbone]
        else:
            origin = inception.convert_inception(source, out)
            published = origin.sources == {"weights": inception.PUBLISHED}
    console.say(f"{out} holds {kind}.")
    if not published:
        console.say("These are not the published weights (sha256), so no result will carry the published name.")


@app.command
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
        subset: Score only the images that have a prediction; otherwise one that lacks is an error.
        nltk_data: A folder with corpora/wordnet, for meteor_nltk where METEOR's own tool (Java and the package
            pycocoevalcap) is not installed.
        json: Also write the metrics, each image's too, to this file.
    """
    from tavq.metrics.captions import CaptionScores
    from tavq.metrics.predictions import read_captions

    scores = CaptionScores()
    for key, (caption, truths) in read_captions(predictions, references, subset).items():
        scores.add(key, caption, truths)
    result = scores.compute() | {"meteor": None}
    _add_meteor(result, scores, nltk_data)
    title = f"{result['images']:,} captions against {result['references']:,} references"
    print_metrics(title, result["metrics"])
    if result["captions_without_words"]:
        console.say(f"{result['captions_without_words']:,} captions hold punctuation only and score 0.")
    if result["images"] == 1:
        console.say("CIDEr-D weighs words by how few of the images have them; with one image it is always 0.")
    _write(json, result, predictions, references)


@app.command
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
        json: Also write the metrics, each question's too, to this file.
    """
    from tavq.metrics.answers import AnswerScores
    from tavq.metrics.predictions import read_answers

    read = read_answers(predictions, references, subset)
    one_truth = any(isinstance(question.truth, str) for _, question in read.values())
    scores = AnswerScores(_wups(nltk_data) if one_truth else None)
    for key, (answer, question) in read.items():
        scores.add(key, answer, question.truth, question.kind, question.image)
    result = scores.compute()
    print_metrics(f"{result['questions']:,} answers", result["metrics"])
    _write(json, result, predictions, references)


@app.command
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
        json: Also write the metrics, each phrase's too, to this file.
    """
    from tavq.metrics.grounding import GroundingScores
    from tavq.metrics.predictions import look_like_corners, read_boxes

    scores = GroundingScores()
    read = read_boxes(predictions, references, subset, corners)
    if not corners and look_like_corners([target.box for _, target in read.values()]):
        console.say(f"Every box of {references} could be [x1, y1, x2, y2]; if so, score again with --corners.")
    for key, (box, target) in read.items():
        scores.add(key, box, target.box, target.image)
    result = scores.compute()
    print_metrics(f"{result['phrases']:,} phrases", result["metrics"])
    if result["boxes_without_area"]:
        console.say(f"{result['boxes_without_area']:,} boxes have no area and are wrong.")
    _write(json, result, predictions, references)


def _check_call(reference: Path | None, saved: Path | None, save: Path | None, paired: bool) -> None:
    if reference is not None and saved is not None:
        raise UsageError("Give a second folder or --reference-statistics, not both.")
    if reference is None and saved is None and save is None:
        raise UsageError("There is nothing to measure against; give a second folder or --reference-statistics.")
    if paired and reference is None:
        raise UsageError("--paired needs a second folder, with images of the same names.")


def _check_networks(networks: Sequence[Any], paired: bool, save: Path | None) -> None:
    """Before hours of reading, not after."""
    if any(network.heads for network in networks) and not paired:
        raise UsageError("LPIPS compares images one by one; give --paired.")
    sets = [network for network in networks if not network.heads]
    if save is not None and len(sets) != 1:
        raise UsageError(f"--save-statistics is for the features of one network, and {len(sets)} are given.")
    names = [network.metric_name("distance") for network in networks]
    if len(set(names)) < len(names):
        raise UsageError("A feature network is given twice; name each once.")


def _print_images(result: Evaluation, same: bool) -> None:
    measured, reference = result.details["images"], result.details["reference"]
    title = f"{measured['count']:,} images of {_sides(measured)}"
    if reference is not None:
        title += f" against {reference['count']:,} of {reference['data']}"
        print_metrics(title, result.metrics)
        console.say(f"Resized: {measured['resize']}.")
        if measured["count"] != reference["count"]:
            console.say("The sets differ in number; a Fréchet distance depends on it.")
    for name, digest in result.details["feature_weights"].items():
        console.say(f"{name}: weights {digest}")
    if same:
        console.say("Both sets are the same files; the distances say nothing.")
    if result.details["per_image"] and result["ms_ssim"].value is None:
        console.say(f"MS-SSIM is left out: it needs images of 176 x 176, and these are {_sides(measured)}.")


def _sides(measured: Mapping[str, Any]) -> str:
    return "{} x {}".format(*measured["size"])


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
    result["metrics"] += found["metrics"]
    for key, each in found["per_image"].items():
        result["per_image"][key] |= each


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


def _write(json: Path | None, result: Mapping[str, Any], predictions: Path, references: Path) -> None:
    from tavq.core import files

    read = {"predictions": predictions, "references": references}
    sources = {name: {"file": str(path), "sha256": files.sha256(path)} for name, path in read.items()}
    details = {key: value for key, value in result.items() if key != "metrics"}
    details |= {"sources": sources, "versions": api.versions(*PACKAGES)}
    console.write_json(json, evaluation_as_json(Evaluation(tuple(result["metrics"]), details)))
