"""Lift and evidence against counts by hand and scipy, and what the threshold keeps out."""

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from tavq.report import association
from tavq.report.association import PRIOR, Presence, lift_and_evidence, threshold


def column(*places: int, of: int = 20) -> np.ndarray:
    """One column [of, 1] that is True at some places."""
    found = np.zeros((of, 1), bool)
    found[list(places)] = True
    return found


def units(*words: str) -> dict[str, tuple[str, ...]]:
    return {"words": words, "phrases": (), "sentences": ()}


def test_lift_by_hand() -> None:
    # 20 pictures, the code in 5 of them, the unit in 4 of which 3 have the code; 5 pictures of the average added
    lift, _ = lift_and_evidence(column(0, 1, 2, 3, 4), column(0, 1, 2, 10))
    assert PRIOR == 5
    assert lift[0, 0] == pytest.approx((3 + 5 * 0.25) / (4 + 5) / 0.25)


def test_lift_of_a_rare_unit_is_held_back() -> None:
    code = column(*range(10), of=100)
    often, once = column(*range(10), of=100), column(0, of=100)
    assert lift_and_evidence(code, once)[0][0, 0] < 3 < lift_and_evidence(code, often)[0][0, 0] < 10


def test_evidence_is_the_likelihood_ratio_of_scipy() -> None:
    rng = np.random.default_rng(0)
    codes, words = rng.random((200, 3)) < 0.3, rng.random((200, 4)) < [0.1, 0.5, 0.9, 0.02]
    _, evidence = lift_and_evidence(codes, words)
    for c in range(3):
        for u in range(4):
            observed = [[np.sum((codes[:, c] == a) & (words[:, u] == b)) for b in (True, False)] for a in (True, False)]
            expected = chi2_contingency(observed, correction=False, lambda_="log-likelihood").statistic
            assert evidence[c, u] == pytest.approx(expected, abs=1e-9)


def test_a_code_in_no_picture_or_in_every_one_has_no_lift_and_no_evidence() -> None:
    words = column(1, 2, 3)
    for code in (column(), column(*range(20))):
        lift, evidence = lift_and_evidence(code, words)
        assert lift[0, 0] == pytest.approx(1)
        assert evidence[0, 0] == pytest.approx(0)


@pytest.mark.parametrize("count", [1, 40, 2000])
def test_threshold_is_the_quantile_of_scipy(count: int) -> None:
    assert threshold(count) == pytest.approx(chi2.isf(0.05 / count, df=1), rel=1e-6)


def test_prominent_is_more_than_the_average_picture_has() -> None:
    presence = Presence()
    for count in (1, 1, 1, 5):  # mean of code 7: 2
        grid = np.array([7] * count + [3] * (8 - count)).reshape(2, 4)
        presence.add(grid, units("a"))
    assert presence.prominent([7, 3, 9]).tolist() == [
        [False, True, False],
        [False, True, False],
        [False, True, False],
        [True, False, False],
    ]


def surveyed(pictures: int, planted: bool, seed: int = 0) -> Presence:
    """Grids in which code 1 stands in a third of the pictures, with 30 random words, and "sky" where it stands."""
    rng = np.random.default_rng(seed)
    presence = Presence()
    for _ in range(pictures):
        there = rng.random() < 0.33
        words = [f"word{n}" for n in range(30) if rng.random() < 0.2]
        presence.add(np.array([[0, int(there)]]), units(*words, *(["sky"] if there and planted else [])))
    return presence


def test_a_planted_word_comes_first_and_chance_brings_none() -> None:
    [found] = surveyed(200, planted=True).associated([1], "words", 8)
    assert [item.unit for item in found] == ["sky"]
    assert found[0].lift == pytest.approx(3, abs=0.6)
    assert 40 < found[0].pictures < 90


def test_chance_names_a_unit_for_few_codes_only() -> None:
    named = [bool(surveyed(150, planted=False, seed=seed).associated([1], "words", 8)[0]) for seed in range(60)]
    assert sum(named) <= 8  # 3 expected


def test_rare_units_are_left_out_and_only_the_most_frequent_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    presence = Presence()
    for number in range(12):
        words = ["all"] + ["half"] * (number < 6) + ["rare"] * (number < association.FEWEST_PICTURES - 1)
        presence.add(np.array([[number % 2]]), units(*words))
    names, table = presence.frequent("words")
    assert names == ["all", "half"]
    assert table.sum(axis=0).tolist() == [12, 6]
    monkeypatch.setattr(association, "MOST_UNITS", 1)
    assert presence.frequent("words")[0] == ["all"]


def test_without_units_every_code_has_none() -> None:
    presence = surveyed(20, planted=False)
    assert presence.associated([0, 1], "phrases", 5) == [[], []]
    assert presence.associated([], "words", 5) == []
