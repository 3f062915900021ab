"""Text faithfulness: drawn images look for their own text, in the space of an aligned tokenizer."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.interfaces import Aligner, TextFeatures
from tavq.metrics.faithfulness import text_retrieval
from tavq.metrics.record import Baseline, Metric, for_baseline
from tavq.model_folder import find_model, read_model_config
from tavq.tasks.model_folder import TaskModel
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

SHUFFLED = Baseline(
    "shuffled",
    "another text",
    "Generated images that look for another image's text, or are asked about it: chance.",
)


def open_aligned(name: str, model: TaskModel, store: TextStore | None) -> Tokenizer:
    """The tokenizer that judges whether images show what their texts say.

    Raises:
        UsageError: the task draws from no text, or the tokenizer has no aligner, reads text by another encoder or
            other units of it, or was trained on images of another size.
    """
    if store is None:
        raise UsageError(
            f"The task {model.config.task.name!r} of this model does not draw from text; leave --aligned out."
        )
    folder = find_model(name)
    stored = read_model_config(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    if tokenizer.aligner is None:
        raise UsageError(
            f"The tokenizer {name} has no aligner, so it knows nothing of text; give one that was trained with one, as "
            "by the recipe ta-vqgan or lg-vqgan."
        )
    size = model.metadata.get("size")
    if stored.get("size") != size:
        raise UsageError(
            f"The tokenizer {name} was trained on images of {stored.get('size')} px and this task draws {size} px; "
            "give an aligned tokenizer of the same size."
        )
    _check_text(name, tokenizer, stored, store)
    return tokenizer


def _check_text(name: str, tokenizer: Tokenizer, stored: dict[str, Any], store: TextStore) -> None:
    own, text = store.manifest.encoder, stored.get("text")
    told = text.get("encoder") if isinstance(text, dict) else None
    made = (told.get("name"), told.get("sha256")) if isinstance(told, dict) else (None, own.sha256)
    if made[1] != own.sha256 or tokenizer.config.text_width != own.width:
        raise UsageError(
            f"The tokenizer {name} reads text by the encoder {made[0]!r} ({tokenizer.config.text_width} numbers), the "
            f"text store {store.folder} was made by {own.name!r} ({own.width}); give a tokenizer that was aligned with "
            "the same."
        )
    if tokenizer.config.reads_full_text:
        store.vocabulary("tokens")  # raises where it holds split texts only


class Faithfulness:
    """How well images find their own text among those of the split, by who made the images."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.texts: list[Tensor] = []
        self.images: dict[Baseline | None, list[Tensor]] = {}

    @torch.no_grad()
    def update(self, text: TextFeatures, images_of: Mapping[Baseline | None, Float[Tensor, "b 3 y x"]]) -> None:
        """Counts a batch: its texts, and the model's and each baseline's images for them; those with text alone."""
        aligner = self.tokenizer.aligner
        assert aligner is not None, "open_aligned checks it"
        kept = text.has_text()
        self.texts.append(aligner.embed_text(text)[kept].float().cpu())
        for baseline, images in images_of.items():
            self.images.setdefault(baseline, []).append(self._embed(aligner, images)[kept].float().cpu())

    def _embed(self, aligner: Aligner, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        return aligner.embed_images(self.tokenizer.quantize(images))

    def compute(self) -> list[Metric]:
        """`text_recall@1` and so on; `shuffled/…` looks for another image's text: what chance gives."""
        texts = torch.cat(self.texts)
        if len(texts) < 2:
            return []
        images = {baseline: torch.cat(parts) for baseline, parts in self.images.items()}
        images[SHUFFLED] = images[None].roll(len(texts) // 2, dims=0)  # neighbours in a data set may be similar
        metrics = []
        for baseline, own in images.items():
            found = text_retrieval(own, texts)
            metrics += found if baseline is None else for_baseline(baseline, found)
        return metrics
