"""The metrics of a task that generates images: its objective, the images, and what it completes."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import DataError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, load_training_split
from tavq.data.loader import EvaluationLoader, load_image_batch
from tavq.data.records import Fault
from tavq.evaluation.completion import CODES, CONTINUED, MEAN_COLOUR, CompletionScores
from tavq.evaluation.memorization import measure_copying
from tavq.evaluation.nearest_training import (
    NearestNames,
    find_nearest_by_known_part,
    find_nearest_by_map,
    find_nearest_by_text,
)
from tavq.evaluation.text_questions import QuestionScores
from tavq.evaluation.text_retrieval import SHUFFLED, TextRetrievalScores
from tavq.interfaces import Batch, TextSource
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.memorization import DATA_COPYING, HELD_OUT
from tavq.metrics.record import NEAREST, UNTRAINED, Baseline, Evaluation, Group, Metric
from tavq.metrics.sample import hash_key
from tavq.nets.features.extractors import FeatureNetwork
from tavq.ops.collective import rank, world_size
from tavq.ops.gathering import gather_values
from tavq.tasks.base import GenerationBatch, Prompt, Sampling
from tavq.tasks.completion import evaluation_masks
from tavq.tasks.model_folder import TaskModel
from tavq.tokenizer import Tokenizer

BATCH = 32
SEED = 0

MIXED = Baseline(
    "mixed",
    "mixed codes",
    "At each position the code of a random image: codes fit their position, not each other.",
)
REAL = Baseline("images", "real images", "The split's images themselves.")
BASELINES = (None, UNTRAINED, NEAREST, MEAN_COLOUR, CONTINUED, MIXED, SHUFFLED, HELD_OUT, CODES, REAL)
"""The order of a table's columns: the model, then what it should beat, last what it cannot beat."""

SETS = Group(
    "sets",
    "Generated images next to real ones",
    "Distance between the images of each column and the split's own.",
)
COMPARED = (None, UNTRAINED, NEAREST, MIXED, CODES)
"""Whose images are compared with the split's own as sets."""

OBJECTIVE = Group("loss", "Objective", "The terms of the training objective on the split's own codes.")


def evaluate_generation(
    model: TaskModel,
    dataset: FolderDataset,
    networks: Sequence[FeatureNetwork],
    sampling: Sampling,
    text: TextSource | None,
    limit: int | None,
    progress: Callable[[int], None] | None,
    aligned: Tokenizer | None,
    reader: TaskModel | None,
    config: DataConfig,
    faults: list[Fault],
) -> Evaluation:
    """All metrics of a task that generates images, on a split.

    - `fd_NETWORK`: distance of generated images, one under the condition of each image, from the images themselves.
      `untrained/…` is that of the same network with random weights; `nearest/…`, of a task with a condition, that of
      the training images whose conditions are nearest; `codes/…` that of the images' own codes decoded, which no task
      can beat; `mixed/…` that of codes in which each token is some image's at that position, which a task should.
    - `text_recall@1` and so on with `aligned` (`evaluation.text_retrieval`), next to those of `images/…` (the split's
      own), `codes/…`, `nearest/…`, `untrained/…` and `shuffled/…`; `answers` and so on with `reader`
      (`evaluation.text_questions`), next to the same.
    - `completed/MASK/...` for a task that completes (`evaluation.completion`).
    - `nearest_distance_NETWORK`, `data_copying_NETWORK` for a task without a condition: how near generated images come
      to the training images, next to the split's own, decoded from their codes too (`metrics.memorization`).
    - `loss/...`: the terms of its objective on the split's own tokens, as in training but without dropout.

    Means over images have intervals over them. Images are the split's centre squares. Samples of a batch follow from
    the name of its first image. Several processes each take a part of the batches; all return the result of a single
    process, Fréchet distances up to rounding. Memory is that of a batch, plus for each image its scores, its 32 x 32
    pixels or map, and its features and embeddings.

    Args:
        model: the task.
        dataset: the split.
        networks: feature networks of the distances.
        sampling: how tokens are sampled.
        text: encoded text, where the task reads it.
        limit: measure at most this number of images, and copy from as many training images.
        progress: called with the number of images done after each batch.
        aligned: the tokenizer in whose space generated images look for their texts.
        reader: the model that answers questions about generated images.
        config: how images are read.
        faults: receives what of the split could not be used.
    """
    train = load_training_split(dataset, limit)
    running = GenerationEvaluator(model, networks, sampling, config, dataset, train)
    running.faithful = None if aligned is None else TextRetrievalScores(aligned.to(running.device))
    running.answers = None if reader is None else QuestionScores(reader.to(running.device), dataset)
    images = EvaluationLoader(dataset, config, BATCH, text, limit, rank(), world_size())
    maps: Iterable[Batch | None] = itertools.repeat(None)
    if "segmentation" in running.needs:
        coloured = config.for_segmentation(model.colours)
        maps = EvaluationLoader(dataset, coloured, BATCH, None, limit, rank(), world_size())
    running.find_nearest(dataset, text, limit)
    for batch, given in zip(images, maps, strict=False):
        if given is not None and given.keys != batch.keys:
            raise UsageError(
                f"Some images of {dataset.folder} have no segmentation map, which this task needs as its condition."
            )
        running.update(batch, given)
        if progress is not None:
            progress(running.count)
    for loader in (images, maps):
        if isinstance(loader, EvaluationLoader):
            loader.join_faults()
    faults += dict.fromkeys((*images.faults, *(maps.faults if isinstance(maps, EvaluationLoader) else ())))
    running.join()
    return running.compute(_memorization_warning(model, dataset))


def randomize_weights(model: TaskModel) -> TaskModel:
    """The same network with random weights of a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        task = model.config.make()
    device = next(model.task.parameters()).device
    return replace(model, task=task.eval().requires_grad_(False).to(device))


def mix_codes(pool: Int[Tensor, "p n"], count: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
    """At each position the token of a random image of the pool, so tokens fit their position, not each other."""
    rows = torch.randint(len(pool), (count, pool.shape[1]), generator=generator, device=pool.device)
    return pool.gather(0, rows)


def _image_sets(networks: Sequence[FeatureNetwork]) -> list[ImageSet]:
    """An empty set for each network that compares sets; those with heads (LPIPS) compare pairs alone."""
    return [ImageSet(network) for network in networks if not network.heads]


def _memorization_warning(model: TaskModel, dataset: FolderDataset) -> str:
    if dataset.split == "train":
        return "These are training images: nothing was held out, and copies of others are near."
    if model.metadata.get("data_sha256") not in (None, dataset.fingerprint):
        return f"The model was trained on other data than {dataset.folder.name}, whose training split is compared."
    return ""


class GenerationEvaluator:
    """The running metrics of a generation task and of its baselines; `evaluate_generation` drives it."""

    def __init__(
        self,
        model: TaskModel,
        networks: Sequence[FeatureNetwork],
        sampling: Sampling,
        config: DataConfig,
        dataset: FolderDataset,
        train: FolderDataset | None,
    ) -> None:
        self.dataset = dataset
        self.places = {record.file_name: place for place, record in enumerate(dataset)}
        self.models: dict[Baseline | None, TaskModel] = {None: model, UNTRAINED: randomize_weights(model)}
        self.model, self.networks, self.sampling, self.config, self.train = model, networks, sampling, config, train
        self.needs = model.task.required_conditions(model.config.task)
        self.device = next(model.task.parameters()).device
        self.generators = {own: torch.Generator(self.device) for own in self.models}
        self.sets = {own: _image_sets(networks) for own in (REAL, *COMPARED)}
        self.completions = CompletionScores(model, self.models[UNTRAINED], networks)
        self.faithful: TextRetrievalScores | None = None
        self.answers: QuestionScores | None = None
        self.nearest_names: NearestNames = {}
        self.known: dict[str, NearestNames] = {}
        self.losses: dict[tuple[str, Baseline | None], list[float]] = {}
        """Sums over the images of each batch."""
        self.count = 0

    def find_nearest(self, dataset: FolderDataset, text: TextSource | None, limit: int | None) -> None:
        """Find each image's nearest training image, by its condition and by what each mask leaves."""
        if self.train is None:
            return
        if "text" in self.needs and text is not None:
            names = [record.file_name for record in dataset][:limit]
            self.nearest_names = find_nearest_by_text(names, self.train, text)
        elif "segmentation" in self.needs:
            self.nearest_names = find_nearest_by_map(dataset, self.train, limit, self.config)
        masks = evaluation_masks(self.model)
        if masks:
            self.known = find_nearest_by_known_part(dataset, self.train, masks, self.config, limit)

    @torch.no_grad()
    def update(self, batch: Batch, maps: Batch | None) -> None:
        """Add a batch, with the segmentation maps of its images if they are the task's condition."""
        batch = to_device(batch, self.device)
        seed = self._seed(batch.keys)
        layout = self.model.config.layout
        tokens = layout.to_tokens(self.model.tokenizer.encode(batch.images))
        codes = GenerationBatch(tokens, batch.keys, batch.text, self._map_tokens(maps))
        made: dict[Baseline | None, Tensor] = {REAL: batch.images, CODES: self._decoded(tokens)}
        for own, model in self.models.items():
            self._add_losses(own, model, codes, seed)
            prompt = Prompt(len(tokens), text=codes.text, condition=codes.condition)
            made[own] = self._decoded(model.task.sample(prompt, self.sampling, self.generators[own]))
        pool = torch.cat([self._tokens_before(batch.keys[0], BATCH - len(tokens)), tokens])
        made[MIXED] = self._decoded(mix_codes(pool, len(tokens), self.generators[None]))
        copied = self._read(self.nearest_names, batch.keys)
        if copied is not None:
            made[NEAREST] = copied
        self._compare(made, batch)
        self.count += len(tokens)

    def _seed(self, keys: Sequence[str]) -> int:
        """Seed what is sampled for a batch, whichever process has it and whatever it did before; return the seed."""
        seed = hash_key(f"{SEED}/{keys[0]}")
        for generator in self.generators.values():
            generator.manual_seed(seed)
        return seed

    def _tokens_before(self, key: str, count: int) -> Int[Tensor, "b n"]:
        """The tokens of the images before one, so that a short batch mixes codes of as many images as the others."""
        place, layout = self.places[key], self.model.config.layout
        found = []
        for earlier in [*self.places][max(0, place - count) : place]:
            with suppress(DataError):  # reported where its batch is read
                image = load_image_batch(self.dataset, [earlier], self.config.size).to(self.device)
                found.append(layout.to_tokens(self.model.tokenizer.encode(image)))
        return torch.cat(found) if found else torch.empty(0, layout.length, dtype=torch.long, device=self.device)

    def _compare(self, made: dict[Baseline | None, Tensor], batch: Batch) -> None:
        places = [self.places[key] for key in batch.keys]
        for own, images in made.items():
            for image_set in self.sets[own]:
                image_set.update(images, batch.keys)
        if self.completions.masks:
            nearest = {mask: self._read(nearest_names, batch.keys) for mask, nearest_names in self.known.items()}
            there = {mask: images for mask, images in nearest.items() if images is not None}
            self.completions.update(places, batch.images, made[CODES], there, self.sampling, self.generators)
        judged = {own: images for own, images in made.items() if own is not MIXED}
        if self.faithful is not None and batch.text is not None:
            self.faithful.update(places, batch.text, judged)
        if self.answers is not None:
            self.answers.update(batch.keys, judged)

    def _add_losses(self, own: Baseline | None, model: TaskModel, codes: GenerationBatch, seed: int) -> None:
        torch.manual_seed(seed)  # objectives sample masks and diffusion steps
        for name, loss in model.task.loss(codes).items():
            self.losses.setdefault((name, own), []).append(float(loss.value) * len(codes.tokens))

    def _map_tokens(self, maps: Batch | None) -> Tensor | None:
        layout, tokenizer = self.model.config.condition_layout, self.model.condition_tokenizer
        if maps is None or layout is None or tokenizer is None:
            return None
        return layout.to_tokens(tokenizer.encode(maps.images.to(self.device)))

    def _decoded(self, tokens: Tensor) -> Tensor:
        return self.model.decode(tokens, self.model.config.layout)

    def _read(self, nearest_names: NearestNames, keys: Sequence[str]) -> Tensor | None:
        """The nearest training image of each; None where one has none."""
        if self.train is None or any(key not in nearest_names for key in keys):
            return None
        return load_image_batch(self.train, [nearest_names[key] for key in keys], self.config.size).to(self.device)

    def join(self) -> None:
        """Gather the metrics of all processes, in each of them."""
        self.count = sum(gather_values(self.count))
        self._join_losses()
        for sets in self.sets.values():
            for image_set in sets:
                image_set.join()
        for scores in (self.completions, self.faithful, self.answers):
            if scores is not None:
                scores.join(BASELINES)

    def _join_losses(self) -> None:
        own = {f"{name}\n{'' if of is None else of.name}": sums for (name, of), sums in self.losses.items()}
        joined: dict[tuple[str, Baseline | None], list[float]] = {}
        for sums_of in gather_values(own):
            for key, sums in sums_of.items():
                name, _, baseline = key.partition("\n")
                joined.setdefault((name, UNTRAINED if baseline else None), []).extend(sums)
        self.losses = joined

    def compute(self, memorization_warning: str) -> Evaluation:
        """The result of `evaluate_generation`."""
        metrics = self._distances()
        if self.faithful is not None:
            metrics += self.faithful.compute()
        if self.answers is not None:
            metrics += self.answers.compute()
        metrics += self.completions.compute([reference.moments for reference in self.sets[REAL]])
        metrics += self._memorization(memorization_warning)
        metrics += [
            _loss_metric(name, own).measured(math.fsum(sums) / self.count) for (name, own), sums in self.losses.items()
        ]
        groups = list(dict.fromkeys(metric.group.name for metric in metrics))
        metrics.sort(key=lambda metric: (groups.index(metric.group.name), BASELINES.index(metric.baseline)))
        weights = {n.metric_name("distance") if n.heads else n.name: n.sha256 for n in self.networks}
        details = {
            "images": self.count,
            "sampling": self.sampling.model_dump(),
            "seed": SEED,
            "training_images": 0 if self.train is None else len(self.train),
            "feature_weights": weights,
        }
        return Evaluation(tuple(metrics), details)

    def _distances(self) -> list[Metric]:
        found = []
        for baseline in COMPARED:
            for images, reference in zip(self.sets[baseline], self.sets[REAL], strict=True):
                if images.moments.count == self.count:
                    distances = compare_image_sets(images, reference)
                    found += [replace(metric, group=SETS, baseline=baseline, decimals=2) for metric in distances]
        return found

    def _memorization(self, warning: str) -> list[Metric]:
        if self.train is None or self.needs:
            return []
        found = measure_copying(self.sets[None], self.sets[CODES], self.train, self.config, self.device)
        copying = DATA_COPYING.name
        return [replace(metric, warning=warning) if metric.name.startswith(copying) else metric for metric in found]


def _loss_metric(name: str, baseline: Baseline | None) -> Metric:
    title = f"Loss: {name.rpartition('/')[2]}"
    return Metric(
        f"loss/{name}", title, OBJECTIVE, better=-1, baseline=baseline, meaning="A term of the training objective."
    )
