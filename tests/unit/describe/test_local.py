"""A real model with random weights in this process: its text depends on the image, not on the batch."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_llava import build

from tavq.core.errors import FileError, UsageError
from tavq.data.images import save_png
from tavq.describe import local
from tavq.describe.answers import Answer, DescriptionResult, SamplingParams
from tavq.describe.local import LocalModel, format_prompt, load_model, model_key

Draw = Callable[[int], Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; to be read only."""
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """As for the other tests, with noise: of plain colours the model sees no more than that they are plain."""

    def write(count: int) -> Path:
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
            save_png(tmp_path / "data" / f"{number:02}.png", noise)
        return tmp_path / "data"

    return write


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the model folder, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def describer(model: tuple[Any, Any], data: Path, batch_size: int = 4, max_tokens: int = 24) -> LocalModel:
    return LocalModel(*model, "Look .", data, batch_size, max_tokens, 64)


def run(describer: LocalModel, names: Sequence[str]) -> dict[str, DescriptionResult]:
    results: list[DescriptionResult] = []
    describer.run(iter(names), results.extend, lambda: False)
    assert sorted(result.file_name for result in results) == sorted(names)
    return {result.file_name: result for result in results}


def test_the_batch_does_not_change_a_description(folder: Path, draw: Draw) -> None:
    data = draw(7)
    names = [f"{number:02}.png" for number in range(7)]
    model = load_model(str(folder))
    alone, together = (run(describer(model, data, batch), names) for batch in (1, 4))
    assert alone == together
    assert len({result.text or result.fault for result in alone.values()}) > 3


def test_texts_equal_those_of_the_model_itself(folder: Path, draw: Draw) -> None:
    """Token by token, by the model's own forward pass: no cache, no batch, no padding."""
    data = draw(3)
    model, processor = load_model(str(folder))
    image = Image.open(data / "02.png").convert("RGB")
    inputs = processor(images=[image], text=[format_prompt(processor, "Look .")], return_tensors="pt")
    ids, start = inputs["input_ids"], inputs["input_ids"].shape[1]
    with torch.no_grad():
        while ids.shape[1] < start + 24 and ids[0, -1] != 2:
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    expected = processor.tokenizer.decode(ids[0, start:], skip_special_tokens=True)
    (answer,) = describer((model, processor), data)._answer([image], SamplingParams(24), lambda: False)
    assert answer == Answer(expected, complete=bool(ids[0, -1] == 2))


def test_a_seed_gives_one_answer_and_seeds_differ(folder: Path, draw: Draw) -> None:
    describe = describer(load_model(str(folder)), draw(1))
    image = Image.new("RGB", (20, 20))
    first, again, other = (describe._answer([image], SamplingParams(20, seed), lambda: False) for seed in (1, 1, 2))
    assert first == again != other


def test_broken_images_are_listed_and_the_rest_described(folder: Path, draw: Draw) -> None:
    data = draw(4)
    (data / "01.png").write_bytes(b"no image")
    found = run(describer(load_model(str(folder)), data), ["00.png", "01.png", "gone.png", "02.png", "03.png"])
    assert "not an image" in (found["01.png"].fault or "")
    assert found["gone.png"].fault == "no such file or directory"
    assert sum(found[name].text is not None for name in ("00.png", "02.png", "03.png")) >= 2


def test_stopping_ends_within_a_token(folder: Path, draw: Draw) -> None:
    model, processor = load_model(str(folder))
    model.generation_config.eos_token_id = None  # goes on to the last token
    results: list[DescriptionResult] = []
    asked: list[int] = []
    describe = describer((model, processor), draw(4), batch_size=2, max_tokens=400)

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 5

    describe.run(iter(["00.png", "01.png", "02.png"]), results.extend, stop)
    assert results == []
    assert len(asked) < 20


def test_an_image_that_the_processor_rejects_is_a_fault_of_its_own(folder: Path, draw: Draw) -> None:
    model, processor = load_model(str(folder))
    refused = Image.open(draw(3) / "01.png").getpixel((0, 0))

    class Fussy:
        chat_template = None
        tokenizer = processor.tokenizer

        def __call__(self, images: list[Any], **others: Any) -> Any:
            if any(image.getpixel((0, 0)) == refused for image in images):
                raise ValueError("too grey\nfor me")
            return processor(images=images, **others)

    found = run(describer((model, Fussy()), draw(3)), ["00.png", "01.png", "02.png"])
    assert found["01.png"].fault == "the model does not accept the image (too grey)"
    assert found["00.png"].text is not None or "empty" in (found["00.png"].fault or "")


# --- prompts ----------------------------------------------------------------------------------------------------


def test_the_chat_template_is_used_if_there_is_one(folder: Path, tmp_path: Path) -> None:
    _, processor = load_model(str(folder))
    assert format_prompt(processor, "Look.") == "USER: <image>\nLook. ASSISTANT:"
    processor.chat_template = "{% for m in messages %}[{{ m['content'][1]['text'] }}]{% endfor %}"
    assert format_prompt(processor, "Look.") == "[Look.]"


def test_llavas_prompt_is_used_without_a_chat_template(tmp_path: Path) -> None:
    _, processor = load_model(str(build(tmp_path / "plain", template=False)))
    assert processor.chat_template is None
    assert format_prompt(processor, "Look {here}.") == "USER: <image>\nLook {here}. ASSISTANT:"


def test_settings_missing_in_older_folders_are_taken_from_the_model(copy: Path, folder: Path, draw: Draw) -> None:
    edit(
        copy / "processor_config.json",
        patch_size=None,
        vision_feature_select_strategy=None,
        num_additional_image_tokens=0,
    )
    edit(copy / "tokenizer_config.json", pad_token=None, padding_side="right")
    data, names = draw(3), ["00.png", "01.png", "02.png"]
    assert load_model(str(copy))[1].tokenizer.padding_side == "left"  # what is written stands at the end
    assert run(describer(load_model(str(copy)), data), names) == run(describer(load_model(str(folder)), data), names)


# --- folders ----------------------------------------------------------------------------------------------------


def test_sharegpt4v_is_refused_with_alternatives(copy: Path) -> None:
    edit(copy / "config.json", model_type="share4v", architectures=["Share4VLlamaForCausalLM"])
    with pytest.raises(UsageError, match="type 'share4v', which transformers does not load; use a LLaVA-format conv"):
        load_model(str(copy))


def test_the_original_llava_format_is_refused_too(copy: Path) -> None:
    edit(copy / "config.json", architectures=["LlavaLlamaForCausalLM"])
    with pytest.raises(UsageError, match="does not load"):
        load_model(str(copy))


def test_only_safetensors_load(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(FileError, match="not a complete vision-language model"):
        load_model(str(copy))


def test_code_in_the_folder_is_not_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit(13)")
    edit(copy / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(FileError, match="not a complete"):
        load_model(str(copy))


def test_weights_that_lack_tensors_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    tensors.pop(next(name for name in tensors if "multi_modal_projector" in name))
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match=r"is not complete: its weights lack 1 tensors \(.*multi_modal_projector"):
        load_model(str(copy))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "processor_config.json"])
def test_an_incomplete_folder_is_named(copy: Path, name: str) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises((FileError, UsageError), match=copy.name):
        load_model(str(copy))


def test_the_key_of_a_folder_distinguishes_models_of_one_name(tmp_path: Path) -> None:
    keys = []
    for place, config, weights in (("a", "{}", b"1"), ("b", "{}", b"2"), ("c", "{} ", b"1"), ("d", "{}", b"12")):
        folder = tmp_path / place / "llava"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
        (folder / "model.safetensors").write_bytes(weights)
        keys.append(model_key(folder))
    assert keys[0] == keys[1]  # a copy is the same model; only sizes of weights are compared
    assert len({*keys}) == 3
    assert re.fullmatch("llava@[0-9a-f]{8}", keys[0])


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    for use in (model_key, lambda folder: load_model(str(folder))):
        with pytest.raises(UsageError, match=r"it has no config\.json\. Use one with .* or a hub name"):
            use(tmp_path)


def test_unknown_model_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("offline\nfor now")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match=r"There is no model folder './nothing'"):
        load_model("./nothing")
    with pytest.raises(
        UsageError, match=r"The model 'some/model' is not a folder, and its download from the hub failed: offline$"
    ):
        load_model("some/model")


def test_devices(folder: Path) -> None:
    with pytest.raises(UsageError, match="The device 'toaster' cannot be used here"):
        load_model(str(folder), device="toaster")
    model, _ = load_model(str(folder), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16


def test_too_little_memory_says_what_to_try(folder: Path, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> Iterator[Answer]:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LocalModel, "_generate", full)
    model = load_model(str(folder))
    for batch, advice in ((4, "--batch 2"), (1, "--dtype bfloat16 or a smaller model")):
        with pytest.raises(UsageError, match=f"ran out of memory with --batch {batch}; try {advice}"):
            run(describer(model, draw(2), batch), ["00.png", "01.png"])
    monkeypatch.setattr(LocalModel, "_generate", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(describer(model, draw(2)), ["00.png"])


def test_hub_downloads_take_no_code_and_no_pickles() -> None:
    from fnmatch import fnmatch

    for name in ("pytorch_model.bin", "modeling.py", "model.pt", "model.ckpt"):
        assert not any(fnmatch(name, pattern) for pattern in local.FILES)
