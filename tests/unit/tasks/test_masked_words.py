"""Masked words by hand: the masks, the filled words, and the metrics."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.data.records import Record
from tavq.metrics.record import Metric, by_key
from tavq.tasks.base import TokenLayout
from tavq.tasks.masked_words import (
    CONTENT,
    MaskedWordsConfig,
    MaskedWordsTask,
    WordFrequencies,
    WordRecall,
    score_gaps,
)
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.understanding import UnderstandingBatch

LAYOUT = TokenLayout(height=2, width=2, sizes=(7,))
CAPTIONS = ["A red barn beside a lake.", "A red barn, a dog.", "The dog runs!"]


def make_task(captions: list[str] = CAPTIONS, **settings: Any) -> MaskedWordsTask:
    small = {"name": "masked-words", "layers": 1, "heads": 2, "width": 16, "dropout": 0.0, "max_length": 8, **settings}
    resolved = MaskedWordsTask.resolve_config(build(MaskedWordsConfig, small, "test"), LAYOUT, captions)
    torch.manual_seed(0)
    task: Any = TaskConfig(task=resolved.model_dump(), layout=LAYOUT, feature_width=3).make()
    task.prepare(captions)
    return task.eval()


def random_features(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(5))


def number(task: MaskedWordsTask, word: str) -> int:
    assert task.text_tokenizer is not None
    [[found]] = task.text_tokenizer.encode([word])
    return found


def with_logits(
    task: MaskedWordsTask, monkeypatch: pytest.MonkeyPatch, *logits: dict[str, float]
) -> list[torch.Tensor]:
    """The task with given logits for each gap of a call, 0 for other words; what it was asked is noted."""
    masks: list[torch.Tensor] = []

    def fixed_logits(features: Any, ids: torch.Tensor, mask: Any, masked: torch.Tensor) -> torch.Tensor:
        masks.append(masked.clone())
        table = torch.zeros(int(masked.sum()), task.mask_id)
        for row in range(len(table)):
            for word, value in logits[row % len(logits)].items():
                table[row, number(task, word)] = value
        return table

    monkeypatch.setattr(task, "_logits", fixed_logits)
    return masks


# --- masks ------------------------------------------------------------------------------------------------------


def test_punctuation_and_unknown_words_are_never_masked() -> None:
    task = make_task()
    found = task.collate(["A red zebra, a dog!", "Lake"])
    assert found.maskable.tolist() == [[True, True, False, False, True, True, False], [True] + [False] * 6]
    assert found.mask.tolist() == [[True] * 7, [True] + [False] * 6]


@pytest.mark.parametrize("seed", range(5))
def test_some_words_of_each_caption_are_masked(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a red barn beside a lake and a dog . " * 2, "dog !", "the dog runs !"]
    task = make_task(captions, max_length=30)
    masks = with_logits(task, monkeypatch, {})
    torch.manual_seed(seed)
    batch = UnderstandingBatch(random_features(3), ("a", "b", "c"), task.collate(captions))
    value = task.loss(batch)["masked-words/word"].value
    [masked] = masks
    assert (masked <= batch.examples.maskable).all()
    assert 2 <= int(masked[0].sum()) <= 5  # of 18 words, from 0.1 to 0.3
    assert masked[1:].sum(1).tolist() == [1, 1]
    assert float(value) == pytest.approx(math.log(task.mask_id), rel=1e-5)
    torch.manual_seed(seed)
    task.loss(batch)
    assert torch.equal(masks[1], masked)


def test_masks_differ_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    masks = with_logits(task, monkeypatch, {})
    batch = UnderstandingBatch(random_features(3), ("a", "b", "c"), task.collate(CAPTIONS))
    for _ in range(8):
        task.loss(batch)
    assert len({str(masked.tolist()) for masked in masks}) > 1


def test_a_masked_word_is_not_seen() -> None:
    task = make_task()
    read = task.collate(["a red barn beside a lake"])
    masked = torch.tensor([[False, True, False, False, False, False]])
    first = task._logits(random_features(1), read.ids, read.mask, masked)
    other = read.ids.clone()
    other[0, 1] = number(task, "dog")
    assert torch.equal(task._logits(random_features(1), other, read.mask, masked), first)
    other[0, 2] = number(task, "dog")
    assert not torch.equal(task._logits(random_features(1), other, read.mask, masked), first)


def test_words_on_both_sides_and_their_order_are_read() -> None:
    task = make_task()
    captions = ["a ___ barn beside a lake", "a ___ barn beside a dog", "the ___ barn beside a lake", "barn ___ a"]
    captions.append("a ___ barn")
    found = [task.fill(random_features(1), [caption])[0][0] for caption in captions]
    assert len({str(words) for words in found}) == 5


def test_a_gap_is_classified_from_its_own_hidden_state(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    monkeypatch.setattr(task.transformer, "forward", lambda tokens, mask: tokens)
    read = task.collate(["a red barn"])
    found = task._logits(random_features(1), read.ids, read.mask, torch.tensor([[False, True, True]]))
    torch.testing.assert_close(
        found, task.head(task.token_embedding.weight[task.mask_id] + task.position_embedding[1:3])
    )


def test_padding_changes_nothing() -> None:
    task = make_task()
    together = task.fill(random_features(2), ["the ___", "a ___ barn beside a ___ ."])
    [[alone]] = task.fill(random_features(2)[:1], ["the ___"])
    assert [word for word, _ in together[0][0]] == [word for word, _ in alone]
    assert [share for _, share in together[0][0]] == pytest.approx([share for _, share in alone], rel=1e-4)


# --- filling ----------------------------------------------------------------------------------------------------


def test_each_gap_is_filled_with_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    masks = with_logits(task, monkeypatch, {"red": 3.0, ".": 9.0}, {"lake": 2.0, "dog": 1.0}, {"barn": 1.0})
    first, second = task.fill(random_features(2), ["A ___ barn beside a _.", "the dog __"])
    assert masks[0].tolist() == [
        [False, True, False, False, False, True, False],
        [False, False, True] + [False] * 4,
    ]
    assert len(first) == 2
    assert len(second) == 1
    words = {"a", "red", "barn", "beside", "lake", "dog", "the", "runs"}
    assert {word for word, _ in first[0]} == words
    total = math.exp(3) + 7
    assert first[0][0] == ("red", pytest.approx(math.exp(3) / total))
    assert sum(share for _, share in first[0]) == pytest.approx(1)
    assert [word for word, _ in first[1][:2]] == ["lake", "dog"]
    assert second[0][0][0] == "barn"


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a red barn", r"'a red barn' has no gap; write ___"),
        ("", r"'' has no gap"),
        ("snake_case __init__", r"has no gap"),
        ("___ собака бежит", r"no word that the model knows"),
    ],
)
def test_a_caption_without_a_gap_or_known_word_is_refused(caption: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_task().check_text(caption)


def test_unknown_words_are_reported_and_a_lone_gap_is_filled() -> None:
    task = make_task()
    assert task.check_text("a ___ zebra") == ["The model does not know the word 'zebra'."]
    assert task.check_text("___") == []
    short = make_task(max_length=4)
    assert short.check_text("a ___ zebra a") == ["The model does not know the word 'zebra'."]
    assert short.check_text("a ___ a a a")[-1] == "The caption has 4 words and marks; the model reads the first 3."
    [[words]] = task.fill(random_features(1), ["___"])
    assert len(words) == 8


def test_a_gap_beyond_max_length_is_refused() -> None:
    task = make_task()
    assert len(task.fill(random_features(1), ["a a a a a a a ___ dog dog"])[0]) == 1
    with pytest.raises(UsageError, match=r"gap after its first 8 words"):
        task.fill(random_features(1), ["a a a a a a a a ___"])


def test_captions_without_a_word_give_no_example() -> None:
    record = Record("a.png", captions=("A dog.", "...", "?!"))
    assert MaskedWordsTask.extract_examples(MaskedWordsConfig(), record, lambda: (1, 1)) == ["A dog."]


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    make_task().write_files(tmp_path)
    make_task().read_files(tmp_path)
    with pytest.raises(FileError, match=r"words.json has"):
        make_task([*CAPTIONS, "zebra"]).read_files(tmp_path)


# --- baselines --------------------------------------------------------------------------------------------------


@pytest.fixture
def guess() -> tuple[MaskedWordsTask, WordFrequencies, Callable[[torch.Tensor], list[list[str]]]]:
    task = make_task()
    assert task.text_tokenizer is not None

    def named(answers: torch.Tensor) -> list[list[str]]:
        return [[task.text_tokenizer.decode([n]) if n >= 0 else "" for n in row] for row in answers.tolist()]  # type: ignore[union-attr]

    return task, WordFrequencies(task.collate(CAPTIONS)), named


def test_the_most_frequent_words(guess: Any) -> None:
    _, guesser, named = guess
    masked = torch.tensor([[True, False], [True, True]])
    found = named(guesser.most_frequent(masked))
    assert len(found) == 3
    assert found[0][0] == "a"  # four times
    assert set(found[0][1:4]) == {"red", "barn", "dog"}  # twice
    assert len(set(found[0])) == 5
    assert found[0] == found[1] == found[2]


def test_the_most_frequent_words_after_a_word(guess: Any) -> None:
    task, guesser, named = guess
    read = task.collate(["a red barn beside a lake."])
    masked = torch.tensor([[True, False, True, True, False, True, False]])
    found = named(guesser.most_frequent_after(read.ids, masked))
    assert found[0][:2] == ["a", "the"]  # at the start twice and once
    assert found[1][0] == "barn"  # after red
    assert found[2][0] == "a"  # the word before is missing too
    assert found[3][0] == "red"  # after a, twice; once each: lake and dog
    assert set(found[3][1:3]) == {"lake", "dog"}
    assert all(len(set(row)) == 5 for row in found)


def test_a_vocabulary_of_one_word() -> None:
    task = make_task(["dog"])
    found = WordFrequencies(task.collate(["dog"])).most_frequent(torch.tensor([[True]]))
    assert found.tolist() == [[number(task, "dog"), -2, -2, -2, -2]]


# --- metrics ----------------------------------------------------------------------------------------------------


def test_recall_by_hand() -> None:
    recall = WordRecall()
    answers = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    recall.gaps += score_gaps(answers, torch.tensor([1, 5, 6, 1]), [CONTENT, CONTENT, "", ""], ["a", "a", "b", "c"])
    found = by_key(recall.metrics(3))
    values = {key.removeprefix("masked-3/"): metric.value for key, metric in found.items()}
    assert values == {"recall@1": 0.5, "recall@5": 0.75, "content/recall@1": 0.5, "content/recall@5": 1.0}
    assert found["masked-3/recall@1"].interval is not None
    assert found["masked-3/content/recall@1"].interval is None  # of one image


def measured(task: MaskedWordsTask, batches: list[list[int]], training: list[tuple[str, str]]) -> dict[str, Metric]:
    keys, features = ["x.png", "y.png", "z.png"], random_features(3)
    parts = [(features[part], [keys[row] for row in part], [CAPTIONS[row] for row in part]) for part in batches]
    return by_key(task.compute_metrics(iter(parts), training))


def test_the_batch_does_not_change_the_masks() -> None:
    task = make_task()
    training = list(zip("abc", CAPTIONS, strict=True))
    first = measured(task, [[0, 1, 2]], training)
    assert measured(task, [[2], [0, 1]], training) == first
    assert len(first) == 3 * 2 * 4  # of the task and two without looking, one and three words, two recalls, two kinds


def test_the_masks_depend_on_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    masks = with_logits(task, monkeypatch, {})
    task.compute_metrics([(random_features(8), [*"abcdefgh"], [CAPTIONS[0]] * 8)], [])
    assert len({str(row.tolist()) for row in masks[0]}) > 1


def test_metrics_of_a_task_that_knows_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    masks = with_logits(task, monkeypatch, {"a": 1.0})
    values = {key: metric.value for key, metric in measured(task, [[0, 1, 2]], []).items()}
    assert set(values) == {f"masked-{n}/{kind}recall@{k}" for n in (1, 3) for kind in ("", "content/") for k in (1, 5)}
    assert [masked.sum(1).tolist() for masked in masks] == [[1, 1, 1], [3, 3, 3]]
    truth = task.collate(CAPTIONS).ids
    right = [float((truth[masked] == number(task, "a")).double().mean()) for masked in masks]
    assert [values["masked-1/recall@1"], values["masked-3/recall@1"]] == pytest.approx(right)
    assert values["masked-3/content/recall@1"] == 0


def test_baselines_of_word_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    masks = with_logits(task, monkeypatch, {})
    found = measured(task, [[0, 1, 2]], list(zip("abc", CAPTIONS, strict=True)))
    truth = task.collate(CAPTIONS).ids
    right = float((truth[masks[1]] == number(task, "a")).double().mean())
    assert found["constant/masked-3/recall@1"].value == pytest.approx(right)
    assert found["constant/previous/masked-3/recall@1"].value > right


def test_punctuation_is_never_predicted_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    with_logits(task, monkeypatch, {".": 9.0, ",": 9.0, "!": 9.0, "a": 1.0, "dog": 0.5})
    values = {key: metric.value for key, metric in measured(task, [[0, 1, 2]], []).items()}
    with_logits(task, monkeypatch, {"a": 1.0, "dog": 0.5})
    assert {key: metric.value for key, metric in measured(task, [[0, 1, 2]], []).items()} == values
