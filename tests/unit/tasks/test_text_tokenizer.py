"""Text as numbers: words of their own, and the pieces of a pretrained model."""

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
    return TextTokenizer.learned(TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(scope="module")
def pieces(folder: Path) -> TextTokenizer:
    return TextTokenizer.pretrained(folder)


def test_the_most_frequent_words_come_first_after_the_three_special_ones(words: TextTokenizer) -> None:
    assert (words.pad, words.end, words.unknown) == (0, 1, 2)
    assert words.unwritten == [0, 2]
    assert words.ids(["a barn", "A BARN"]) == [[3, 4], [3, 4]]  # a three times, barn twice, all else once
    distinct = {"a", "red", "barn", "beside", "lake", ".", "the", "dog's", "ice-cream", ",", "(", ")", "!"}
    assert words.size == 3 + len(distinct)


def test_words_are_learned_alike_each_time_and_silently(capfd: pytest.CaptureFixture[str]) -> None:
    again = TextTokenizer.learned(TEXTS)
    assert again.ids(TEXTS) == TextTokenizer.learned(TEXTS).ids(TEXTS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["a red barn beside a lake.", "the dog's ice-cream, (a barn)!", "a barn! a lake."])
def test_a_text_of_known_words_comes_back_with_its_spaces(words: TextTokenizer, text: str) -> None:
    assert words.text(words.ids([text])[0]) == text


def test_a_text_ends_at_its_end(words: TextTokenizer) -> None:
    ids = words.ids(["a red barn"])[0]
    assert words.text([*ids, words.end, *ids]) == "a red barn"
    assert words.text([words.end]) == words.text([]) == ""


@pytest.mark.parametrize("mark", [END, PAD, UNKNOWN, "<|endoftext|>"])
def test_a_caption_cannot_write_the_special_words(words: TextTokenizer, pieces: TextTokenizer, mark: str) -> None:
    [ids] = words.ids([f"a {mark} barn"])
    assert not {words.end, words.pad} & set(ids)
    [ids] = pieces.ids([f"a {mark} barn"])
    assert pieces.end not in ids
    assert pieces.text(ids) == f"a {mark} barn"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read(text: str) -> None:
    known = _shared()
    for number in known.ids([text])[0]:
        assert 0 <= number < known.size
        assert number not in (known.end, known.pad)
    try:
        strange = known.strange("question", text)
    except UsageError:
        return
    assert all(word and word in unicodedata.normalize("NFC", text) for word in strange)


_kept: list[TextTokenizer] = []


def _shared() -> TextTokenizer:
    if not _kept:
        _kept.append(TextTokenizer.learned(TEXTS))
    return _kept[0]


# --- words that are not known -----------------------------------------------------------------------------------


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
def test_strange_words_are_told_once_as_they_are_written(words: TextTokenizer, text: str, found: list[str]) -> None:
    assert words.strange("question", text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "The question is empty"), (" \n", "is empty"), ("zebra", "has no word that"), ("?!", "has no word that")],
)
def test_a_text_without_a_known_word_is_refused(words: TextTokenizer, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        words.strange("question", text)


def test_what_is_cut_off_is_told(words: TextTokenizer) -> None:
    assert words.check_text("question", "a red barn?", 4) == []
    assert words.check_text("question", "a red zebra?", 3) == [
        "The model does not know the word 'zebra'.",
        "The question has 4 words and marks; the model reads the first 3.",
    ]
    with pytest.raises(UsageError, match="has no word that"):
        words.check_text("question", "zebra zebra a red barn", 2)


# --- a pretrained model's pieces --------------------------------------------------------------------------------


def test_pieces_give_any_text_back_and_carry_their_spaces(pieces: TextTokenizer) -> None:
    text = "A red barn, na\u00efve zebras \U0001f993 beside \u6e56!"
    [ids] = pieces.ids([text])
    assert pieces.text(ids) == text
    assert pieces.ids([" barn"]) != pieces.ids(["barn"])
    assert pieces.text(pieces.ids([" A red  barn "])[0]) == "A red barn"
    assert pieces.unwritten == []
    assert pieces.pad == pieces.end
    assert pieces.strange("question", "any zebra") == []


def test_what_a_folder_says_of_cutting_and_filling_up_is_not_taken(folder: Path, tmp_path: Path) -> None:
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
    assert TextTokenizer.pretrained(copy).ids([text, "A"]) == TextTokenizer.pretrained(folder).ids([text, "A"])


def test_those_of_a_model_or_of_the_texts(folder: Path, pieces: TextTokenizer, words: TextTokenizer) -> None:
    assert TextTokenizer.for_model(LanguageConfig(), iter(TEXTS)).ids(TEXTS) == words.ids(TEXTS)
    assert TextTokenizer.for_model(LanguageConfig(pretrained=str(folder)), TEXTS).ids(TEXTS) == pieces.ids(TEXTS)


def _without(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _renamed_end(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace("<|endoftext|>", "</s>"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _without(folder, "tokenizer.json"), "holds no tokenizer: neither tokenizer.json nor vocab"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "holds no tokenizer that can be read"),
        (_renamed_end, "no token that ends a text"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_is_refused(
    folder: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy)
    with pytest.raises(FileError, match=message):
        TextTokenizer.pretrained(copy)


# --- files ------------------------------------------------------------------------------------------------------


def test_words_and_pieces_are_read_as_they_were_written(
    words: TextTokenizer, pieces: TextTokenizer, tmp_path: Path
) -> None:
    for made in (words, pieces):
        made.write(tmp_path)
        found = TextTokenizer.read(tmp_path, made.size)
        text = "a red <end> barn's lake, <|endoftext|> 1"
        assert found.ids([text]) == made.ids([text])
        assert (found.size, found.end, found.pad, found.unwritten) == (made.size, made.end, made.pad, made.unwritten)
        assert found.text(found.ids([TEXTS[1]])[0]) == made.text(made.ids([TEXTS[1]])[0])


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
        TextTokenizer.read(tmp_path)


def test_a_missing_file_and_one_of_another_model_are_refused(words: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"words\.json"):
        TextTokenizer.read(tmp_path)
    words.write(tmp_path)
    with pytest.raises(FileError, match=f"has {words.size} words, and the model knows 9"):
        TextTokenizer.read(tmp_path, 9)
    stored = json.loads((tmp_path / FILE).read_text())
    stored["model"]["vocab"]["barn"] = 10**9  # a hole up to it
    (tmp_path / FILE).write_text(json.dumps(stored))
    with pytest.raises(FileError, match="1,000,000,001 words"):
        TextTokenizer.read(tmp_path, words.size)
