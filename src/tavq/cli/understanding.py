"""`tavq ask`, `tavq caption` and their like: what a trained task says of an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from tavq.cli import console
from tavq.cli.console import Count, Seed, Share
from tavq.core.errors import UsageError

SHOWN = 5
BATCH = 32
Temperature = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=100))]
Few = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=64))]


def ask(run: str, image: Path, question: str, /, *, count: Count = SHOWN, json: Path | None = None) -> None:
    """Answers a question about an image.

    Example: tavq ask answerer scenes/images/000005.png "what is the color of the barn"

    Args:
        run: A model of the task vqa: its model folder, run folder or hub name.
        image: The image; its centre square is read.
        question: In the words of the training questions.
        count: How many answers to show, the likeliest first.
        json: Write them to this file too.
    """
    model = _loaded(run, "ask")
    rows = _look(model, image)
    _tell(model.task.check_text(question))
    [answers] = model.task.answer(rows, [question])
    shown = [{"answer": answer, "probability": share} for answer, share in answers[:count]]
    console.table(f"{question}", ["answer", "probability"], [[row["answer"], row["probability"]] for row in shown])
    console.write_json(json, {"image": str(image), "question": question, "answers": shown})


def caption(
    run: str,
    images: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    /,
    *,
    count: Few = 1,
    beams: Few | None = None,
    temperature: Temperature | None = None,
    top_p: Share | None = None,
    top_k: Count | None = None,
    seed: Seed = 0,
    split: str = "test",
    json: Path | None = None,
    references: Path | None = None,
) -> None:
    """Writes captions of images, or of a split of a folder data set.

    Captions are searched by beams, or drawn where a temperature is given. What --json and --references write is what
    tavq metrics captions reads.

    Example: tavq caption captioner scenes/images/000005.png scenes/images/000006.png --count 3

    Args:
        run: A model of the task captioning: its model folder, run folder or hub name.
        images: Images, of which the centre square is read; or one folder data set.
        count: How many captions of each image; of a search the best first.
        beams: Beginnings that the search keeps; by default those of the recipe.
        temperature: Draw the words: below 1 likelier ones, above 1 stranger ones.
        top_p: Draw among the likeliest words that together have this probability only.
        top_k: Draw among so many of the likeliest words only.
        seed: The same seed draws the same captions of an image of the same file name.
        split: Of a folder data set: train, val or test.
        json: Write the captions to this file too.
        references: Of a folder data set: write its own captions to this file.
    """
    from tavq.core import files
    from tavq.tasks.understanding import collect_examples

    model = _loaded(run, "caption")
    decoding = _writing(model.config.task.decoding, count, beams, temperature, top_p, top_k)
    dataset = _dataset(images, split, references)
    if dataset is None:
        looked: Any = (([str(image)], _look(model, image)) for image in images)
    else:
        looked = _look_through(model, dataset)
    rows = [
        {"image_id": key, "caption": text}
        for keys, seen in looked
        for key, texts in zip(keys, model.task.caption(seen, decoding, count, seed, keys), strict=True)
        for text in texts
    ]
    if json is not None:
        files.write_json(json, rows)
    if dataset is not None and references is not None:
        found = collect_examples(type(model.task), model.config.task, dataset)
        known: dict[str, list[str]] = {}
        for key, text in found:
            known.setdefault(key, []).append(text)
        written = {row["image_id"] for row in rows}
        files.write_json(references, {key: texts for key, texts in known.items() if key in written})
    if dataset is None or json is None:
        console.table("Captions", ["image", "caption"], [[row["image_id"], row["caption"]] for row in rows])
    else:
        console.say(f"The captions of {len(rows) // count:,} images are in {json}.")


def _writing(
    usual: Any, count: int, beams: int | None, temperature: float | None, top_p: float | None, top_k: int | None
) -> Any:
    """How the task writes, unless the call says otherwise."""
    from tavq.core.config import build
    from tavq.nets.language import DecodingConfig

    asked = temperature is None and (top_p is not None or top_k is not None)
    drawn = asked or bool(usual.temperature if temperature is None and beams is None else temperature)
    given = {
        "beams": beams or (1 if drawn else max(usual.beams, count)),
        "temperature": (temperature or usual.temperature or 1.0) if drawn else 0.0,
        "top_p": top_p or (usual.top_p if drawn else None),
        "top_k": top_k or (usual.top_k if drawn else None),
    }
    return build(DecodingConfig, given, "The call")


def _dataset(images: Sequence[Path], split: str, references: Path | None) -> Any:
    """The folder data set that is meant, None where images are."""
    from tavq.data.folder import FolderDataset

    if not images:
        raise UsageError("No image is named; give images, or one folder data set.")
    folders = [image for image in images if image.is_dir()]
    if folders and len(images) > 1:
        raise UsageError(f"{folders[0]} is a folder; give images, or one folder data set alone.")
    if not folders and references is not None:
        raise UsageError("--references are the captions of a folder data set; give one in the place of images.")
    return FolderDataset(folders[0], split) if folders else None


def ground(run: str, image: Path, phrase: str, /, *, out: Path | None = None, json: Path | None = None) -> None:
    """Finds what a phrase speaks of in an image: its box, and where in the image the phrase looks.

    Example: tavq ground finder scenes/images/000005.png "the red barn" --out found.png

    Args:
        run: A model of the task grounding: its model folder, run folder or hub name.
        image: The image; its centre square is read.
        phrase: In the words of the training phrases.
        out: The image to write, with the box and, beside it, the heat map; by default RUN/grounded.png.
        json: Write the box in pixels of the image, and the heat map, to this file too.
    """
    from tavq.cli.tasks import beside
    from tavq.data.boxes import box_to_image
    from tavq.data.images import load_image, save_png
    from tavq.report.task.grounding_overlay import grounded_image

    model = _loaded(run, "ground")
    place = out or beside(run, "grounded.png")
    _tell(model.task.phrases.check_text(phrase))
    [found] = model.task.ground(_look(model, image), [phrase])
    pixels = load_image(image)
    box = box_to_image(found.box, *pixels.shape[:2])
    heat = None if found.heatmap is None else found.heatmap.cpu().numpy()
    save_png(place, grounded_image(pixels, box, heat))
    console.table(phrase, ["left", "top", "width", "height"], [[round(edge, 1) for edge in box]])
    most = (
        "" if heat is None else f" The brightest patch has {heat.max():.0%} of the look, the darkest {heat.min():.0%}."
    )
    console.say(f"The box and where the phrase looks are in {place}.{most}")
    shares = None if heat is None else heat.tolist()
    console.write_json(json, {"image": str(image), "phrase": phrase, "box": list(box), "heat": shares})


def fill(run: str, image: Path, caption: str, /, *, count: Count = SHOWN, json: Path | None = None) -> None:
    """Says which words are missing in a caption of an image; ___ stands for each.

    Example: tavq fill filler scenes/images/000005.png "a ___ barn beside a lake"

    Args:
        run: A model of the task masked-words: its model folder, run folder or hub name.
        image: The image; its centre square is read.
        caption: In the words of the training captions, with ___ in place of the missing ones.
        count: How many words to show for each, the likeliest first.
        json: Write them to this file too.
    """
    model = _loaded(run, "fill")
    _tell(model.task.check_text(caption))
    [gaps] = model.task.fill(_look(model, image), [caption])
    shown = [[{"word": word, "probability": share} for word, share in words[:count]] for words in gaps]
    rows = [[gap, row["word"], row["probability"]] for gap, words in enumerate(shown, 1) for row in words]
    console.table(caption, ["gap", "word", "probability"], rows)
    console.write_json(json, {"image": str(image), "caption": caption, "gaps": shown})


def _tell(notes: list[str]) -> None:
    for note in notes:
        console.say(note)


def _loaded(run: str, command: str) -> Any:
    from tavq.core.devices import default_device
    from tavq.tasks.model_folder import load_task

    return load_task(run, command).to(default_device())


def _look(model: Any, image: Path) -> Any:
    """What the task sees of one image."""
    from tavq.core.devices import default_device
    from tavq.data.images import load_image
    from tavq.data.transforms import crop_and_resize, to_float
    from tavq.tasks.understanding import extract_features

    square = to_float(crop_and_resize(load_image(image), int(model.metadata["size"])))[None].to(default_device())
    return extract_features(model.tokenizer, model.config.layout, model.config.task.image, square)


def _look_through(model: Any, dataset: Any) -> Iterator[tuple[list[str], Any]]:
    """Names and what the task sees, of the images of a data set that can be read."""
    from tavq.core.devices import default_device
    from tavq.data.config import DataConfig
    from tavq.data.loader import EvaluationLoader
    from tavq.tasks.understanding import extract_features

    loader = EvaluationLoader(dataset, DataConfig(size=int(model.metadata["size"])), BATCH)
    done = 0
    with console.bar("Captioning", len(dataset)) as bar:
        for batch in loader:
            images = batch.images.to(default_device())
            yield (
                list(batch.keys),
                extract_features(model.tokenizer, model.config.layout, model.config.task.image, images),
            )
            done += len(batch.keys)
            bar(done)
    console.tell_faults(loader.faults)
