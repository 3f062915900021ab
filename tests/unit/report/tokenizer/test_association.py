"""Association of codes and units: cases by hand, rare units, the order of images, and SciPy as reference."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from tavq.metrics.association import (
    MAX_UNCERTAIN,
    PRIOR,
    Cooccurrences,
    compute_lift_and_evidence,
    compute_threshold,
)


def presence(images: list[tuple[list[int], list[str]]]) -> Cooccurrences:
    found = Cooccurrences()
    for codes, words in images:
        found.add(np.array([codes]), {"words": words, "phrases": [], "sentences": []})
    return found


SEA = [([7, 7, 1, 2], ["sea", "the"])] * 20
LAND = [([1, 1, 2, 2], ["land", "the"])] * 20


def test_lift_and_evidence_by_hand() -> None:
    """40 images, 20 with the code; the units: always with it, never with it, in half of both."""
    code = np.array([[True]] * 20 + [[False]] * 20)
    units = np.array([[True, False, place % 2 == 0] for place in range(20)])
    units = np.concatenate([units, [[False, True, place % 2 == 0] for place in range(20)]])
    lift, evidence = compute_lift_and_evidence(code, units)
    # P(code) = 1/2; (20 + 5/2) / (20 + 5) / (1/2), (0 + 5/2) / (20 + 5) / (1/2), and none
    assert lift[0] == pytest.approx([1.8, 0.2, 1.0])
    # G² = 2 (20 ln 2 + 20 ln 2), where the other two cells are empty
    assert evidence[0] == pytest.approx([80 * math.log(2), 80 * math.log(2), 0], abs=1e-9)


def test_a_code_that_never_occurs_has_lift_one() -> None:
    lift, evidence = compute_lift_and_evidence(np.zeros((6, 1), bool), np.array([[True]] * 3 + [[False]] * 3))
    assert lift.tolist() == [[1.0]]
    assert evidence == pytest.approx(0)


def test_only_a_unit_that_co_occurs_with_a_code_is_associated() -> None:
    [[found]] = [presence(SEA + LAND).find_associated([7], "words", 8)]
    assert [(item.unit, item.images, item.certain) for item in found] == [("sea", 20, True)]
    assert found[0].lift == pytest.approx((20 + PRIOR / 2) / (20 + PRIOR) * 2)


def test_a_code_is_prominent_where_it_is_more_frequent_than_on_average() -> None:
    """Code 1 is in every image; what counts is that LAND has two of it and SEA one."""
    [found] = presence(SEA + LAND).find_associated([1], "words", 8)
    assert [item.unit for item in found] == ["land"]


def test_rare_units_do_not_rank_first() -> None:
    images = SEA + LAND
    images = [(codes, [*words, *(["gull"] if place < 4 else ["wave"] if place < 6 else [])]) for place, (codes, words)
                in enumerate(images)]  # fmt: skip
    images = [(codes, [*words, "foam"]) if place < 6 else (codes, words) for place, (codes, words) in enumerate(images)]
    [found] = presence(images).find_associated([7], "words", 8)
    units = [item.unit for item in found]
    assert units[0] == "sea"  # and not foam, though it too never comes without the code
    assert "gull" not in units  # in four images only


def test_without_a_significant_unit_the_strongest_are_listed_as_uncertain() -> None:
    words = [f"w{place}" for place in range(10)]
    images = [
        ([7 if place % 2 else 1, 2], [word for n, word in enumerate(words) if (place * 7 + n) % 3 == 0])
        for place in range(40)
    ]
    [found] = presence(images).find_associated([7], "words", 8)
    assert 0 < len(found) <= MAX_UNCERTAIN
    assert not any(item.certain for item in found)
    assert all(item.lift > 1 for item in found)


def test_the_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    images = [(rng.integers(0, 6, 8).tolist(), [f"w{n}" for n in rng.integers(0, 5, 3)]) for _ in range(60)]
    there = presence(images).find_associated([0, 1, 2], "words", 8)
    back = presence(images[::-1]).find_associated([0, 1, 2], "words", 8)
    assert there == back


def test_without_units_or_codes_the_result_is_empty() -> None:
    assert presence([([1], ["once"])]).find_associated([1, 2], "words", 8) == [[], []]
    assert presence(SEA).find_associated([], "words", 8) == []


def test_evidence_is_the_likelihood_ratio_of_scipy() -> None:
    rng = np.random.default_rng(0)
    codes, words = rng.random((200, 3)) < 0.3, rng.random((200, 4)) < [0.1, 0.5, 0.9, 0.02]
    _, evidence = compute_lift_and_evidence(codes, words)
    for c in range(3):
        for u in range(4):
            observed = [[np.sum((codes[:, c] == a) & (words[:, u] == b)) for b in (True, False)] for a in (True, False)]
            expected = chi2_contingency(observed, correction=False, lambda_="log-likelihood").statistic
            assert evidence[c, u] == pytest.approx(expected, abs=1e-9)


def test_a_code_in_no_image_or_in_every_image_has_no_association() -> None:
    words = np.arange(20)[:, None] < 3
    for code in (np.zeros((20, 1), bool), np.ones((20, 1), bool)):
        lift, evidence = compute_lift_and_evidence(code, words)
        assert lift[0, 0] == pytest.approx(1)
        assert evidence[0, 0] == pytest.approx(0)


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_threshold_is_the_quantile_of_scipy(count: int) -> None:
    assert compute_threshold(count) == pytest.approx(chi2.isf(0.05 / count, df=1), rel=1e-6)
    assert compute_threshold(0) == math.inf


def test_chance_makes_a_unit_certain_for_few_codes_only() -> None:
    """60 codes without any association, 30 words each: 3 codes are expected to show one."""
    format_value = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        words = [[f"w{n}" for n in range(30) if rng.random() < 0.2] for _ in range(150)]
        [found] = presence([([0, int(rng.random() < 0.33)], some) for some in words]).find_associated([1], "words", 8)
        format_value += any(item.certain for item in found)
    assert format_value <= 8
