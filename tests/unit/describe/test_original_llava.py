"""The original LLaVA layout, as of ShareGPT4V: the same logits as transformers' own layout, and nothing guessed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_llava
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from tavq.core.errors import FileError, UsageError
from tavq.describe import local
from tavq.describe.local import load_model

IMAGE = 4
"""The image token of the tiny LLaVA; the original layout adds it after all words."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same weights in both layouts."""
    place = tmp_path_factory.mktemp("llava")
    theirs = tiny_llava.build(place / "transformers", template=False)
    return theirs, write_original(theirs, place / "original", place / "tower")


def write_original(theirs: Path, folder: Path, tower: Path) -> Path:
    """Rewrite a model of transformers in the original layout, in two shards, with its vision tower in `tower`."""
    settings = json.loads((theirs / "config.json").read_text())
    weights = load_file(theirs / "model.safetensors")
    words = settings["text_config"]["vocab_size"] - 1  # the original has none for images
    folder.mkdir()
    tower.mkdir()
    first, second, vision = {}, {}, {}
    for name, value in weights.items():
        if name.startswith("language_model.model."):
            first[name.removeprefix("language_model.")] = value
        elif name.startswith("language_model."):
            second[name.removeprefix("language_model.")] = value
        elif name.startswith("multi_modal_projector."):
            number = {"linear_1": "0", "linear_2": "2"}[name.split(".")[1]]
            second[f"model.mm_projector.{number}.{name.split('.')[-1]}"] = value
        else:
            vision["vision_model." + name.removeprefix("vision_tower.").removeprefix("vision_model.")] = value
    for tensors, name in ((first, "model.embed_tokens.weight"), (second, "lm_head.weight")):
        tensors[name] = without_image(tensors[name].T).T.contiguous()
    first["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    vision["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    vision["text_model.final_layer_norm.weight"] = torch.ones(16)
    save_file(first, folder / "model-00001-of-00002.safetensors")
    save_file(second, folder / "model-00002-of-00002.safetensors")
    save_file(vision, tower / "model.safetensors")
    (tower / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": settings["vision_config"]}))
    language = {**settings["text_config"], "vocab_size": words, "model_type": "share4v"}
    language |= {
        "architectures": ["Share4VLlamaForCausalLM"], "mm_vision_tower": str(tower), "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False, "image_aspect_ratio": "pad",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(language))
    tokenizer = tiny_llava.tokenizer(image=False)
    tokenizer.save_pretrained(folder)
    return folder


def without_image(logits: Tensor) -> Tensor:
    return torch.cat([logits[..., :IMAGE], logits[..., IMAGE + 1 :]], dim=-1)


@pytest.fixture
def copy(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders[1], tmp_path / "copy"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def compute(folder: Path, image: Image.Image) -> Tensor:
    model, processor = load_model(str(folder), "cpu")
    prompt = "USER: <image>\na cat sits ASSISTANT:"
    inputs = processor(images=[image], text=[prompt], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


def test_equal_logits(folders: tuple[Path, Path]) -> None:
    theirs, ours = (compute(folder, Image.new("RGB", (16, 16), (200, 30, 90))) for folder in folders)
    assert torch.allclose(ours[..., :-1], without_image(theirs), atol=1e-5)
    assert theirs.std() > 0.1


def test_the_tower_may_be_among_the_weights(folders: tuple[Path, Path], copy: Path, tmp_path: Path) -> None:
    """As where it was trained along; the named tower then gives its settings alone."""
    vision = load_file(folders[1].parent / "tower" / "model.safetensors")
    tower = tmp_path / "tower"
    tower.mkdir()
    shutil.copy(folders[1].parent / "tower" / "config.json", tower)
    edit(copy, mm_vision_tower=str(tower))
    named = {f"model.vision_tower.vision_tower.{name}": v for name, v in vision.items() if name.startswith("vision")}
    save_file(named, copy / "model-00003-of-00003.safetensors")
    image = Image.new("RGB", (16, 16), (20, 130, 90))
    assert torch.equal(compute(copy, image), compute(folders[1], image))


def test_files_of_torch_that_hold_tensors_alone(folders: tuple[Path, Path], copy: Path) -> None:
    for number, path in enumerate(sorted(copy.glob("*.safetensors"))):
        torch.save(load_file(path), copy / f"pytorch_model-{number}.bin")
        path.unlink()
    image = Image.new("RGB", (16, 16), (20, 130, 90))
    assert torch.equal(compute(copy, image), compute(folders[1], image))
    torch.save({"x": Path}, copy / "pytorch_model-9.bin")
    with pytest.raises(FileError, match="is not a checkpoint of tensors alone"):
        load_model(str(copy))


def test_images_are_padded_to_a_square(folders: tuple[Path, Path]) -> None:
    _, processor = load_model(str(folders[1]), "cpu")
    wide = Image.new("RGB", (32, 16), (255, 0, 0))
    pixels = processor(images=[wide], text=["USER: <image>"], return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels[0, :, 0].abs().max() < 0.02, "the padding is CLIP's mean"
    assert pixels[0, 0, 8].min() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'; only 'mlp2x_gelu'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch'; only 'patch'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True; only False"),
        ({"mm_hidden_size": 24}, "vision tower 24 wide, not 16"),
        ({"mm_vision_tower": "../nowhere"}, r"no model folder '\.\./nowhere'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, copy: Path) -> None:
    edit(copy, **changes)
    with pytest.raises((UsageError, FileError), match=message):
        load_model(str(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.mm_projector.0.bias"), r"lacks tensors \(1\), .*multi_modal_projector\.linear_1\.bias"),
        (lambda w: w.update({"model.extra": torch.ones(1)}), r"has unknown tensors \(1\), for example model\.extra"),
        (lambda w: w.update({"model.mm_projector.0.bias": torch.ones(3)}), r"has the shape \[3\]; expected \[16\]"),
    ],
)
def test_tensors_that_do_not_fit(change: Any, message: str, copy: Path) -> None:
    edit_weights(copy / "model-00002-of-00002.safetensors", change)
    with pytest.raises(FileError, match=message):
        load_model(str(copy))


def test_weights_of_torch_come_from_the_hub_where_there_are_no_others(
    folders: tuple[Path, Path], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def download(name: str, what: str, patterns: list[str]) -> Path:
        asked.append((name, "pytorch_model*.bin" in patterns))
        return copy if name == "me/model" else folders[1].parent / "tower"

    monkeypatch.setattr(local, "download_from_hub", download)
    edit(copy, mm_vision_tower="me/tower")
    load_model("me/model")
    assert asked == [("me/model", False), ("me/tower", False)]
    asked.clear()
    for number, path in enumerate(sorted(copy.glob("*.safetensors"))):
        torch.save(load_file(path), copy / f"pytorch_model-{number}.bin")
        path.unlink()
    load_model("me/model")
    assert asked == [("me/model", False), ("me/model", True), ("me/tower", False)]


def test_it_describes_images(folders: tuple[Path, Path], tmp_path: Path) -> None:
    Image.new("RGB", (20, 16), (20, 130, 90)).save(tmp_path / "a.png")
    model, processor = load_model(str(folders[1]), "cpu")
    describer = local.LocalModel(model, processor, "Look .", tmp_path, batch_size=1, max_tokens=8, longest_side=64)
    results: list[Any] = []
    describer.run(iter(["a.png"]), results.extend, lambda: False)
    [result] = results
    assert result.file_name == "a.png"
    assert "<image>" not in str(result.text)
