"""Counts against plain loops, intervals against the bootstrap over images, scores against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tavq.explore.statistics.codes import NONE, CodeColumns, LabelCounts, choose_label, guess_words, measure_labels
from tavq.explore.statistics.counting import (
    Grids,
    count_codes,
    find_closest,
    find_prominent,
    iter_positions,
)
from tavq.explore.statistics.held_out import mean_auc, score_words
from tavq.explore.statistics.rows import Rows, find_largest, make_rows, offsets_of, transpose
from tavq.explore.statistics.tables import Tables, divergence_of, entropy_of, position_bias, wilson_interval
from tavq.metrics import intervals
from tavq.metrics.association import Cooccurrences, compute_lift_and_evidence

RAGGED = st.lists(st.lists(st.integers(0, 6), max_size=5), min_size=1, max_size=8)


def rows_of(lists: list[list[int]]) -> Rows:
    lengths = np.array([len(own) for own in lists])
    return Rows(offsets_of(lengths), np.array([value for own in lists for value in own], np.int32))


@given(RAGGED, st.data())
def test_rows_gather_count_and_transpose_as_lists_do(lists: list[list[int]], draw: st.DataObject) -> None:
    rows = rows_of(lists)
    chosen = draw.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
    values = [value for row in chosen for value in lists[row]]
    assert rows.gather(np.array(chosen, np.int64)).tolist() == values
    assert rows.count(np.array(chosen, np.int64), 7).tolist() == [values.count(value) for value in range(7)]
    turned = transpose(rows, 7)
    owners = [[row for row, own in enumerate(lists) for value in own if value == wanted] for wanted in range(7)]
    assert [turned[value].tolist() for value in range(7)] == owners


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=20), st.integers(1, 25))
def test_the_largest_are_those_of_a_sort(values: list[float], count: int) -> None:
    wanted = sorted(range(len(values)), key=lambda place: (-values[place], place))[:count]
    assert find_largest(np.array(values), count).tolist() == wanted


def test_counting_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(np.arange(50) // 5, np.arange(50) % 7, 10)
    whole = rows.count(np.arange(10), 7)
    monkeypatch.setattr("tavq.explore.statistics.rows.CHUNK", 6)
    assert np.array_equal(rows.count(np.arange(10), 7), whole)


# --- grids ------------------------------------------------------------------------------------------------------


def grids(images: int = 9, cells: int = 4, parts: int = 1, entries: int = 6, seed: int = 0) -> Grids:
    random = np.random.default_rng(seed)
    codes = random.integers(0, entries, (images, cells * parts)).astype(np.int16)
    readable = np.ones(images, bool)
    readable[3] = False
    return Grids(codes, random.random((images, cells), np.float32), readable, entries)


@pytest.mark.parametrize("sorted_at_once", [2, 1 << 24])
@pytest.mark.parametrize("block", [5, 1 << 22])
@pytest.mark.parametrize("parts", [1, 2])
def test_positions_are_those_of_a_loop(
    parts: int, block: int, sorted_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tavq.explore.statistics.counting.BLOCK", block)
    monkeypatch.setattr("tavq.explore.statistics.counting.SORTED", sorted_at_once)
    own = grids(parts=parts)
    counts = count_codes(own)
    flat = own.codes.ravel()
    kept = np.repeat(own.readable, own.codes.shape[1])
    expected = [place for code in range(6) for place in range(len(flat)) if flat[place] == code and kept[place]]
    assert np.concatenate(list(iter_positions(own, counts))).tolist() == expected
    assert counts.tolist() == [int(((flat == code) & kept).sum()) for code in range(6)]


@pytest.mark.parametrize("block", [5, 1 << 22])
def test_prominent_codes_are_those_of_the_reports(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.explore.statistics.counting.BLOCK", block)
    own = grids(images=20, cells=9)
    counted = own.readable.copy()
    counted[:2] = False
    seen = Cooccurrences()
    for image in np.flatnonzero(counted):
        seen.add(own.codes[image].reshape(3, 3), {"words": (), "phrases": (), "sentences": ()})
    table = seen.find_prominent(range(6))
    rows = find_prominent(own, counted)
    expected = np.zeros((20, 6), bool)
    expected[counted] = table
    for image in range(20):
        assert sorted(rows[image].tolist()) == np.flatnonzero(expected[image]).tolist()


def test_closest_positions_are_of_different_images() -> None:
    own = grids(images=12, parts=2)
    positions = next(iter(iter_positions(own, count_codes(own))))
    positions = positions[own.codes.ravel()[positions] == 0]
    best = find_closest(own, positions)
    images = best // own.codes.shape[1]
    assert len(set(images.tolist())) == len(best)
    distances = own.distances[images, best % own.codes.shape[1] // 2]
    assert (np.diff(distances) >= 0).all()
    of_first = positions[positions // own.codes.shape[1] == images[0]]
    assert distances[0] == own.distances[images[0], of_first % own.codes.shape[1] // 2].min()


# --- tables -----------------------------------------------------------------------------------------------------


def both_tables(images: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Tables]:
    random = np.random.default_rng(seed)
    code = random.random(images) < 0.4
    units = random.random((images, 3)) < 0.3
    units[:, 0] |= code & (random.random(images) < 0.7)
    table = Tables(images, np.full(3, code.sum()), units.sum(0), (code[:, None] & units).sum(0))
    return code, units, table


def test_lift_and_evidence_are_those_of_the_reports() -> None:
    code, units, table = both_tables()
    lift, evidence = compute_lift_and_evidence(code[:, None], units)
    assert table.lift == pytest.approx(lift[0])
    assert table.evidence == pytest.approx(evidence[0])
    assert table.certain(3).tolist() == [True, False, False]


def test_lift_intervals_are_those_of_resampled_images() -> None:
    code, units, table = both_tables(200)
    statistics = torch.from_numpy(np.stack([np.ones(200), code, units[:, 0], code & units[:, 0]], 1).astype(float))

    def lift(sums: torch.Tensor) -> torch.Tensor:
        fraction = sums[:, 1] / sums[:, 0]
        return ((sums[:, 3] + 5 * fraction) / ((sums[:, 2] + 5) * fraction))[:, None]

    low, high = intervals.bootstrap(statistics, lift)[0].tolist()
    ends = table.lift_intervals()[0]
    assert ends == pytest.approx([low, high], abs=0.04)
    assert ends[0] < table.lift[0] < ends[1]


def test_intervals_without_images_or_codes_say_nothing() -> None:
    nothing = np.zeros(1, np.int64)
    assert Tables(0, nothing, nothing, nothing).lift_intervals().tolist() == [[1, 1]]
    assert Tables(9, nothing, nothing + 4, nothing).lift.tolist() == [1]


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_encloses_the_fraction(successes: int, failures: int) -> None:
    low, high = wilson_interval(successes, successes + failures)
    trials = max(successes + failures, 1)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1


def test_wilson_by_hand() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)


def test_entropy_divergence_and_bias_at_their_ends() -> None:
    even, one = np.full(8, 100), np.array([800, *[0] * 7])
    assert entropy_of(even) == pytest.approx(3)
    assert entropy_of(one) == 0
    assert entropy_of(np.zeros(3, np.int64)) is None
    assert divergence_of(even, even) == pytest.approx(0)
    assert 2.5 < (divergence_of(one, even) or 0) < 3
    assert (divergence_of(one // 800, even) or 0) < 1  # a single image says little
    assert position_bias(even) == pytest.approx(0)
    assert 0.9 < position_bias(one) <= 1
    assert position_bias(one // 800) < 0.2
    assert position_bias(np.zeros(8, np.int64)) == 0


# --- held-out scores --------------------------------------------------------------------------------------------


def test_auc_is_the_fraction_of_pairs_in_order() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 5, (40, 3)).astype(np.float32)
    present = random.random((40, 3)) < 0.4
    fractions = []
    for word in range(3):
        pairs = [(a, b) for a in scores[present[:, word], word] for b in scores[~present[:, word], word]]
        fractions.append(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    found = mean_auc(scores, present)
    assert found.auc == pytest.approx(np.mean(fractions))
    assert found.interval[0] < found.auc < found.interval[1]


def test_the_interval_of_the_auc_has_the_width_of_the_bootstrap() -> None:
    random = np.random.default_rng(1)
    present = random.random((300, 2)) < 0.5
    scores = (present + random.standard_normal((300, 2))).astype(np.float32)
    found = mean_auc(scores, present)
    resampled = []
    for _ in range(300):
        rows = random.integers(300, size=300)
        resampled.append(mean_auc(scores[rows], present[rows]).auc)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert found.interval[1] - found.interval[0] == pytest.approx(high - low, rel=0.2)


def test_scores_add_up_the_weights_of_prominent_codes() -> None:
    prominent = rows_of([[0, 2], [], [1]])
    weights = np.array([[1, 10], [2, 20], [4, 40]], np.float32)
    assert score_words(prominent, np.array([2, 1, 0]), weights).tolist() == [[2, 20], [0, 0], [5, 50]]


def planted(images: int = 400, seed: int = 0) -> tuple[Rows, LabelCounts, np.ndarray]:
    """Code 0 goes with word 0, code 1 with word 1 on the images that are not kept apart only; code 2 with nothing."""
    random = np.random.default_rng(seed)
    words = random.random((images, 3)) < 0.4
    held = np.arange(images) % 4 == 0
    codes = random.random((images, 3)) < 0.4
    codes[:, 0] = words[:, 0] ^ (random.random(images) < 0.1)
    codes[~held, 1] = words[~held, 1]
    units = rows_of([np.flatnonzero(row).tolist() for row in words])
    counts = LabelCounts(units, 3, np.ones(images, bool), held)
    return rows_of([np.flatnonzero(row).tolist() for row in codes]), counts, held


def test_a_true_label_is_confirmed_and_a_false_one_is_not() -> None:
    from tavq.explore.statistics.codes import measure_held_out

    prominent, counts, _ = planted()
    columns = CodeColumns.empty(3)
    images = transpose(prominent, 3)
    profiles = measure_labels(columns, images, counts)
    labelled, confirmed, chance = measure_held_out(columns, images, counts)
    assert columns.label.tolist() == [0, 1, NONE]
    assert columns.held_label.tolist() == [0, 1, NONE]
    assert (labelled, confirmed, chance) == (2, 1, 0)
    assert columns.held_low[0] > 1
    assert columns.held_low[1] < 1 < columns.lift[1]
    assert np.isnan(columns.held_lift[2])
    assert profiles[0, 0] > 0.5
    assert profiles[2].tolist() == [0, 0, 0]


def test_the_label_is_the_word_that_is_tested() -> None:
    """Word 1 goes with the code more than word 0 over all images, and less on those that are not kept apart."""
    from tavq.explore.statistics.codes import measure_held_out

    images, held = 400, np.arange(400) % 4 == 0
    random = np.random.default_rng(0)
    code = random.random(images) < 0.4
    words = np.stack([code ^ (random.random(images) < 0.1), code ^ (random.random(images) < 0.12)], axis=1)
    words[held, 0] = random.random(int(held.sum())) < 0.4
    units = rows_of([np.flatnonzero(row).tolist() for row in words])
    of_code = transpose(rows_of([[0] if has else [] for has in code]), 1)
    for kept_apart, label in ((held, 0), (np.zeros(images, bool), 1)):  # without images kept apart, over all images
        columns = CodeColumns.empty(1)
        counts = LabelCounts(units, 2, np.ones(images, bool), kept_apart)
        measure_labels(columns, of_code, counts)
        measure_held_out(columns, of_code, counts)
        both = (words[:, label] & code).sum()
        assert columns.label[0] == label
        assert columns.precision[0] == pytest.approx(both / code.sum())
        assert np.isfinite(columns.held_lift[0]) == kept_apart.any()


def test_words_are_guessed_from_codes_and_not_after_shuffling() -> None:
    prominent, counts, _ = planted()
    found = guess_words(prominent, transpose(prominent, 3), counts)
    assert found is not None
    own, chance = found
    assert own.words == 3
    assert own.interval[0] > 0.55
    assert chance.auc < own.interval[0]
    assert chance.interval[0] < 0.55


def test_no_label_without_evidence() -> None:
    table = Tables(10, np.full(2, 5), np.array([5, 5]), np.array([3, 2]))
    assert choose_label(table)[0] == NONE
