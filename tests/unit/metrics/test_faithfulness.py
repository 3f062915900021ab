"""Retrieval of an image's own text by hand, and R-precision against the sampling whose mean it is."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tavq.metrics.faithfulness import AMONG, score_text_retrieval
from tavq.metrics.record import by_key


def units(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_recall_by_hand() -> None:
    texts = torch.eye(4)
    images = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.4, 0, 0], [0, 0, 0.1, 0.2], [0.3, 0.2, 0.1, 0.0]])
    found = by_key(score_text_retrieval(images, texts))  # the own text is first, second, second and last
    assert found["text_recall@1"].value == 0.25
    assert found["text_recall@5"].value == found["text_recall@10"].value == 1
    low, high = found["text_recall@1"].interval
    assert 0 <= low < 0.25 < high <= 1
    assert (found["text_r_precision"].value, found["text_r_precision"].interval) == (None, None)


def test_recall_counts_the_first_k_of_many() -> None:
    ranks = [5, 6, 10, 11, 12, 12, 12, 12, 12, 12, 12, 12]
    images = torch.zeros(12, 12)
    for row, rank in enumerate(ranks):
        others = [place for place in range(12) if place != row]
        images[row, others] = torch.arange(1.0, 12)
        images[row, row] = 12.5 - rank  # rank - 1 of the others are above
    found = by_key(score_text_retrieval(images, torch.eye(12)))
    assert found["text_recall@1"].value == 0
    assert found["text_recall@5"].value == pytest.approx(1 / 12)
    assert found["text_recall@10"].value == pytest.approx(3 / 12)


def test_identical_images_retrieve_nothing() -> None:
    found = by_key(score_text_retrieval(torch.ones(120, 2), units(120, 0)[:, :2] * 0 + 1))
    assert found["text_recall@10"].value == 0
    assert found["text_r_precision"].value == 0


def test_r_precision_of_a_hundred_is_recall() -> None:
    texts = units(AMONG, 1)
    images = normalize(texts + 0.5 * units(AMONG, 2), dim=1)
    found = by_key(score_text_retrieval(images, texts))
    assert found["text_r_precision"].value == found["text_recall@1"].value
    assert 0.05 < found["text_recall@1"].value < 0.95


def test_r_precision_is_the_mean_over_samples_of_99_others() -> None:
    count, rng = 140, np.random.default_rng(0)
    texts = units(count, 3)
    images = normalize(texts + 0.7 * units(count, 4), dim=1)
    scores = (images @ texts.mT).numpy()
    hits = []
    for row in range(count):
        others = np.delete(np.arange(count), row)
        drawn = [rng.choice(others, AMONG - 1, replace=False) for _ in range(300)]
        hits += [scores[row, row] > scores[row, chosen].max() for chosen in drawn]
    found = by_key(score_text_retrieval(images, texts))["text_r_precision"]
    assert found.value == pytest.approx(np.mean(hits), abs=0.01)
    assert found.value > by_key(score_text_retrieval(images, texts))["text_recall@1"].value + 0.02
    assert found.interval[0] < found.value < found.interval[1]


def test_r_precision_of_unrelated_texts_is_one_in_a_hundred() -> None:
    found = by_key(score_text_retrieval(units(1000, 5), units(1000, 6)))["text_r_precision"]
    assert found.interval[0] < 0.01 < found.interval[1]
