"""Which answers are kept, which are requested again, and what is kept of an incomplete one."""

import json
from pathlib import Path

import pytest

from tavq.describe.answers import (
    RETRIES,
    Answer,
    DescriptionResult,
    RetryState,
    SamplingParams,
    find_problem,
    is_repetitive,
    keep_complete_sentences,
)

GOOD = "A grey cat lies on a mat. It sleeps."


def run_attempts(*answers: Answer) -> tuple[list[SamplingParams], DescriptionResult | None]:
    """The parameters of each request, and the result."""
    state, asked, result = RetryState("a.png", 100), [], None
    for answer in answers:
        assert result is None
        asked.append(state.params)
        result = state.judge(answer)
    return asked, result


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, I can't help with that.",
        "I’m sorry, but I cannot assist with this request.",
        "I am really sorry.",
        "Sorry, I can't do that.",
        "I apologize, but there is no image.",
        "I'm unable to view images.",
        "Unfortunately, I cannot see the image.",
        "I can't provide a description of this person.",
        "As an AI language model, I have no eyes.",
    ],
)
def test_refusals_are_recognized(text: str) -> None:
    assert "refused" in (find_problem(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "I can see a cat.",
        "A sorry sight: a broken chair.",
        "A sign says “I'm sorry”.",
        "I can't help but notice the red mat.",
        "As an AIrplane takes off, people wave.",
        "猫がマットの上で寝ています。",
        GOOD,
    ],
)
def test_other_answers_are_not_refusals(text: str) -> None:
    assert find_problem(text) is None


@pytest.mark.parametrize("text", ["", " \n", "...", "123 456", "!?"])
def test_empty_answers(text: str) -> None:
    assert find_problem(text) == "the answer was empty"


@pytest.mark.parametrize(
    "text",
    [
        "The cat sits on the mat. " * 8,
        "A cat sits on a mat in the sun. Behind it stands a chair. " + "and a chair " * 20,
        GOOD + " " + "很" * 60,
        GOOD + "\n1. " * 30,
        "a" * 100_001,
    ],
)
def test_loops_are_recognized(text: str) -> None:
    assert find_problem(text) == "the answer repeated itself"


def test_a_long_answer_of_distinct_words_is_too_long_but_not_a_loop() -> None:
    reason = find_problem(" ".join(f"word{number}" for number in range(15_000)))
    assert reason is not None
    assert reason.startswith("the answer is too long (")
    assert find_problem("again and again " * 10_000) == "the answer repeated itself"


def test_short_repeats_are_not_a_loop() -> None:
    assert not is_repetitive("A cat, a dog, a cat and a dog sit on a mat; a cat and a dog sit on a chair.")
    assert not is_repetitive("A wall of bricks ... --- ...")


@pytest.mark.real_data
def test_no_human_description_is_a_loop_or_a_refusal(real_data: Path) -> None:
    texts = []
    for name in ("iiw_DCI_Test", "iiw_DOCCI_Test", "iiw_IIW-400"):
        for line in (real_data / "long_text" / f"{name}.jsonl").read_text().splitlines():
            texts += [value for value in json.loads(line).values() if isinstance(value, str) and len(value) > 300]
    assert len(texts) > 600
    assert [text for text in texts if find_problem(text.strip())] == []


def test_a_good_answer_is_kept_without_unprintable_characters() -> None:
    assert run_attempts(Answer(f"\n{GOOD}\x00\x07\ud800 \n")) == (
        [SamplingParams(100)],
        DescriptionResult("a.png", GOOD),
    )


def test_bad_answers_are_sampled_again_with_different_seeds() -> None:
    asked, result = run_attempts(Answer(""), Answer("I'm sorry."), Answer("", filtered=True), Answer(GOOD))
    assert asked == [SamplingParams(100), SamplingParams(100, 1), SamplingParams(100, 2), SamplingParams(100, 3)]
    assert result == DescriptionResult("a.png", GOOD)


def test_an_answer_that_stays_bad_is_a_fault_with_the_last_reason() -> None:
    _, result = run_attempts(*[Answer("")] * RETRIES, Answer(GOOD, filtered=True))
    assert result == DescriptionResult("a.png", fault="the answer was withheld, 4 times")


def test_an_incomplete_answer_gets_twice_the_tokens_once() -> None:
    asked, result = run_attempts(Answer("A cat. It", complete=False), Answer(GOOD))
    assert (asked, result) == ([SamplingParams(100), SamplingParams(200)], DescriptionResult("a.png", GOOD))
    _, result = run_attempts(Answer("A cat. It", complete=False), Answer("A cat. It sits. On the", complete=False))
    assert result == DescriptionResult("a.png", "A cat. It sits.", truncated=True)


def test_an_incomplete_answer_without_a_complete_sentence_is_a_fault() -> None:
    _, result = run_attempts(Answer("A cat", complete=False), Answer("A cat that", complete=False))
    assert result == DescriptionResult("a.png", fault="the answer has no complete sentence within 200 tokens")


def test_a_bad_longer_answer_falls_back_to_the_shorter_one() -> None:
    """With more tokens the model loops, whatever the seed; the sentences of its first answer are complete."""
    _, result = run_attempts(
        Answer("A cat. It", complete=False), *[Answer("a cat and " * 50, complete=False)] * (RETRIES + 1)
    )
    assert result == DescriptionResult("a.png", "A cat.", truncated=True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A cat. It sleeps on the", "A cat."),
        ("A cat. It sleeps.", "A cat. It sleeps."),
        ('A sign. It says "Go."', 'A sign. It says "Go."'),
        ("Mr. Smith walks his dog. The dog", "Mr. Smith walks his dog."),
        ("A cat sits.\n\nThe second par", "A cat sits."),
        ("A cat", ""),
        ("", ""),
    ],
)
def test_only_complete_sentences_are_kept(text: str, kept: str) -> None:
    assert keep_complete_sentences(text) == kept
