"""The word graph: its words, edges and vectors, and damaged or missing files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tavq.core.errors import DataError, FileError, UsageError
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.store import TextStore
from tavq.text.word_graph import RECORD, TENSORS, build_word_graph, classify_words, look_up_singular, read_corpus

TEXTS = {
    "1.png": "A red car and two red cars stand by a small house.\n\nA small dog sees the red car.",
    "2.png": "It is a big dog. Two small dogs are near an old wooden house.",
    "3.png": "A photo of the same old car and a dog that is small.",
}


@pytest.fixture
def store(tiny: TextEncoder, tmp_path: Path) -> Path:
    build_store(TEXTS, tiny, "pattern", tmp_path / "text")
    return tmp_path / "text"


def opened(folder: Path) -> TextStore:
    return TextStore.open(folder, verify=True)


def test_words_are_counted_as_by_hand() -> None:
    corpus = read_corpus(TEXTS.values())
    assert corpus.adjectives == {"red": 3, "small": 4, "big": 1, "old": 2, "wooden": 1}
    assert corpus.nouns == {"car": 4, "house": 2, "dog": 4}
    assert corpus.pairs == {
        ("red", "car"): 3,
        ("small", "house"): 1,
        ("small", "dog"): 2,
        ("big", "dog"): 1,
        ("wooden", "house"): 1,
        ("old", "car"): 1,
    }


@pytest.mark.parametrize(
    ("noun", "singular"),
    [
        ("dogs", "dog"),
        ("people", "person"),
        ("grass", "grass"),
        ("dress", "dress"),
        ("wolves", "wolf"),
        ("jeans", None),
        ("olives", None),
    ],
)
def test_singular_nouns(noun: str, singular: str | None) -> None:
    assert look_up_singular(noun) == singular


def test_a_singular_missing_in_the_lexicon_is_taken_from_the_corpus() -> None:
    assert read_corpus(["A dog near two kayakers."]).nouns == {"dog": 1, "kayakers": 1}
    assert read_corpus(["A kayaker near two kayakers."]).nouns == {"kayaker": 2}


def test_a_noun_for_a_colour_is_an_adjective_only_before_a_noun() -> None:
    kinds = classify_words(["a", "man", "in", "an", "orange", "shirt", "eats", "an", "orange", "."])
    assert kinds == ["", "noun", "", "", "adjective", "noun", "", "", "noun", ""]


def test_the_graph_is_written_and_read(store: Path, tiny: TextEncoder) -> None:
    summary = build_word_graph(TEXTS.values(), tiny, store, min_count=1)
    graph = opened(store).word_graph()
    assert (summary.adjectives, summary.nouns, summary.edges) == (3, 3, 4)
    assert graph.adjectives == ("small", "red", "old")
    assert graph.nouns == ("car", "dog", "house")
    assert (graph.adjective_counts, graph.noun_counts) == ((4, 3, 2), (4, 4, 2))
    assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 0], [2, 0]]
    assert graph.edge_counts.tolist() == [2, 1, 3, 1]
    prompts = [f"a photo of {word} object" for word in graph.adjectives] + [f"a photo of {n}" for n in graph.nouns]
    torch.testing.assert_close(torch.from_numpy(np.array(graph.vectors)), tiny.encode_units(prompts))


GLOVE = "5 3\nred 1 0 0\ncar 0 1 0.5\nsmall 0 0 2\ndog -1 0 1e-1\ncar 9 9 9\nunseen x y z\n"


def test_the_vectors_may_come_from_a_file(store: Path, tiny: TextEncoder, tmp_path: Path) -> None:
    """Words that the file lacks, and their edges, are left out; a word that comes twice keeps its first vector."""
    path = tmp_path / "glove.txt"
    path.write_text(GLOVE)
    build_word_graph(TEXTS.values(), tiny, store, min_count=1, vectors=path)
    graph = opened(store).word_graph()
    assert (graph.adjectives, graph.nouns) == (("small", "red"), ("car", "dog"))
    assert graph.vectors.tolist() == [[0, 0, 2], [1, 0, 0], [0, 1, 0.5], [-1, 0, pytest.approx(0.1)]]
    assert graph.edges.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [("red 1 2\ncar 1 x\n", "line 2 is not a word"), ("red 1 2\ncar 1\n", "line 2 has 1 numbers; 2 finite"),
     ("red 1 nan\n", "line 1 has 2 numbers"), ("cat 1 2\n", "contains none of the 6 words"), ("", "none of the 6")],
)  # fmt: skip
def test_files_without_word_vectors(store: Path, tiny: TextEncoder, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        build_word_graph(TEXTS.values(), tiny, store, min_count=1, vectors=path)
    path.unlink()
    with pytest.raises(FileError, match="cannot be read"):
        build_word_graph(TEXTS.values(), tiny, store, min_count=1, vectors=path)


def test_the_order_of_the_texts_does_not_matter(store: Path, tiny: TextEncoder) -> None:
    build_word_graph(TEXTS.values(), tiny, store, min_count=0)
    before = [(store / name).read_bytes() for name in (TENSORS, RECORD)]
    build_word_graph(reversed(TEXTS.values()), tiny, store, min_count=0)
    assert before == [(store / name).read_bytes() for name in (TENSORS, RECORD)]


def test_words_that_occur_exactly_min_count_times_are_left_out(store: Path, tiny: TextEncoder) -> None:
    build_word_graph(TEXTS.values(), tiny, store, min_count=2)
    assert opened(store).word_graph().adjectives == ("small", "red")


def test_a_corpus_with_too_few_words_says_so(store: Path, tiny: TextEncoder) -> None:
    with pytest.raises(DataError, match=r"0 adjectives and 0 nouns .* more than 10 times; .*Lower --min-count"):
        build_word_graph(TEXTS.values(), tiny, store)
    assert not (store / RECORD).exists()


def test_a_store_without_a_graph_says_how_to_build_it(store: Path) -> None:
    with pytest.raises(UsageError, match="has no word graph; build it with: tavq text DIR --word-graph"):
        opened(store).word_graph()


def _another_encoder(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"encoder": record["encoder"] | {"sha256": "0" * 64}}))


def _fewer_words(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps(record | {"nouns": record["nouns"][:-1]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-4]),
            "was altered or truncated",
        ),
        (lambda folder: (folder / TENSORS).unlink(), "Could not read"),
        (lambda folder: (folder / RECORD).write_text("[]"), "is not the record of a word graph"),
        (lambda folder: (folder / RECORD).write_text("{"), "is not valid JSON"),
        (lambda folder: (folder / RECORD).write_text('{"format": 2}'), "is not the record of a word graph"),
        (_another_encoder, "made by the encoder 'tiny-bert', its text store by"),
        (_fewer_words, "vectors holds float32 of shape"),
    ],
)
def test_damage_is_named(store: Path, tiny: TextEncoder, damage: Callable[[Path], object], message: str) -> None:
    build_word_graph(TEXTS.values(), tiny, store, min_count=1)
    damage(store)
    with pytest.raises(FileError, match=message) as caught:
        opened(store).word_graph()
    assert str(store) in str(caught.value)


def test_a_rebuilt_store_drops_the_old_graph(store: Path, tiny: TextEncoder) -> None:
    build_word_graph(TEXTS.values(), tiny, store, min_count=1)
    build_store(TEXTS, tiny, "pattern", store)
    with pytest.raises(UsageError, match="has no word graph"):
        opened(store).word_graph()


def test_a_store_matches_its_texts(store: Path, tiny: TextEncoder) -> None:
    made = opened(store)
    assert made.matches(TEXTS.items(), tiny, "pattern", full_text=False)
    assert made.matches((TEXTS | {"none.png": " ."}).items(), tiny, "pattern", full_text=False)
    assert not made.matches((TEXTS | {"new.png": "A cat."}).items(), tiny, "pattern", full_text=False)
    assert not made.matches([("1.png", TEXTS["1.png"])], tiny, "pattern", full_text=False)
    assert not made.matches(TEXTS.items(), tiny, "pattern", full_text=True)
    assert not made.matches(TEXTS.items(), tiny, "corpora", full_text=False)


def test_a_graph_of_the_version_before_opens(store: Path, tiny: TextEncoder) -> None:
    build_word_graph(TEXTS.values(), tiny, store, min_count=1)
    record = json.loads((store / RECORD).read_text())
    (store / RECORD).write_text(json.dumps({{"min_count": "fewest"}.get(key, key): record[key] for key in record}))
    assert opened(store).word_graph().nouns == ("car", "dog", "house")
