"""NaN, infinity and numbers of another range or type: one clear error, or the right result, never a made-up one."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import FileError, TrainingError, UsageError
from tavq.evaluation.tokenizer import evaluate
from tavq.interfaces import Batch
from tavq.model_folder import write_config
from tavq.tasks.model_folder import TaskConfig, load_task, save_task
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1}
KINDS: dict[str, dict[str, Any]] = {
    "nearest": {"codebook": {"name": "learned", "entries": 16, "width": 4}},
    "two parts": {"codebook": {"name": "learned", "entries": 16, "width": 8, "parts": 2}, "quantizer": "product"},
    "lattice": {"codebook": {"name": "lattice", "levels": [8, 6, 5]}, "quantizer": "scalar"},
}
NOT_FINITE = [math.nan, math.inf, -math.inf]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]


def made(kind: str = "nearest") -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(build(TokenizerConfig, {"net": NET, **KINDS[kind]}, "test")).eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1


TOKENIZER = made()


# --- images -----------------------------------------------------------------------------------------------------


@given(st.sampled_from(NOT_FINITE), st.integers(0, 2 * 3 * 8 * 12 - 1))
def test_one_pixel_that_is_not_finite_is_refused(value: float, place: int) -> None:
    pixels = images()
    pixels.view(-1)[place] = value
    with pytest.raises(UsageError, match="got values that are not finite"):
        TOKENIZER.encode(pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_bytes_as_floats_are_refused_with_what_to_do(dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match=r"got values from .* to 25\d.*images / 127\.5 - 1"):
        made().encode(((images() + 1) * 127.5).to(dtype))


def test_images_a_little_outside_the_range_are_encoded() -> None:
    """Decoded images are not clamped, and noise is no image of bytes."""
    noise = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    for pixels in (images() * 1.5, noise, torch.zeros(0, 3, 8, 8)):
        made().encode(pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_of_any_float_type_give_the_indices_of_their_values(kind: str, dtype: torch.dtype) -> None:
    tokenizer, pixels = made(kind), images().to(dtype)
    expected = tokenizer.encode(pixels.float())
    assert torch.equal(tokenizer.encode(pixels), expected)
    assert torch.equal(tokenizer.quantize(pixels)[2].indices, expected)
    assert tokenizer(pixels).images.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_float_type_takes_usual_images(dtype: torch.dtype) -> None:
    tokenizer = made().to(dtype)
    assert tokenizer.decode(tokenizer.encode(images())).dtype == dtype


# --- indices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_indices_of_any_integer_type_decode_to_the_same_image(kind: str, dtype: torch.dtype) -> None:
    tokenizer = made(kind)
    indices = tokenizer.encode(images()) % 120
    narrow = indices.to(dtype)
    assert torch.equal(tokenizer.decode(narrow), tokenizer.decode(indices))
    assert torch.equal(narrow.to(torch.int64), indices)  # it was not changed
    with pytest.raises(UsageError, match="are out of range"):
        tokenizer.decode(torch.full_like(indices, 127 if kind != "lattice" else 255).to(torch.int64) + 1000)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.uint64])
def test_a_narrow_index_out_of_range_is_named(dtype: torch.dtype) -> None:
    indices = torch.full((1, 2, 3), 200).to(dtype)
    with pytest.raises(UsageError, match=r"Indices 200 to 200 are out of range: the codebook has entries 0 to 15"):
        made().decode(indices)


# --- networks ---------------------------------------------------------------------------------------------------


def spoil(tensor: Tensor, value: float) -> None:
    with torch.no_grad():
        tensor.flatten()[0] = value


def test_a_network_that_gives_nan_is_named() -> None:
    """In memory, where no file is checked: an encoder's NaN is no collapse of the codebook, a decoder's no image."""
    tokenizer = made()
    indices = tokenizer.encode(images())
    spoil(next(tokenizer.decoder.parameters()), math.nan)
    with pytest.raises(TrainingError, match="The decoder's images are not finite"):
        tokenizer.decode(indices)
    spoil(next(tokenizer.encoder.parameters()), math.nan)
    for use in (tokenizer.encode, tokenizer.quantize, tokenizer):
        with pytest.raises(TrainingError, match="The encoder's features are not finite"):
            use(images())
    with pytest.raises(TrainingError, match="The encoder's features are not finite"):
        evaluate(tokenizer, [Batch(images(), ("a", "b"))], [])


def test_an_overflow_says_so() -> None:
    tokenizer = made()
    with torch.no_grad():
        for parameter in tokenizer.encoder.parameters():
            parameter.mul_(100)
        list(tokenizer.encoder.parameters())[-2].mul_(1e6)
    tokenizer.half()
    with pytest.raises(TrainingError, match=r"overflow in torch\.float16 \(try float32\)"):
        tokenizer.encode(images())


# --- model folders ----------------------------------------------------------------------------------------------


def reseal(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the weights of a model folder, with a hash that fits them."""
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights)
    config = json.loads((folder / "config.json").read_text())
    del config["seal"]
    write_config(folder, {**config, "sha256": files.sha256(weights)})


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("part", ["encoder.", "decoder.", "codebook.table"])
def test_weights_that_are_not_finite_are_refused_at_load(tmp_path: Path, part: str, value: float) -> None:
    made().save_pretrained(tmp_path)
    reseal(tmp_path, lambda tensors: spoil(next(t for name, t in tensors.items() if name.startswith(part)), value))
    with pytest.raises(FileError, match=r"model\.safetensors holds weights that are not finite .*1 of .* '" + part):
        Tokenizer.from_pretrained(tmp_path)


def test_weights_that_overflow_the_type_of_the_model_are_refused(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)

    def widen(tensors: dict[str, Tensor]) -> None:
        name = next(name for name in tensors if name.startswith("encoder."))
        tensors[name] = tensors[name].double()
        spoil(tensors[name], 1e300)

    reseal(tmp_path, widen)
    with pytest.raises(FileError, match="weights that are not finite"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_task_whose_weights_are_not_finite_is_refused_at_load(tmp_path: Path, value: float) -> None:
    layout = {"height": 2, "width": 3, "sizes": [16]}
    task = {"name": "prior", "layers": 1, "heads": 2, "width": 16}
    config = build(TaskConfig, {"task": task, "layout": layout}, "test")
    save_task(tmp_path, config, config.make(), made(), None, "card", {"size": 8})
    assert load_task(tmp_path).metadata["size"] == 8
    reseal(tmp_path, lambda tensors: spoil(next(iter(tensors.values())), value))
    with pytest.raises(FileError, match="weights that are not finite"):
        load_task(tmp_path)
