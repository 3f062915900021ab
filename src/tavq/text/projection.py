"""CLIP's text projection: the matrix that maps the vector of a text to the space that images share with it."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_tensors, tensor_names

TENSOR = "text_projection.weight"


def find_projection(weights: Sequence[Path], width: int, wanted: bool | None) -> Float[Tensor, "t t"] | None:
    """Read the projection of a CLIP model in float32.

    Args:
        weights: the model's safetensors files.
        width: t, of a hidden state. A projection to another width does not fit, as all vectors of a store have one.
        wanted: False for none, True to raise where there is none, None for the one that there is.

    Returns:
        The matrix; None if it is not wanted, or not there.

    Raises:
        UsageError: it is wanted, and the files have none that fits.
        FileError: it has numbers that are not finite.
    """
    if wanted is False:
        return None
    found = [read_tensors(path, [TENSOR])[TENSOR] for path in weights if TENSOR in tensor_names(path)]
    fits = bool(found) and tuple(found[0].shape) == (width, width)
    if wanted and not fits:
        shape = f"one of shape {tuple(found[0].shape)}" if found else "none"
        raise UsageError(
            f"{weights[0].parent} has no projection from {width} to {width} numbers but {shape}; use --no-projection."
        )
    if not fits:
        return None
    if not found[0].isfinite().all():
        raise FileError(f"{weights[0].parent}: {TENSOR} has numbers that are not finite.")
    return found[0].float()
