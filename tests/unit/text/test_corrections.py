"""Captions that the tagger gets wrong, one for each correction: units they must and must not have."""

import pytest

from tavq.text.granularity import split

CASES = [
    # text, words that must be there, words that must not, phrases
    ("Tall lamps line the quiet road.", "lamps road", "line", "tall lamps|quiet road"),
    ("A line of lamps lights the road.", "line lamps", "lights", ""),
    ("A ferry leans to one side.", "ferry side", "leans", "one side"),
    ("The ferry sinks while a sailor watches.", "ferry sailor", "watches", ""),
    ("A sailor sees that a ferry leans to the left.", "sailor ferry left", "leans", ""),
    ("The room features two white sinks.", "room sinks", "features", "two white sinks"),
    ("The leaves on the ground are wet.", "leaves ground wet", "", ""),
    ("Some yellow leaves float on the pond.", "yellow leaves pond", "float", "some yellow leaves"),
    ("A towel hangs above a white sink.", "towel white sink", "", "white sink"),
    ("She wears a plain t-shirt and a hat.", "plain t-shirt hat", "", "plain t-shirt"),
    ("A red fire hydrant stands here.", "red fire hydrant", "", "red fire hydrant"),
    ("A blue sled and a set of keys.", "blue sled set keys", "", "blue sled"),
    ("A pointed, golden crown.", "pointed golden crown", "", "pointed, golden crown"),
    ("An old, grey and abandoned boat.", "old grey abandoned boat", "", "old, grey and abandoned boat"),
    ("A red, white, and blue flag.", "red white blue flag", "", "red, white, and blue flag"),
    ("A dog stands in front of the front door.", "dog front door", "", "front door"),
    ("A cup stands on top of a box near the top right corner.", "cup box top right", "", "top right corner"),
    ("In front of a house, on top of a car.", "house car", "front top", ""),
    ("The dog can lie on its back near the back door.", "dog back door", "can", "back door"),
    ("A can of soup stands by a trash can.", "can soup trash", "", "trash can"),
    ("From left to right: a cup, a jug.", "left right cup jug", "", ""),
    ("The left one is bigger than the small ones.", "left bigger small", "one ones", ""),
    ("A red traffic light and natural light.", "traffic light natural", "", "red traffic light|natural light"),
    ("A bowl of vanilla ice cream.", "vanilla ice cream", "", "vanilla ice cream"),
    ("Light brown hair and a cream carpet.", "light brown cream", "", "light brown hair|cream carpet"),
    ("A plane waits at Gate 4 beside Gate 5.", "plane gate 4 5", "waits", "gate 4|gate 5"),
    ("He reads about St. Anna Square.", "st anna square", "", "st. anna square"),
    ("Dr. Wu is here.", "dr wu", "", "dr. wu"),
    ('The word "Push" is on it.', "word push", "", ""),
    ("The other large dogs and the same old car.", "large dogs old car", "other same", "large dogs|old car"),
    ("A brightly painted boat.", "painted boat", "brightly", "brightly painted boat"),
    ("There is possibly wooden furniture.", "wooden furniture", "possibly", "wooden furniture"),
    ("The blanket also features a giraffe.", "blanket giraffe", "also features", ""),
    ("The red sports car.", "red sports car", "", "red sports car"),
    ("It adds charm, a sense of joy and warmth.", "", "charm sense joy warmth adds", ""),
]


@pytest.mark.parametrize(("text", "words", "others", "phrases"), CASES, ids=[case[0] for case in CASES])
def test_corrections(text: str, words: str, others: str, phrases: str) -> None:
    units = split(text)
    assert {*words.split()} <= {*units.words}
    assert not {*others.split()} & {*units.words}
    assert {*units.phrases} == {phrase for phrase in phrases.split("|") if phrase}


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It costs $3.50. Below it lies a coin.", 2),
        ("The clock shows 10:30.5. The door is shut.", 2),
        ("He flies to the U.S. The plane is full.", 2),
        ("It sells nails, etc. People walk in.", 2),
        ("It opens at 5 p.m. Visitors wait.", 2),
        ("Mr. Brown meets Dr. Green on St. James Street.", 1),
        ("The U.S. Navy has 3.5 million tons.", 1),
        ("It weighs 3.5 kg. or more.", 1),
    ],
)
def test_dots_that_end_a_sentence(text: str, sentences: int) -> None:
    assert len(split(text).sentences) == sentences
