"""Completion, of the hidden part and of the completed images as a set, next to five baselines without the task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.evaluation.joining import find_union
from tavq.metrics import intervals
from tavq.metrics.distances import FeatureMoments, compare_moments
from tavq.metrics.images import perceptual_metric
from tavq.metrics.inpainting import hidden_distance, hidden_psnr, hidden_ssim
from tavq.metrics.record import NEAREST, UNTRAINED, Baseline, Group, Metric
from tavq.nets.features.extractors import FeatureNetwork, unit_stages
from tavq.ops.gathering import gather_rows
from tavq.tasks.base import Sampling
from tavq.tasks.completion import complete_images, evaluation_masks, fill_smoothly
from tavq.tasks.model_folder import TaskModel

Images = Float[Tensor, "b 3 y x"]

CODES = Baseline("codes", "own codes", "The images' own codes decoded: the best that the tokenizer allows.")
MEAN_COLOUR = Baseline("mean_colour", "mean colour", "The hidden part in the mean colour of the known part.")
CONTINUED = Baseline("continued", "continuation", "The hidden part as a blurred continuation of the known part.")


def completion_metrics(mask: str, networks: Sequence[FeatureNetwork]) -> list[Metric]:
    """PSNR, SSIM and each network's distance of what `mask` hides, without values."""
    group = _group(mask)
    psnr = Metric("psnr", "PSNR in dB", group, better=1, meaning="Of the hidden pixels.", decimals=2, main=True)
    ssim = Metric("ssim", "SSIM", group, better=1, meaning="Of the hidden pixels.")
    distances = [
        Metric(own.name, own.title, group, better=-1, meaning="Difference of features over the hidden pixels.")
        for own in map(perceptual_metric, networks)
    ]
    return [replace(metric, name=f"{group.name}/{metric.name}") for metric in (psnr, ssim, *distances)]


def _group(mask: str) -> Group:
    where = "the centre hidden" if mask == "centre" else f"the {mask} half hidden"
    note = "Of the hidden part alone, but for distances between sets, which are of whole images."
    return Group(f"completed/{mask}", f"Completion, {where}", note)


def _set_distance(mask: str, metric: Metric) -> Metric:
    """A distance between sets as that of completed images: `completed/MASK/fd_NETWORK`."""
    group = _group(mask)
    meaning = f"{metric.meaning} Here of whole completed images, which share the known part with the originals."
    return replace(metric, name=f"{group.name}/{metric.name}", group=group, meaning=meaning, decimals=2)


class CompletionScores:
    """PSNR, SSIM and each network's distance of the hidden part, and the Fréchet distance of the completed images.

    All by mask and by what fills the hidden part in.

    Filled in by the task, and by these baselines: `untrained` (the same network with random weights), `nearest` (the
    pixels of the nearest training image, where there is one), `mean_colour` (of the known part), `continued` (smoothly
    from it), and `codes` (the tokenizer's own reconstruction of the full image), which no task can beat.
    """

    def __init__(self, model: TaskModel, untrained: TaskModel, networks: Sequence[FeatureNetwork]) -> None:
        self.model, self.untrained, self.networks = model, untrained, networks
        self.masks = evaluation_masks(model)
        self.set_networks = [network for network in networks if not network.heads]
        self.places: list[int] = []
        self.scores: dict[Metric, list[Tensor]] = {}
        self.moments: dict[tuple[str, Baseline | None], list[FeatureMoments]] = {}

    @torch.no_grad()
    def update(
        self,
        places: Sequence[int],
        images: Float[Tensor, "b 3 y x"],
        decoded: Float[Tensor, "b 3 y x"],
        nearest: Mapping[str, Float[Tensor, "b 3 y x"]],
        sampling: Sampling,
        generators: Mapping[Baseline | None, torch.Generator],
    ) -> None:
        """Add a batch.

        Args:
            places: of the images in the split.
            images: the originals.
            decoded: their own codes decoded.
            nearest: for each mask the training images nearest by the known part; may be empty.
            sampling: how tokens are sampled.
            generators: of the task (None) and of `UNTRAINED`.
        """
        self.places += places
        originals = [unit_stages(network, images) for network in self.networks]
        for name, mask in self.masks.items():
            mask = mask.to(images.device)
            masks = mask.expand(len(images), *mask.shape)
            mean_colour = (images * ~mask).sum(dim=(2, 3), keepdim=True) / (~mask).sum()
            filled: dict[Baseline | None, Images] = {
                None: complete_images(self.model, images, masks, sampling, generators[None]),
                UNTRAINED: complete_images(self.untrained, images, masks, sampling, generators[UNTRAINED]),
                MEAN_COLOUR: mean_colour.expand_as(images),
                CONTINUED: fill_smoothly(images, ~masks),
                CODES: decoded,
                **({NEAREST: nearest[name]} if name in nearest else {}),
            }
            for baseline, filling in filled.items():
                completed = torch.where(mask, filling, images)
                self._score(name, baseline, completed, images, originals, masks)
                self._add_to_set(name, baseline, completed)

    def _score(
        self,
        mask: str,
        baseline: Baseline | None,
        completed: Images,
        images: Images,
        originals: Sequence[Sequence[Tensor]],
        masks: Bool[Tensor, "b y x"],
    ) -> None:
        found = [hidden_psnr(completed, images, masks), hidden_ssim(completed, images, masks)]
        for network, stages in zip(self.networks, originals, strict=True):
            found.append(hidden_distance(network, completed, stages, masks))
        for metric, values in zip(completion_metrics(mask, self.networks), found, strict=True):
            self.scores.setdefault(replace(metric, baseline=baseline), []).append(values.double().cpu())

    def _add_to_set(self, mask: str, baseline: Baseline | None, completed: Images) -> None:
        empty = [FeatureMoments(network.width) for network in self.set_networks]
        moments = self.moments.setdefault((mask, baseline), empty)
        for network, own in zip(self.set_networks, moments, strict=True):
            own.update(network(completed))

    def join(self, baselines: Sequence[Baseline | None]) -> None:
        """Gather the scores and moments of all processes, in each of them and in the order of the images."""
        scores, moments = self.scores, self.moments
        self.scores, self.moments = {}, {}
        for mask in self.masks:
            for baseline in find_union([own for name, own in moments if name == mask], baselines):
                for metric in completion_metrics(mask, self.networks):
                    own = scores.get(replace(metric, baseline=baseline), [])
                    rows = gather_rows(self.places if own else [], own)
                    self.scores[replace(metric, baseline=baseline)] = [rows]
                empty = [FeatureMoments(network.width) for network in self.set_networks]
                self.moments[mask, baseline] = moments.get((mask, baseline), empty)
                for each in self.moments[mask, baseline]:
                    each.join()

    def compute(self, reference: Sequence[FeatureMoments]) -> list[Metric]:
        """`completed/MASK/psnr` and so on, of the task and of each baseline.

        Those of the hidden part have intervals. `completed/MASK/fd_NETWORK` is the Fréchet distance between whole
        completed images and the originals, as in VQ-GAN (Esser et al. 2021), LG-VQ (table 10) and TA-VQ (table 6).

        Args:
            reference: moments of the originals, in the features of each network without heads.
        """
        if not self.scores:
            return []
        return [*self._hidden_metrics(), *self._set_distances(reference)]

    def _set_distances(self, reference: Sequence[FeatureMoments]) -> list[Metric]:
        found = []
        for (mask, baseline), moments in self.moments.items():
            for network, own, originals in zip(self.set_networks, moments, reference, strict=True):
                if own.count == originals.count:
                    metric = _set_distance(mask, compare_moments(network, own, originals))
                    found.append(replace(metric, baseline=baseline))
        return found

    def _hidden_metrics(self) -> list[Metric]:
        columns = [torch.cat(parts) for parts in self.scores.values()]
        statistics = torch.stack([torch.ones_like(columns[0]), *columns], dim=1)
        return intervals.score_with_intervals(list(self.scores), statistics, intervals.mean)
