"""GPT-2 with an image prefix: sizes, pretrained weights, and generation."""

import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gpt2 import write_gpt2
from torch import Tensor

from tavq.core.errors import FileError, TavqError, UsageError
from tavq.core.files import read_tensors, write_tensors
from tavq.nets.language import DecodingConfig, LanguageConfig, LanguageModel, pad_sequences

SMALL = LanguageConfig(layers=2, heads=2, width=16, dropout=0.0)
END = 1
GREEDY = DecodingConfig(beams=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def make_model(seed: int = 0, vocabulary: int = 11, positions: int = 24) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(SMALL.resolve(vocabulary, positions)).eval().requires_grad_(False)
    with torch.no_grad():  # fresh weights say one word for ever
        for parameter in model.parameters():
            parameter.mul_(6)
    return model


def random_prefix(count: int = 3, length: int = 4, seed: int = 5) -> Tensor:
    return torch.randn(count, length, 16, generator=torch.Generator().manual_seed(seed))


# --- forward ----------------------------------------------------------------------------------------------------


def test_attention_is_causal_and_ignores_padding() -> None:
    model, embeddings = make_model(), random_prefix(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    found = model(embeddings, mask)
    later = embeddings.clone()
    later[:, 4:] = random_prefix(2, 2, seed=6)
    assert torch.equal(model(later, mask)[:, :4], found[:, :4])
    torch.testing.assert_close(model(embeddings[1:, :4], mask[1:, :4]), found[1:, :4])
    assert not torch.allclose(model(later, mask)[0, 4:], found[0, 4:])


def test_the_head_is_tied_to_the_embedding_and_saved_once() -> None:
    model = make_model()
    state = model.state_dict()
    assert not any("lm_head" in key for key in state)
    with torch.device("meta"):
        other = LanguageModel(model.config)
    other.load_state_dict(state, assign=True)
    assert other.gpt.lm_head.weight is other.gpt.transformer.wte.weight
    embeddings = random_prefix()
    everything = torch.ones(3, 4, dtype=torch.bool)
    expected = model(embeddings, everything) @ model.gpt.transformer.wte.weight.T
    torch.testing.assert_close(other.logits(other.eval()(embeddings, everything)), expected)


def test_logits_are_float32_under_autocast() -> None:
    model = make_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        read = model(random_prefix(), torch.ones(3, 4, dtype=torch.bool))
        logits = model.logits(read)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_sequences_are_padded() -> None:
    table, mask = pad_sequences([[5, 6, 7], [], [8]], 9)
    assert table.tolist() == [[5, 6, 7], [9, 9, 9], [8, 9, 9]]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert pad_sequences([[]], 9)[0].shape == (1, 1)


# --- generation -------------------------------------------------------------------------------------------------


def by_hand(model: LanguageModel, start: Tensor, max_length: int, never: set[int]) -> list[int]:
    """The likeliest word each time, everything read anew for each."""
    words: list[int] = []
    while len(words) < max_length:
        embeddings = torch.cat([start, model.embed(torch.tensor([words], dtype=torch.long))], dim=1)
        read = model(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))
        logits = model.logits(read[0, -1])
        barred = never | ({END} if not words else set())
        best = max((n for n in range(len(logits)) if n not in barred), key=lambda n: float(logits[n]))
        if best == END:
            break
        words.append(best)
    return words


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy_decoding(seed: int) -> None:
    model, start = make_model(seed), random_prefix(seed=seed + 20)
    found = model.generate(start, GREEDY, END, [0, 2], 9)
    expected = [by_hand(model, start[place : place + 1], 9, {0, 2}) for place in range(3)]
    assert [texts[0] for texts in found] == expected
    assert len({tuple(text) for text in expected}) > 1


def test_the_greedy_cases_have_short_and_long_texts() -> None:
    """Else the test above would not see an end."""
    found = [
        by_hand(make_model(seed), random_prefix(seed=seed + 20)[i : i + 1], 9, {0, 2})
        for seed in range(4)
        for i in range(3)
    ]
    lengths = {len(text) for text in found}
    assert 9 in lengths
    assert len(lengths) > 1


def likelihood(model: LanguageModel, start: Tensor, words: list[int]) -> float:
    """The mean log-probability of the words, the end among them."""
    embeddings = torch.cat([start, model.embed(torch.tensor([words[:-1]], dtype=torch.long))], dim=1)
    read = model(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))[0, start.shape[1] - 1 :]
    shares = model.logits(read).log_softmax(dim=1)
    return float(shares[torch.arange(len(words)), torch.tensor(words)].sum()) / len(words)


def every_text(vocabulary: int, max_length: int) -> Iterator[list[int]]:
    def grow(words: list[int]) -> Iterator[list[int]]:
        if len(words) == max_length or (words and words[-1] == END):
            yield words
            return
        for word in range(vocabulary):
            if word != END or words:
                yield from grow([*words, word])

    return grow([])


@pytest.mark.parametrize("seed", [2, 3, 6])
def test_a_wide_beam_finds_the_most_likely_texts(seed: int) -> None:
    model, start = make_model(seed, vocabulary=4), random_prefix(1)
    texts = sorted(every_text(4, 3), key=lambda text: -likelihood(model, start, text))
    [found] = model.generate(start, DecodingConfig(beams=64), END, [], 3, count=4)
    assert found == [[word for word in text if word != END] for text in texts[:4]]
    assert len({len(text) for text in found}) > 1


def test_words_are_sampled_by_their_probability() -> None:
    model, start = make_model(3, vocabulary=6), random_prefix(1) / 4
    config = DecodingConfig(beams=1, temperature=2.0)
    first = [text[0] for text in model.generate(start, config, END, [0], 1, count=4000)[0]]
    logits = model.logits(model(start, torch.ones(1, 4, dtype=torch.bool))[0, -1]) / 2
    logits[[0, END]] = -math.inf
    shares = logits.softmax(dim=0)
    for word in range(6):
        assert first.count(word) / 4000 == pytest.approx(float(shares[word]), abs=0.03)
    assert sum(share > 0.02 for share in shares.tolist()) > 2


@pytest.mark.parametrize(("settings", "most"), [({"top_k": 2}, 2), ({"top_p": 1e-6}, 1), ({}, 99)])
def test_top_k_and_top_p(settings: dict[str, Any], most: int) -> None:
    model = make_model(3, vocabulary=70)  # more than the 50 that transformers stops at by itself
    config = DecodingConfig(beams=1, temperature=100.0, **settings)
    first = {text[0] for text in model.generate(random_prefix(1), config, END, [], 1, count=2000)[0]}
    assert len(first) == (69 if most == 99 else most)


def test_a_seed_fixes_the_samples_and_no_other_generator() -> None:
    model, config = make_model(), DecodingConfig(beams=1, temperature=1.0)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    found = [
        model.generate(random_prefix(), config, END, [], 9, count=2, seeds=[[seed, place] for place in range(3)])
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] != found[2]
    assert [len(texts) for texts in found[0]] == [2, 2, 2]


def test_the_batch_does_not_change_a_sample() -> None:
    model, config = make_model(), DecodingConfig(beams=1, temperature=1.0)
    together = model.generate(random_prefix(), config, END, [], 9, count=3, seeds=[[5], [6], [7]])
    alone = [
        model.generate(random_prefix()[[place]], config, END, [], 9, count=3, seeds=[[5 + place]])[0]
        for place in range(3)
    ]
    assert together == alone
    same = model.generate(
        random_prefix(1).expand(2, -1, -1), config, END, [], 9, count=2
    )  # one image twice: draws of its places
    assert same[0] != same[1]
    assert same[0][0] != same[0][1]


def test_generating_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for config in (DecodingConfig(), DecodingConfig(beams=1, temperature=0.5, top_p=0.9, top_k=3), GREEDY):
            make_model().generate(random_prefix(), config, END, [0, 2], 5)
    assert capfd.readouterr() == ("", "")


def test_more_texts_than_beams_are_refused() -> None:
    with pytest.raises(UsageError, match="3 texts per image need a beam width of at least 3, not 2"):
        make_model().generate(random_prefix(), DecodingConfig(beams=2), END, [], 5, count=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 1.0}, "sampling .temperature 1.0. or beam search .beams 5."),
        ({"top_p": 0.5}, "give a temperature above 0"),
        ({"top_k": 5, "beams": 1}, "give a temperature above 0"),
        ({"beams": 65}, "less than or equal to 64"),
        ({"temperature": 1.0, "beams": 1, "top_p": 1.5}, "less than or equal to 1"),
    ],
)
def test_contradicting_decoding_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingConfig(**settings)


# --- a pretrained model -----------------------------------------------------------------------------------------


def test_a_pretrained_model_computes_the_same(folder: Path) -> None:
    from transformers import GPT2LMHeadModel

    config = LanguageConfig(pretrained=str(folder), dropout=0.0).resolve(300, 40)
    assert (config.layers, config.heads, config.width, config.positions) == (1, 2, 16, 48)
    torch.manual_seed(9)
    model = LanguageModel(config).eval()
    model.load_pretrained()
    other = GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 200, 7]])
    read = model(model.embed(ids), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(model.logits(read), other(ids).logits)


def edited(folder: Path, place: Path, **settings: Any) -> LanguageConfig:
    copy = shutil.copytree(folder, place)
    stored = json.loads((copy / "config.json").read_text()) | settings
    stored = {key: value for key, value in stored.items() if value != "gone"}
    (copy / "config.json").write_text(json.dumps(stored))
    return LanguageConfig(pretrained=str(copy))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"model_type": "bert"}, UsageError, "has model_type 'bert'; expected 'gpt2'"),
        ({"model_type": "gone"}, UsageError, "has model_type None"),
        ({"activation_function": "relu"}, UsageError, "has activation_function 'relu'; a GPT-2 with 'gelu_new'"),
        ({"n_inner": 32}, UsageError, "has n_inner 32"),
        ({"n_inner": 64, "tie_word_embeddings": False}, UsageError, "has tie_word_embeddings False"),
        ({"scale_attn_by_inverse_layer_idx": True}, UsageError, "has scale_attn_by_inverse_layer_idx True"),
        ({"layer_norm_epsilon": 1e-6}, UsageError, "has layer_norm_epsilon 1e-06"),
        ({"n_embd": "gone"}, FileError, "lacks 'n_embd', a whole number"),
        ({"n_positions": "long"}, FileError, "lacks 'n_positions', a whole number"),
        ({"n_head": 3}, UsageError, "width 16 is not a multiple of 3 heads"),
        ({"n_layer": 10**6}, UsageError, "layers"),
        ({"n_positions": 39}, UsageError, "has 39 positions and the image and text need 40; choose a larger"),
        ({"vocab_size": 299}, FileError, "a tokenizer of 300 tokens and a model of 299; they do not belong"),
    ],
)
def test_an_unsupported_model_is_refused(
    folder: Path, tmp_path: Path, settings: dict[str, Any], kind: type[TavqError], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)) as error:
        edited(folder, tmp_path / "model", **settings).resolve(300, 40)
    assert "\n" not in str(error.value)


def test_an_explicit_inner_width_of_4c_is_a_gpt2(folder: Path, tmp_path: Path) -> None:
    assert edited(folder, tmp_path / "model", n_inner=64, n_positions="gone", n_ctx=40).resolve(300, 40).positions == 40


def _lacking(path: Path) -> None:
    weights = read_tensors(path)
    write_tensors(path, {key: value for key, value in weights.items() if "h.0.mlp" not in key}, {"format": "pt"})


def _other_sizes(path: Path) -> None:
    weights = read_tensors(path)
    key = next(key for key in weights if key.endswith("wpe.weight"))
    write_tensors(path, {**weights, key: torch.zeros(7, 16)}, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
        (_lacking, r"lacks 4 of its weights, for example transformer\.h\.0\.mlp"),
        (_other_sizes, "cannot be read"),
    ],
)
def test_damaged_weights_are_refused(folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy / "model.safetensors")
    model = LanguageModel(LanguageConfig(pretrained=str(copy)).resolve(300, 40))
    with pytest.raises(FileError, match=message) as error:
        model.load_pretrained()
    assert "\n" not in str(error.value)
