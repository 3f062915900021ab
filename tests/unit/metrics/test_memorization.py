"""Nearest training images, and how often generated images are nearer to them than held-out ones."""

import pytest
import torch
from scipy.stats import mannwhitneyu

from tavq.metrics.memorization import NearestDistances, memorization
from tavq.metrics.record import by_key
from tavq.metrics.sample import BottomKSample


def sample(features: torch.Tensor, keys: str) -> BottomKSample:
    kept = BottomKSample(features.shape[1])
    kept.update(features, tuple(keys))
    return kept


def by_image(found: NearestDistances, keys: str) -> dict[str, float]:
    hashes = {int(sample(torch.zeros(1, 1), key).hashes[0]): key for key in keys}
    return {hashes[mark]: value for mark, value in zip(found.hashes.tolist(), found.nearest.tolist(), strict=True)}


def test_the_nearest_of_all_batches_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    found = NearestDistances(sample(features, "ab"), exclude_same_key=True)
    found.update(torch.tensor([[6.0, 8.0], [0.0, 2.0]]), ("x", "y"))
    found.update(torch.tensor([[3.0, 3.0], [9.0, 9.0]]), ("z", "w"))
    assert by_image(found, "ab") == {"a": 2.0, "b": 1.0}


def test_a_real_image_is_not_its_own_neighbour_but_a_generated_one_may_be() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for exclude_same_key, expected in ((True, {"a": 5.0, "b": 5.0}), (False, {"a": 0.0, "b": 0.0})):
        found = NearestDistances(sample(features, "ab"), exclude_same_key)
        found.update(features, ("a", "b"))
        assert by_image(found, "ab") == expected


def test_nearby_vectors_are_distinguished() -> None:
    """A matrix product of large features would lose the difference."""
    features = torch.full((1, 2), 1e5)
    found = NearestDistances(sample(features, "a"), exclude_same_key=True)
    found.update(features + torch.tensor([[0.0625, 0.0]]), ("x",))
    assert found.nearest.tolist() == [0.0625]


def test_means_and_copying_by_hand() -> None:
    drawn, held_out = torch.tensor([1.0, 2.0, 5.0]).double(), torch.tensor([2.0, 4.0, 3.0]).double()
    found = by_key(memorization(drawn, held_out))
    assert found["nearest_distance"].value == pytest.approx(8 / 3)
    assert found["held_out/nearest_distance"].value == pytest.approx(3)
    # nearer: 1 than all three, 2 than two and as near as one, 5 than none
    assert found["data_copying"].value == pytest.approx((3 + 2.5 + 0) / 9)


def test_copying_is_mann_and_whitneys_u_per_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(80, generator=generator).double()
    held_out = torch.rand(80, generator=generator).double() * 1.2
    statistic = mannwhitneyu(held_out.numpy(), drawn.numpy()).statistic
    found = by_key(memorization(drawn, held_out))["data_copying"]
    assert found.value == pytest.approx(statistic / 80**2)
    low, high = found.interval
    assert low < found.value < high
    assert high - low == pytest.approx(2 * 1.96 * (2 / 12 / 80) ** 0.5, rel=0.25)  # both sets' variance, about uniform


def test_copies_score_one_and_new_images_a_half() -> None:
    held_out = torch.rand(50, generator=torch.Generator().manual_seed(1)).double() + 1
    assert by_key(memorization(held_out * 0, held_out))["data_copying"].value == 1
    assert by_key(memorization(held_out + 9, held_out))["data_copying"].value == 0
    assert by_key(memorization(held_out, held_out))["data_copying"].value == pytest.approx(0.5)
