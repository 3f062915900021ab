"""Generate and complete images with a trained task."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.api.calls import PathLike, Progress, warn
from tavq.api.images import ImageLike, open_task, read_size, read_square
from tavq.api.tasks import make_sampling
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.core.files import sha256_bytes, write_folder
from tavq.core.torchrun import launched_processes
from tavq.data.images import encode_png
from tavq.data.own_output import GENERATED_FILES
from tavq.data.transforms import to_uint8
from tavq.ops.collective import barrier, join_processes, rank, world_size
from tavq.ops.gathering import gather_rows
from tavq.tasks.animation import GREY, FrameRecorder, decode_states, gif_bytes
from tavq.tasks.completion import complete_images, read_mask
from tavq.tasks.generation import BATCH, build_prompt, generate_images, grid_size, image_grid, image_names
from tavq.tasks.model_folder import TaskModel

COUNT = 16

Frame = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class GeneratedImages:
    """Images that were generated.

    Attributes:
        images: in [-1, 1], on the CPU; the images of one prompt follow each other.
        frames: grids of the images at stages of decoding, where an animation was asked for.
    """

    images: Float[Tensor, "n 3 y x"]
    frames: tuple[Frame, ...] = ()

    def grid(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return one image that shows all images."""
        return image_grid(self.images)


@dataclass(frozen=True)
class CompletedImages:
    """Completions of one image.

    Attributes:
        images: in [-1, 1]; pixels outside the mask are those of the original.
        original: the centre square of the image.
        hidden: the same with the mask in grey.
        frames: grids of all of these at stages of decoding, where an animation was asked for.
    """

    images: Float[Tensor, "n 3 y x"]
    original: Float[Tensor, "3 y x"]
    hidden: Float[Tensor, "3 y x"]
    frames: tuple[Frame, ...] = ()

    def grid(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return one image that shows the original, the hidden and all completed images."""
        return image_grid(torch.cat([self.original[None], self.hidden[None], self.images]))


def generate(
    model: PathLike | TaskModel,
    *,
    count: int = COUNT,
    prompts: Sequence[str] = (),
    segmentations: Sequence[PathLike] = (),
    text_encoder: str | None = None,
    out: PathLike | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    animate: bool = False,
    progress: Progress | None = None,
) -> GeneratedImages:
    """Generate images.

    Args:
        model: a generation task's model folder, run folder or hub name, or a model from `load_task`.
        count: number of images, or of images per prompt or segmentation map.
        prompts: texts, for a task that reads text.
        segmentations: maps of classes (PNG, a class id per pixel), for a task that reads them.
        text_encoder: folder of the text encoder used in training, where it has moved.
        out: also write the images and a grid of them to this folder; images that were generated there before are
            replaced.
        seed: the same seed generates the same images, in any number of processes.
        temperature: lower is closer to the most likely image; 0 takes the most likely tokens.
        top_k: sample from the k most likely tokens.
        top_p: sample from the most likely tokens that together have this probability.
        guidance: classifier-free guidance scale; 1 is off.
        steps: number of decoding steps, for tasks that decode many tokens at once.
        height: height in pixels, for tasks that can generate larger images than they were trained on.
        width: width in pixels, likewise.
        animate: keep the stages of decoding of the first 64 images; with `out` also write grid.gif.
        progress: called with (images, total, note).

    Returns:
        The images.

    Raises:
        UsageError: the task does not use an argument or needs one that is missing, or `out` holds other files.
        DataError: a segmentation map cannot be used.
        FileError: the model is damaged, or `out` cannot be written.
    """
    sampling = make_sampling(temperature, top_k, top_p, guidance, steps)
    _check_animation(animate)
    with join_processes():
        opened = open_task(model, "generate")
        opened.task.check_sampling(sampling)
        _check_replaceable(out)
        maps = [Path(segmentation) for segmentation in segmentations]
        prompt, notes = build_prompt(opened, prompts, maps, count, text_encoder, grid_size(opened, height, width))
        for note in notes:
            warn(note)
        recorder = FrameRecorder() if animate else None

        def generate_part(start: int, stop: int, generator: torch.Generator) -> Tensor:
            return generate_images(opened, prompt.slice(start, stop), sampling, generator, None, recorder)

        images = _generate_batches(prompt.count, seed, generate_part, progress)
        states = recorder.states() if recorder is not None else []
        frames = tuple(image_grid(page) for page in decode_states(opened, opened.task.output_layout(prompt), states))
        result = GeneratedImages(images, frames)
        if out is not None and rank() == 0:
            names = image_names(len(prompts) or len(maps), count)
            _write(Path(out), zip(names, images, strict=True), result.grid(), frames)
        barrier()
    return result


def _check_animation(animate: bool) -> None:
    if animate and launched_processes() > 1:
        raise UsageError("--animate shows how one process decodes; call without torchrun, or remove it.")


def _generate_batches(
    count: int, seed: int, generate_part: Callable[[int, int, torch.Generator], Tensor], progress: Progress | None
) -> Float[Tensor, "n 3 y x"]:
    """Return images on the CPU in their order; each process generates every n-th batch of n processes.

    Random numbers depend on the seed and the batch, so that an image does not depend on the number of processes. The
    numbers of the first batch are those of the seed itself.
    """
    places: list[int] = []
    images = []
    for number, start in enumerate(range(0, count, BATCH)):
        if number % world_size() != rank():
            continue
        stop = min(start + BATCH, count)
        mixed = seed if number == 0 else int(sha256_bytes(f"{seed} {number}".encode())[:15], 16)
        images.append(generate_part(start, stop, torch.Generator(default_device()).manual_seed(mixed)).cpu())
        places += range(start, stop)
        if progress is not None:
            progress(min(stop + (world_size() - 1) * BATCH, count), count, "")
    return gather_rows(places, images)


def complete(
    model: PathLike | TaskModel,
    image: ImageLike,
    *,
    mask: str = "right",
    count: int = 4,
    out: PathLike | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    steps: int | None = None,
    animate: bool = False,
) -> CompletedImages:
    """Generate the hidden part of an image.

    Args:
        model: a generation task's model folder, run folder or hub name, or a model from `load_task`.
        image: an image file, or an image of Pillow; its centre square is used.
        mask: what is hidden: left, right, top, bottom, centre, a box "x,y,w,h" in pixels, or an image file that is
            white where the image is hidden.
        count: number of completions.
        out: also write the completions and a grid of them to this folder; completions that were written there before
            are replaced.
        seed: the same seed generates the same images, in any number of processes.
        temperature: lower is closer to the most likely image; 0 takes the most likely tokens.
        top_k: sample from the k most likely tokens.
        top_p: sample from the most likely tokens that together have this probability.
        steps: number of decoding steps, for tasks that decode many tokens at once.
        animate: keep the stages of decoding; with `out` also write grid.gif.

    Returns:
        The completed images with the original.

    Raises:
        UsageError: the task cannot complete such a mask, does not use an argument, or `out` holds other files.
        DataError: the image or the mask cannot be read.
        FileError: the model is damaged, or `out` cannot be written.
    """
    sampling = make_sampling(temperature, top_k, top_p, 1.0, steps)
    _check_animation(animate)
    with join_processes():
        opened = open_task(model, "complete")
        opened.task.check_sampling(sampling)
        _check_replaceable(out)
        size = opened.size
        square = read_square(image, size).to(default_device())
        height, width = read_size(image)
        hidden = read_mask(mask, height, width, size).to(default_device())
        recorder = FrameRecorder() if animate else None

        def complete_part(start: int, stop: int, generator: torch.Generator) -> Tensor:
            copies, masks = square.expand(stop - start, -1, -1, -1), hidden.expand(stop - start, -1, -1)
            return complete_images(opened, copies, masks, sampling, generator, recorder)

        images = _generate_batches(count, seed, complete_part, None)
        both = torch.cat([square, square.masked_fill(hidden, GREY)]).cpu()
        states = recorder.states() if recorder is not None else []
        decoded = decode_states(opened, opened.config.layout, states)
        pages = (torch.where(hidden, page, square).cpu() for page in decoded)
        frames = tuple(image_grid(torch.cat([both, page])) for page in pages)
        result = CompletedImages(images, both[0], both[1], frames)
        if out is not None and rank() == 0:
            names = ["original", "hidden", *(f"completed-{number}" for number in range(1, count + 1))]
            _write(Path(out), zip(names, torch.cat([both, images]), strict=True), result.grid(), frames)
        barrier()
    return result


def _check_replaceable(out: PathLike | None) -> None:
    """Raise UsageError where a folder that would be replaced holds anything but generated images."""
    if out is None or not Path(out).is_dir():
        return
    others = sorted(path.name for path in Path(out).iterdir() if not GENERATED_FILES.fullmatch(path.name))
    if others:
        raise UsageError(
            f"{out} holds {others[0]}, which tavq did not generate and would delete; choose another --out."
        )


def _write(place: Path, images: Iterable[tuple[str, Tensor]], grid: Frame, frames: Sequence[Frame]) -> None:
    """Replace a folder by one with each image under its name, a grid of all of them and the animation."""
    with write_folder(place, lambda: _check_replaceable(place)) as folder:
        for name, image in images:
            (folder / f"{name}.png").write_bytes(encode_png(to_uint8(image).permute(1, 2, 0).cpu().numpy()))
        (folder / "grid.png").write_bytes(encode_png(grid))
        if frames:
            (folder / "grid.gif").write_bytes(gif_bytes(frames))
