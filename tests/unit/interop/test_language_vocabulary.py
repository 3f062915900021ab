"""A language model extended by image tokens: what it knew stays, and it trains on exported tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bert import write_bert
from tiny_gpt2 import write_gpt2

import tavq
from tavq.cli import run
from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.interop.language_vocabulary import embed_words, map_entries, rotate_onto_words, spread_rows
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1}
CODEBOOK = {"name": "learned", "entries": 16, "width": 4, "init": "normal"}
ALIGN = {"align": {"name": "ta", "word": 0.0, "phrase": 0.0}, "text_width": 6}
PROMPT = "There is a red barn."


def save_model(folder: Path, **settings: Any) -> Tokenizer:
    torch.manual_seed(0)
    defaults = {"net": NET, "codebook": CODEBOOK}
    model = Tokenizer(build(TokenizerConfig, {**defaults, **settings}, "test")).eval()
    model.save_pretrained(folder, metadata={"size": 16})
    return Tokenizer.from_pretrained(folder)


def write_language_model(folder: Path, kind: str) -> Path:
    """A GPT-2 with the head tied to the embedding and three unused rows, or a Llama with a head of its own."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_gpt2(folder, positions=64)
    if kind == "llama":
        size = len(AutoTokenizer.from_pretrained(folder))
        config = LlamaConfig(
            vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        (folder / "model.safetensors").unlink()
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def logits(model: Any, text: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**text(PROMPT, return_tensors="pt")).logits


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("aligned", [False, True])
def test_old_tokens_stay_and_new_ones_are_there(kind: str, aligned: bool, tmp_path: Path) -> None:
    ours = save_model(tmp_path / "model", **(ALIGN if aligned else {}))
    before, old_text = load(write_language_model(tmp_path / "lm", kind))
    out = tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "out")
    after, text = load(out)
    size = len(old_text)
    assert text(PROMPT).input_ids == old_text(PROMPT).input_ids
    assert torch.equal(logits(after, text)[..., :size], logits(before, old_text)[..., :size])
    ids = text("<image_begin><image_0><image_15><image_row><image_end>A barn.").input_ids
    assert ids == [size + 16, size, size + 15, size + 18, size + 17, *old_text("A barn.").input_ids]
    assert text.decode(ids, skip_special_tokens=True) == "<image_0><image_15>A barn."
    assert after.config.vocab_size == after.get_input_embeddings().num_embeddings == size + 19
    assert (after.get_output_embeddings().weight is after.get_input_embeddings().weight) == (kind == "gpt2")
    for weight in {after.get_input_embeddings().weight, after.get_output_embeddings().weight}:
        old, new = weight[:size].detach(), weight[size : size + 16].detach()
        deviations = [(rows - old.mean(0)).square().mean().sqrt() for rows in (old, new)]
        assert deviations[1] / deviations[0] == pytest.approx(1, abs=1e-4 if aligned else 0.2)
        if aligned:  # six dimensions of text fit into sixteen: all distances keep their proportions
            points = ours.aligner.embed_entries(ours.lookup_entries(), "sentences")  # type: ignore[union-attr]
            assert points is not None
            expected, found = torch.pdist(points), torch.pdist(new)
            assert torch.allclose(found / found.mean(), expected / expected.mean(), atol=1e-3)
    manifest = json.loads((out / "image_tokens.json").read_text())
    assert manifest["first_id"] == size
    assert ("sentences to the text encoder's space, turned at random" in manifest["begun"]) == aligned
    assert (manifest["begun"] == "at random") != aligned
    assert ("sentences" in (out / "README.md").read_text()) == aligned


def test_several_parts_and_rows_that_are_there_already(tmp_path: Path) -> None:
    """A codebook of two parts of 2; the embedding has seven unused rows for the seven new tokens."""
    codebook = {**CODEBOOK, "entries": 2, "parts": 2}
    save_model(tmp_path / "model", codebook=codebook, quantizer="residual")
    write_gpt2(tmp_path / "lm", extra=7)
    before, old_text = load(tmp_path / "lm")
    after, text = load(tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "out"))
    assert after.config.vocab_size == before.config.vocab_size == len(old_text) + 7
    assert text.convert_tokens_to_ids("<image_3>") == len(old_text) + 3
    assert torch.equal(after.lm_head.weight[: len(old_text)], before.lm_head.weight[: len(old_text)])
    assert not torch.equal(after.lm_head.weight[len(old_text) :], before.lm_head.weight[len(old_text) :])


@pytest.mark.parametrize("width", [3, 5, 12])
def test_rows_keep_distances_as_far_as_their_width_allows(width: int) -> None:
    points = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 5, 3, 0.01, 0.01])
    rows = spread_rows(points + 7, width, torch.Generator().manual_seed(1))
    assert rows.shape == (40, width)
    assert torch.allclose(rows.mean(0), torch.zeros(width), atol=1e-5)
    assert float(rows.square().mean()) == pytest.approx(1, abs=1e-5)
    ratio = torch.pdist(rows) / torch.pdist(points)
    assert float(ratio.std() / ratio.mean()) < 1e-3
    spread = rows.square().mean(0)
    assert spread.max() < 0.9 * spread.sum(), "no dimension has all of it"


def test_entries_near_a_word_begin_near_the_language_models_own(tmp_path: Path) -> None:
    """The language model's words are those of the text encoder in another width, turned, with noise."""
    generator = torch.Generator().manual_seed(0)
    words = torch.nn.functional.normalize(torch.randn(60, 6, generator=generator), dim=1)
    turned = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q[:6]
    known = 3 * words @ turned + 0.05 * torch.randn(60, 16, generator=generator)
    points = words[:20] + 0.05 * torch.randn(20, 6, generator=generator)
    rows = rotate_onto_words(points, words, known)

    def count_nearest_their_word(rows: torch.Tensor) -> int:
        cosines = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(known, dim=1).T
        return int((cosines.argmax(1) == torch.arange(20)).sum())

    assert count_nearest_their_word(rows) >= 18
    assert count_nearest_their_word(spread_rows(points, 16, generator)) <= 3
    assert float(rows.square().mean()) == pytest.approx(1, abs=1e-5)
    ratio = torch.pdist(rows) / torch.pdist(points)
    assert float(ratio.std() / ratio.mean()) < 1e-3


def test_a_word_is_the_mean_of_its_tokens_after_a_space(tmp_path: Path) -> None:
    model, text = load(write_gpt2(tmp_path / "lm"))
    weight = model.get_input_embeddings().weight
    ids = text(" barn").input_ids
    assert ids != text("barn").input_ids
    assert torch.allclose(embed_words(model, text, ["barn"])[0], weight[torch.tensor(ids)].mean(0))


def test_the_words_of_a_text_store(tmp_path: Path) -> None:
    tavq.make_scenes(tmp_path / "scenes", images=8, size=32)
    store = tavq.build_text_store(tmp_path / "scenes", encoder=str(write_bert(tmp_path / "bert")))
    opened = tavq.TextStore.open(tmp_path / "scenes" / "text")
    assert store is not None
    save_model(tmp_path / "model", **{**ALIGN, "text_width": opened.width})
    write_gpt2(tmp_path / "lm")
    out = tavq.export_vocabulary(
        tmp_path / "model", tmp_path / "lm", out=tmp_path / "out", text=tmp_path / "scenes" / "text"
    )
    count = len(opened.vocabulary("words")[0])
    assert f"embeddings of {count} words" in json.loads((out / "image_tokens.json").read_text())["begun"]


def test_equal_entries_give_rows_without_nan() -> None:
    rows = spread_rows(torch.ones(4, 3), 5, torch.Generator().manual_seed(0))
    assert torch.equal(rows, torch.zeros(4, 5))


def test_which_map_is_taken(tmp_path: Path) -> None:
    words_only = {"align": {"name": "ta", "phrase": 0.0, "sentence": 0.0}, "text_width": 6}
    assert map_entries(save_model(tmp_path / "a", **words_only))[0] == "words"
    assert map_entries(save_model(tmp_path / "b", **words_only, hierarchy={"codebook": "own"})) == (None, None)
    all_levels = {"align": {"name": "ta"}, "text_width": 6}
    assert map_entries(save_model(tmp_path / "c", **all_levels))[0] == "sentences"
    assert map_entries(save_model(tmp_path / "d")) == (None, None)


def test_a_step_of_the_trainer_on_exported_tokens(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="accelerate is not installed (extra dev)")
    save_model(tmp_path / "model", **ALIGN)
    data, rng = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data / name)
    lines = [{"file_name": name, "captions": ["A red barn."]} for name in ("a.png", "b.png")]
    (data / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shards = tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "tokens")
    write_gpt2(tmp_path / "lm")
    model, text = load(tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "out"))
    prompts = [json.loads(line)["text"] for line in (shards / "train-00000.jsonl").read_text().splitlines()]
    rows = [{"input_ids": ids, "labels": ids} for ids in text(prompts).input_ids]
    assert len(rows[0]["input_ids"]) == 2 + 16 + 4 + len(text("A red barn.").input_ids)
    before = model.get_input_embeddings().weight.detach().clone()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, learning_rate=0.1, warmup_steps=0,
    )  # fmt: skip
    done = transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert np.isfinite(done.training_loss)
    used = sorted(set(rows[0]["input_ids"]))
    assert not torch.equal(model.get_input_embeddings().weight[used], before[used])


# --- refusals ---------------------------------------------------------------------------------------------------


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "model")
    write_gpt2(tmp_path / "lm")
    out = tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "out")
    with pytest.raises(UsageError, match="has the token '<image_0>' already"):
        tavq.export_vocabulary(tmp_path / "model", out, out=tmp_path / "again")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=out)
    (tmp_path / "lm" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(FileError, match="is not a causal language model: "):
        tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UsageError, match=r"call tavq\.export_vocabulary"):
        tavq.export_model(tmp_path / "model", to="vocabulary", out=tmp_path / "x")
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "x"), "--to"]
    assert run([*command, "vocabulary"]) == 2
    assert "needs --language-model" in capsys.readouterr().err
    assert run([*command, "vocabulary", "--language-model", str(tmp_path / "lm"), "--split", "val"]) == 2
    assert "--to vocabulary does not use --split" in capsys.readouterr().err


def test_a_language_model_that_lacks_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(tmp_path / "model")
    write_gpt2(tmp_path / "lm")
    weights = load_file(tmp_path / "lm" / "model.safetensors")
    weights.pop("transformer.ln_f.weight")
    save_file(weights, tmp_path / "lm" / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match=r"lacks 1 of its weights, for example transformer\.ln_f\.weight"):
        tavq.export_vocabulary(tmp_path / "model", tmp_path / "lm", out=tmp_path / "x")
