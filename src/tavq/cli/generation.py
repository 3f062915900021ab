"""`tavq generate` and `complete`: generate images with a trained task."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, NonNegative, Probability, Seed
from tavq.cli.devices import with_device, with_precision

COUNT = 16


@with_device
@with_precision
def generate(
    run: str,
    /,
    *,
    count: Count = COUNT,
    prompt: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    segmentation: Annotated[tuple[Path, ...], Parameter(negative=())] = (),
    text_encoder: str | None = None,
    out: Path | None = None,
    seed: Seed = 0,
    temperature: NonNegative = 1.0,
    top_k: Count | None = None,
    top_p: Probability | None = None,
    guidance: NonNegative = 1.0,
    steps: Count | None = None,
    height: Count | None = None,
    width: Count | None = None,
    animate: bool = False,
) -> None:
    """Generate images, and a grid of all of them.

    Example: tavq generate prior --count 16 --seed 1 --out generated

    Args:
        run: A generation task's model folder, run folder or hub name.
        count: Number of images, or of images per prompt or segmentation map.
        prompt: A text, for tasks that read text; may be given several times.
        segmentation: A segmentation map (PNG, a class id per pixel), for tasks that read maps; may be given several
            times.
        text_encoder: Folder of the text encoder used in training, if it has moved.
        out: The folder to write; by default RUN/generated. Images generated there before are replaced.
        seed: The same seed generates the same images.
        temperature: Sampling temperature; 0 takes the most likely tokens.
        top_k: Sample from the k most likely tokens.
        top_p: Sample from the most likely tokens that together have this probability.
        guidance: Classifier-free guidance scale (1 = off).
        steps: Number of decoding steps, for tasks that decode many tokens at once.
        height: Height in pixels, for tasks that can generate images larger than those they were trained on.
        width: Width in pixels, likewise.
        animate: Also write grid.gif, which shows the decoding of the first 64 images.
    """
    place = out or console.place_in_run(run, "generated")
    with console.bar("Generating") as bar:
        result = api.generate(
            run, count=count, prompts=prompt, segmentations=segmentation, text_encoder=text_encoder, out=place,
            seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance, steps=steps,
            height=height, width=width, animate=animate, progress=bar,
        )  # fmt: skip
    console.say(f"Generated {len(result.images):,} images in {place}; {place / 'grid.png'} shows all of them.")


@with_device
@with_precision
def complete(
    run: str,
    image: Path,
    /,
    *,
    mask: str = "right",
    count: Count = 4,
    out: Path | None = None,
    seed: Seed = 0,
    temperature: NonNegative = 1.0,
    top_k: Count | None = None,
    top_p: Probability | None = None,
    steps: Count | None = None,
    animate: bool = False,
) -> None:
    """Generate the hidden part of an image.

    Example: tavq complete prior scenes/images/000000.png --mask centre --out completed

    Args:
        run: A generation task's model folder, run folder or hub name.
        image: The image; its centre square is used.
        mask: What is hidden: left, right, top, bottom, centre, a box x,y,w,h in pixels of the image, or an image file
            that is white where the image is hidden.
        count: Number of completions.
        out: The folder to write; by default RUN/completed. Completions written there before are replaced.
        seed: The same seed generates the same images.
        temperature: Sampling temperature; 0 takes the most likely tokens.
        top_k: Sample from the k most likely tokens.
        top_p: Sample from the most likely tokens that together have this probability.
        steps: Number of decoding steps, for tasks that decode many tokens at once.
        animate: Also write grid.gif, which shows the decoding.
    """
    place = out or console.place_in_run(run, "completed")
    api.complete(
        run, image, mask=mask, count=count, out=place, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p,
        steps=steps, animate=animate,
    )  # fmt: skip
    console.say(f"{count:,} completions are in {place}; {place / 'grid.png'} shows them next to the image.")
