"""The text of a batch packed into one tensor and unpacked again."""

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tavq.core.files import read_tensors, write_tensors
from tavq.data.texts import PackedText
from tavq.interfaces import FULL_TEXT, GRANULARITIES, TextFeatures, TextUnits

SIZES = st.integers(1, 5)


def units(images: int, count: int, width: int, ids: bool = False) -> TextUnits:
    mask = torch.rand(images, count) < 0.5
    return TextUnits(torch.rand(images, count, width), mask, torch.randint(2**40, mask.shape) if ids else None)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b is None or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_packing_changes_nothing(
    images: int, words: int, phrases: int, sentences: int, width: int, full: bool, pooled: bool
) -> None:
    text = TextFeatures(
        units(images, words, width),
        units(images, phrases, width),
        units(images, sentences, width),
        units(images, words, width, ids=True) if full else None,
        torch.rand(images, width) if pooled else None,
    )
    packed = PackedText.pack(text)
    again = packed.unpack()
    assert packed.data.dtype == torch.uint8
    assert same(again.pooled, text.pooled)
    for name in (*GRANULARITIES, FULL_TEXT):
        found, expected = again[name], text[name]
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert all(same(getattr(found, part), getattr(expected, part)) for part in ("vectors", "mask", "ids"))


def test_an_unpacked_text_can_be_saved(tmp_path: Path) -> None:
    packed = PackedText.pack(TextFeatures(units(3, 2, 4), units(3, 5, 4), units(3, 1, 4)))
    words = packed.unpack().words
    write_tensors(tmp_path / "text.safetensors", {"vectors": words.vectors, "mask": words.mask})
    found = read_tensors(tmp_path / "text.safetensors")
    assert torch.equal(found["vectors"], words.vectors)
    assert torch.equal(found["mask"], words.mask)


def test_tensors_are_aligned_as_torch_aligns_them() -> None:
    text = PackedText.pack(TextFeatures(units(1, 1, 1), units(3, 5, 7), units(3, 1, 1))).unpack()
    assert [
        tensor.storage_offset() * tensor.itemsize % 64 for tensor in (text.phrases.vectors, text.sentences.mask)
    ] == [0, 0]
