"""Tokens of captions equal those of coco-caption's tokenizer."""

import json
import shutil
import time
from pathlib import Path

import pytest

from tavq.metrics.ptb import tokenize

# What PTBTokenizer of pycocoevalcap 1.2 (Stanford CoreNLP 3.4.1, Java 17) gave for sentences written for this test.
GOLDEN = [
    ("A man's dog doesn't like the cat; it can't sleep.", "a man 's dog does n't like the cat it ca n't sleep"),
    (
        "Two t-shirts, red/white and black-and-white, hang at 7:30.",
        "two t-shirts red/white and black-and-white hang at 7:30",
    ),
    ("Mr. Smith walks on Main St. with his U.S. flag.", "mr. smith walks on main st. with his u.s. flag"),
    ('The sign (in blue) says "STOP"!', "the sign -lrb- in blue -rrb- says stop"),
    ("They're at 5th Ave. near the 22 3/4 mark...", "they 're at 5th ave. near the 22\xa03/4 mark"),
    ("A jar of vitamin C. The jar is green.", "a jar of vitamin c the jar is green"),
    ("Cannot see; gonna wait -- 'tis late!!", "can not see gon na wait 't is late !!"),
    ("An AT&T van & a #5 bus cost $20, or 50%.", "an at&t van & a # 5 bus cost $ 20 or 50 %"),
    ("It is 8 o'clock on 10-29-2011, in the '70s.", "it is 8 o'clock on 10-29-2011 in the '70s"),
    ("A B-25 bomber.A plane lands , slowly .", "a b-25 bomber.a plane lands slowly"),
    ("Café “Blue” sells hors d'oeuvres – y'all come.", "café blue sells hors d'oeuvres y' all come"),
    ("", ""),
    ("...", ""),
    ("Two   dogs\tplay   in grass", "two dogs play in grass"),
    ("Wash. the wash. Calif. has 1,000.5 km of coast.", "wash. the wash calif. has 1,000.5 km of coast"),
    (
        "[Three] {four} @ five = six * seven_eight ?!",
        "-lsb- three -rsb- -lcb- four -rcb- @ five = six * seven_eight ?!",
    ),
    ("A red,white-striped hat; e.g. O'Brien's or Hawai'i", "a red,white-striped hat e.g. o'brien 's or hawai'i"),
    ("The S.U.V. of Dr. No. 7, no. 8", "the s.u.v. of dr. no. 7 no. 8"),
    ("rock 'n' roll ain't dead’s don’t", "rock 'n' roll ai n't dead 's do n't"),
    ("a.m. p.m. x y. z", "a.m. p.m. x y. z"),
    ("½ pizza costs £5 or €6 … 25¢", "1/2 pizza costs # 5 or $ 6 25 cents"),
    ("see www.example.com or mail me@example.org now", "see www.example.com or mail me@example.org now"),
]


@pytest.mark.parametrize(("caption", "words"), GOLDEN, ids=range(len(GOLDEN)))
def test_tokens_equal_those_of_the_published_tool(caption: str, words: str) -> None:
    assert tokenize(caption) == words


@pytest.mark.parametrize("caption", ["", " ", "...", '"\'"', "\n", "\u200b", "\ud800"])
def test_empty_text_has_no_tokens(caption: str) -> None:
    assert tokenize(caption) == ""


def test_a_hostile_caption_takes_linear_time() -> None:
    for piece in ("a.", "a/", "n't", "a'", " .", "1 "):
        tokenize(piece)
        times = []
        for count in (2_000, 16_000):
            start = time.process_time()
            tokenize(piece * count)
            times.append(time.process_time() - start)
        assert times[1] < 24 * times[0] + 0.2, piece  # 8 times the length; the square would be 64


@pytest.mark.real_data
def test_all_tokens_of_the_reference_case(real_data: Path) -> None:
    case = json.loads((real_data / "caption_scores/fakecap_val2017_overlap.json").read_text())
    read = 0
    for plain, cut in (("hypotheses", "tokenized_hypotheses"), ("references", "tokenized_references")):
        for key, texts in case[plain].items():
            for text, words in zip([texts] if isinstance(texts, str) else texts, case[cut][key], strict=True):
                assert tokenize(text) == words
                read += 1
    assert read > 700


@pytest.mark.real_data
def test_five_thousand_images_against_the_tool_itself(real_data: Path) -> None:
    """The only captions that may differ end in a letter and a full stop, where the tool reads into the next caption."""
    ptb = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if not shutil.which("java"):
        pytest.skip("no Java")
    annotations = json.loads((real_data / "coco_subset/captions_val2017.json").read_text())["annotations"]
    cut = ptb.PTBTokenizer().tokenize({row["id"]: [row] for row in annotations})
    differing = [row["caption"] for row in annotations if tokenize(row["caption"]) != cut[row["id"]][0]]
    assert len(annotations) == 25014
    assert all(caption.rstrip()[-2:-1].isupper() for caption in differing), differing
    assert len(differing) <= 5
