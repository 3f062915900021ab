"""The discriminator of a checkpoint is kept where it is a network of ours, and fine-tuning starts from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from published_tokenizers import Twin, randomize
from torch import Tensor, nn

import tavq
from tavq.core.errors import FileError, UsageError
from tavq.model_folder import read_discriminator
from tavq.nets.discriminators import DiscriminatorConfig, PatchDiscriminator
from tavq.training.tokenizer.finetune import initialize_discriminator

SETTINGS = {"channels": 4, "layers": 2, "norm": "batch", "downsample": "stride"}


class PatchGAN(nn.Module):
    """The published discriminator with 4 channels and 2 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(4, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
            nn.Conv2d(8, 16, 4, 1, 1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2),
            nn.Conv2d(16, 1, 4, 1, 1),
        )  # fmt: skip
        randomize(self)
        self.main[3].running_mean += 0.1


@pytest.fixture
def published() -> nn.Module:
    return PatchGAN().eval()


def imported(sections: dict[str, Any], folder: Path) -> Path:
    torch.save(sections, folder / "last.ckpt")
    return tavq.import_checkpoint("auto", folder / "last.ckpt", out=folder / "model", size=32)


def taming(discriminator: dict[str, Tensor]) -> dict[str, Any]:
    named = {f"loss.discriminator.{name}": value for name, value in discriminator.items()}
    return {"state_dict": {**Twin("taming").state_dict(), **named, "loss.logvar": torch.zeros(())}}


@torch.no_grad()
@pytest.mark.parametrize("place", ["taming", "llamagen"])
def test_it_scores_as_the_published_one(place: str, published: nn.Module, tmp_path: Path) -> None:
    state = published.state_dict()
    sections = taming(state) if place == "taming" else {"ema": Twin("llamagen").state_dict(), "discriminator": state}
    model = imported(sections, tmp_path)
    own = PatchDiscriminator(DiscriminatorConfig(**SETTINGS)).eval()
    initialize_discriminator(own, str(model))
    images = torch.randn(2, 3, 24, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(own(images), published.main(images), atol=1e-5)
    record = json.loads((model / "config.json").read_text())
    assert record["discriminator"]["settings"] == SETTINGS
    card = (model / "README.md").read_text()
    assert "| discriminator | kept (4 channels, 2 layers, normalization batch); start from it with" in card
    dropped = {"taming": ["loss.logvar"], "llamagen": ["quantize.codebook_used"]}[place]
    assert record["imported"]["dropped"] == dropped


@pytest.mark.parametrize("change", ["name", "shape", "nan", "huge", "other"])
def test_another_network_is_dropped(change: str, published: nn.Module, tmp_path: Path) -> None:
    state = dict(published.state_dict())
    if change == "name":
        state["main.3.loc"] = state.pop("main.3.weight")
    elif change == "shape":
        state["main.3.weight"] = torch.zeros(9)
    elif change == "nan":
        state["main.8.bias"] = torch.full((1,), torch.nan)
    elif change == "huge":  # a network of gigabytes, by tensors of few bytes
        state = {f"main.{i}.weight": torch.zeros(1024 * 8, 1, 1, 1) for i in (0, 2, 5, 8)}
    else:
        state = {"blocks.0.weight": torch.zeros(3)}
    model = imported(taming(state), tmp_path)
    assert not (model / "discriminator.safetensors").exists()
    assert "| discriminator | dropped, as" in (model / "README.md").read_text()
    with pytest.raises(UsageError, match=r"has no discriminator: .* Remove train\.adversarial\.start_from"):
        read_discriminator(model)


def test_damaged_and_other_discriminators(published: nn.Module, tmp_path: Path) -> None:
    model = imported(taming(published.state_dict()), tmp_path)
    with pytest.raises(UsageError, match=r"does not fit this recipe\. Set train\.adversarial\.discriminator to .*: 4"):
        initialize_discriminator(PatchDiscriminator(DiscriminatorConfig(channels=8, layers=2)), str(model))
    path = model / "discriminator.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="was altered or truncated"):
        read_discriminator(model)
    path.unlink()
    with pytest.raises(FileError, match="There is no file"):
        read_discriminator(model)


def test_training_starts_from_it(published: nn.Module, tmp_path: Path) -> None:
    """The discriminator's first loss is another one with the published weights than with new ones."""
    model = str(imported(taming(published.state_dict()), tmp_path))
    tavq.make_scenes(tmp_path / "scenes", images=8, size=32)
    losses = []
    for name, start in (("old", model), ("new", None)):
        settings = {
            "train.start_from": model, "train.steps": 1, "train.batch": 4, "train.log_every": 1,
            "train.perceptual": None, "train.adversarial.start": 0, "train.adversarial.discriminator": SETTINGS,
            "train.adversarial.start_from": start,
        }  # fmt: skip
        run = tavq.train("finetune-all", data=tmp_path / "scenes", out=tmp_path / name, settings=settings)
        losses.append(json.loads((run / "log.jsonl").read_text().splitlines()[0])["adversarial/discriminator"])
    assert losses[0] != losses[1]
