"""`tavq task`, `generate` and `complete`: train tasks on a tokenizer's codes, and use them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from tavq.cli import console
from tavq.cli.console import Count, Seed, Share
from tavq.cli.train import BarReporter, Settings, tell_changed
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


def losses_of(line: dict[str, Any]) -> str:
    """A task's losses; those alone have a name of two parts."""
    return ", ".join(f"{key.rpartition('/')[2]} {value:.3f}" for key, value in line.items() if "/" in key)


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
    """Trains a task on the codes of a tokenizer, which stays as it is.

    Every image becomes tokens once, at the start; they are kept in the run folder.

    Example: tavq task train unconditional-tiny --tokenizer run --data scenes --out drawer

    Args:
        task: A shipped recipe (unconditional, completion, semantic, text-to-image, each with a -tiny twin) or a YAML
            file.
        tokenizer: A model folder, a run folder or a hub name.
        data: A folder data set.
        out: The run folder.
        resume: Go on from the newest checkpoint, to the same bits an undisturbed run gives.
        text: The text store, where the task reads text; by default DATA/text.
        segmentation_tokenizer: A tokenizer of segmentation maps, where the task reads such.
    """
    from tavq import recipes
    from tavq.core.config import parse_overrides
    from tavq.ops.collective import join_processes

    chosen = recipes.load_task(task, parse_overrides(settings))
    with join_processes():
        _train(chosen, tokenizer, data, out, resume, text, segmentation_tokenizer)


def _train(
    recipe: Any, tokenizer: str, data: Path, out: Path, resume: bool, text: Path | None, segmentation: str | None
) -> None:
    from tavq.data.folder import FolderDataset
    from tavq.ops.collective import rank
    from tavq.tasks.base import tasks
    from tavq.text.store import TextStore
    from tavq.training.task.trainer import TaskTrainer

    dataset = FolderDataset(data, "train")
    kind = tasks[recipe.task.name]
    needs = kind.required_conditions(recipe.task)
    _refuse_needless(recipe.task.name, needs, {"text": text, "segmentation_tokenizer": segmentation})
    store = TextStore.find(data, text, verify=True) if "text" in needs else None
    if store is not None:
        tell_changed(store, dataset)
    with console.bar(f"Training {recipe.task.name}", recipe.train.steps) as bar:
        trainer = TaskTrainer(
            recipe,
            tokenizer,
            dataset,
            out,
            store,
            reporter=BarReporter(bar, losses_of),
            segmentation_tokenizer=segmentation,
        )
        trainer.run(resume)
    if rank() == 0:
        command = min(kind.commands - {"complete"})
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
    """Measures a task on a split, beside what trivial answers give; also written into the run folder.

    Example: tavq task evaluate painter --data scenes --aligned run-ta

    Args:
        run: A task's model folder, run folder or hub name.
        data: A folder data set.
        split: train, val or test.
        text: The text store, where the task reads text; by default DATA/text.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        aligned: A tokenizer with an aligner, in whose space drawn images look for their texts; of a task that reads
            text.
        reader: A model of the task vqa, which is asked the data set's questions about what was drawn.
        limit: Measure only so many images, and copy from as many training images.
        temperature: Of tasks that draw, as of `tavq generate`; so are the next four.
        top_k: Draw among so many of the likeliest tokens only.
        top_p: Draw among the likeliest tokens that together have this probability only.
        guidance: How much farther towards the condition; 1 for none.
        steps: Passes, of tasks that fill in many tokens at once.
        json: Write the figures to this file too.
    """
    from tavq.cli.tokenizers import open_network
    from tavq.core import files
    from tavq.core.devices import default_device
    from tavq.data.folder import FolderDataset
    from tavq.evaluation.task import evaluate_task
    from tavq.evaluation.text_questions import open_reader
    from tavq.evaluation.text_retrieval import open_aligned
    from tavq.model_folder import find_model, read_model_config
    from tavq.tasks.base import GenerationTask, Sampling
    from tavq.tasks.model_folder import load_task
    from tavq.text.store import TextStore

    sampling = _sampling(temperature, top_k, top_p, guidance, steps)
    model = load_task(run).to(default_device())
    if isinstance(model.task, GenerationTask):
        model.task.check_sampling(sampling)
    elif sampling != Sampling():
        raise UsageError(f"The task {model.config.task.name!r} draws nothing; leave --temperature and the like out.")
    dataset = FolderDataset(data, split)
    store, needs = None, model.task.required_conditions(model.config.task)
    _refuse_needless(model.config.task.name, needs, {"text": text})
    if "text" in needs:
        store = TextStore.open(text or data / "text", verify=True)
        store.check_encoder(model.metadata.get("text"))
    judge = None if aligned is None else open_aligned(aligned, model, store)
    asked = None if reader is None else open_reader(reader, model)
    networks = [open_network(name).to(default_device()) for name in features]
    with console.bar(f"Evaluating {run}", min(len(dataset), limit or len(dataset))) as bar:
        result = evaluate_task(model, dataset, networks, sampling, store, limit, bar, judge, asked)
    result |= {
        "data": data.name,
        "data_sha256": dataset.fingerprint,
        "split": split,
        "model": model.metadata.get("sha256"),
        "reader": None if asked is None else asked.metadata.get("sha256"),
        "aligned": None if aligned is None else read_model_config(find_model(aligned)).get("sha256"),
    }
    _tell(f"{run} on {data} ({split})", result)
    if (Path(run) / "recipe.yaml").is_file():
        files.write_json(Path(run) / "evaluation.json", result)
    console.write_json(json, result)


def _refuse_needless(task: str, needs: frozenset[str], given: Mapping[str, Any]) -> None:
    """Raises UsageError where a flag names what the task would pass over."""
    for name, value in given.items():
        what = name.partition("_")[0]
        if value is not None and what not in needs:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"The task {task!r} with these settings reads no {what}; leave out {flag} {value}.")


def _tell(title: str, result: Mapping[str, Any]) -> None:
    """The figures as a table, and what is to be told of them."""
    from tavq.core.config import flatten_settings

    plain = {key: value for key, value in result.items() if key not in UNLISTED and not key.endswith("_warning")}
    rows = [
        [key, value, console.interval(result["intervals"].get(key))]
        for key, value in flatten_settings(plain)
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
