"""Typed sentences become what a text store gives, or one line says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import torch
from tiny_bert import write_bert

from tavq.core.errors import FileError, UsageError
from tavq.data.texts import collate_text
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED
from tavq.tasks.prompts import MAX_CHARACTERS, PromptEncoder
from tavq.text.building import build_store
from tavq.text.encoders import load_encoder
from tavq.text.store import TextStore

WORDS = f"{tiny_bert.WORDS} z ##x ##q ##v lake by и ##в"
TEXTS = {"1.png": "A red car by a lake. The car of the dog.", "2.png": "A blue bowl of soup, and red cats."}


def bert(folder: Path, seed: int) -> Path:
    """One that also reads pieces of words and one letter of another script."""
    return write_bert(folder, seed, WORDS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("models") / "tiny-bert", 0)


@pytest.fixture(scope="module")
def store(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TextStore]:
    made: dict[str, TextStore] = {}

    def of(**how: bool) -> TextStore:
        name = "-".join(how) or "plain"
        if name not in made:
            out = tmp_path_factory.mktemp("stores") / name
            made[name] = build_store(TEXTS, load_encoder(encoder), "pattern", out, **how)
        return made[name]

    return of


def facts(store: TextStore) -> dict[str, Any]:
    """As a task's model folder has them."""
    return {"step": 3, "text": store.manifest.model_dump(mode="json")}


@pytest.fixture(scope="module")
def prompter(store: Callable[..., TextStore], encoder: Path) -> PromptEncoder:
    return PromptEncoder(facts(store()), encoder)


@pytest.mark.parametrize(
    "how", [{}, {"full_text": True}, {"full_text": True, "float16": True}], ids=["units", "full_text", "float16"]
)
def test_a_prompt_is_encoded_as_in_the_text_store(
    store: Callable[..., TextStore], encoder: Path, how: dict[str, bool]
) -> None:
    source = store(**how)
    encoded = PromptEncoder(facts(source), encoder)([*TEXTS.values()])
    tables = (*GRANULARITIES, FULL_TEXT, POOLED) if how else GRANULARITIES
    expected = collate_text(source, [*TEXTS], tables)
    for name in (*GRANULARITIES, FULL_TEXT):
        found, wanted = encoded.features[name], expected[name]
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            assert torch.equal(found.mask, wanted.mask)
            tolerance = 2e-3 if "float16" in how else 1e-6
            torch.testing.assert_close(found.vectors, wanted.vectors, atol=tolerance, rtol=tolerance)
            if "float16" in how:
                assert torch.equal(found.vectors, found.vectors.half().float())
    assert (encoded.features.pooled is None) == (not how)
    assert encoded.notes == ()


def test_captions_of_several_lengths_are_padded(prompter: PromptEncoder) -> None:
    encoded = prompter(["a red car", "a blue bowl, a red car and a cat by the lake"])
    assert encoded.features.words.mask.sum(1).tolist() == [2, 6]
    alone = prompter(["a red car"])
    torch.testing.assert_close(encoded.features.words.vectors[:1, :2], alone.features.words.vectors)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("", "Caption 2 is empty; say what the image should show."),
        (" \n\u200b", "Caption 2 is empty; say what the image should show."),
        ("?!", "Caption 2 '?!' contains no word or number; say what the image should show."),
        (
            "湖边的红色谷仓",
            "Caption 2 '湖边的红色谷仓' is in a script that the text encoder 'tiny-bert' does not read: 7 of its 7 "
            "tokens are unknown. Write it in the language of the model's texts.",
        ),
    ],
)
def test_captions_without_words_are_refused(prompter: PromptEncoder, caption: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        prompter(["a red car", caption])
    assert str(caught.value) == message


def test_no_caption_is_refused(prompter: PromptEncoder) -> None:
    with pytest.raises(UsageError, match="No caption was given; say what the image should show"):
        prompter([])


def test_a_caption_of_ten_thousand_words_is_truncated_with_a_note(prompter: PromptEncoder) -> None:
    encoded = prompter(["A red car by a lake. " * 2000])
    cut = "Caption 1 has 42,000 characters; only the first 4,999 are read."
    assert encoded.notes == (cut,)
    assert encoded.features.words.mask.sum() == 3
    assert len(max(encoded.notes, key=len)) < MAX_CHARACTERS


def test_a_sentence_too_long_for_the_encoder_gives_a_note(prompter: PromptEncoder) -> None:
    encoded = prompter(["a red car by " * 6])
    assert encoded.notes == ("Caption 1: a sentence has 24 tokens; the text encoder reads it in parts of 14.",)


def test_unknown_words_give_a_note(prompter: PromptEncoder) -> None:
    encoded = prompter(["a red zxqv by a lake", "a red car", "a red иввв by a lake"])
    assert encoded.notes == (
        "Caption 1: the text encoder does not know these words and only spells them: zxqv.",
        "Caption 3: the text encoder does not know these words and only spells them: иввв.",
    )
    assert encoded.features.words.mask.sum(1).tolist() == [3, 2, 3]


def test_a_caption_of_made_up_words_only_gives_a_note(prompter: PromptEncoder) -> None:
    note = "Caption 1: the text encoder knows none of its words, so it may have little effect."
    assert note in prompter(["zxqv zxqv"]).notes
    assert note not in prompter(["zxqv car"]).notes


def test_another_encoder_is_refused(store: Callable[..., TextStore], encoder: Path, tmp_path: Path) -> None:
    other = bert(tmp_path / "tiny-bert", 1)
    with pytest.raises(UsageError, match=r"reads text by the encoder 'tiny-bert' \(weights .{12}…\), but '.*' is "
                       r"'tiny-bert' \(weights .{12}…\); give the model's own"):  # fmt: skip
        PromptEncoder(facts(store()), other)
    renamed = tmp_path / "renamed"
    renamed.symlink_to(encoder)
    PromptEncoder(facts(store()), renamed)  # a link is known by the folder's own name
    copied = bert(tmp_path / "other-name", 0)
    with pytest.raises(UsageError, match=r"is 'other-name' \(weights"):
        PromptEncoder(facts(store()), copied)


def test_an_encoder_in_a_folder_must_be_given(store: Callable[..., TextStore]) -> None:
    made = facts(store())
    made["text"]["encoder"]["name"] = "../tiny-bert"
    with pytest.raises(UsageError, match=r"text encoder '\.\./tiny-bert' of this model was not found; give its folder"):
        PromptEncoder(made)


def test_a_splitter_of_another_version_gives_a_note(store: Callable[..., TextStore], encoder: Path) -> None:
    made = facts(store())
    made["text"]["splitter"]["version"] = "0"
    encoded = PromptEncoder(made, encoder)(["a red car"])
    assert len(encoded.notes) == 1
    assert encoded.notes[0].startswith("The model's texts were split by 'pattern' version 0, yours by version ")
    made["text"]["splitter"]["name"] = "patern"
    with pytest.raises(UsageError, match="Unknown splitter 'patern'"):
        PromptEncoder(made, encoder)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, UsageError, "trained without a text store, so it cannot read a caption"),
        ("minilm", FileError, "does not say which text encoder"),
        ({"splitter": {}}, FileError, "does not say which text encoder"),
        ({"encoder": {"name": "x"}}, UsageError, "The model's text encoder: The setting 'sha256' is missing"),
    ],
)
def test_metadata_without_an_encoder(text: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PromptEncoder({"text": text})
