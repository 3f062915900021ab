"""A generated codebook becomes a table when the model is saved."""

from pathlib import Path

import pytest
import torch
from checkpoints import load_newest

from tavq import recipes
from tavq.codebooks.fixed import FixedCodebook
from tavq.core.config import build
from tavq.data.folder import FolderDataset
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.tokenizer.trainer import Trainer

NET = {"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": False}


def made(codebook: str) -> Tokenizer:
    torch.manual_seed(0)
    settings = {"net": NET, "codebook": {"name": codebook, "entries": 24, "width": 6}}
    return Tokenizer(build(TokenizerConfig, settings, "test"))


def test_a_fixed_codebook_gives_the_same_bit_for_bit(tmp_path: Path) -> None:
    tokenizer = made("linear").eval()
    tokenizer.codebook.words = tuple(f"word {number}" for number in range(24))
    frozen = tokenizer.with_fixed_codebook()
    frozen.save_pretrained(tmp_path / "model")
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    expected = tokenizer(images)
    for other in (frozen, Tokenizer.from_pretrained(tmp_path / "model")):
        assert isinstance(other.codebook, FixedCodebook)
        assert other.codebook.words[23] == "word 23"
        assert not other.training
        assert torch.equal(other.encode(images), tokenizer.encode(images))
        found = other(images)
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.levels[2].quantized, expected.levels[2].quantized)
        assert torch.equal(other.lookup_entries(), tokenizer.lookup_entries())
    assert frozen.encoder is not tokenizer.encoder
    assert next(frozen.encoder.parameters()).data_ptr() == next(tokenizer.encoder.parameters()).data_ptr()


def test_a_table_needs_no_freezing() -> None:
    tokenizer = made("learned")
    assert tokenizer.with_fixed_codebook() is tokenizer


def test_freezing_leaves_the_tokenizer_in_training() -> None:
    tokenizer = made("linear").train()
    state = torch.get_rng_state()
    assert tokenizer.with_fixed_codebook().training
    assert tokenizer.codebook.training
    assert tokenizer.codebook.map.training  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("recipe", ["simvq-tiny", "cvq-tiny"])
def test_checkpoints_keep_the_generator_and_the_model_its_table(
    recipe: str, shared_images: Path, tmp_path: Path
) -> None:
    small = {"model.net": NET, "data.size": 16, "train.steps": 2, "train.batch": 2, "train.adversarial": None}
    loaded = recipes.load(recipe, {**small, "model.codebook.entries": 24, "model.codebook.width": 6})
    trainer = Trainer(loaded, FolderDataset(shared_images, "train"), tmp_path / "run")
    model = Tokenizer.from_pretrained(trainer.run())
    groups = load_newest(tmp_path / "run" / "checkpoints")[0]
    generated = trainer.tokenizer.codebook.generated
    assert generated == (recipe == "simvq-tiny")
    assert ("codebook.map.weight" in groups["model"]) == generated
    assert isinstance(model.codebook, FixedCodebook) == generated
