"""Text faithfulness: generated images retrieve their own text, in the space of an aligned tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.evaluation.joining import find_union
from tavq.interfaces import Aligner, TextFeatures
from tavq.metrics.faithfulness import score_text_retrieval
from tavq.metrics.record import Baseline, Metric, for_baseline
from tavq.model_folder import find_model, read_model_config
from tavq.ops.gathering import gather_rows
from tavq.tasks.model_folder import TaskModel
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

SHUFFLED = Baseline(
    "shuffled",
    "another text",
    "Images generated for other texts: chance.",
)


def open_aligned(name: str, model: TaskModel, store: TextStore | None) -> Tokenizer:
    """Open the tokenizer whose aligner ranks images against texts.

    Args:
        name: a model folder, run folder or hub name.
        model: the task that generates the images.
        store: the text that it generates from; None for a task without text.

    Raises:
        UsageError: the task does not generate from text, or the tokenizer has no aligner, uses another text encoder or
            other units, or was trained on images of another size.
    """
    if store is None:
        raise UsageError(
            f"The task {model.config.task.name!r} of this model does not generate from text; remove --aligned."
        )
    folder = find_model(name)
    stored = read_model_config(folder)
    tokenizer = Tokenizer.from_pretrained(folder).prepare()
    if tokenizer.aligner is None:
        raise UsageError(
            f"The tokenizer {name} has no aligner, so it cannot compare images with texts; choose one that has, "
            "such as from the recipe ta-vqgan or lg-vqgan."
        )
    size = model.metadata.get("size")
    if stored.get("size") != size:
        raise UsageError(
            f"The tokenizer {name} was trained on images of {stored.get('size')} px and this task generates {size} px; "
            "choose an aligned tokenizer trained at the same size."
        )
    _check_text(name, tokenizer, stored, store)
    return tokenizer


def _check_text(name: str, tokenizer: Tokenizer, stored: dict[str, Any], store: TextStore) -> None:
    own, text = store.manifest.encoder, stored.get("text")
    encoder = text.get("encoder") if isinstance(text, dict) else None
    made = (encoder.get("name"), encoder.get("sha256")) if isinstance(encoder, dict) else (None, own.sha256)
    if made[1] != own.sha256 or tokenizer.config.text_width != own.width:
        raise UsageError(
            f"The tokenizer {name} reads text by the encoder {made[0]!r} ({tokenizer.config.text_width} numbers), the "
            f"text store {store.folder} was made by {own.name!r} ({own.width}); give a tokenizer that was aligned with "
            "the same."
        )
    store.check_encoder(text)  # the same weights, but maybe not the same form of their vectors
    if tokenizer.config.reads_full_text:
        store.vocabulary("tokens")  # raises where it holds split texts only


class TextRetrievalScores:
    """How well images find their own text among those of the split, for the model and each baseline."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.places: list[int] = []
        self.texts: list[Tensor] = []
        self.images: dict[Baseline | None, list[Tensor]] = {}

    @torch.no_grad()
    def update(
        self,
        places: Sequence[int],
        text: TextFeatures,
        images_of: Mapping[Baseline | None, Float[Tensor, "b 3 y x"]],
    ) -> None:
        """Add a batch; images without text do not count.

        Args:
            places: of the images in the split.
            text: theirs.
            images_of: the images of the model and of each baseline.
        """
        aligner = self.tokenizer.aligner
        assert aligner is not None, "open_aligned checks this"
        with_text = text.has_text()
        self.places += [place for place, has in zip(places, with_text.tolist(), strict=True) if has]
        self.texts.append(aligner.embed_text(text)[with_text].float().cpu())
        for baseline, images in images_of.items():
            self.images.setdefault(baseline, []).append(self._embed(aligner, images)[with_text].float().cpu())

    def _embed(self, aligner: Aligner, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b e"]:
        return aligner.embed_images(self.tokenizer.quantize(images))

    def join(self, baselines: Sequence[Baseline | None]) -> None:
        """Gather the vectors of all processes, in each of them and in the order of the images."""
        self.texts = [gather_rows(self.places, self.texts)]
        own = {baseline: self.images.get(baseline, []) for baseline in find_union(self.images, baselines)}
        self.images = {baseline: [gather_rows(self.places if own[baseline] else [], own[baseline])] for baseline in own}

    def compute(self) -> list[Metric]:
        """`text_recall@1` and so on; `shuffled/…` looks for another image's text: what chance gives."""
        texts = torch.cat(self.texts)
        if len(texts) < 2:
            return []
        images = {baseline: torch.cat(parts) for baseline, parts in self.images.items()}
        images[SHUFFLED] = images[None].roll(len(texts) // 2, dims=0)  # neighbours in a data set may be similar
        metrics = []
        for baseline, own in images.items():
            found = score_text_retrieval(own, texts)
            metrics += found if baseline is None else for_baseline(baseline, found)
        return metrics
