"""Image features of understanding tasks, and the adapter that projects them."""

from typing import Any

import pytest
import torch
from torch import nn

from tavq.core.config import build
from tavq.core.errors import RenamedWarning, UsageError
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.understanding import (
    Adapter,
    ImageInput,
    extract_encoder_features,
    extract_features,
    lookup_quantized,
)
from tavq.tokenizer import Tokenizer, TokenizerConfig

LAYOUT = TokenLayout(height=4, width=6, sizes=(9,))


def adapter(width: int = 1, out: int = 4, **image: object) -> Adapter:
    torch.manual_seed(0)
    return Adapter(ImageInput.model_validate({"hidden": 8, **image}), LAYOUT, width, out)


def test_features_of_another_device_are_moved() -> None:
    """Features are collected on the CPU; a mixture of devices would be an error in the difference to the mean."""
    fitted = adapter(width=5).to("meta")
    fitted.fit(torch.randn(2, 24, 5))
    assert fitted.mean.is_meta


def test_a_patch_holds_its_neighbours_in_raster_order_and_nothing_is_lost() -> None:
    module = adapter(patch=2)
    module.mlp, module.position_embedding = nn.Identity(), nn.Parameter(torch.zeros(6, 4))
    numbers = torch.arange(24.0).view(1, 24, 1)  # 4 rows of 6
    assert module(numbers)[0].tolist() == [
        [0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19], [14, 15, 20, 21], [16, 17, 22, 23],
    ]  # fmt: skip


def test_features_have_mean_0_and_std_1_over_the_training_set() -> None:
    module = adapter(width=3)
    features = torch.randn(50, 24, 3, generator=torch.Generator().manual_seed(1)) * 7 + torch.tensor(
        [3.0, -20.0, 100.0]
    )
    module.fit(features)
    kept = {name: value.clone() for name, value in module.state_dict().items()}  # with the weights
    again = adapter(width=3)
    again.load_state_dict(kept)
    again.mlp, again.position_embedding = nn.Identity(), nn.Parameter(torch.zeros(24, 3))
    normalized = again(features).detach()
    assert normalized.mean(dim=(0, 1)).abs().max() < 1e-4
    assert float(normalized.square().mean()) == pytest.approx(1, abs=1e-4)


def test_each_position_has_its_own_embedding() -> None:
    module = adapter()
    same = module(torch.ones(2, 24, 1))
    assert torch.equal(same[0], same[1])
    assert torch.allclose(same[0] - same[0, 0], module.position_embedding - module.position_embedding[0], atol=1e-6)
    assert (module.position_embedding[0] - module.position_embedding[1]).abs().max() > 0


def test_source_none_ignores_the_image() -> None:
    module = adapter(source="none")
    one, other = torch.randn(2, 24, 1), torch.randn(2, 24, 1)
    assert module(one).shape == (2, 1, 4)
    assert torch.equal(module(one), module(other))
    module.fit(one)
    assert [name for name, _ in module.named_parameters()] == ["position_embedding"]


def test_a_patch_must_divide_the_grid() -> None:
    with pytest.raises(UsageError, match=r"task.image.patch 4 does not divide the grid of 4 x 6 codes"):
        adapter(patch=4)


def test_codes_are_the_decoders_input_and_features_the_quantizers() -> None:
    torch.manual_seed(0)
    settings = {
        "net": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 20, "width": 6, "init": "normal"},
    }
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test")).eval()
    layout = TokenLayout(height=8, width=8, sizes=(20,))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    codes = extract_features(tokenizer, layout, ImageInput(), images)
    table, indices = tokenizer.codebook(), tokenizer.encode(images).flatten(1)
    assert torch.equal(codes, table[indices.view(2, 64)])
    assert torch.equal(codes, lookup_quantized(tokenizer, layout, layout.to_tokens(tokenizer.encode(images))))
    features = extract_features(tokenizer, layout, ImageInput(source="features"), images)
    assert torch.equal(features, extract_encoder_features(tokenizer, images))
    nearest = torch.cdist(features.double(), table.double()).argmin(dim=2)
    assert torch.equal(nearest, indices.view(2, 64))
    assert not torch.allclose(features, codes, atol=1e-3)


@pytest.mark.parametrize(
    ("task", "old", "new"),
    [
        ("captioning", {"longest": 12}, {"max_length": 12}),
        ("captioning", {"of": "long_text"}, {"text_field": "long_text"}),
        ("captioning", {"writing": {"beams": 2}}, {"decoding": {"beams": 2}}),
        ("captioning", {"picture": {"patch": 2}}, {"image": {"patch": 2}}),
        ("captioning", {"language": {"places": 40}}, {"language": {"positions": 40}}),
        ("vqa", {"longest": 12, "most_answers": 4}, {"max_length": 12, "max_answers": 4}),
        ("grounding", {"looking": 0.5, "longest": 12}, {"attention_supervision": 0.5, "max_length": 12}),
        ("grounding", {"text": "clip"}, {"text_encoder": "clip"}),
        ("retrieval", {"of": "long_text", "longest": 12}, {"text_field": "long_text", "max_length": 12}),
        ("masked-words", {"longest": 12, "picture": {"patch": 2}}, {"max_length": 12, "image": {"patch": 2}}),
    ],
)
def test_old_names_of_settings_are_accepted(task: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    config = tasks[task].Config
    with pytest.warns(RenamedWarning):
        renamed = config.model_validate({"name": task, **old})
    assert renamed == config.model_validate({"name": task, **new})
