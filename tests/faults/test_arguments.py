"""Arguments as a shell may pass them: bytes that are not UTF-8, folders named like commands, mistyped folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bert import write_bert

from tavq.cli import search
from tavq.core import pretrained
from tavq.core.errors import UsageError
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.text.encoders import TextEncoder, load_encoder

BROKEN = ["\udcff", "a red \udcffhouse", "\ud800", "house " * 50 + "\udc80"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return load_encoder(write_bert(tmp_path_factory.mktemp("models") / "bert"))


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("call", ["encode_units", "encode_words", "tokenize"])
def test_a_text_encoder_names_bytes_that_are_no_text(encoder: TextEncoder, call: str, text: str) -> None:
    with pytest.raises(UsageError, match="holds bytes that are not UTF-8, first at character"):
        getattr(encoder, call)(["a house", text])


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize(
    "call",
    [
        lambda tokenizer, text: tokenizer.encode(["a house", text]),
        lambda tokenizer, text: tokenizer.find_unknown_words("question", text),
        lambda tokenizer, text: tokenizer.check_text("question", text, 8),
    ],
)
def test_a_text_tokenizer_names_bytes_that_are_no_text(call: Callable[..., Any], text: str) -> None:
    tokenizer = TextTokenizer.train(["a red house", "a blue tree"])
    with pytest.raises(UsageError, match="holds bytes that are not UTF-8, first at character"):
        call(tokenizer, text)
    assert call(tokenizer, "a red house") is not None


@pytest.mark.parametrize(
    ("folder", "argument"), [("index", "./index"), ("run/index", "run/index"), ("/index", "/index")]
)
def test_the_next_command_is_one_that_works(folder: str, argument: str) -> None:
    assert search._as_argument(Path(folder)) == argument


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("run/modle", "run/model"),
        ("rum/model", ""),
        ("run/other", ""),
        ("other/model", ""),
        ("gpt", ""),
        ("rnu", "run"),
    ],
)
def test_a_mistyped_folder_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"is not a folder.*download from the hub failed: no network") as caught:
        pretrained.download_from_hub(name, "model", ["*"])
    assert (f"did you mean {meant!r}?" in str(caught.value)) == bool(meant)
