"""VQA accuracy against ten people's answers, as the VQA challenge computes it."""

import re
from collections.abc import Sequence

from tavq.core.errors import DataError

CONTRACTIONS = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've 'ow's'at
"""
"""Contractions whose missing apostrophe is restored."""

NUMBERS = "zero one two three four five six seven eight nine ten"
PEOPLE = 4
"""Least answers per question: with fewer, even an answer that all give would not score 1."""

ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def _repairs() -> dict[str, str]:
    found = {"somebody'd": "somebodyd"}  # the challenge's table has it the wrong way round
    for word in CONTRACTIONS.split():
        found |= {word[:i] + word[i + 1 :]: word for i, letter in enumerate(word) if letter == "'"}
    return found


REPAIRS = _repairs()
DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS.split())}}


def normalize_answer(answer: str) -> str:
    """An answer in lower case without punctuation and articles, numbers up to ten in digits.

    Punctuation between words becomes a space; next to a space, or in an answer that has a number with a comma, it is
    removed. Full stops are removed except before digits.
    """
    glued = re.search(r"\d,\d", answer) is not None
    text = answer
    for mark in PUNCTUATION:
        text = text.replace(mark, "" if glued or f"{mark} " in answer or f" {mark}" in answer else " ")
    text = re.sub(r"\.(?!\d)", "", text, count=32)  # 32: the challenge's code passes the flag re.UNICODE as the count
    words = [DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(REPAIRS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """How far people agree with an answer, from 0 to 1: the mean over people of min(1, others who gave it / 3).

    Source: Antol et al. 2015, "VQA: Visual question answering", section 3, as in the challenge's later
    code, which normalizes answers only where people differ: "Yes" is wrong where all say "yes". Its first code always
    normalized the answer to score.
    """
    if len(people) < PEOPLE:
        raise DataError(
            f"VQA accuracy needs the answers of {PEOPLE} people or more, as the challenge has ten; got {len(people)}. "
            'Give one true answer as "answer" to score by exact match.'
        )
    answer, *people = (re.sub(r"[\n\t]", " ", text).strip() for text in (answer, *people))
    if len(set(people)) > 1:
        answer, *people = (normalize_answer(text) for text in (answer, *people))
    same = people.count(answer)
    return sum(min(1.0, (same - (other == answer)) / 3) for other in people) / len(people)
