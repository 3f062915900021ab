"""What a task that draws is measured on: its objective, the images that it draws, and what it completes."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, load_training_split
from tavq.data.loader import EvaluationLoader, load_image_batch
from tavq.evaluation.completion import Completions
from tavq.evaluation.memorization import measure_novelty
from tavq.evaluation.nearest_training import Copies, nearest_known, nearest_maps, nearest_texts
from tavq.evaluation.text_questions import Answers
from tavq.evaluation.text_retrieval import Faithfulness
from tavq.interfaces import Batch, TextSource
from tavq.metrics.distances import ImageSet, set_distances
from tavq.nets.features.extractors import FeatureNetwork
from tavq.tasks.base import GenerationBatch, Prompt, Sampling
from tavq.tasks.completion import evaluation_masks
from tavq.tasks.model_folder import TaskModel
from tavq.tokenizer import Tokenizer

BATCH = 32
SEED = 0
KINDS = ("drawn", "untrained", "nearest", "codes", "mixed")
"""Who made the images whose distance from those of the split is measured."""


def evaluate_drawing(
    model: TaskModel,
    dataset: FolderDataset,
    networks: Sequence[FeatureNetwork],
    sampling: Sampling,
    text: TextSource | None,
    limit: int | None,
    progress: Callable[[int], None] | None,
    aligned: Tokenizer | None,
    reader: TaskModel | None,
) -> dict[str, Any]:
    """All measurements of a task that draws, on a split; ready for JSON.

    - `loss/...`: the terms of its objective on the split's own tokens, as in training but without dropout;
      `untrained/loss/...` by the same network with drawn weights.
    - `drawn/fd_NETWORK`: distance of as many drawn images as there are, each under its image's condition, from the
      images themselves. To read it: `untrained/…` is that of the same network with drawn weights; `nearest/…`, of a
      task with a condition, that of the training images whose conditions are nearest; `codes/…` that of the images'
      own codes decoded, which drawing cannot beat; and `mixed/…` that of codes in which each token is some image's at
      that place, which it should.
    - `novelty/...` for a task without a condition: how near drawn images come to the training images, beside the
      split's own, decoded from their codes as the drawn ones are (`metrics.novelty`).
    - `completed/MASK/...` for a task that completes (`measuring.completed`).
    - `drawn/text_recall@1` and so on with `aligned` (`measuring.faithful`), beside `images/…` (the split's own),
      `codes/…`, `nearest/…`, `untrained/…` and `shuffled/…`; `drawn/answers` and so on with `reader`
      (`measuring.answered`), beside the same.
    - `intervals`: the 95 % bootstrap interval over images of each figure that is a mean over them.

    Images are the split's centre squares. The draws follow from a fixed seed. Memory is that of a batch, plus for
    each image its figures, its 32 x 32 pixels or map, and its features and embeddings.
    """
    train = load_training_split(dataset, limit)
    config = DataConfig(size=int(model.metadata["size"]))
    running = _Measured(model, networks, sampling, config, train)
    running.faithful = None if aligned is None else Faithfulness(aligned.to(running.device))
    running.answers = None if reader is None else Answers(reader.to(running.device), dataset)
    images = EvaluationLoader(dataset, config, BATCH, text, limit)
    maps: Iterable[Batch | None] = itertools.repeat(None)
    if "segmentation" in running.needs:
        maps = EvaluationLoader(dataset, config.for_segmentation(model.colours), BATCH, None, limit)
    running.find_nearest(dataset, text, limit)
    for batch, given in zip(images, maps, strict=False):
        if given is not None and given.keys != batch.keys:
            raise UsageError(
                f"Some images of {dataset.folder} have no segmentation; this task is measured on those that do."
            )
        running.update(batch, given)
        if progress is not None:
            progress(running.count)
    return running.compute(_novelty_warning(model, dataset))


def untrained(model: TaskModel) -> TaskModel:
    """The same network with the weights that a fixed seed draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        task = model.config.make()
    device = next(model.task.parameters()).device
    return replace(model, task=task.eval().requires_grad_(False).to(device))


def mixed(pool: Int[Tensor, "p n"], count: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
    """At each place the token of some image of the pool: what knows places and nothing of their neighbours."""
    rows = torch.randint(len(pool), (count, pool.shape[1]), generator=generator, device=pool.device)
    return pool.gather(0, rows)


def _novelty_warning(model: TaskModel, dataset: FolderDataset) -> str | None:
    if dataset.split == "train":
        return "The images measured are training images: nothing was held out, and copies of others are near."
    if model.metadata.get("data_sha256") not in (None, dataset.fingerprint):
        return f"The model was trained on other data than {dataset.folder.name}, whose training split is compared."
    return None


class _Measured:
    def __init__(
        self,
        model: TaskModel,
        networks: Sequence[FeatureNetwork],
        sampling: Sampling,
        config: DataConfig,
        train: FolderDataset | None,
    ) -> None:
        self.models = {"drawn": model, "untrained": untrained(model)}
        self.model, self.networks, self.sampling, self.config, self.train = model, networks, sampling, config, train
        self.needs = model.task.required_conditions(model.config.task)
        self.device = next(model.task.parameters()).device
        self.generators = {kind: torch.Generator(self.device).manual_seed(SEED) for kind in self.models}
        whole = [network for network in networks if not network.heads]
        self.sets = {kind: [ImageSet(network) for network in whole] for kind in ("images", *KINDS)}
        self.completions = Completions(model, self.models["untrained"], networks)
        self.faithful: Faithfulness | None = None
        self.answers: Answers | None = None
        self.copies: Copies = {}
        self.known: dict[str, Copies] = {}
        self.pool = torch.empty(0, model.config.layout.length, dtype=torch.long, device=self.device)
        """The tokens of the last images, a batch of them however few came last."""
        self.losses: dict[str, float] = {}
        self.count = 0

    def find_nearest(self, dataset: FolderDataset, text: TextSource | None, limit: int | None) -> None:
        """Looks through the training images for each image's nearest, by what the task is told of it."""
        if self.train is None:
            return
        if "text" in self.needs and text is not None:
            names = [record.file_name for record in dataset][:limit]
            self.copies = nearest_texts(names, self.train, text)
        elif "segmentation" in self.needs:
            self.copies = nearest_maps(dataset, self.train, limit)
        masks = evaluation_masks(self.model)
        if masks:
            self.known = nearest_known(dataset, self.train, masks, self.config, limit)

    @torch.no_grad()
    def update(self, batch: Batch, maps: Batch | None) -> None:
        """Counts a batch, with the segmentation maps of its images where the task draws after them."""
        batch = to_device(batch, self.device)
        layout = self.model.config.layout
        tokens = layout.to_tokens(self.model.tokenizer.encode(batch.images))
        codes = GenerationBatch(tokens, batch.keys, batch.text, self._map_tokens(maps))
        made = {"images": batch.images, "codes": self._decoded(tokens)}
        for kind, model in self.models.items():
            self._add_losses(kind, model, codes)
            prompt = Prompt(len(tokens), text=codes.text, condition=codes.condition)
            made[kind] = self._decoded(model.task.sample(prompt, self.sampling, self.generators[kind]))
        self.pool = torch.cat([self.pool, tokens])[-BATCH:]
        made["mixed"] = self._decoded(mixed(self.pool, len(tokens), self.generators["drawn"]))
        made |= self._copied(batch.keys)
        self._compare(made, batch)
        self.count += len(tokens)

    def _compare(self, made: dict[str, Tensor], batch: Batch) -> None:
        for kind, images in made.items():
            for image_set in self.sets[kind]:
                image_set.update(images, batch.keys)
        if self.completions.masks:
            nearest = {mask: self._read(copies, batch.keys) for mask, copies in self.known.items()}
            there = {mask: images for mask, images in nearest.items() if images is not None}
            self.completions.update(batch.images, made["codes"], there, self.sampling, self.generators)
        judged = {kind: images for kind, images in made.items() if kind != "mixed"}
        if self.faithful is not None and batch.text is not None:
            self.faithful.update(batch.text, judged)
        if self.answers is not None:
            self.answers.update(batch.keys, judged)

    def _add_losses(self, kind: str, model: TaskModel, codes: GenerationBatch) -> None:
        torch.manual_seed(SEED + self.count)  # objectives draw: which tokens are masked, which step
        for name, loss in model.task.loss(codes).items():
            key = f"loss/{name}" if kind == "drawn" else f"{kind}/loss/{name}"
            self.losses[key] = self.losses.get(key, 0.0) + float(loss.value) * len(codes.tokens)

    def _map_tokens(self, maps: Batch | None) -> Tensor | None:
        layout, tokenizer = self.model.config.condition_layout, self.model.condition_tokenizer
        if maps is None or layout is None or tokenizer is None:
            return None
        return layout.to_tokens(tokenizer.encode(maps.images.to(self.device)))

    def _decoded(self, tokens: Tensor) -> Tensor:
        return self.model.decode(tokens, self.model.config.layout)

    def _copied(self, keys: Sequence[str]) -> dict[str, Tensor]:
        images = self._read(self.copies, keys)
        return {} if images is None else {"nearest": images}

    def _read(self, copies: Copies, keys: Sequence[str]) -> Tensor | None:
        """The nearest training image of each; None where one has none."""
        if self.train is None or any(key not in copies for key in keys):
            return None
        return load_image_batch(self.train, [copies[key] for key in keys], self.config.size).to(self.device)

    def compute(self, novelty_warning: str | None) -> dict[str, Any]:
        """The result of `evaluate_drawing`."""
        result: dict[str, Any] = {"images": self.count, "sampling": self.sampling.model_dump(), "seed": SEED}
        result |= {"training_images": 0 if self.train is None else len(self.train)}
        result |= {name: total / self.count for name, total in self.losses.items()}
        for kind in KINDS:
            for images, reference in zip(self.sets[kind], self.sets["images"], strict=True):
                if images.moments.count == self.count:
                    found = set_distances(images, reference)
                    result |= {f"{kind}/{name}": value for name, value in found.items()}
        scores = self.completions.compute()
        if self.faithful is not None:
            scores |= self.faithful.compute()
        if self.answers is not None:
            scores |= self.answers.compute()
        if self.train is not None and not self.needs:
            scores |= measure_novelty(self.sets["drawn"], self.sets["codes"], self.train, self.config, self.device)
            result["novelty_warning"] = novelty_warning
        result |= {name: score["value"] for name, score in scores.items()}
        intervals = {name: score["interval"] for name, score in scores.items() if score["interval"] is not None}
        weights = {n.title("distance") if n.heads else n.name: n.sha256 for n in self.networks}
        return result | {"intervals": intervals, "feature_weights": weights}
