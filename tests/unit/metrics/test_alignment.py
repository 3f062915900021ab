"""Text alignment: retrieval against sorting, cosine by hand, the probe against a plain solve and on known cases."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tavq.metrics.alignment import (
    _intervals_of_halves,
    code_text_cosine,
    probe,
    ranks,
    recalls,
    retrieval,
)
from tavq.metrics.record import Interval, Metric
from tavq.metrics.ridge import Ridge


def values(metrics: list[Metric], prefix: str = "") -> dict[str, float | None]:
    """Values by key, for keys with a prefix."""
    return {metric.key.removeprefix(prefix): metric.value for metric in metrics if metric.key.startswith(prefix)}


def ends(metrics: list[Metric]) -> dict[str, Interval]:
    """Intervals by key, where there is one."""
    return {metric.key: metric.interval for metric in metrics if metric.interval is not None}


def unit_vectors(count: int, width: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_ranks_equal_sorting_in_any_chunks() -> None:
    images, texts = unit_vectors(50, 6, 0), unit_vectors(50, 6, 1)
    scores = (images.double() @ texts.double().mT).numpy()
    expected = [int(np.flatnonzero(np.argsort(-row) == i)[0]) + 1 for i, row in enumerate(scores)]
    for chunk in (1, 7, 50, 1024):
        assert ranks(images, texts, chunk).tolist() == expected


def test_retrieval_is_measured_in_both_directions() -> None:
    # Every image is nearest to text 0; every text is nearest to image 1.
    images = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.8, 0.6]])
    texts = torch.tensor([[1.0, 0.0], [0.8, -0.6], [0.6, -0.8]])
    result = retrieval(images, texts)
    assert values(result)["retrieval/candidates"] == 3
    assert ranks(images, texts).tolist() == [1, 2, 3]
    assert ranks(texts, images).tolist() == [3, 1, 2]
    assert values(result, "retrieval/image_to_text/") == {
        "recall@1": pytest.approx(1 / 3), "recall@5": 1.0, "recall@10": 1.0, "median_rank": 2.0
    }  # fmt: skip


def test_collapsed_embeddings_retrieve_nothing() -> None:
    same = normalize(torch.ones(40, 8), dim=1)
    result = retrieval(same, unit_vectors(40, 8, 0)[:1].expand(40, 8))
    nothing = {"recall@1": 0.0, "recall@5": 0.0, "recall@10": 0.0, "median_rank": 40.0}
    assert values(result, "retrieval/image_to_text/") == nothing


def test_recalls_by_hand() -> None:
    assert recalls(torch.tensor([1, 2, 6, 11])) == {
        "recall@1": 0.25, "recall@5": 0.5, "recall@10": 0.75, "median_rank": 4.0
    }  # fmt: skip
    assert recalls(torch.zeros(0, dtype=torch.int64))["recall@1"] is None


def test_cosine_of_texts_with_themselves_and_with_others() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    result = values(code_text_cosine(images, images))
    assert result["code_text_cosine"] == pytest.approx(1)
    assert result["shuffled/code_text_cosine"] == pytest.approx((0 + 0.6 + 0.8) / 3)
    assert result["code_text_gap"] == result["code_text_cosine"] - result["shuffled/code_text_cosine"]


def test_shuffled_cosine_is_the_mean_over_all_other_texts() -> None:
    images, texts = unit_vectors(9, 5, 2), unit_vectors(9, 5, 3)
    scores = (images @ texts.mT).double()
    others = scores[~torch.eye(9, dtype=torch.bool)].mean().item()
    assert values(code_text_cosine(images, texts))["shuffled/code_text_cosine"] == pytest.approx(others)


def test_cosine_of_one_or_no_image_is_none_where_undefined() -> None:
    one = torch.tensor([[0.0, 1.0]])
    alone = {"code_text_cosine": 1.0, "shuffled/code_text_cosine": None, "code_text_gap": None}
    assert values(code_text_cosine(one, one)) == alone
    assert values(code_text_cosine(one[:0], one[:0])) == {**alone, "code_text_cosine": None}
    for found in (code_text_cosine(one, one), retrieval(one, one), retrieval(one[:0], one[:0])):
        assert ends(found) == {}


def test_ridge_equals_a_plain_solve() -> None:
    generator = torch.Generator().manual_seed(4)
    codes = torch.randn(30, 4, generator=generator).double() * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    sentences, held = torch.randn(30, 6, generator=generator).double(), torch.randn(5, 4, generator=generator).double()
    z = (codes - codes.mean(0)) / codes.std(0, correction=0)
    weights = torch.linalg.solve(
        z.mT @ z / 30 + 0.1 * torch.eye(4).double(), z.mT @ (sentences - sentences.mean(0)) / 30
    )
    expected = ((held - codes.mean(0)) / codes.std(0, correction=0)) @ weights
    torch.testing.assert_close(Ridge.fit(codes, sentences).predict(held, 0.1), expected)


def test_probe_finds_a_linear_relation_but_not_noise() -> None:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randn(400, 8, generator=generator) * 0.01 + 1  # scale and offset must not matter
    sentences = (codes - 1) @ torch.randn(8, 20, generator=generator) * 100 + 7
    related = values(probe(codes, sentences))
    assert related["probe_code_text_cosine"] > 0.999
    assert related["probe_retrieval/candidates"] == 200
    assert related["probe_retrieval/image_to_text/recall@1"] > 0.95
    unrelated = values(probe(codes, torch.randn(400, 20, generator=generator) + 7))
    assert abs(unrelated["probe_code_text_cosine"]) < 0.05
    assert unrelated["probe_retrieval/text_to_image/recall@10"] < 0.2


def test_probe_never_fits_on_what_it_scores() -> None:
    # With more coordinates than images a fit on all of them would be perfect.
    generator = torch.Generator().manual_seed(6)
    result = values(probe(torch.randn(40, 100, generator=generator), torch.randn(40, 5, generator=generator)))
    assert abs(result["probe_code_text_cosine"]) < 0.3


def test_probe_of_equal_codes_is_zero_and_finite() -> None:
    result = values(probe(torch.full((20, 4), 0.1), torch.randn(20, 5, generator=torch.Generator().manual_seed(7))))
    assert result["probe_code_text_cosine"] == 0
    assert result["probe_retrieval/image_to_text/recall@1"] == 0


def test_probe_is_none_for_few_images() -> None:
    assert values(probe(torch.zeros(7, 2), torch.zeros(7, 3))) == {"probe_code_text_cosine": None}


# --- intervals --------------------------------------------------------------------------------------------------


def normal(values: Tensor) -> list[float]:
    """The textbook interval of a mean."""
    middle, error = values.double().mean().item(), (values.double().std() / len(values) ** 0.5).item()
    return [middle - 1.96 * error, middle + 1.96 * error]


def test_intervals_of_cosine_and_recall_are_those_of_means_over_images() -> None:
    images = unit_vectors(300, 6, 20)
    texts = normalize(images + 0.8 * unit_vectors(300, 6, 21), dim=1)
    low, high = ends(code_text_cosine(images, texts))["code_text_cosine"]
    expected = normal((images * texts).sum(dim=1))
    assert [low, high] == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
    found = ends(retrieval(images, texts))
    assert set(found) == {
        f"retrieval/{way}/recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)
    }
    low, high = found["retrieval/text_to_image/recall@5"]
    expected = normal(ranks(texts, images) <= 5)
    assert [low, high] == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


def test_the_interval_of_a_mean_over_pairs_covers_what_new_images_give() -> None:
    """The mean over pairs varies between samples as its interval says; independent pairs would vary less."""
    common = torch.tensor([0.5, 0.0, 0.0, 0.0])
    found = []
    for seed in range(60):
        sample = normalize(unit_vectors(80, 4, 100 + seed) + common, dim=1), unit_vectors(80, 4, 500 + seed) + common
        found.append(code_text_cosine(sample[0], normalize(sample[1], dim=1)))
    means = torch.tensor([values(result)["shuffled/code_text_cosine"] for result in found])
    pairs = torch.tensor([ends(result)["shuffled/code_text_cosine"] for result in found])
    assert (pairs[:, 1] - pairs[:, 0]).mean().item() == pytest.approx(2 * 1.96 * means.std().item(), rel=0.3)
    assert ((pairs[:, 0] + pairs[:, 1]) / 2 - means).abs().max() < 0.2 * means.std()


def test_intervals_of_the_probe_cover_both_halves() -> None:
    generator = torch.Generator().manual_seed(9)
    codes = torch.randn(301, 6, generator=generator)
    sentences = codes @ torch.randn(6, 12, generator=generator) + 4 * torch.randn(301, 12, generator=generator)
    result = probe(codes, sentences)
    found = values(result)
    recalls = {name for name in found if "recall" in name}
    assert len(recalls) == 6
    assert ends(result).keys() == {"probe_code_text_cosine", *recalls}
    for name, (low, high) in ends(result).items():
        assert low <= found[name] <= high, name
    low, high = ends(result)["probe_code_text_cosine"]
    assert 0.3 / 301**0.5 < high - low < 4 / 301**0.5


def test_the_interval_of_two_halves_is_that_of_the_mean_of_their_means() -> None:
    equal = [{"score": torch.full((30,), value).double()} for value in (1.0, 0.0)]
    assert _intervals_of_halves(equal)["score"] == (0.5, 0.5)
    first, second = torch.arange(60).double(), torch.arange(20).double()
    low, high = _intervals_of_halves([{"score": first}, {"score": second}])["score"]
    error = (first.var() / 60 + second.var() / 20).sqrt().item() / 2
    assert (low + high) / 2 == pytest.approx((29.5 + 9.5) / 2, abs=0.3 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)
