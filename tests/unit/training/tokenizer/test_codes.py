"""Aligning on cached codes: the same training as with the encoder, and a tokenizer that stays bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tavq import recipes
from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import TextSource, quantizers
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.reporting import SilentReporter
from tavq.training.tokenizer import codes
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]
ALIGN = {"name": "ta", "word": 0.0, "phrase": 0.0, "sentence": 1.0, "samples": [2, 2, 2], "iterations": 5}
FROZEN = ["encoder", "codebook", "quantizer", "decoder"]
LOGGED = ("align/sentences", "align/sentences_contrast", "codebook/usage", "codebook/perplexity")


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def progress(self, step: int, steps: int, line: Any) -> None:
        pass

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def frozen(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> Callable[..., Recipe]:
    """Settings that align the model in tmp_path/model."""
    Trainer(recipe({"train.adversarial": None}), dataset, tmp_path / "first").run()
    shutil.copytree(tmp_path / "first" / "model", tmp_path / "model")
    settings = {
        "model.align": {**ALIGN, "contrast": 0.1},
        "train.start_from": str(tmp_path / "model"),
        "train.freeze": FROZEN,
        "train.adversarial": None,
        "train.cache_codes": True,
        "data.flip": 0.0,
        "train.log_every": 1,
        "train.steps": 12,  # more than two epochs
    }
    return lambda **changes: recipe({**settings, **{key.replace("__", "."): value for key, value in changes.items()}})


def run(recipe: Recipe, dataset: FolderDataset, words: TextSource, folder: Path, resume: bool = False) -> list[str]:
    listener = Listener()
    Trainer(recipe, dataset, folder, words, reporter=listener).run(resume)
    return listener.messages


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def logged(folder: Path) -> list[dict[str, float]]:
    return [{key: line[key] for key in LOGGED} for line in log(folder)]


def weights(folder: Path) -> dict[str, Tensor]:
    return files.read_tensors(folder / "model/model.safetensors")


@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_the_losses_are_those_without_a_cache_to_the_bit(
    frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path, flip: float
) -> None:
    for name, cached in (("cached", True), ("encoded", False)):
        run(frozen(train__cache_codes=cached, data__flip=flip), dataset, words, tmp_path / name)
    assert logged(tmp_path / "cached") == logged(tmp_path / "encoded")
    assert len(logged(tmp_path / "cached")) == 12
    cached, encoded = weights(tmp_path / "cached"), weights(tmp_path / "encoded")
    assert all(torch.equal(value, encoded[name]) for name, value in cached.items())


def test_a_frozen_model_stays_bit_for_bit(
    frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    run(frozen(train__ema=0.9), dataset, words, tmp_path / "run")
    before, after = files.read_tensors(tmp_path / "model/model.safetensors"), weights(tmp_path / "run")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"aligner"}
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    models = [Tokenizer.from_pretrained(tmp_path / name) for name in ("model", "run")]
    indices = [model.encode(images) for model in models]
    assert torch.equal(*indices)
    assert torch.equal(*(model.decode(indices[0]) for model in models))


def test_training_runs_neither_encoder_nor_decoder(
    frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(frozen(), dataset, tmp_path / "run", words)
    seen: list[int] = []
    for part in (trainer.tokenizer.encoder, trainer.tokenizer.decoder):
        part.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    trainer.loop.reporter = Listener()
    monkeypatch.setattr(trainer, "render_sample", lambda: None)
    trainer.run()
    assert sum(seen) == len(dataset)  # each image once, by the encoder
    (tmp_path / "run/log.jsonl").unlink()
    shutil.rmtree(tmp_path / "run/checkpoints")
    trainer.loop.step = 0
    trainer.run()
    assert sum(seen) == len(dataset)  # the file is there


def test_resuming_gives_the_same_bits(frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path) -> None:
    run(frozen(), dataset, words, tmp_path / "whole")
    run(frozen(train__steps=5), dataset, words, tmp_path / "parts")
    run(frozen(), dataset, words, tmp_path / "parts", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [damage, cut, empty])
def test_a_damaged_cache_is_made_again(
    frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    run(frozen(train__steps=5), dataset, words, tmp_path / "parts")
    path = tmp_path / "parts" / codes.CODES
    whole = path.read_bytes()
    harm(path)
    said = run(frozen(), dataset, words, tmp_path / "parts", resume=True)
    assert any("Encoding the images again" in line for line in said)
    assert path.read_bytes() == whole


def test_a_changed_data_set_has_another_stamp(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    """The names of the images may have stayed the same."""
    shutil.copytree(dataset.folder, tmp_path / "copy")
    tokenizer, config = Tokenizer(recipe().model), recipe().data
    assert codes.stamp_codes(tokenizer, FolderDataset(tmp_path / "copy", "train"), config) == codes.stamp_codes(
        tokenizer, dataset, config
    )
    lines = [json.loads(line) for line in (tmp_path / "copy/metadata.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "captions": ["changed"]}) + "\n" for line in lines)
    (tmp_path / "copy/metadata.jsonl").write_text(text)
    assert codes.stamp_codes(tokenizer, FolderDataset(tmp_path / "copy", "train"), config) != codes.stamp_codes(
        tokenizer, dataset, config
    )


def test_a_stale_cache_is_made_again(
    frozen: Make, recipe: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    """Codes of other weights, sizes or orientations are never read."""
    run(frozen(train__steps=1), dataset, words, tmp_path / "one")
    old = tmp_path / "one" / codes.CODES
    Trainer(recipe({"train.adversarial": None, "train.seed": 5}), dataset, tmp_path / "second").run()
    others = {
        "weights": frozen(train__steps=1, train__start_from=str(tmp_path / "second")),
        "size": frozen(train__steps=1, data__size=32),
        "flip": frozen(train__steps=1, data__flip=0.5),
    }
    for name, settings in others.items():
        run(settings, dataset, words, tmp_path / "expected" / name)
        (tmp_path / name).mkdir()
        shutil.copy(old, tmp_path / name / codes.CODES)
        said = run(settings, dataset, words, tmp_path / name)
        assert any("was made from other weights, images or settings" in line for line in said)
        assert logged(tmp_path / name) == logged(tmp_path / "expected" / name)
    (tmp_path / "same").mkdir()
    shutil.copy(old, tmp_path / "same" / codes.CODES)
    assert run(frozen(train__steps=1), dataset, words, tmp_path / "same") == []


def test_an_unreadable_image_is_replaced_as_in_other_training(
    frozen: Make, image_folder: Path, words: TextSource, tmp_path: Path
) -> None:
    (image_folder / "images/4.png").write_bytes(b"no image")
    dataset = FolderDataset(image_folder, "train")
    for name, cached in (("cached", True), ("encoded", False)):
        run(frozen(train__cache_codes=cached), dataset, words, tmp_path / name)
    assert logged(tmp_path / "cached") == logged(tmp_path / "encoded")
    faults = files.read_json(tmp_path / "cached/faults.json")
    assert [fault["where"] for fault in faults] == ["images/4.png"]


def test_images_that_are_not_square_are_announced(
    frozen: Make, image_folder: Path, words: TextSource, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(image_folder / "images/2.png")
    said = run(frozen(train__steps=1), FolderDataset(image_folder, "train"), words, tmp_path / "run")
    assert ["1 of 10 images are not square" in line for line in said] == [True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__align": None}, "trains an aligner on the codes; set model.align"),
        ({"train__freeze": ["encoder", "codebook"]}, "needs frozen codes; add quantizer, decoder to train.freeze"),
        ({"train__adversarial": {"adaptive": False, "start": 99}}, "decodes no image; set train.adversarial to null"),
        ({"data__crop_scale": 0.5}, "so data.crop_scale cannot vary the crop; set it to 1"),
    ],
)  # fmt: skip
def test_what_a_cache_cannot_serve_is_refused(frozen: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="cache_codes") as caught:
        frozen(**changes)
    assert message in str(caught.value)


def test_an_aligner_of_upper_levels_is_refused(
    frozen: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"model\.align reads low and middle too; set model\.align\.word"):
        Trainer(frozen(model__align={"name": "ta"}), dataset, tmp_path / "run", words)


@pytest.mark.parametrize("redraw", [0, 8])
def test_trained_entries_are_not_replaced_by_features(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, redraw: int
) -> None:
    """An imported table has never been initialized by this package."""
    tokenizer = Trainer(recipe({"train.adversarial": None}), dataset, tmp_path / "none").tokenizer
    tokenizer.save_pretrained(tmp_path / "model", metadata={"size": 16})
    changes = {"train.start_from": str(tmp_path / "model"), "model.codebook.redraw_until": redraw, "train.steps": 9}
    still = {"train.learning_rate_factors": {"codebook": 1e-30}, "train.adversarial": None}
    trainer = Trainer(recipe({**changes, **still}), dataset, tmp_path / "run")
    before = trainer.tokenizer.codebook().detach().clone()
    trainer.run()
    assert torch.allclose(trainer.tokenizer.codebook(), before, atol=1e-20)


@pytest.mark.parametrize("quantizer", list(quantizers))
def test_every_quantizer_looks_up_what_it_quantized(
    quantizer: str, recipe: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    """Also those that sample, mix or normalize while they are trained, and those of several parts."""
    table = {"entries": 16, "width": 4, "init": "normal", **quantizers[quantizer].compatible_codebook}
    if table["name"] == "lattice":
        table = {key: table[key] for key in ("name", "levels", "width")}
    net = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}
    parts = {"net": net, "codebook": table, "quantizer": {"name": quantizer}}
    torch.manual_seed(0)
    Tokenizer(build(TokenizerConfig, parts, "test")).save_pretrained(tmp_path / "model", metadata={"size": 16})
    settings = {
        "train.start_from": str(tmp_path / "model"), "train.steps": 3, "train.batch": 4, "train.warmup": 0,
        "train.evaluate_first": 0, "train.log_every": 1, "model.align": ALIGN, "data.size": 16,
    }  # fmt: skip
    for cached in (True, False):
        chosen = recipes.load("align-frozen", {**settings, "train.cache_codes": cached})
        run(chosen, dataset, words, tmp_path / str(cached))
    shown = ("align/sentences", "codebook/usage")
    found = [[{key: line[key] for key in shown} for line in log(tmp_path / name)] for name in ("True", "False")]
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
