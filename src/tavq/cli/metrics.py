"""`tavq metrics`: score files of predictions and folders of images, of this program or any other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Workers
from tavq.cli.devices import with_device
from tavq.cli.metric_table import print_metrics
from tavq.metrics.record import Evaluation, evaluation_as_json

app = App(
    name="metrics",
    help="Score files of predictions and folders of images as the published tools do, with 95 % intervals.\n\n"
    "Example: tavq metrics captions --predictions captions.json --references captions_val2017.json",
)


@app.command
@with_device
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
    workers: Workers | None = None,
    json: Path | None = None,
) -> None:
    """Measure the distance of a folder of images to another one, or to saved statistics.

    Example: tavq metrics images reconstructed originals --paired --features inception=inception.safetensors

    Args:
        folder: Generated or reconstructed images: a folder of images or a folder data set.
        reference: The images to compare with.
        paired: Also compare images of the same name: PSNR, SSIM, MS-SSIM, l1, l2 and, with its weights, LPIPS.
        features: Networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE` (FID), `lpips=FILE`.
        reference_statistics: A file that --save-statistics wrote, instead of a second folder.
        save_statistics: Write the statistics of FOLDER to this file.
        split: Only this split of FOLDER.
        reference_split: Only this split of the reference.
        size: Resize every image to a square of this side; by default images are used as they are.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the result, with the scores of each image, to this file.
    """
    with console.bar("Measuring") as bar:
        result = api.score_images(
            folder, reference, paired=paired, features=features, reference_statistics=reference_statistics,
            save_statistics=save_statistics, split=split, reference_split=reference_split, size=size,
            workers=workers, progress=bar,
        )  # fmt: skip
    if save_statistics is not None:
        console.say(f"The statistics of {result.details['images']['count']:,} images are in {save_statistics}.")
    with console.saved_as_json(json, evaluation_as_json(result)):
        _print_images(result)


@app.command
def captions(
    *,
    predictions: Path,
    references: Path,
    subset: bool = False,
    nltk_data: Path | None = None,
    json: Path | None = None,
) -> None:
    """Score captions by BLEU-1 to BLEU-4, ROUGE-L, CIDEr-D and METEOR; the scores equal those of coco-caption.

    Example: tavq metrics captions --predictions captions.json --references captions_val2017.json --subset

    Args:
        predictions: JSON: COCO's results ([{"image_id", "caption"}]) or {id: caption}.
        references: JSON: COCO's annotations ({"annotations": [{"image_id", "caption"}]}) or {id: [caption, ...]}.
        subset: Score only the images that have a prediction; otherwise a missing prediction is an error.
        nltk_data: A folder with corpora/wordnet, for meteor_nltk where METEOR's own tool (Java and the package
            pycocoevalcap) is not installed.
        json: Also write the result, with the scores of each image, to this file.
    """
    result = api.score_captions(predictions, references, subset=subset, nltk_data=nltk_data)
    details = result.details
    with console.saved_as_json(json, evaluation_as_json(result)):
        print_metrics(f"{details['images']:,} captions against {details['references']:,} references", result.metrics)


@app.command
def vqa(
    *,
    predictions: Path,
    references: Path,
    subset: bool = False,
    nltk_data: Path | None = None,
    json: Path | None = None,
) -> None:
    """Score answers by accuracy and WUPS, or by VQA accuracy where ten people answered; overall and by type.

    Example: tavq metrics vqa --predictions answers.json --references questions.json --nltk-data nltk_data

    Args:
        predictions: JSON: [{"question_id", "answer"}] or {id: answer}.
        references: JSON: [{"question_id", "answer", "type"}], or VQA's annotations with the answers of ten people.
        subset: Score only the questions that have a prediction; otherwise a missing prediction is an error.
        nltk_data: A folder with corpora/wordnet, for WUPS; by default where NLTK looks.
        json: Also write the result, with the scores of each question, to this file.
    """
    result = api.score_answers(predictions, references, subset=subset, nltk_data=nltk_data)
    with console.saved_as_json(json, evaluation_as_json(result)):
        print_metrics(f"{result.details['questions']:,} answers", result.metrics)


@app.command
def grounding(
    *, predictions: Path, references: Path, subset: bool = False, corners: bool = False, json: Path | None = None
) -> None:
    """Score the boxes found for phrases by the accuracy at an IoU of 0.5 and the mean IoU.

    Example: tavq metrics grounding --predictions boxes.json --references phrases.json

    Args:
        predictions: JSON: [{"id", "box"}] or {id: box}; a box is [x, y, width, height].
        references: JSON: the same, with "image_id" where it is known.
        subset: Score only the phrases that have a prediction; otherwise a missing prediction is an error.
        corners: Boxes are [x1, y1, x2, y2] in both files.
        json: Also write the result, with the scores of each phrase, to this file.
    """
    result = api.score_boxes(predictions, references, subset=subset, corners=corners)
    with console.saved_as_json(json, evaluation_as_json(result)):
        print_metrics(f"{result.details['phrases']:,} phrases", result.metrics)


@app.command
def convert(
    kind: Literal["inception", "lpips-vgg", "lpips-alex"], weights: str, /, *, out: Path, heads: str | None = None
) -> None:
    """Convert a network's published weights, a pickle, to the safetensors file that the metrics read.

    Example: tavq metrics convert inception pt_inception-2015-12-05-6726825d.pth --out inception.safetensors

    Args:
        kind: FID's Inception network, or LPIPS with VGG-16 or AlexNet.
        weights: The published file, or its URL; a download must have the SHA-256 of the published file.
        out: The file to write.
        heads: For LPIPS its vgg.pth or alex.pth of version 0.1, or its URL.
    """
    written = api.convert_weights(kind, weights, out=out, heads=heads)
    console.say(f"{written} holds {kind}.")


def _print_images(result: Evaluation) -> None:
    measured, reference = result.details["images"], result.details["reference"]
    title = f"{measured['count']:,} images of {_size(measured)}"
    if reference is not None:
        print_metrics(f"{title} against {reference['count']:,} of {reference['data']}", result.metrics)
        console.say(f"Resized: {measured['resize']}.")
        if measured["count"] != reference["count"]:
            console.say("The sets differ in their number of images, on which a Fréchet distance depends.")
    for name, digest in result.details["feature_weights"].items():
        console.say(f"{name}: weights {digest}")
    if result.details["per_image"] and result["ms_ssim"].value is None:
        console.say(f"MS-SSIM is left out: it needs images of 176 x 176, and these are {_size(measured)}.")


def _size(measured: Mapping[str, Any]) -> str:
    height, width = measured["size"]
    return f"{width} x {height}"
