"""Contents of evaluation.json for tests: values by key, with what the package says of each metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tavq.evaluation.completion import CODES, MEAN_COLOUR, completion_metrics
from tavq.evaluation.generation import SETS, _loss_metric
from tavq.metrics import alignment, answers, captions, codes, grounding, images, words
from tavq.metrics.distances import frechet_metric, kernel_metric
from tavq.metrics.faithfulness import R_PRECISION
from tavq.metrics.memorization import DATA_COPYING, HELD_OUT, NEAREST_DISTANCE
from tavq.metrics.record import (
    CONSTANT,
    NEAREST,
    SHUFFLED,
    UNTRAINED,
    Baseline,
    Evaluation,
    Metric,
    by_key,
    evaluation_as_json,
)
from tavq.nets.features.extractors import ScenesNetwork

SCENES: Any = object.__new__(ScenesNetwork)
"""Its name is all that is asked of it."""

METRICS = by_key([
    images.PSNR,
    images.SSIM,
    images.L1,
    images.L2,
    frechet_metric(SCENES),
    *(replace(metric, name=f"{metric.name}_deep") for metric in (codes.USAGE, codes.PERPLEXITY, codes.DEAD)),
    alignment.PROBE_COSINE,
    alignment.CODE_TEXT_COSINE,
    alignment.CODE_TEXT_GAP,
    words.WORD_CODE_MSE,
    answers.ACCURACY,
    answers.of_type(answers.ACCURACY, "color"),
    *answers.WUPS_AT.values(),
    *captions.BLEUS,
    captions.CIDER_D,
    grounding.MEAN_IOU,
])  # fmt: skip

GENERATION = by_key([
    replace(frechet_metric(SCENES), group=SETS, decimals=2),
    replace(kernel_metric(SCENES), group=SETS, decimals=2),
    _loss_metric("task/masked", None),
    *completion_metrics("right", [SCENES]),
    replace(NEAREST_DISTANCE, name="nearest_distance_scenes"),
    replace(DATA_COPYING, name="data_copying_scenes"),
    R_PRECISION,
])  # fmt: skip

BASELINES: Mapping[str, Baseline] = {
    baseline.name: baseline for baseline in (CONSTANT, NEAREST, SHUFFLED, UNTRAINED, CODES, MEAN_COLOUR, HELD_OUT)
}


def evaluation(
    values: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]] | None = None,
    metrics: Mapping[str, Metric] = METRICS,
    **details: Any,
) -> Evaluation:
    """An evaluation with some values; details are how it was measured."""
    return Evaluation(tuple(_metric(key, value, intervals or {}, metrics) for key, value in values.items()), details)


def evaluation_file(
    values: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]] | None = None,
    metrics: Mapping[str, Metric] = METRICS,
    **details: Any,
) -> dict[str, Any]:
    """The same as a file holds it."""
    return evaluation_as_json(evaluation(values, intervals, metrics, **details))


def _metric(
    key: str, value: float | None, intervals: Mapping[str, Sequence[float]], metrics: Mapping[str, Metric]
) -> Metric:
    first, _, rest = key.partition("/")
    own = metrics[rest if first in BASELINES else key]
    return replace(own, baseline=BASELINES.get(first)).measured(value, intervals.get(key))
