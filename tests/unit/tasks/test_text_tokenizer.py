"""The text tokenizer: learned words, and the BPE of a pretrained model."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gpt2 import write_gpt2

from tavq.core.errors import FileError, UsageError
from tavq.nets.language import LanguageConfig
from tavq.tasks.text_tokenizer import END, FILE, PAD, UNKNOWN, TextTokenizer

TEXTS = ["A red barn beside a lake.", "The dog's ice-cream, (a barn)!"]


@pytest.fixture(scope="module")
def words() -> TextTokenizer:
    return TextTokenizer.train(TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(scope="module")
def pieces(folder: Path) -> TextTokenizer:
    return TextTokenizer.from_pretrained(folder)


def test_the_most_frequent_words_come_first_after_the_three_special_ones(words: TextTokenizer) -> None:
    assert (words.pad_id, words.end_id, words.unknown_id) == (0, 1, 2)
    assert words.suppressed_ids == [0, 2]
    assert words.encode(["a barn", "A BARN"]) == [[3, 4], [3, 4]]  # a three times, barn twice, all else once
    distinct = {"a", "red", "barn", "beside", "lake", ".", "the", "dog's", "ice-cream", ",", "(", ")", "!"}
    assert words.size == 3 + len(distinct)


def test_training_is_deterministic_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    again = TextTokenizer.train(TEXTS)
    assert again.encode(TEXTS) == TextTokenizer.train(TEXTS).encode(TEXTS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["a red barn beside a lake.", "the dog's ice-cream, (a barn)!", "a barn! a lake."])
def test_decoding_restores_spaces(words: TextTokenizer, text: str) -> None:
    assert words.decode(words.encode([text])[0]) == text


def test_decoding_stops_at_the_end_token(words: TextTokenizer) -> None:
    ids = words.encode(["a red barn"])[0]
    assert words.decode([*ids, words.end_id, *ids]) == "a red barn"
    assert words.decode([words.end_id]) == words.decode([]) == ""


@pytest.mark.parametrize("mark", [END, PAD, UNKNOWN, "<|endoftext|>"])
def test_special_tokens_in_a_text_are_plain_words(words: TextTokenizer, pieces: TextTokenizer, mark: str) -> None:
    [ids] = words.encode([f"a {mark} barn"])
    assert not {words.end_id, words.pad_id} & set(ids)
    [ids] = pieces.encode([f"a {mark} barn"])
    assert pieces.end_id not in ids
    assert pieces.decode(ids) == f"a {mark} barn"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_encoded(text: str) -> None:
    known = _shared()
    for number in known.encode([text])[0]:
        assert 0 <= number < known.size
        assert number not in (known.end_id, known.pad_id)
    try:
        strange = known.find_unknown_words("question", text)
    except UsageError:
        return
    assert all(word and word in unicodedata.normalize("NFC", text) for word in strange)


_kept: list[TextTokenizer] = []


def _shared() -> TextTokenizer:
    if not _kept:
        _kept.append(TextTokenizer.train(TEXTS))
    return _kept[0]


# --- unknown words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a red zebra, a zebra beside an OKAPI!", ["zebra", "an", "OKAPI"]),
        ("a \ufb01sh", ["\ufb01sh"]),  # the ligature fi, which NFKC writes as two letters
        ("a cafe\u0301 barn", ["caf\u00e9"]),  # an accent of its own
        ("\uff21 \uff42arn \u00bd lake", ["\u00bd"]),  # wide letters are the plain ones; a half becomes three pieces
        ("a red barn?", []),
    ],
)
def test_unknown_words_are_found_once_as_spelled(words: TextTokenizer, text: str, found: list[str]) -> None:
    assert words.find_unknown_words("question", text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "The question is empty"), (" \n", "is empty"), ("zebra", "has no word that"), ("?!", "has no word that")],
)
def test_a_text_without_a_known_word_is_refused(words: TextTokenizer, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        words.find_unknown_words("question", text)


def test_truncation_is_reported(words: TextTokenizer) -> None:
    assert words.check_text("question", "a red barn?", 4) == []
    assert words.check_text("question", "a red zebra?", 3) == [
        "The model does not know the word 'zebra'.",
        "The question has 4 words and marks; the model reads the first 3.",
    ]
    with pytest.raises(UsageError, match="has no word that"):
        words.check_text("question", "zebra zebra a red barn", 2)


# --- a pretrained model's BPE -----------------------------------------------------------------------------------


def test_bpe_restores_any_text_with_its_spaces(pieces: TextTokenizer) -> None:
    text = "A red barn, na\u00efve zebras \U0001f993 beside \u6e56!"
    [ids] = pieces.encode([text])
    assert pieces.decode(ids) == text
    assert pieces.encode([" barn"]) != pieces.encode(["barn"])
    assert pieces.decode(pieces.encode([" A red  barn "])[0]) == "A red barn"
    assert pieces.suppressed_ids == []
    assert pieces.pad_id == pieces.end_id
    assert pieces.find_unknown_words("question", "any zebra") == []


def test_truncation_and_padding_of_a_folder_are_ignored(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    stored = json.loads((copy / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 40},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (copy / "tokenizer.json").write_text(json.dumps(stored))
    text = "A red barn beside a lake."
    assert TextTokenizer.from_pretrained(copy).encode([text, "A"]) == TextTokenizer.from_pretrained(folder).encode(
        [text, "A"]
    )


def test_the_tokenizer_of_a_language_model(folder: Path, pieces: TextTokenizer, words: TextTokenizer) -> None:
    assert TextTokenizer.for_language_model(LanguageConfig(), iter(TEXTS)).encode(TEXTS) == words.encode(TEXTS)
    assert TextTokenizer.for_language_model(LanguageConfig(pretrained=str(folder)), TEXTS).encode(
        TEXTS
    ) == pieces.encode(TEXTS)


def _without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _renamed_end(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace("<|endoftext|>", "</s>"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: _without(folder, "tokenizer.json"),
            "holds no tokenizer; expected one of: tokenizer.json, vocab",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "holds no readable tokenizer"),
        (_renamed_end, "no end-of-text token"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_refused(
    folder: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy)
    with pytest.raises(FileError, match=message):
        TextTokenizer.from_pretrained(copy)


# --- files ------------------------------------------------------------------------------------------------------


def test_saving_and_loading(words: TextTokenizer, pieces: TextTokenizer, tmp_path: Path) -> None:
    for made in (words, pieces):
        made.save(tmp_path)
        found = TextTokenizer.load(tmp_path, made.size)
        text = "a red <end> barn's lake, <|endoftext|> 1"
        assert found.encode([text]) == made.encode([text])
        assert (found.size, found.end_id, found.pad_id, found.suppressed_ids) == (
            made.size,
            made.end_id,
            made.pad_id,
            made.suppressed_ids,
        )
        assert found.decode(found.encode([TEXTS[1]])[0]) == made.decode(made.encode([TEXTS[1]])[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"{}", "damaged"),
        (b"[1, 2]", "damaged"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {}}}', "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(FileError, match=message):
        TextTokenizer.load(tmp_path, 16)


def test_a_missing_file_and_a_wrong_vocabulary_are_refused(words: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"words\.json"):
        TextTokenizer.load(tmp_path, 16)
    words.save(tmp_path)
    with pytest.raises(FileError, match=f"has {words.size} words and the model was trained with 9"):
        TextTokenizer.load(tmp_path, 9)
    stored = json.loads((tmp_path / FILE).read_text())
    stored["model"]["vocab"]["barn"] = 10**9  # a hole up to it
    (tmp_path / FILE).write_text(json.dumps(stored))
    with pytest.raises(FileError, match="1,000,000,001 words"):
        TextTokenizer.load(tmp_path, words.size)
