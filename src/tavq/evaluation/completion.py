"""Completion, measured on the hidden part alone, beside five other fillings of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.inpainting import hidden_distance, hidden_psnr, hidden_ssim
from tavq.nets.features.extractors import FeatureNetwork, unit_stages
from tavq.tasks.base import Sampling
from tavq.tasks.completion import complete, evaluation_masks, fill_smoothly
from tavq.tasks.model_folder import TaskModel

Images = Float[Tensor, "b 3 y x"]
Fill = Callable[[TaskModel, Images, Bool[Tensor, "b y x"]], Images]


class Completions:
    """PSNR, SSIM and each network's distance of the hidden part, by mask, measure and filling.

    The fillings: drawn by the task, and `untrained` (by the same network with drawn weights), `nearest` (the nearest
    training image's pixels, where there is one), `mean_colour` (of the known part), `continued` (smoothly from it),
    and `codes` (the tokenizer's own reconstruction of the whole image), which drawing cannot beat.
    """

    def __init__(self, model: TaskModel, untrained: TaskModel, networks: Sequence[FeatureNetwork]) -> None:
        self.model, self.untrained, self.networks = model, untrained, networks
        self.masks = evaluation_masks(model)
        self.scores: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def update(
        self,
        images: Float[Tensor, "b 3 y x"],
        decoded: Float[Tensor, "b 3 y x"],
        nearest: Mapping[str, Float[Tensor, "b 3 y x"]],
        sampling: Sampling,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        """Counts a batch.

        Args:
            images: the originals.
            decoded: their own codes decoded.
            nearest: for each mask the training images nearest by the known part; may be empty.
            sampling: how tokens are drawn.
            generators: of `drawn` and `untrained`.
        """
        originals = [unit_stages(network, images) for network in self.networks]
        for name, mask in self.masks.items():
            mask = mask.to(images.device)
            masks = mask.expand(len(images), *mask.shape)
            seen = (images * ~mask).sum(dim=(2, 3), keepdim=True) / (~mask).sum()
            fillings = {
                "": complete(self.model, images, masks, sampling, generators["drawn"]),
                "_untrained": complete(self.untrained, images, masks, sampling, generators["untrained"]),
                "_mean_colour": seen.expand_as(images),
                "_continued": fill_smoothly(images, ~masks),
                "_codes": decoded,
                **({"_nearest": nearest[name]} if name in nearest else {}),
            }
            for filling, filled in fillings.items():
                self._score(name, filling, torch.where(mask, filled, images), images, originals, masks)

    def _score(
        self,
        mask: str,
        filling: str,
        completed: Images,
        images: Images,
        originals: Sequence[Sequence[Tensor]],
        masks: Bool[Tensor, "b y x"],
    ) -> None:
        found = {"psnr": hidden_psnr(completed, images, masks), "ssim": hidden_ssim(completed, images, masks)}
        for network, stages in zip(self.networks, originals, strict=True):
            found[network.title("distance")] = hidden_distance(network, completed, stages, masks)
        for measure, values in found.items():
            self.scores.setdefault(f"completed/{mask}/{measure}{filling}", []).append(values.double().cpu())

    def compute(self) -> dict[str, dict[str, Any]]:
        """`completed/MASK/MEASURE` of the task and `completed/MASK/MEASURE_FILLING`, each with its interval."""
        if not self.scores:
            return {}
        columns = [torch.cat(parts) for parts in self.scores.values()]
        statistics = torch.stack([torch.ones_like(columns[0]), *columns], dim=1)
        return intervals.with_intervals(list(self.scores), statistics, intervals.mean)
