"""How much of an image's text its codes carry: cosine, retrieval, and a linear probe of the codes alone.

The papers report a "code-text cosine" (TA-VQ 0.1444, LG-VQ 0.1021 on CUB-200) without saying how it is measured.
This is our own definition, and its numbers cannot be compared with theirs.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.record import Baseline, Group, Interval, Metric
from tavq.metrics.ridge import Ridge, choose_penalty, directions

RECALLS = (1, 5, 10)

TIE = 1e-6
"""Similarities closer than this count as tied: equal vectors may differ by rounding in a matrix product."""

Ranks = dict[str, Tensor]
"""The rank of each query's match, by direction."""

SMALLEST_PROBE = 8
"""Images that the probe needs: two halves, each split again to choose lambda."""


# --- cosine -----------------------------------------------------------------------------------------------------


ALIGNED = Group("alignment", "Codes and text, in the aligner's space")

CODE_TEXT_COSINE = Metric(
    "code_text_cosine",
    "Code-text cosine (aligned)",
    ALIGNED,
    meaning="Cosine of an image's codes with its own text in the aligner's space. Read it against others' text, "
    "because unrelated pairs may score as high. Our definition; not comparable with published values.",
)
CODE_TEXT_GAP = Metric(
    "code_text_gap",
    "Code-text cosine, own minus others' text",
    ALIGNED,
    better=1,
    meaning="The part of the cosine that the image's own text explains; 0 is chance.",
    decimals=4,
    main=True,
)
OTHERS = Baseline("shuffled", "others' text", "The same with the texts of other images: chance.")


def code_text_cosine(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> list[Metric]:
    """How near images are to their own texts, next to how near they are to the texts of others.

    Row i of `images` holds what the aligner makes of image i's codes (`Aligner.embed_images`), row i of `texts`
    what it makes of its text (`Aligner.embed_text`); both are unit vectors.

    - `code_text_cosine`: mean over images of the cosine of an image with its text.
    - `shuffled/code_text_cosine`: mean of the cosine over all pairs of an image and another image's text, which
      is what shuffling the texts gives on average.
    - `code_text_gap`: the difference of the two. All embeddings may point the same way, so only the difference says
      that a code knows its text.

    The intervals are over images. The second metric is a mean over pairs; an image contributes the mean of the pairs
    that it is in, by image or by text (Hoeffding 1948).

    Values are None where undefined: no image, or a single one for the last two.
    """
    count = len(images)
    shuffled = replace(CODE_TEXT_COSINE, baseline=OTHERS)
    if count == 0:
        return [CODE_TEXT_COSINE, shuffled, CODE_TEXT_GAP]
    images, texts = images.double(), texts.double()
    own, total = (images * texts).sum(dim=1), images.sum(dim=0) @ texts.sum(dim=0)
    cosine = CODE_TEXT_COSINE.measured(float(own.sum() / count))
    if count == 1:
        return [cosine, shuffled, CODE_TEXT_GAP]
    mean = (total - own.sum()) / (count * (count - 1))
    others = (images @ texts.sum(dim=0) - own) + (texts @ images.sum(dim=0) - own)
    gap = CODE_TEXT_GAP.measured(float(own.sum() / count) - float(mean))
    of_others = others / (count - 1) - mean
    columns = {cosine.key: own, shuffled.key: of_others, gap.key: own - of_others}
    ends = _intervals_of_means(columns)
    pair = (cosine, shuffled.measured(float(mean)))
    return [replace(metric, interval=ends.get(metric.key)) for metric in (*pair, gap)]


# --- retrieval --------------------------------------------------------------------------------------------------


WAYS = {"image_to_text": "Image-to-text", "text_to_image": "Text-to-image"}
"""What ranks what."""

RETRIEVAL = Group("retrieval", "Image-text retrieval, in the aligner's space")


def retrieval(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> list[Metric]:
    """Recall at 1, 5, 10 and median rank both ways, with the number of candidates; under `retrieval/`.

    `image_to_text` ranks all texts for each image by dot product, `text_to_image` the reverse; row i of one belongs to
    row i of the other. Chance is k / candidates for recall at k. Ties count against the match: a match that shares its
    similarity with others (within 1e-6) takes the worst of their ranks, so embeddings that collapsed to a point score
    0 and not 1. Values are None without candidates.

    The intervals of the recalls are over queries, each with its rank among all candidates. A median has none, as it is
    not a function of sums.
    """
    ranked = both_ranks(images, texts)
    ends = _intervals_of_means(_hits(ranked)) if len(texts) else {}
    main = {"image_to_text/median_rank", *(f"{way}/recall@{k}" for way in WAYS for k in (1, 5))}
    return _retrieval_metrics(RETRIEVAL, len(images), _recalls_of(ranked), ends, main)


def ranking_metrics(group: Group, prefix: str = "", title: str = "") -> list[Metric]:
    """The recalls and the median rank of both directions, without values."""
    found = []
    for way, name in WAYS.items():
        wanted = "text" if way == "image_to_text" else "image"
        asked = f"{title}: {name[0].lower()}{name[1:]}" if title else name
        found += [
            Metric(
                f"{prefix}{way}/recall@{k}",
                f"{asked} R@{k}",
                group,
                better=1,
                meaning=f"How often the own {wanted} ranks among the first {k}.",
                percent=True,
            )
            for k in RECALLS
        ]
        median = Metric(f"{prefix}{way}/median_rank", f"{asked} median rank", group, better=-1, decimals=1)
        found.append(replace(median, meaning="1 is best; half of the number of candidates is chance."))
    return found


def _retrieval_metrics(
    group: Group,
    candidates: int,
    values: Mapping[str, float | None],
    ends: Mapping[str, Interval],
    main: set[str],
    title: str = "",
) -> list[Metric]:
    """Metrics of one group, whose note says what guessing would score."""
    if candidates:
        at_1, at_5 = 1 / candidates, min(5 / candidates, 1)
        note = f"Among {candidates:,} candidates; guessing would score {at_1:.1%} at R@1 and {at_5:.1%} at R@5."
        group = replace(group, note=note)
    prefix = f"{group.name}/"
    name = f"{title}: candidates" if title else "Candidates"
    count = Metric(f"{prefix}candidates", name, group, meaning="The texts, or images, that are ranked.", decimals=0)
    found = [count.measured(candidates)]
    for metric in ranking_metrics(group, prefix, title):
        name = metric.name.removeprefix(prefix)
        found.append(metric.measured(values[name], ends.get(name), main=name in main))
    return found


def both_ranks(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> Ranks:
    """`ranks` of texts for each image, and of images for each text."""
    return {"image_to_text": ranks(images, texts), "text_to_image": ranks(texts, images)}


def _recalls_of(ranked: Ranks) -> dict[str, float | None]:
    return {f"{way}/{name}": value for way, found in ranked.items() for name, value in recalls(found).items()}


def _hits(ranked: Ranks) -> dict[str, Float[Tensor, " n"]]:
    """Whether each query finds its match among the first k, for each recall."""
    return {f"{way}/recall@{k}": (found <= k).double() for way, found in ranked.items() for k in RECALLS}


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
    """`recall@1`, `recall@5`, `recall@10` (fractions) and `median_rank` of ranks that start at 1."""
    if len(found) == 0:
        return {**{f"recall@{k}": None for k in RECALLS}, "median_rank": None}
    at = {f"recall@{k}": float((found <= k).double().mean()) for k in RECALLS}
    return {**at, "median_rank": float(found.double().quantile(0.5))}


# --- the probe --------------------------------------------------------------------------------------------------


PROBE = Group("probe", "Linear probe from codes to sentences")
PROBE_RETRIEVAL = Group("probe_retrieval", "Image-text retrieval by the probe")

PROBE_COSINE = Metric(
    "probe_code_text_cosine",
    "Code-text cosine (probe)",
    PROBE,
    better=1,
    meaning="How well a linear regression predicts an image's sentences from its codes, on held-out images. "
    "0 is chance. For every tokenizer, aligned or not.",
    main=True,
)


def probe(codes: Float[Tensor, "n d"], sentences: Float[Tensor, "n t"]) -> list[Metric]:
    """How much of an image's sentences can be read off its codes by a linear regression: cosine and retrieval.

    The question of `code_text_cosine`, for tokenizers with and without an aligner. Row i of `codes` is the mean of
    image i's entries over its deep grid, row i of `sentences` the mean of its sentence vectors. Even rows and odd rows
    form two halves (put the rows in an order that says nothing of the image). On one half a ridge regression, in
    closed form and float64, maps codes (each coordinate normalized to mean 0 and variance 1) to sentences minus their
    mean; on the other half its predictions are compared with sentences minus the *same* mean. Lambda is the one of
    `ridge.PENALTIES` with the highest cosine when the fitting half is itself split the same way (of equal ones the
    largest); then the fit is done on the whole of it. Both halves take both parts; results are averaged.

    - `probe_code_text_cosine`: mean cosine of prediction and truth on images the fit has not seen. 0 is chance, as the
      mean of all texts, which any prediction could copy, is subtracted first.
    - `probe_retrieval/…`: as `retrieval`, prediction against truth, within a half.

    The intervals are over held-out images, each with what the one fit makes of it; how another fit would differ is not
    in them.

    The cosine is None, and retrieval is left out, below 8 images. A prediction of length 0 (all codes equal) has
    cosine 0.
    """
    if len(codes) < SMALLEST_PROBE:
        return [PROBE_COSINE]
    halves = [(codes[part::2].double(), sentences[part::2].double()) for part in (0, 1)]
    scored = [_probe_half(*fitting, *held_out) for fitting, held_out in (halves, halves[::-1])]
    cosine = sum(float(cosines.mean()) for cosines, _ in scored) / 2
    first, second = (_recalls_of(ranked) for _, ranked in scored)
    ends = _intervals_of_halves([{PROBE_COSINE.name: cosines, **_hits(ranked)} for cosines, ranked in scored])
    candidates = min(len(ranked["image_to_text"]) for _, ranked in scored)
    means = {name: _mean(first[name], second[name]) for name in first}
    main = {"image_to_text/recall@1", "image_to_text/recall@5"}
    return [
        PROBE_COSINE.measured(cosine, ends.get(PROBE_COSINE.name)),
        *_retrieval_metrics(PROBE_RETRIEVAL, candidates, means, ends, main, "Probe"),
    ]


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _probe_half(
    codes: Float[Tensor, "n d"],
    sentences: Float[Tensor, "n t"],
    held_codes: Float[Tensor, "q d"],
    held_sentences: Float[Tensor, "q t"],
) -> tuple[Float[Tensor, " q"], Ranks]:
    """The cosine of each held-out image, and the ranks, by a probe trained on the other half.

    Args:
        codes: of the half that the probe is trained on.
        sentences: their targets.
        held_codes: of the half that is scored.
        held_sentences: its targets.
    """
    ridge, penalty = Ridge.fit(codes, sentences), choose_penalty(codes, sentences)
    predicted = directions(ridge.predict(held_codes, penalty))
    truth = directions(held_sentences - ridge.target_mean)
    return (predicted * truth).sum(dim=1), both_ranks(predicted, truth)


# --- intervals --------------------------------------------------------------------------------------------------


def _intervals_of_means(values: dict[str, Float[Tensor, " n"]]) -> dict[str, Interval]:
    """The interval of each mean over the same images, where there are two or more."""
    columns = list(values.values())
    return _named(list(values), torch.stack([torch.ones_like(columns[0]), *columns], dim=1), intervals.mean)


def _intervals_of_halves(halves: list[dict[str, Tensor]]) -> dict[str, Interval]:
    """The interval of each mean of two halves' means; images of both halves are resampled together."""
    names, rows = list(halves[0]), []
    for half, values in enumerate(halves):
        columns = torch.stack([torch.ones_like(values[names[0]]), *values.values()], dim=1)
        none = torch.zeros_like(columns)
        rows.append(torch.cat([none, columns] if half else [columns, none], dim=1))
    return _named(names, torch.cat(rows), _mean_of_halves)


def _mean_of_halves(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    first, second = sums.chunk(2, dim=1)
    return (intervals.mean(first) + intervals.mean(second)) / 2


def _named(names: list[str], statistics: Float[Tensor, "n d"], score: intervals.Score) -> dict[str, Interval]:
    ends = intervals.as_pairs(intervals.bootstrap(statistics, score))
    return {name: (pair[0], pair[1]) for name, pair in zip(names, ends, strict=True) if pair is not None}
