"""Phrases by a frozen encoder: its token vectors, its cache, and the refusal of another encoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bert import write_bert

from tavq.core.errors import FileError, UsageError
from tavq.tasks.phrase_encoders import FrozenPhraseEncoder, LearnedPhraseEncoder
from tavq.text.encoders import TextEncoder, load_encoder

PHRASES = ["a red car", "the dog", "a red car", "soup"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "bert")


def make_encoder(folder: Path, max_length: int = 8) -> FrozenPhraseEncoder:
    return FrozenPhraseEncoder(str(folder), load_encoder(folder).record, max_length, 6)


def test_inputs_are_last_hidden_states_without_special_tokens(folder: Path) -> None:
    table, mask = make_encoder(folder).collate(PHRASES)
    assert table.shape == (4, 3, 8)
    assert mask.tolist() == [[True] * 3, [True, True, False], [True] * 3, [True, False, False]]
    encoder = load_encoder(folder)
    ids = torch.tensor([encoder.tokenizer("the dog")["input_ids"]])
    with torch.no_grad():
        expected = encoder.model(input_ids=ids).last_hidden_state[0, 1:-1]
    torch.testing.assert_close(table[1, :2], expected, rtol=1e-5, atol=1e-6)
    assert (table[1, 2] == 0).all()
    assert torch.equal(table[0], table[2])


def test_each_phrase_is_encoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phrases = make_encoder(folder)
    asked: list[int] = []
    whole = TextEncoder.encode_tokens

    def counted(self: Any, tokens: Any) -> Any:
        asked.append(len(tokens))
        return whole(self, tokens)

    monkeypatch.setattr(TextEncoder, "encode_tokens", counted)
    phrases.prepare(PHRASES)
    phrases.collate(PHRASES)
    phrases.collate(["the dog", "a blue car"])
    assert asked == [3, 1]


def test_a_long_phrase_is_truncated(folder: Path) -> None:
    table, mask = make_encoder(folder, max_length=2).collate(["a red car . a red dog"])
    assert table.shape == (1, 2, 8)
    assert mask.all()


def test_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    record = load_encoder(folder).record
    other = write_bert(tmp_path / "other/bert", seed=1)  # of the same name and width
    with pytest.raises(UsageError, match=r"trained with the text encoder 'bert' \(weights .* is 'bert' \(weights"):
        FrozenPhraseEncoder(str(other), record, 8, 6).collate(["a car"])
    with pytest.raises(UsageError, match=r"no text encoder folder"):
        FrozenPhraseEncoder(str(tmp_path / "gone/bert"), record, 8, 6).collate(["a car"])


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("  ", r"phrase is empty"),
        ("...", r"'...' holds no word"),
        ("красный дом", r"'красный дом' is in a script .* 'bert' does not know"),
    ],
)
def test_a_phrase_without_a_known_word_is_refused(phrase: str, message: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=message):
        make_encoder(folder).check_text(phrase)


def test_warnings_about_a_phrase(folder: Path) -> None:
    assert make_encoder(folder).check_text("a red car") == []
    unknown = "The model does not know the word '\u8c37\u4ed3'."
    assert make_encoder(folder).check_text("a red car a red car \u8c37\u4ed3")[:1] == [unknown]
    assert make_encoder(folder, max_length=3).check_text("a red car a") == [
        "The phrase has 4 words and marks; the model reads the first 3."
    ]


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    phrases = LearnedPhraseEncoder(5, 8, 4)
    phrases.prepare(["the dog"])
    phrases.write_files(tmp_path)
    phrases.read_files(tmp_path)
    with pytest.raises(FileError, match=r"words.json has 5 words and the model was trained with 6"):
        LearnedPhraseEncoder(6, 8, 4).read_files(tmp_path)
