"""Cosines between codes: which codes and pairs count, and what the chart says of them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tavq.interfaces import Codebook
from tavq.report.html.charts import heat_map
from tavq.report.page import write_comparison, write_report
from tavq.report.tokenizer.similarity import describe_similarity, measure_similarity, render_similarity


class Table(Codebook):
    """A fixed table, of one part or several, with or without words."""

    def __init__(self, entries: Tensor, sizes: tuple[int, ...] = (), words: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.entries, self.sizes, self.width, self.words = entries, sizes or (len(entries),), entries.shape[1], words

    def forward(self) -> Tensor:
        return self.entries


class Graph:
    """A text store with the word graph of two adjectives and two nouns."""

    has_word_graph = True

    def __init__(self, vectors: Any, nouns: tuple[str, ...] = ("bird", "house")) -> None:
        self.vectors, self.nouns = vectors, nouns

    def word_graph(self) -> Any:
        return SimpleNamespace(adjectives=("red", "small"), nouns=self.nouns, vectors=self.vectors)


WORDS = ("red", "small", "bird", "house")


def counts(*numbers: int) -> Any:
    return np.array(numbers)


def table(count: int, width: int = 5, **settings: Any) -> Table:
    return Table(torch.randn(count, width, generator=torch.Generator().manual_seed(3)), **settings)


def cosine(table: Tensor, first: int, second: int) -> float:
    return float(torch.cosine_similarity(table[first], table[second], dim=0))


def test_codes_that_were_never_chosen_do_not_count() -> None:
    codebook = table(4)
    found = measure_similarity(codebook, counts(1, 0, 7, 3))
    assert found is not None
    assert (found.names, found.codes, found.words, found.correlation) == (("2", "3", "0"), 3, None, None)
    wanted = [cosine(codebook.entries, *pair) for pair in ((2, 3), (2, 0), (3, 0))]
    assert found.mean == pytest.approx(sum(wanted) / 3, abs=1e-6)
    assert min(wanted) <= found.middle[0] <= found.middle[1] <= max(wanted)
    assert found.cosines[0].tolist() == pytest.approx([1, wanted[0], wanted[1]], abs=1e-6)
    for unused in (counts(0, 0, 9, 0), counts(0, 0, 0, 0)):
        assert measure_similarity(codebook, unused) is None
        assert render_similarity(None) == []


def test_ten_codes_are_shown_and_all_are_counted() -> None:
    found = measure_similarity(table(30), np.arange(1, 31))
    assert found is not None
    assert (found.names, found.codes) == (tuple(str(code) for code in range(29, 19, -1)), 30)


def test_parts_without_words_have_no_common_space() -> None:
    codebook = table(6, sizes=(3, 3))
    found = measure_similarity(codebook, counts(1, 2, 3, 9, 9, 9))
    assert found is not None
    assert (found.names, found.codes, found.first_part) == (("2", "1", "0"), 3, True)
    assert "of the first part" in describe_similarity(found)


def test_entries_that_stand_for_words_are_compared_with_the_words() -> None:
    codebook = table(4, sizes=(2, 2), words=WORDS)
    vectors = torch.randn(4, 7, generator=torch.Generator().manual_seed(4)).numpy()
    found = measure_similarity(codebook, counts(1, 5, 4, 3), Graph(vectors))
    assert found is not None
    assert (found.names, found.first_part) == (("small", "red", "bird", "house"), False)
    assert found.words is not None
    assert found.words[0, 3] == pytest.approx(cosine(torch.from_numpy(vectors), 1, 3), abs=1e-6)
    pairs = [(first, second) for first in range(4) for second in range(first)]
    entries, words = ([cosine(rows, *pair) for pair in pairs] for rows in (codebook.entries, torch.from_numpy(vectors)))
    assert found.correlation == pytest.approx(float(np.corrcoef(entries, words)[0, 1]), abs=1e-5)
    kept = measure_similarity(codebook, counts(1, 5, 4, 3), Graph(2 * codebook.entries.numpy()))
    assert kept is not None
    assert kept.correlation == pytest.approx(1, abs=1e-6)
    assert "Below the diagonal" in describe_similarity(kept)


@pytest.mark.parametrize("store", [None, object(), Graph(np.ones((4, 7)), nouns=("bird", "lake"))])
def test_a_store_that_does_not_know_the_words_is_left_out(store: object) -> None:
    found = measure_similarity(table(4, sizes=(2, 2), words=WORDS), counts(1, 5, 4, 3), store)
    assert found is not None
    assert (found.words, found.correlation, found.names[0]) == (None, None, "small")


def test_equal_entries_have_no_correlation() -> None:
    alike = Table(torch.ones(4, 3), (2, 2), WORDS)
    found = measure_similarity(alike, counts(1, 1, 1, 1), Graph(np.eye(4)))
    assert found is not None
    assert (found.mean, found.correlation) == (pytest.approx(1), None)


def test_the_heat_map_shows_words_above_and_entries_below_the_diagonal() -> None:
    codebook = Table(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]), (2, 2), WORDS)
    [figure] = render_similarity(measure_similarity(codebook, counts(4, 3, 2, 1), Graph(np.ones((4, 2)))))
    shown = [part.partition("<")[0] for part in figure.split(">") if part[:1] in "01−"]
    assert shown[:8] == ["1.00", "1.00", "1.00", "1.00", "−1.00", "1.00", "1.00", "1.00"]


def test_names_and_values_of_a_heat_map_are_drawn_as_they_are() -> None:
    chart = heat_map("t", ["<b>", "w" * 40], [[1.0, float("nan")], [-1.0, 0.004]])
    assert "&lt;b&gt;" in chart
    assert "<b>" not in chart
    assert "w" * 17 not in chart
    fills = [part.split('"')[1] for part in chart.split("<rect ")[1:]]
    assert fills == ["#0072b2", "#ffffff", "#d55e00", "#fefeff"]
    assert [part in chart for part in (">1.00<", ">–<", ">−1.00<", ">0.00<", "nan")] == [True, True, True, True, False]


def test_pages_show_the_chart(runs: Any, tmp_path: Any) -> None:
    page = write_report(runs.aligned).read_text()
    assert page.count("Cosine between codes</text>") == 1
    both = write_comparison([runs.plain, runs.aligned], tmp_path / "both.html").read_text()
    assert both.count("Cosine between codes</text>") == 2
