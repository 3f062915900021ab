"""The splitters against captions labelled by hand, before any splitter had seen them (splitting.txt).

What the labels mean, so that a second person would set the same ones:

Visual words, in lower case, each once a text:

- nouns, proper ones too, with the nouns before them ("city bus stop": three); a hyphenated word is one word and a
  possessor stands without its 's;
- adjectives, before a noun or after a verb, comparatives and nationalities among them; participles only before the
  noun that they describe ("a parked car", not "the car is parked", not "a car parked outside"), or after a verb where
  "very" fits before them;
- numerals in words or digits, ordinals, and the quantifiers of number (several, many, few, some, both, all, various,
  multiple, numerous); not "one" for a noun ("the right one"), not each, every, any, no, most;
- not words for the image as an image (image, photo, shot, view, scene, composition, perspective, foreground,
  background, viewer); a painting, a poster, a close-up are things and count;
- not what names nothing with a look of its own: stand-ins (thing, kind, way), feelings, qualities and judgements as
  nouns (beauty, joy, atmosphere), points in time (moment), adjectives that say which or how sure (other, same, own,
  next, main, visible, likely). Judging adjectives (beautiful, cosy) count, and so do parts of the day, weather,
  collections (row, pair), colours as nouns, and places in the image (left, top, middle, distance);
- not nouns inside a preposition: in front of, on top of, next to, in addition to;
- text read off the image is labelled like any other; one quoted word is a name, and so a noun.

Noun phrases, in lower case: a noun with everything before it but articles, demonstratives, possessive pronouns and
leading words that do not count above ("the other [large dogs]"). They hold at least two visual words, and end in one
or in a word for the image. Possessors belong to them ("[woman's long hair]"), adverbs before an adjective ("[brightly
coloured textiles]"), adjectives or nouns joined before one noun ("[red, white, and blue flag]"), a number after its
noun ("[Gate 12]"). Two nouns with "of", "and" or a comma between them are two phrases. A colour with its shade ("a
dark green") is a look and no thing: no phrase. No phrase crosses a quotation mark, bracket or dash.

Sentences end at a full stop, question or exclamation mark that closes what was said, quotation marks and brackets
included, and at a blank line; not at an abbreviation's dot inside one, a semicolon, a colon, an ellipsis that goes on.
"""

import pytest
from splitting_labels import Labelled, boundaries, read_labelled, score

from tavq.text.granularity import Units, split

LABELLED = read_labelled()


def units_of(splitter: str) -> list[tuple[Labelled, Units]]:
    return [(labelled, split(labelled.text, splitter)) for labelled in LABELLED]


def test_labels_are_read() -> None:
    first = LABELLED[0]
    assert first.words > {"double-decker", "corner", "three"}
    assert first.phrases == {"red double-decker bus", "busy street", "three cyclists", "green light"}
    assert first.boundaries == {len("Areddouble-deckerbusturnsatthecornerofabusystreet.")}
    assert sum(len(labelled.sentences) for labelled in LABELLED) == 220
    assert all(" ".join(labelled.text.split()) == " ".join(labelled.sentences) for labelled in LABELLED)


def test_score_by_hand() -> None:
    truth = Labelled("A cat. Red.", frozenset(("cat", "red")), frozenset(("red cat",)), ("A cat.", "Red."))
    units = Units(("cat", "a", "it"), ("red cat", "a cat"), ("A cat. Red.",))
    assert score([(truth, units)], "words") == (1 / 3, 1 / 2)
    assert score([(truth, units)], "phrases") == (1 / 2, 1)
    other = Units(sentences=("A cat.", "Red."))
    assert score([(truth, units), (truth, other)], "sentences") == (1, 1 / 2)
    assert boundaries(("A cat.", "Red.")) == {5}


def check_floors(splitter: str, floors: dict[str, tuple[float, float]]) -> None:
    pairs = units_of(splitter)
    for granularity, (precision, recall) in floors.items():
        reached = score(pairs, granularity)
        assert reached.precision >= precision, (granularity, reached)
        assert reached.recall >= recall, (granularity, reached)


def test_pattern_against_the_labels() -> None:
    check_floors("pattern", {"words": (0.98, 0.98), "phrases": (0.95, 0.94), "sentences": (0.99, 0.97)})


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # NLTK's corpus readers
def test_textblob_with_its_corpora_against_the_labels(corpora: None) -> None:
    """TextBlob takes verbs for nouns ("image shows") and leaves numbers and participles out of phrases."""
    check_floors("corpora", {"words": (0.94, 0.95), "phrases": (0.6, 0.5), "sentences": (0.86, 0.91)})
