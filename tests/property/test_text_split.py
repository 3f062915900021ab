"""Splitting any text raises nothing and invents nothing."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tavq.text.granularity import clean, split
from tavq.text.splitters.pattern import PLAIN_PARAGRAPH, segment_paragraph, token_spans

WORDS = "a the red black light dog dogs car woman's isn't two 3.5 U.S. image rides and or of Dr. e.g. A x"
SIGNS = ". , ; ! ? ... ( ) [ ] \" ' ’ “ ” - – / 😀 ﬁ İ ß Σ 犬 \u0301 \u202e \u200d \0"
PIECES = st.sampled_from([*WORDS.split(), *SIGNS.split(), "\n", "\n\n", "\t", "\r\n"])
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(PIECES, max_size=60).map(" ".join),
    st.lists(PIECES, max_size=60).map("".join),
    st.text(st.characters(categories=["Ps", "Pe", "Po", "Pd", "Cs", "Cc", "Zs", "Lu"]), max_size=100),
)


@pytest.fixture(scope="module", autouse=True)
def _lexicon() -> None:
    split("a dog")  # the first text takes the import


def fold(text: str) -> str:
    return text.lower().casefold()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_units_are_parts_of_the_text(text: str) -> None:
    units = split(text)
    within = fold(" ".join(clean(text).split()))
    for granularity in ("words", "phrases", "sentences"):
        found = units[granularity]
        assert len(set(found)) == len(found)
        for unit in found:
            assert unit.strip() == unit != ""
            for part in unit.split():
                assert fold(part) in within
    assert all(word == word.lower() for word in units.words)
    if units.words or units.phrases:
        assert units.sentences


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_splitting_depends_on_the_text_alone(text: str) -> None:
    assert split(text) == split(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["A red car.", "Two dogs run.", "The sky is blue."]), min_size=1, max_size=8))
def test_sentences_of_joined_captions_come_back(captions: list[str]) -> None:
    assert split("\n\n".join(captions)).sentences == tuple(dict.fromkeys(captions))
    assert split(" ".join(captions)).sentences == tuple(dict.fromkeys(captions))


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aB 3,.!?'-\n"), max_size=40))
def test_plain_paragraphs_are_split_as_by_syntok(text: str) -> None:
    spans = [*token_spans(text, 0, len(text))]
    if spans and PLAIN_PARAGRAPH.fullmatch(text):
        assert [*segment_paragraph(text, 0, spans)] == [spans]
