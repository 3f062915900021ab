"""An imported tokenizer is trained further with the settings of its card."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from published_bias_free import MAGVIT2Twin, MaskGITTwin
from published_tokenizers import Twin

import tavq
from tavq.core.errors import UsageError
from tavq.model_folder import find_import, read_model_config
from tavq.tokenizer import Tokenizer

TWINS = {
    **{kind: partial(Twin, kind) for kind in ("taming", "gumbel", "llamagen", "ibq")},
    "maskgit": MaskGITTwin,
    "open-magvit2": MAGVIT2Twin,
}


@pytest.mark.parametrize("kind", TWINS)
def test_decoder_alone(kind: str, tmp_path: Path) -> None:
    torch.save(TWINS[kind]().state_dict(), tmp_path / "weights.pt")
    model = tavq.import_checkpoint(
        "ibq" if kind == "ibq" else "auto", tmp_path / "weights.pt", out=tmp_path / "model", size=32
    )
    settings = yaml.safe_load((model / "README.md").read_text().split("```yaml")[1].split("```")[0])
    settings["extends"] = "vqgan-tiny"
    frozen = ["encoder", "codebook", *(["quantizer"] if kind == "gumbel" else [])]
    settings["train"] = {"start_from": str(model), "freeze": frozen, "steps": 2, "batch": 2}
    settings["data"] = {"size": 32}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    tavq.make_scenes(tmp_path / "scenes", images=16, size=32)
    run = tavq.train(str(tmp_path / "recipe.yaml"), data=tmp_path / "scenes", out=tmp_path / "run")
    before, after = Tokenizer.from_pretrained(model), Tokenizer.from_pretrained(run)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(before.encode(images), after.encode(images))
    assert not torch.equal(before.decode(before.encode(images)), after.decode(after.encode(images)))
    first = tavq.evaluate(model, data=tmp_path / "scenes", features=())
    assert first["psnr"].value != tavq.evaluate(run, data=tmp_path / "scenes", features=())["psnr"].value


@pytest.mark.parametrize(("setting", "value"), [("value_range", "[0, 1]"), ("downsample", "conv")])
def test_settings_that_no_shape_shows_must_be_the_models(setting: str, value: str, tmp_path: Path) -> None:
    torch.save(MAGVIT2Twin().state_dict(), tmp_path / "weights.pt")
    model = tavq.import_checkpoint("auto", tmp_path / "weights.pt", out=tmp_path / "model", size=32)
    tavq.make_scenes(tmp_path / "scenes", images=8, size=32)
    settings = {"train.start_from": str(model), "train.steps": 1, f"model.net.{setting}": value}
    with pytest.raises(UsageError, match=rf"does not fit this recipe: model\.net\.{setting} is '.*' there and '"):
        tavq.train("finetune-all", data=tmp_path / "scenes", out=tmp_path / "run", settings=settings)


def test_origin_and_licence_go_on_to_what_is_trained_further(tmp_path: Path) -> None:
    torch.save(Twin("taming").state_dict(), tmp_path / "weights.pt")
    model = tavq.import_checkpoint(
        "auto", tmp_path / "weights.pt", out=tmp_path / "model", size=32, licence="MIT", origin="https://a.b|c"
    )
    tavq.make_scenes(tmp_path / "scenes", images=16, size=32)
    small = {
        "train.steps": 1,
        "train.batch": 2,
        "train.evaluate_first": 0,
        "train.adversarial.discriminator.channels": 8,
    }
    start: Path = model
    for name in ("first", "second"):
        settings = {**small, "train.start_from": str(start)}
        start = tavq.train("finetune-decoder", data=tmp_path / "scenes", out=tmp_path / name, settings=settings)
        config = read_model_config(start / "model")
        assert find_import(config)["licence"] == "MIT"
        card = (start / "model" / "README.md").read_text()
        assert "imported from https://a.b\\|c" in card
        assert "was imported with the licence MIT" in card
