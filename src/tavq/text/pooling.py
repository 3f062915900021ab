"""How the hidden states of a text become one vector: the pooling mode of a folder, and the mean over windows."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.errors import FileError
from tavq.core.files import read_json
from tavq.core.inside import resolve_inside

POOLINGS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first", "lasttoken": "last"}
"""Names of pooling modes in the settings of sentence-transformers, and what they are called here."""


class WindowMean:
    """The vector of each text from those of its windows: their mean, weighted by their tokens."""

    def __init__(self, texts: int, width: int) -> None:
        self._sums = torch.zeros(texts, width)
        self._tokens = torch.zeros(texts)
        self._windows = torch.zeros(texts)
        self._last = torch.zeros(texts, width)

    def add(self, texts: Sequence[int], vectors: Float[Tensor, "b t"], tokens: Int[Tensor, " b"]) -> None:
        """Add windows, given by the text they belong to."""
        index, weight = torch.tensor(texts), tokens.float()
        self._sums.index_add_(0, index, vectors * weight[:, None])
        self._tokens.index_add_(0, index, weight)
        self._windows.index_add_(0, index, torch.ones(len(texts)))
        self._last[index] = vectors

    def compute(self) -> Float[Tensor, "m t"]:
        """The vectors; of a text of one window its own, to the bit."""
        return torch.where(self._windows[:, None] > 1, self._sums / self._tokens[:, None], self._last)


def read_pooling(folder: Path) -> str:
    """The pooling mode of a sentence encoder's folder; "mean" for folders that do not name one.

    Raises FileError for a sentence encoder with further layers, since its vectors would be different.
    """
    path = folder / "modules.json"
    modules = read_json(path) if path.is_file() else []
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    unsupported = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unsupported or not isinstance(modules, list):
        listed = ", ".join(unsupported) or "no modules"
        raise FileError(f"{path} asks for {listed}; only a transformer with pooling is supported.")
    if "Pooling" not in kinds:
        return "mean"
    module = modules[kinds.index("Pooling")].get("path", "1_Pooling")
    settings = read_json(resolve_inside(folder, f"{module}/config.json"))
    settings = settings if isinstance(settings, dict) else {}
    # The older layout has a flag for each mode, the newer one the mode's name.
    flags = [name.removeprefix("pooling_mode_") for name, on in settings.items() if on is True]
    chosen = [name for name in flags if name in POOLINGS]
    if "pooling_mode" in settings:
        chosen = [settings["pooling_mode"]]
    pooling = POOLINGS.get(str(chosen[0])) if len(chosen) == 1 else None
    if pooling is None:
        raise FileError(f"{folder} pools by {', '.join(map(str, chosen or flags))}; known: {', '.join(POOLINGS)}.")
    return pooling
