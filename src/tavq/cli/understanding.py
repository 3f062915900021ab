"""`tavq ask`, `caption`, `ground` and `fill`: ask a trained task about images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Probability, Seed, Workers
from tavq.cli.devices import with_device, with_precision
from tavq.core.errors import UsageError

ANSWERS = 5
Temperature = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=100))]
Few = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))]


@with_device
@with_precision
def ask(run: str, image: Path, question: str, /, *, count: Count = ANSWERS, json: Path | None = None) -> None:
    """Answer a question about an image.

    Example: tavq ask vqa scenes/images/000005.png "what is the color of the barn"

    Args:
        run: A model of the task vqa: its model folder, run folder or hub name.
        image: The image; its centre square is used.
        question: A question in the words of the training questions.
        count: Number of answers, most likely first.
        json: Also write the answers to this file.
    """
    answers = api.ask(run, image, question, count=count)
    rows = [{"answer": answer, "probability": probability} for answer, probability in answers]
    with console.saved_as_json(json, {"image": str(image), "question": question, "answers": rows}):
        console.print_table(question, ["answer", "probability"], answers)


@with_device
@with_precision
def caption(
    run: str,
    images: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    /,
    *,
    count: Few = 1,
    beams: Few | None = None,
    temperature: Temperature | None = None,
    top_p: Probability | None = None,
    top_k: Count | None = None,
    seed: Seed = 0,
    split: str = "test",
    fault_budget: str | None = None,
    workers: Workers | None = None,
    json: Path | None = None,
    references: Path | None = None,
) -> None:
    """Generate captions of images, or of a split of a folder data set.

    Captions are found by beam search, or sampled if you give a temperature. `tavq metrics captions` reads the files of
    --json and --references.

    Example: tavq caption captioner scenes/images/000005.png scenes/images/000006.png --count 3

    Args:
        run: A model of the task captioning: its model folder, run folder or hub name.
        images: Images, of which the centre square is used; or one folder data set.
        count: Number of captions per image; best first for beam search.
        beams: Beam width; by default the recipe's.
        temperature: Sampling temperature.
        top_p: Sample from the most likely tokens that together have this probability.
        top_k: Sample from the k most likely tokens.
        seed: The same seed samples the same captions for an image of the same file name.
        split: Split of a folder data set: train, val or test.
        fault_budget: How many images may be unreadable in a data set:
            a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the captions to this file.
        references: Write the reference captions of a folder data set to this file.
    """
    is_dataset = len(images) == 1 and images[0].is_dir()
    if references is not None and images and not is_dataset:
        raise UsageError("--references needs a folder data set instead of images.")
    with console.bar("Captioning") as bar:
        captions = api.caption(
            run, images, count=count, beams=beams, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed,
            split=split, fault_budget=fault_budget, workers=workers, progress=bar,
        )  # fmt: skip
    if not console.is_first_process():
        return
    if json is not None:
        api.write_json(json, [found._asdict() for found in captions])
    if references is not None:
        captioned = {found.image_id for found in captions}
        known = api.reference_captions(run, images[0], split=split)
        api.write_json(references, {name: texts for name, texts in known.items() if name in captioned})
    if json is None or not is_dataset:
        console.print_table("Captions", ["image", "caption"], captions)
    else:
        console.say(f"The captions of {len(captions) // count:,} images are in {json}.")


@with_device
@with_precision
def ground(run: str, image: Path, phrase: str, /, *, out: Path | None = None, json: Path | None = None) -> None:
    """Find the object that a phrase refers to: its box, and the attention of the phrase over the image.

    Example: tavq ground grounding scenes/images/000005.png "the red barn" --out found.png

    Args:
        run: A model of the task grounding: its model folder, run folder or hub name.
        image: The image; its centre square is used.
        phrase: A phrase in the words of the training phrases.
        out: The image to write, with the box and, next to it, the attention map; by default RUN/grounded.png.
        json: Also write the box, in pixels of the image, and the attention map to this file.
    """
    place = out or console.place_in_run(run, "grounded.png")
    found = api.ground(run, image, phrase, out=place)
    heatmap = None if found.heatmap is None else found.heatmap.tolist()
    value = {"image": str(image), "phrase": phrase, "box": list(found.box), "heatmap": heatmap}
    with console.saved_as_json(json, value):
        console.print_table(phrase, ["left", "top", "width", "height"], [[round(edge, 1) for edge in found.box]])
    console.say(f"{place} shows the box and the attention.")
    if found.heatmap is not None:
        low, high = found.heatmap.min(), found.heatmap.max()
        console.say(f"Attention per patch ranges from {low:.0%} to {high:.0%}.")


@with_device
@with_precision
def fill(run: str, image: Path, caption: str, /, *, count: Count = ANSWERS, json: Path | None = None) -> None:
    """Fill in the missing words of a caption of an image; write ___ for each.

    Example: tavq fill words scenes/images/000005.png "a ___ barn beside a lake"

    Args:
        run: A model of the task masked-words: its model folder, run folder or hub name.
        image: The image; its centre square is used.
        caption: A caption in the words of the training captions, with ___ in place of each missing word.
        count: Number of words per gap, most likely first.
        json: Also write the words to this file.
    """
    gaps = api.fill(run, image, caption, count=count)
    rows = [[number, *word] for number, words in enumerate(gaps, 1) for word in words]
    value = {"image": str(image), "caption": caption, "gaps": [_as_json(words) for words in gaps]}
    with console.saved_as_json(json, value):
        console.print_table(caption, ["gap", "word", "probability"], rows)


def _as_json(words: "Sequence[api.Answer]") -> list[dict[str, Any]]:
    return [{"word": word, "probability": probability} for word, probability in words]
