"""Running means of weights, as latent diffusion and projects that build on its code save them beside the weights."""

from torch import Tensor

from tavq.interop.reading import Checkpoint

PREFIX = "model_ema."


def with_running_means(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a checkpoint, each replaced by its running mean where there is one.

    Source: CompVis/latent-diffusion, `ldm/modules/ema.py`: the names of the means have lost their dots.
    """
    means = _running_means(checkpoint)
    weights = {name: value for name, value in checkpoint.tensors.items() if not name.startswith(PREFIX)}
    return {name: means.get(name.replace(".", ""), value) for name, value in weights.items()}


def describe_running_means(checkpoint: Checkpoint) -> str:
    """For the card; empty where there are none."""
    return "the running means (`model_ema`), in place of the last step's" if _running_means(checkpoint) else ""


def _running_means(checkpoint: Checkpoint) -> dict[str, Tensor]:
    means = ((name, value) for name, value in checkpoint.tensors.items() if name.startswith(PREFIX))
    return {name.removeprefix(PREFIX): value for name, value in means}
