"""How much of an image's text its codes carry: cosine, retrieval, and a linear probe of the codes alone.

The papers report a "code-text cosine" (TA-VQ 0.1444, LG-VQ 0.1021 on CUB-200) without saying how it is measured.
What stands here is our own definition and its numbers cannot be held against theirs.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tavq.metrics import intervals

RECALLS = (1, 5, 10)

TIE = 1e-6
"""Similarities closer than this count as tied: equal vectors may differ by rounding in a matrix product."""

Ranks = dict[str, Tensor]
"""The rank of each query's match, by the way of asking."""

PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""The probe's grid for lambda, in units of the variance of one normalised input."""

SMALLEST_PROBE = 8
"""Images that the probe needs: two halves, each split again to choose lambda."""


# --- cosine -----------------------------------------------------------------------------------------------------


def code_text_cosine(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> dict[str, Any]:
    """How near images are to their own texts, next to how near they are to the texts of others.

    Row i of `images` holds what the aligner makes of image i's codes (`Aligner.embed_images`), row i of `texts`
    what it makes of its text (`Aligner.embed_text`); both are unit vectors.

    - `code_text_cosine`: mean over images of the cosine of an image with its text.
    - `code_text_cosine_shuffled`: mean of the cosine over all pairs of an image and another image's text, which
      is what shuffling the texts gives on average. All embeddings may point the same way, so only the difference of
      the two says that a code knows its text.
    - `intervals` of both over images. The second is a mean over pairs; drawn is each image's own part of it, the
      mean of the pairs that it is in, by image or by text (Hoeffding 1948).

    None where undefined: no image, or a single one for the second.
    """
    count = len(images)
    if count == 0:
        return {"code_text_cosine": None, "code_text_cosine_shuffled": None, "intervals": {}}
    images, texts = images.double(), texts.double()
    own, total = (images * texts).sum(dim=1), images.sum(dim=0) @ texts.sum(dim=0)
    shuffled = (total - own.sum()) / (count * (count - 1)) if count > 1 else None
    figures = {"code_text_cosine": float(own.sum() / count), "code_text_cosine_shuffled": None}
    statistics = {"code_text_cosine": own}
    if shuffled is not None:
        figures["code_text_cosine_shuffled"] = float(shuffled)
        others = (images @ texts.sum(dim=0) - own) + (texts @ images.sum(dim=0) - own)
        statistics["code_text_cosine_shuffled"] = others / (count - 1) - shuffled
    return {**figures, "intervals": _of_means(statistics)}


# --- retrieval --------------------------------------------------------------------------------------------------


def retrieval(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> dict[str, Any]:
    """Recall at 1, 5, 10 and median rank both ways, with the number of candidates.

    `image_to_text` ranks all texts for each image by dot product, `text_to_image` the reverse; row i of one
    belongs to row i of the other. Chance is k / candidates for recall at k. Ties count against the match: a match
    that shares its similarity with others (within 1e-6) takes the worst of their ranks, so embeddings that collapsed
    to a point score 0 and not 1. Values are None without candidates.

    `intervals` holds those of the recalls, by dotted name: queries are drawn, each with its rank among all candidates.
    A median has none, as it is no function of sums.
    """
    found = both_ranks(images, texts)
    return {**_recalls_of(found), "intervals": _of_means(_hits(found)) if len(texts) else {}}


def both_ranks(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Ranks:
    """`ranks` of texts for each image, and of images for each text."""
    return {"image_to_text": ranks(images, texts), "text_to_image": ranks(texts, images)}


def _recalls_of(found: Ranks) -> dict[str, Any]:
    return {"candidates": len(found["image_to_text"]), **{way: recalls(places) for way, places in found.items()}}


def _hits(found: Ranks) -> dict[str, Float[Tensor, " n"]]:
    """Whether each query finds its match among the first k, for each recall by its dotted name."""
    return {f"{way}.recall@{k}": (places <= k).double() for way, places in found.items() for k in RECALLS}


def ranks(queries: Float[Tensor, "n e"], candidates: Float[Tensor, "n e"], chunk: int = 1024) -> Int[Tensor, " n"]:
    """The rank, from 1, of candidate i for query i by dot product; ties count against it.

    Time O(n^2 e); memory O(chunk n).
    """
    found = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ candidates.mT
        own = scores.diagonal(offset=start)[:, None]
        found.append((scores >= own - TIE).sum(dim=1))  # counts the match itself once
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def recalls(found: Int[Tensor, " n"]) -> dict[str, float | None]:
    """`recall@1`, `recall@5`, `recall@10` (shares from 0 to 1) and `median_rank` of ranks that start at 1."""
    if len(found) == 0:
        return {**{f"recall@{k}": None for k in RECALLS}, "median_rank": None}
    at = {f"recall@{k}": float((found <= k).double().mean()) for k in RECALLS}
    return {**at, "median_rank": float(found.double().quantile(0.5))}


# --- the probe --------------------------------------------------------------------------------------------------


def probe(codes: Float[Tensor, "n d"], sentences: Float[Tensor, "n t"]) -> dict[str, Any]:
    """How much of an image's sentences can be read off its codes by a straight line: cosine and retrieval.

    The question of `code_text_cosine`, asked of tokenizers with and without an aligner alike. Row i of `codes` is the
    mean of image i's entries over its deep grid, row i of `sentences` the mean of its sentence vectors. Even rows
    and odd rows form two halves (put the rows in an order that says nothing of the image). On one half a ridge
    regression, in closed form and float64, is fitted from codes (each coordinate brought to mean 0 and variance 1)
    to sentences minus their mean; on the other half its predictions are compared with sentences minus the *same*
    mean. Lambda is taken from `PENALTIES`: the one with the highest cosine when the fitting half is itself split the
    same way (of equal ones the largest); then the fit is done on the whole of it. Both halves take both parts;
    results are averaged.

    - `probe_code_text_cosine`: mean cosine of prediction and truth on images the fit has not seen. 0 is chance,
      as the mean of all texts, which any prediction could copy, is taken away first.
    - `probe_retrieval`: as `retrieval`, prediction against truth, within a half.

    `intervals` holds those of the cosine and of the recalls, by dotted name: held-out images are drawn, each with
    what the one fit makes of it; how another fit would differ is not in them.

    Both are None below 8 images. A prediction of length 0 (all codes equal) has cosine 0.
    """
    if len(codes) < SMALLEST_PROBE:
        return {"probe_code_text_cosine": None, "probe_retrieval": None, "intervals": {}}
    halves = [(codes[part::2].double(), sentences[part::2].double()) for part in (0, 1)]
    scored = [_probe_half(*fitted, *held_out) for fitted, held_out in (halves, halves[::-1])]
    return {
        "probe_code_text_cosine": sum(float(cosines.mean()) for cosines, _ in scored) / 2,
        "probe_retrieval": _mean_of([_recalls_of(found) for _, found in scored]),
        "intervals": _of_halves([_each(*half) for half in scored]),
    }


def _each(cosines: Float[Tensor, " q"], found: Ranks) -> dict[str, Tensor]:
    """The parts of a half's images in each figure."""
    hits = {f"probe_retrieval.{name}": hit for name, hit in _hits(found).items()}
    return {"probe_code_text_cosine": cosines, **hits}


def _probe_half(
    codes: Float[Tensor, "n d"],
    sentences: Float[Tensor, "n t"],
    held_codes: Float[Tensor, "q d"],
    held_sentences: Float[Tensor, "q t"],
) -> tuple[Float[Tensor, " q"], Ranks]:
    """The cosine of each image of the second pair, and the ranks, by a probe fitted on the first."""
    trials = _predictions(codes[::2], sentences[::2], codes[1::2], PENALTIES)
    truth = _directions(sentences[1::2] - sentences[::2].mean(dim=0))
    cosines = [float((_directions(trial) * truth).sum(dim=1).mean()) for trial in trials]
    best = max(cosines) - TIE  # rounding must not choose between penalties that predict the same
    penalty = max(penalty for penalty, cosine in zip(PENALTIES, cosines, strict=True) if cosine >= best)
    predicted = _directions(_predictions(codes, sentences, held_codes, (penalty,))[0])
    truth = _directions(held_sentences - sentences.mean(dim=0))
    return (predicted * truth).sum(dim=1), both_ranks(predicted, truth)


def _predictions(
    codes: Float[Tensor, "n d"],
    sentences: Float[Tensor, "n t"],
    held: Float[Tensor, "q d"],
    penalties: tuple[float, ...],
) -> list[Float[Tensor, "q t"]]:
    """Centred sentences of `held` as a ridge regression of each penalty predicts them; one eigenproblem for all."""
    mean, spread = codes.mean(dim=0), codes.std(dim=0, correction=0)
    # A coordinate that never varies is noise of rounding; it gets no say.
    scale = torch.where(spread > 1e-9 * (1 + mean.abs()), 1 / spread.clamp(min=1e-300), 0.0)
    inputs, targets = (codes - mean) * scale, sentences - sentences.mean(dim=0)
    values, vectors = torch.linalg.eigh(inputs.mT @ inputs / len(inputs))
    along = vectors.mT @ (inputs.mT @ targets) / len(inputs)
    rotated = ((held - mean) * scale) @ vectors
    return [rotated @ (along / (values.clamp(min=0) + penalty)[:, None]) for penalty in penalties]


def _directions(vectors: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    return normalize(vectors, dim=1, eps=1e-9)


def _mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of equally nested dictionaries of numbers; the number of candidates is the smaller one's."""
    first, second = results
    mean: dict[str, Any] = {"candidates": min(first["candidates"], second["candidates"])}
    for way in ("image_to_text", "text_to_image"):
        mean[way] = {key: (first[way][key] + second[way][key]) / 2 for key in first[way]}
    return mean


# --- intervals --------------------------------------------------------------------------------------------------


def _of_means(values: dict[str, Float[Tensor, " n"]]) -> dict[str, list[float]]:
    """The interval of each mean over the same images, where there are two or more."""
    columns = list(values.values())
    return _named(list(values), torch.stack([torch.ones_like(columns[0]), *columns], dim=1), intervals.mean)


def _of_halves(halves: list[dict[str, Tensor]]) -> dict[str, list[float]]:
    """The interval of each mean of two halves' means: images of both are drawn together."""
    names, rows = list(halves[0]), []
    for half, values in enumerate(halves):
        columns = torch.stack([torch.ones_like(values[names[0]]), *values.values()], dim=1)
        none = torch.zeros_like(columns)
        rows.append(torch.cat([none, columns] if half else [columns, none], dim=1))
    return _named(names, torch.cat(rows), _mean_of_halves)


def _mean_of_halves(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    first, second = sums.chunk(2, dim=1)
    return (intervals.mean(first) + intervals.mean(second)) / 2


def _named(names: list[str], statistics: Float[Tensor, "n d"], score: intervals.Score) -> dict[str, list[float]]:
    ends = intervals.listed(intervals.bootstrap(statistics, score))
    return {name: pair for name, pair in zip(names, ends, strict=True) if pair is not None}
