"""Recall with several texts per image, by hand and against a plain sort."""

import itertools
import math

import numpy as np
import pytest
import torch

from tavq.metrics import intervals
from tavq.metrics.ranking import _hit_probability, retrieval_of_several
from tavq.metrics.record import Metric


def values(metrics: list[Metric], begins: str = "") -> dict[str, object]:
    return {metric.key.removeprefix(begins): metric.value for metric in metrics if metric.key.startswith(begins)}


def test_by_hand() -> None:
    """Three images along the axes; the first has two texts, one of which is nearer to the second image."""
    images = torch.eye(3)
    texts = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0.8, 0.6]])
    found = retrieval_of_several(images, texts, [[0, 1], [2], [3]])
    assert values(found, "image_to_text/") == {
        "recall@1": pytest.approx(1 / 3),  # image 0 by its second text; 1 sees texts 0 and 3 before 2; 2 sees 2
        "recall@5": 1.0,
        "recall@10": 1.0,
        "median_rank": 2.0,  # ranks 1, 3, 2
    }
    # text 0, of image 0: image 1 first, and 0 ties with 2 -> 3; text 2: image 2 before 1 -> 2; text 3 -> 2
    assert values(found, "text_to_image/") == {
        "recall@1": 0.0,
        "recall@5": 1.0,
        "recall@10": 1.0,
        "median_rank": 2.0,
    }


def test_own_texts_do_not_count_against_each_other() -> None:
    images = torch.tensor([[1.0, 0], [0, 1]])
    texts = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.0, 1.0]])
    found = retrieval_of_several(images, texts, [[2, 1, 0], [3]])
    assert values(found)["image_to_text/recall@1"] == 1.0
    # which text asks is the first of its own
    assert values(found)["text_to_image/recall@1"] == 1.0


def test_collapsed_embeddings_find_nothing() -> None:
    same = torch.ones(20, 4) / 2
    found = retrieval_of_several(same, same, [[place] for place in range(20)])
    assert values(found)["image_to_text/recall@10"] == 0.0
    assert values(found)["text_to_image/median_rank"] == 20.0


def test_ranks_equal_a_plain_sort() -> None:
    draw = torch.Generator().manual_seed(0)
    images, texts = torch.randn(30, 6, generator=draw), torch.randn(70, 6, generator=draw)
    places = torch.randperm(70, generator=draw).tolist()
    ends = [0, *sorted(torch.randperm(68, generator=draw)[:29].add(1).tolist()), 70]
    own = [places[a:b] for a, b in itertools.pairwise(ends)]
    found = retrieval_of_several(images, texts, own)
    orders = [sorted(range(70), key=lambda t, row=row: -float(row @ texts[t])) for row in images]  # type: ignore[misc]
    ranks = [1 + min(order.index(t) for t in mine) for order, mine in zip(orders, own, strict=True)]
    # the rank counts strangers only
    for row, (order, mine) in enumerate(zip(orders, own, strict=True)):
        assert not any(t in mine for t in order[: ranks[row] - 1])
    assert values(found)["image_to_text/recall@5"] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))
    assert values(found)["image_to_text/median_rank"] == np.median(ranks)
    back = [1 + sum(float(p @ texts[mine[0]]) > float(images[i] @ texts[mine[0]]) for p in images)
            for i, mine in enumerate(own)]  # fmt: skip
    assert values(found)["text_to_image/recall@10"] == pytest.approx(np.mean([rank <= 10 for rank in back]))


@pytest.mark.parametrize(("candidates", "sizes"), [(7, [1, 3]), (5, [2]), (4, [1, 1, 4])])
def test_chance_equals_an_enumeration_of_all_orders(candidates: int, sizes: list[int]) -> None:
    for k in range(1, candidates + 1):
        expected = [1 - math.comb(candidates - size, k) / math.comb(candidates, k) for size in sizes]
        assert float(_hit_probability(candidates, torch.tensor(sizes))[k - 1]) == pytest.approx(np.mean(expected))


def test_values_of_chance() -> None:
    rows = torch.eye(20)
    found = retrieval_of_several(rows, rows, [[place] for place in range(20)])
    assert values(found, "chance/text_to_image/") == {
        "recall@1": pytest.approx(0.05),
        "recall@5": pytest.approx(0.25),
        "recall@10": pytest.approx(0.5),
        "median_rank": 10.0,
    }
    assert all(metric.interval is None for metric in found if metric.baseline is not None)


@pytest.mark.parametrize("ranks", [[1.0, 2, 2, 3, 9, 20, 4, 1], [5.0, 1, 3]])
def test_the_median_uses_the_resamples_of_the_means(ranks: list[float]) -> None:
    random = np.random.default_rng(intervals.SEED)
    drawn = [
        np.median(np.array(ranks)[random.integers(len(ranks), size=len(ranks))]) for _ in range(intervals.RESAMPLES)
    ]
    assert intervals.median_interval(torch.tensor(ranks)) == np.quantile(drawn, [0.025, 0.975]).tolist()
    assert intervals.median_interval(torch.ones(1)) is None


def test_intervals_contain_their_values() -> None:
    draw = torch.Generator().manual_seed(1)
    images = torch.nn.functional.normalize(torch.randn(60, 8, generator=draw), dim=1)
    texts = torch.nn.functional.normalize(images + torch.randn(60, 8, generator=draw) * 0.3, dim=1)
    for metric in retrieval_of_several(images, texts, [[place] for place in range(60)]):
        if metric.baseline is None:
            assert metric.interval is not None
            low, high = metric.interval
            assert low <= metric.value <= high
            assert low < high or metric.name.endswith(("median_rank", "recall@10"))
