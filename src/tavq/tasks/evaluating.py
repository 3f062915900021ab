"""How well a task does on pictures that it was not trained on, beside what a trivial answer would give."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EvaluationLoader
from tavq.interfaces import Batch, TextSource, to_device
from tavq.metrics.distances import PictureSet, set_distances
from tavq.metrics.hidden import hidden_psnr
from tavq.metrics.intervals import bootstrap, listed, mean
from tavq.nets.features import FeatureNetwork
from tavq.tasks.base import Codes, Prompt, Sampling
from tavq.tasks.completing import complete, named_mask
from tavq.tasks.folder import TaskModel

BATCH = 32
SEED = 0
MASKS = ("right", "centre")


def evaluate_task(
    model: TaskModel,
    dataset: FolderDataset,
    networks: Sequence[FeatureNetwork] = (),
    sampling: Sampling | None = None,
    text: TextSource | None = None,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """All measurements of a task that draws, on a split; ready for JSON.

    - `loss/...`: the terms of its objective on the split's own tokens, as in training but without dropout.
    - `drawn/fd_NETWORK`: distance of as many drawn pictures as there are, each under its picture's condition, from the
      pictures themselves. To read it: `codes/…` is that of the pictures' own codes decoded, which drawing cannot beat,
      and `mixed/…` that of codes in which each token is another picture's at that place, which it should.
    - `completed/MASK/psnr` for a task that completes: of the hidden part alone; `mean_colour` is that of filling it
      with the mean colour of what can be seen.

    Pictures are the split's centre squares. The draws follow from a fixed seed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} must be 1 or more.")
    running = _Measured(model, networks, sampling or Sampling())
    config = DataConfig(size=int(model.facts["size"]))
    pictures = EvaluationLoader(dataset, config, BATCH, text, limit)
    maps: Iterable[Batch | None] = itertools.repeat(None)
    if "segmentation" in model.task.needs(model.config.task):
        maps = EvaluationLoader(dataset, config.of_maps(model.colours), BATCH, None, limit)
    for batch, given in zip(pictures, maps, strict=False):
        if given is not None and given.keys != batch.keys:
            raise UsageError(
                f"Some pictures of {dataset.folder} have no segmentation; this task is measured on those that do."
            )
        running.update(batch, given)
        if progress is not None:
            progress(running.count)
    return running.compute()


class _Measured:
    def __init__(self, model: TaskModel, networks: Sequence[FeatureNetwork], sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.device = next(model.task.parameters()).device
        self.generator = torch.Generator(self.device).manual_seed(SEED)
        kinds = ("pictures", "drawn", "codes", "mixed")
        self.sets = {kind: [PictureSet(network) for network in networks] for kind in kinds}
        self.losses: dict[str, float] = {}
        self.hidden: dict[str, list[Tensor]] = {}
        self.count = 0

    @torch.no_grad()
    def update(self, batch: Batch, maps: Batch | None) -> None:
        batch = to_device(batch, self.device)
        layout = self.model.config.layout
        tokens = layout.tokens(self.model.tokenizer.encode(batch.images))
        given = self._map_tokens(maps)
        codes = Codes(tokens, batch.keys, batch.text, given)
        torch.manual_seed(SEED + self.count)  # objectives draw: which tokens are masked, which step
        for name, loss in self.model.task.loss(codes).items():
            self.losses[name] = self.losses.get(name, 0.0) + float(loss.value) * len(tokens)
        drawn = self.model.task.draw(Prompt(len(tokens), text=batch.text, given=given), self.sampling, self.generator)
        self._add("pictures", batch.images, batch.keys)
        self._add("drawn", self._decoded(drawn), batch.keys)
        self._add("codes", self._decoded(tokens), batch.keys)
        self._add("mixed", self._decoded(_mixed(tokens, self.generator)), batch.keys)
        if self.model.task.completes and not self.model.task.needs(self.model.config.task):
            self._complete(batch.images)
        self.count += len(tokens)

    def _map_tokens(self, maps: Batch | None) -> Tensor | None:
        layout, tokenizer = self.model.config.given, self.model.given
        if maps is None or layout is None or tokenizer is None:
            return None
        return layout.tokens(tokenizer.encode(maps.images.to(self.device)))

    def _decoded(self, tokens: Tensor) -> Tensor:
        return self.model.tokenizer.decode(self.model.config.layout.indices(tokens)).clamp(-1, 1)

    def _add(self, kind: str, images: Tensor, keys: Sequence[str]) -> None:
        for pictures in self.sets[kind]:
            pictures.update(images, keys)

    def _complete(self, images: Float[Tensor, "b 3 y x"]) -> None:
        for name in MASKS if self.model.task.completes == "any" else ("bottom",):
            mask = named_mask(name, images.shape[2]).to(images.device)
            masks = mask.expand(len(images), *mask.shape)
            filled = complete(self.model, images, masks, self.sampling, self.generator)
            seen = (images * ~mask).sum(dim=(2, 3), keepdim=True) / (~mask).sum()
            plain = torch.where(mask, seen, images)
            for what, picture in ((f"completed/{name}/psnr", filled), (f"completed/{name}/psnr_mean_colour", plain)):
                self.hidden.setdefault(what, []).append(hidden_psnr(picture, images, masks).double().cpu())

    def compute(self) -> dict[str, Any]:
        result: dict[str, Any] = {"images": self.count, "sampling": self.sampling.model_dump(), "seed": SEED}
        result |= {f"loss/{name}": total / self.count for name, total in self.losses.items()}
        for kind in ("drawn", "codes", "mixed"):
            for pictures, reference in zip(self.sets[kind], self.sets["pictures"], strict=True):
                found = set_distances(pictures, reference)
                result |= {f"{kind}/{name}": value for name, value in found.items()}
        intervals = {}
        for name, parts in self.hidden.items():
            values = torch.cat(parts)
            result[name] = float(values.mean())
            intervals[name] = listed(bootstrap(torch.stack([torch.ones_like(values), values], dim=1), mean))[0]
        weights = {p.network.name: p.network.sha256 for p in self.sets["pictures"]}
        return result | {"intervals": intervals, "feature_weights": weights}


def _mixed(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """At each place the token of some picture of the batch: what knows places and nothing of their neighbours."""
    rows = torch.randint(len(tokens), tokens.shape, generator=generator, device=tokens.device)
    return tokens.gather(0, rows)
