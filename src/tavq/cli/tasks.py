"""`tavq task`, `generate` and `complete`: train tasks on a tokenizer's codes, and use them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Seed, Share
from tavq.cli.train import Settings
from tavq.core.errors import UsageError

COUNT = 16
UNLISTED = ("feature_weights", "intervals", "sampling", "seed", "aligned", "reader")
"""What an evaluation's JSON holds beside its figures; the table leaves it out."""
DRAWN = re.compile(r"(grid|original|hidden|completed-\d+|\d+(-\d+)?)\.png|grid\.gif")
"""Files that `generate` and `complete` write."""

Positive = Annotated[float, Parameter(validator=validators.Number(gte=0))]


app = App(
    name="task",
    help="Train tasks on a tokenizer's codes.\n\nExample: tavq task train unconditional-tiny --tokenizer run "
    "--data scenes --out drawer",
)


@app.command
def train(
    task: str,
    /,
    *settings: Settings,
    tokenizer: str,
    data: Path,
    out: Path,
    resume: bool = False,
    text: Path | None = None,
    segmentation_tokenizer: str | None = None,
) -> None:
    """Train a task on the codes of a tokenizer, with the tokenizer frozen.

    Images are tokenized once and cached in the run folder.

    Example: tavq task train unconditional-tiny --tokenizer run --data scenes --out prior

    Args:
        task: A shipped recipe (listed below) or a YAML file.
        tokenizer: A model folder, a run folder or a hub name.
        data: A folder data set.
        out: The run folder.
        resume: Continue from the newest checkpoint; the result is bit-for-bit that of an uninterrupted run.
        text: The text store, where the task reads text; by default DATA/text.
        segmentation_tokenizer: A tokenizer of segmentation maps, where the task reads them.
    """
    changes = api.parse_overrides(settings)
    with console.bar(f"Training {task}") as bar:
        api.train_task(
            task, tokenizer=tokenizer, data=data, out=out, settings=changes, resume=resume, text=text,
            segmentation_tokenizer=segmentation_tokenizer, progress=bar,
        )  # fmt: skip
    if console.is_first_process():
        command = min(api.commands_of(out) - {"complete"})
        console.say(f"The model is in {out / 'model'}. Next: tavq {command} {out}")


@app.command
def evaluate(
    run: str,
    /,
    *,
    data: Path,
    split: str = "test",
    text: Path | None = None,
    features: tuple[str, ...] = ("scenes",),
    aligned: str | None = None,
    reader: str | None = None,
    limit: Count | None = None,
    temperature: Positive = 1.0,
    top_k: Count | None = None,
    top_p: Share | None = None,
    guidance: Positive = 1.0,
    steps: Count | None = None,
    json: Path | None = None,
) -> None:
    """Measure a task on a split, together with trivial baselines.

    The result is also written to evaluation.json in the run folder.

    Example: tavq task evaluate painter --data scenes --aligned run-ta

    Args:
        run: A task's model folder, run folder or hub name.
        data: A folder data set.
        split: train, val or test.
        text: The text store, where the task reads text; by default DATA/text.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        aligned: A tokenizer with an aligner that ranks generated images against their texts (tasks that read text).
        reader: A model of the task vqa that answers the data set's questions about generated images.
        limit: Measure only the first images, against as many training images.
        temperature: Sampling temperature, as in `tavq generate`; 0 takes the most likely token (generation tasks only).
        top_k: Sample from the k most likely tokens (generation tasks only).
        top_p: Sample from the most likely tokens that together have this probability (generation tasks only).
        guidance: Classifier-free guidance scale (1 = off).
        steps: Number of decoding steps, for tasks that decode many tokens at once.
        json: Also write the result to this file.
    """
    with console.bar(f"Evaluating {run}") as bar:
        result = api.evaluate_task(
            run, data=data, split=split, text=text, features=features, aligned=aligned, reader=reader, limit=limit,
            temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance, steps=steps, progress=bar,
        )  # fmt: skip
    _print(f"{run} on {data} ({split})", result)
    console.write_json(json, result)


def _print(title: str, result: Mapping[str, Any]) -> None:
    """Print the metrics as a table, and the warnings below it."""
    metrics = {key: value for key, value in result.items() if key not in UNLISTED and not key.endswith("_warning")}
    rows = [
        [key, value, console.interval(result["intervals"].get(key))]
        for key, value in api.flatten_settings(metrics)
        if not isinstance(value, str)
    ]
    console.table(title, ["metric", "value", "95 %"], rows)
    warnings = [value for key, value in result.items() if key.endswith("_warning") and value]
    for warning in dict.fromkeys(warnings):
        console.say(warning)


# --- drawing ----------------------------------------------------------------------------------------------------


def generate(
    run: str,
    /,
    *,
    count: Count = COUNT,
    prompt: tuple[str, ...] = (),
    segmentation: tuple[Path, ...] = (),
    text_encoder: str | None = None,
    out: Path | None = None,
    seed: Seed = 0,
    temperature: Positive = 1.0,
    top_k: Count | None = None,
    top_p: Share | None = None,
    guidance: Positive = 1.0,
    steps: Count | None = None,
    height: Count | None = None,
    width: Count | None = None,
    animate: bool = False,
) -> None:
    """Draws images and writes them, with a grid of all of them.

    Example: tavq generate drawer --count 16 --seed 1 --out drawn

    Args:
        run: A task's model folder, run folder or hub name.
        count: How many; of each prompt or segmentation map, where there are such.
        prompt: What to draw, for a task that reads text; may be given several times.
        segmentation: A map of classes to draw after (PNG, a class number a pixel); may be given several times.
        text_encoder: Where the text encoder of the training is, if it was a folder.
        out: The folder to write; by default RUN/generated. What was drawn there before is replaced.
        seed: The same seed draws the same images.
        temperature: Below 1 likelier images, above 1 stranger ones; 0 takes the likeliest tokens.
        top_k: Draw among so many of the likeliest tokens only.
        top_p: Draw among the likeliest tokens that together have this probability only.
        guidance: How much farther towards the condition; 1 for none.
        steps: Passes, of tasks that fill in many tokens at once.
        height: Of the images in pixels, where it is not the model's own but larger; drawn through a window of that
            size, by tasks that can. So for the width.
        width: See height.
        animate: Write grid.gif too: how the images came to be, the first 64 of them.
    """
    import torch

    from tavq.core.devices import default_device
    from tavq.tasks.animation import FrameRecorder, decode_states
    from tavq.tasks.generation import build_prompt, generate_images, grid_size, image_grid, image_names
    from tavq.tasks.model_folder import load_task

    sampling = _sampling(temperature, top_k, top_p, guidance, steps)
    model = load_task(run, "generate").to(default_device())
    model.task.check_sampling(sampling)
    place = _replaceable(out or beside(run, "generated"))
    asked, notes = build_prompt(model, prompt, segmentation, count, text_encoder, grid_size(model, height, width))
    for line in notes:
        console.say(line)
    generator = torch.Generator(default_device()).manual_seed(seed)
    recorder = FrameRecorder() if animate else None
    with console.bar("Drawing", asked.count) as bar:
        images = generate_images(model, asked, sampling, generator, bar, recorder)
    states = recorder.states() if recorder is not None else []
    pages = [image_grid(page) for page in decode_states(model, model.task.output_layout(asked), states)]
    _write(place, image_names(len(prompt) or len(segmentation), count), images, pages)
    console.say(f"Drawn: {asked.count:,}. The images are in {place}, all of them in {place / 'grid.png'}.")


def complete(
    run: str,
    image: Path,
    /,
    *,
    mask: str = "right",
    count: Count = 4,
    out: Path | None = None,
    seed: Seed = 0,
    temperature: Positive = 1.0,
    top_k: Count | None = None,
    top_p: Share | None = None,
    steps: Count | None = None,
    animate: bool = False,
) -> None:
    """Draws the hidden part of an image anew.

    Example: tavq complete filler scenes/images/000000.png --mask centre --out completed

    Args:
        run: A task's model folder, run folder or hub name.
        image: The image.
        mask: What is hidden: left, right, top, bottom, centre, a box x,y,w,h in pixels of the square that is coded,
            or a PNG that is not black where it is hidden.
        count: How many completions.
        out: The folder to write; by default RUN/completed. What was drawn there before is replaced.
        seed: The same seed draws the same images.
        temperature: Below 1 likelier images, above 1 stranger ones.
        top_k: Draw among so many of the likeliest tokens only.
        top_p: Draw among the likeliest tokens that together have this probability only.
        steps: Passes, of tasks that fill in many tokens at once.
        animate: Write grid.gif too: how the completions came to be.
    """
    import torch

    from tavq.core.devices import default_device
    from tavq.data.images import load_image
    from tavq.data.transforms import crop_and_resize, to_float
    from tavq.tasks.animation import GREY, FrameRecorder, decode_states
    from tavq.tasks.completion import complete as fill
    from tavq.tasks.completion import read_mask
    from tavq.tasks.generation import image_grid
    from tavq.tasks.model_folder import load_task

    sampling = _sampling(temperature, top_k, top_p, 1.0, steps)
    model = load_task(run, "complete").to(default_device())
    model.task.check_sampling(sampling)
    place = _replaceable(out or beside(run, "completed"))
    size = int(model.metadata["size"])
    whole = load_image(image)
    square = to_float(crop_and_resize(whole, size))[None].to(default_device())
    height, width = whole.shape[:2]
    hidden = read_mask(mask, height, width, size).to(default_device())
    generator = torch.Generator(default_device()).manual_seed(seed)
    recorder = FrameRecorder() if animate else None
    images = fill(model, square.expand(count, -1, -1, -1), hidden.expand(count, -1, -1), sampling, generator, recorder)
    both = torch.cat([square, square.masked_fill(hidden, GREY)])
    states = recorder.states() if recorder is not None else []
    drawn = decode_states(model, model.config.layout, states)
    pages = [image_grid(torch.cat([both, torch.where(hidden, page, square)])) for page in drawn]
    names = ["original", "hidden", *(f"completed-{number}" for number in range(1, count + 1))]
    _write(place, names, torch.cat([both, images]), pages)
    console.say(f"{count:,} completions are in {place}, beside the image in {place / 'grid.png'}.")


def _sampling(temperature: float, top_k: int | None, top_p: float | None, guidance: float, steps: int | None) -> Any:
    from tavq.core.config import build
    from tavq.tasks.base import Sampling

    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance, "steps": steps}
    return build(Sampling, given, "The call")


def _replaceable(place: Path) -> Path:
    """A folder that may be written anew; UsageError where it holds anything but drawings."""
    kept = sorted(path.name for path in place.iterdir() if not DRAWN.fullmatch(path.name)) if place.is_dir() else []
    if kept:
        raise UsageError(f"{place} holds {kept[0]}, which was not drawn here and would be lost; choose another --out.")
    return place


def beside(run: str, name: str) -> Path:
    """Where in a run's folder a command writes that was not told where; UsageError where the run is no folder."""
    if not Path(run).is_dir():
        raise UsageError(f"{run} is no folder here; say with --out where to write.")
    return Path(run) / name


def _write(place: Path, names: list[str], images: Any, pages: list[Any]) -> None:
    """Each image by its name, all of them as one grid, and the pages of an animation where there are such.

    What was drawn there before is replaced.
    """
    from tavq.core.files import write_folder
    from tavq.data.images import encode_png
    from tavq.data.transforms import to_uint8
    from tavq.tasks.animation import gif_bytes
    from tavq.tasks.generation import image_grid

    with write_folder(place) as folder:
        for name, image in zip(names, images, strict=True):
            (folder / f"{name}.png").write_bytes(encode_png(to_uint8(image).permute(1, 2, 0).cpu().numpy()))
        (folder / "grid.png").write_bytes(encode_png(image_grid(images)))
        if pages:
            (folder / "grid.gif").write_bytes(gif_bytes(pages))
