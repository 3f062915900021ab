"""Retrieval where an image has several texts: recall and median rank both ways, next to chance."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.alignment import RECALLS, TIE, ranking_metrics, recalls
from tavq.metrics.record import CHANCE, Group, Metric, for_baseline

CHUNK = 256
"""Queries whose scores are in memory at a time."""

WAYS = ("image_to_text", "text_to_image")

RANKS = Group("ranks", "Image-text retrieval", "Among all images, and all distinct texts, of the split.")


def retrieval_of_several(
    images: Float[Tensor, "n e"], texts: Float[Tensor, "m e"], own: Sequence[Sequence[int]]
) -> list[Metric]:
    """`WAY/recall@k` and `WAY/median_rank` with intervals, and the same of `chance`.

    - `image_to_text` ranks all texts for each image; it is found among the first k where *any* of its own texts
      is: its rank is that of the nearest of them, and its others do not count against it.
    - `text_to_image` ranks all images for *one* text of each image, the first of its own.

    Ties (within 1e-6) count against the match, so that embeddings that collapsed to a point score 0. `chance/…` is
    what a random order gives: 1 - C(m - t, k) / C(m, k) for an image with t of m texts, k / n for a text;
    for the rank the smallest that half of the orders reach. Intervals are over images, each with its rank among all.

    Args:
        images: unit vectors.
        texts: unit vectors, each text once.
        own: of each image which texts are its own, one or more.
    """
    queries = texts[torch.tensor([first for first, *_ in own], dtype=torch.int64)]
    found = {WAYS[0]: _text_ranks(images, texts, own), WAYS[1]: _image_ranks(queries, images)}
    metrics = [
        replace(metric, main=metric.name.endswith(("recall@1", "median_rank"))) for metric in ranking_metrics(RANKS)
    ]
    measured = []
    for way, ranks in found.items():
        *at, median = (metric for metric in metrics if metric.name.startswith(way))
        hits = torch.stack([torch.ones(len(ranks)), *((ranks <= k).float() for k in RECALLS)], dim=1)
        measured += intervals.score_with_intervals(at, hits, intervals.mean)
        measured.append(median.measured(recalls(ranks)["median_rank"], intervals.median_interval(ranks.double())))
    chance = _chance(len(images), len(texts), [len(set(texts)) for texts in own])
    return measured + [metric.measured(chance[metric.name]) for metric in for_baseline(CHANCE, metrics)]


def _text_ranks(
    images: Float[Tensor, "n e"], texts: Float[Tensor, "m e"], own: Sequence[Sequence[int]]
) -> Int[Tensor, " n"]:
    """The rank, from 1, of the nearest of each image's own texts."""
    found = []
    for start in range(0, len(images), CHUNK):
        scores = images[start : start + CHUNK] @ texts.mT
        mine = torch.zeros(scores.shape, dtype=torch.bool)
        for row, places in enumerate(own[start : start + CHUNK]):
            mine[row, torch.tensor(places)] = True
        nearest = scores.masked_fill(~mine, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((scores >= nearest - TIE) & ~mine).sum(dim=1))
    return torch.cat(found)


def _image_ranks(queries: Float[Tensor, "n e"], images: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
    """The rank, from 1, of each query's own image."""
    found = []
    for start in range(0, len(queries), CHUNK):
        scores = queries[start : start + CHUNK] @ images.mT
        nearest = scores.diagonal(offset=start)[:, None]
        found.append((scores >= nearest - TIE).sum(dim=1))  # counts the match itself once
    return torch.cat(found)


def _chance(images: int, texts: int, sizes: Sequence[int]) -> dict[str, float]:
    """The values of a random order, by formula."""
    found: dict[str, float] = {}
    for way, candidates, counts in ((WAYS[0], texts, sizes), (WAYS[1], images, [1])):
        probability = _hit_probability(candidates, torch.tensor(counts))
        values = {f"recall@{k}": float(probability[min(k, candidates) - 1]) for k in RECALLS}
        values["median_rank"] = float(1 + int((probability < 0.5 - 1e-12).sum()))
        found |= {f"{way}/{name}": value for name, value in values.items()}
    return found


def _hit_probability(candidates: int, sizes: Int[Tensor, " p"]) -> Float[Tensor, " c"]:
    """Element k - 1: the probability that one of `size` marked candidates is among the first k, mean over `sizes`."""
    total = torch.zeros(candidates, dtype=torch.float64)
    kinds, counts = sizes.unique(return_counts=True)
    drawn = torch.arange(candidates, dtype=torch.float64)
    for size, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        # the probability that none of the first k is marked: a product over draws without replacement
        missed = ((candidates - size - drawn).clamp(min=0) / (candidates - drawn)).cumprod(dim=0)
        total += count * (1 - missed)
    return total / len(sizes)
