"""The units of a text, compared with captions labelled by hand."""

import json
from pathlib import Path

import pytest

from tavq.core.errors import UsageError
from tavq.text.granularity import Units, split, splitters

LABELLED = [
    (text, set(words.split()), {phrase for phrase in phrases.split("|") if phrase})
    for text, words, phrases in json.loads((Path(__file__).parent / "labelled_captions.json").read_text("utf-8"))
]


def precision_and_recall(pairs: list[tuple[set[str], set[str]]]) -> tuple[float, float]:
    hits = sum(len(found & expected) for found, expected in pairs)
    return hits / sum(len(found) for found, _ in pairs), hits / sum(len(expected) for _, expected in pairs)


@pytest.mark.parametrize(("granularity", "floor"), [("words", 0.96), ("phrases", 0.95)])
def test_labelled_captions(granularity: str, floor: float) -> None:
    expected = {"words": 1, "phrases": 2}[granularity]
    pairs = [(set(split(row[0])[granularity]), row[expected]) for row in LABELLED]
    precision, recall = precision_and_recall(pairs)
    wrong = [(text, found ^ truth) for (text, *_), (found, truth) in zip(LABELLED, pairs, strict=True) if found ^ truth]
    assert min(precision, recall) >= floor, (precision, recall, wrong)


def test_units_are_in_order_of_appearance_without_repeats() -> None:
    units = split("A red car and a dog. The dog sees a red car. A red car and a dog.")
    assert units == Units(
        words=("red", "car", "dog"),
        phrases=("red car",),
        sentences=("A red car and a dog.", "The dog sees a red car."),
    )
    assert [*split("The Red Car. the red car.").words] == ["red", "car"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith's dog weighs 3.5 kg. It is brown.", ("Dr. Smith's dog weighs 3.5 kg.", "It is brown.")),
        ("A dog\n\nA cat on a mat", ("A dog", "A cat on a mat")),
        ("A dog\n  \n\n A cat", ("A dog", "A cat")),
        ("A dog that was\nwrapped at the margin.", ("A dog that was wrapped at the margin.",)),
        ("Is it red? Yes! (A red one.)", ("Is it red?", "Yes!", "(A red one.)")),
        ('A sign says "Stop here." A car waits.', ('A sign says "Stop here."', "A car waits.")),
    ],
)
def test_sentences(text: str, sentences: tuple[str, ...]) -> None:
    assert split(text).sentences == sentences


@pytest.mark.parametrize("word", ["image", "photo", "it", "is", "n't", "s", "near", "other"])
def test_words_that_name_nothing_visible_are_dropped(word: str) -> None:
    units = split("The image is a photo of the cat's other ball. It isn't near.")
    assert word not in units.words
    assert {"cat", "ball"} <= {*units.words}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("\0\0", 0),
        ("😀🎉 ❤️", 0),
        ("...!?", 0),
        ("\u202egnirts\u202c", 1),
        ("\ud800 lone", 1),
        ("they are and will be", 1),
        ("x" * 200_000, 1),
        ("(" * 50_000, 0),
        ("'" * 50_000, 0),
        ("-" * 50_000, 0),
        ("([{<" * 2_000, 0),
        ("\u200b\u200d\ufeff", 0),
    ],
)
def test_hostile_text_is_split_and_never_raises(text: str, sentences: int) -> None:
    units = split(text)
    assert len(units.sentences) == sentences
    assert not units.phrases
    assert not any(len(word) > 64 for word in units.words)
    "".join(units.sentences).encode()  # no lone surrogate is left


def test_text_is_cut_between_words_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.text.granularity.MAX_CHARACTERS", 1000)
    assert split("dog " * 250 + "cat").words == ("dog",)  # the limit falls right before the cat
    assert split("dog " * 249 + "cat").words == ("dog", "cat")
    assert split("dog " * 249 + "cats").words == ("dog", "cats")
    assert split("dog " * 249 + "catsy").words == ("dog",)
    assert max(map(len, split("red car. " * 1_000_000).sentences)) <= 1000


def test_a_space_far_before_the_limit_does_not_cut_the_text_there() -> None:
    assert len(split(" " + "y" * 10_000_000).sentences) == 1


def test_registered_splitters_and_the_unknown_one() -> None:
    assert [*splitters] == ["corpora", "pattern"]
    with pytest.raises(UsageError, match=r"Unknown splitter 'patern'; known: corpora, pattern\. Did you"):
        split("a dog", "patern")
