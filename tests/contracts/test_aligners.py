"""What every registered aligner does."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.interfaces import GRANULARITIES, Losses, TextFeatures, TextUnits, aligners, sum_losses
from tavq.tokenizer import DEEP, Tokenizer, TokenizerConfig

from .conftest import TEXT_WIDTH, WIDTH, WITHOUT_NOISE

pytestmark = pytest.mark.parametrize("name", aligners)

SIDES = {0: (8, 12), 1: (4, 6), 2: (2, 3)}


def features(images: int, seed: int = 5) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {level: torch.randn(images, WIDTH, *side, generator=generator) for level, side in SIDES.items()}


def changed(text: TextFeatures, change: Any) -> TextFeatures:
    """The text with `change` made to the units of every granularity."""
    units = {field.name: getattr(text, field.name) for field in fields(text)}
    return replace(text, **{name: change(unit) for name, unit in units.items() if isinstance(unit, TextUnits)})


def each(units: TextUnits, change: Any) -> TextUnits:
    """The units with `change` made to their vectors, their mask and their ids where they have such."""
    return TextUnits(change(units.vectors), change(units.mask), None if units.ids is None else change(units.ids))


def images_of(text: TextFeatures, chosen: slice) -> TextFeatures:
    assert text.pooled is not None
    return replace(changed(text, lambda units: each(units, lambda rows: rows[chosen])), pooled=text.pooled[chosen])


class Case:
    """A tokenizer with an aligner, and its losses and gradients for given features and text."""

    def __init__(self, tokenizer: Tokenizer, quantize_levels: Any) -> None:
        self.tokenizer, self.quantize_levels = tokenizer, quantize_levels
        assert tokenizer.aligner is not None
        self.aligner = tokenizer.aligner

    def losses(self, grids: dict[int, Tensor], text: TextFeatures, seed: int = 7) -> Losses:
        levels = self.quantize_levels(self.tokenizer, grids)
        torch.manual_seed(seed)
        return self.aligner(levels, text)

    def run(self, grids: dict[int, Tensor], text: TextFeatures) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values by loss, and gradients by parameter and by level."""
        grids = {level: grid.clone().requires_grad_() for level, grid in grids.items()}
        self.tokenizer.zero_grad()
        losses = self.losses(grids, text)
        sum_losses(losses).backward()
        named = [*self.tokenizer.named_parameters(), *((str(level), grid) for level, grid in grids.items())]
        gradients = {key: value.grad for key, value in named if value.grad is not None}
        return {key: loss.value.detach() for key, loss in losses.items()}, gradients


@pytest.fixture
def case(make: Any, spread: Any, quantize_levels: Any, name: str) -> Case:
    tokenizer = make(align=name)
    spread(tokenizer.codebook)
    return Case(tokenizer, quantize_levels)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_its_losses_are_finite_and_named_by_their_room(case: Case, text: Any) -> None:
    losses = case.losses(features(2), text([3, 1]))
    assert losses
    for key, loss in losses.items():
        assert key.startswith("align/")
        assert loss.value.shape == ()
        assert loss.value.isfinite()
        assert loss.weight > 0


def test_it_names_the_levels_it_reads(case: Case, text: Any) -> None:
    assert set(case.aligner.levels) <= set(SIDES)
    assert len(set(case.aligner.levels)) == len(case.aligner.levels) > 0
    only = {level: grid for level, grid in features(2).items() if level in case.aligner.levels}
    assert case.losses(only, text([1, 2]))


def test_every_parameter_gets_a_gradient_or_is_frozen(case: Case, text: Any) -> None:
    _, gradients = case.run(features(2), text([3, 2]))
    for key, parameter in case.tokenizer.named_parameters():
        if key.startswith("aligner."):
            assert not parameter.requires_grad or gradients[key].ne(0).any(), key


def test_padding_changes_nothing_bit_for_bit(case: Case, text: Any) -> None:
    def filled(units: TextUnits) -> TextUnits:
        noise = 1e6 * torch.randn(units.vectors.shape, generator=torch.Generator().manual_seed(8))
        ids = None if units.ids is None else torch.where(units.mask, units.ids, 10**6)
        return TextUnits(torch.where(units.mask[:, :, None], units.vectors, noise), units.mask, ids)

    for units in ([3, 1], [0, 2]):
        clean = text(units, padded=5)
        for first, second in zip(
            case.run(features(2), clean), case.run(features(2), changed(clean, filled)), strict=True
        ):
            equal(first, second)


def test_wider_padding_changes_nothing_bit_for_bit(case: Case, text: Any) -> None:
    def widened(units: TextUnits, more: int) -> TextUnits:
        return each(units, lambda rows: torch.nn.functional.pad(rows, (0, 0) * (rows.ndim - 2) + (0, more)))

    clean = text([3, 1], padded=3)
    values, _ = case.run(features(2), clean)
    for more in (1, 5, 40):
        wider, _ = case.run(features(2), changed(clean, lambda units, more=more: widened(units, more)))
        equal(values, wider)


def test_an_image_without_text_adds_nothing(case: Case, text: Any) -> None:
    words = text([3, 0, 2])
    grids = features(3)
    values, gradients = case.run(grids, words)
    for level in case.aligner.levels:
        assert gradients[str(level)][1].eq(0).all()
        assert gradients[str(level)][0].ne(0).any()
    other = {level: torch.stack([grid[0], -2 * grid[1], grid[2]]) for level, grid in grids.items()}
    equal(values, case.run(other, words)[0])


def test_a_batch_without_text_has_loss_zero_and_no_gradient(case: Case, text: Any) -> None:
    for words in (text([0, 0]), text([0, 0], padded=0)):
        values, gradients = case.run(features(2), words)
        assert all(value == 0 for value in values.values())
        assert all(gradient.eq(0).all() for gradient in gradients.values())


def test_the_order_of_the_units_is_irrelevant(case: Case, text: Any) -> None:
    """Three units are fewer than any number of samples, so that none is left out by chance."""

    def turned(units: TextUnits) -> TextUnits:
        order = [2, 0, 1, 3]
        return each(units, lambda rows: rows[:, order])

    if case.aligner.sequential:
        pytest.skip("it reads tokens in their order")
    words = text([3, 3])
    for first, second in zip(case.run(features(2), words), case.run(features(2), changed(words, turned)), strict=True):
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], rtol=1e-4, atol=1e-6, msg=key)


def test_a_batch_is_the_mean_of_its_images(make: Any, spread: Any, quantize_levels: Any, name: str, text: Any) -> None:
    if aligners[name].batchwise:
        pytest.skip("it tells the images of a batch apart")
    tokenizer = make(align=name, **WITHOUT_NOISE.get(name, {}))
    spread(tokenizer.codebook)
    case, words, grids = Case(tokenizer, quantize_levels), text([3, 2]), features(2)
    together, gradients = case.run(grids, words)
    alone = []
    for i in range(2):
        chosen = slice(i, i + 1)
        single, own = case.run({level: grid[chosen] for level, grid in grids.items()}, images_of(words, chosen))
        alone.append(single)
        for level in case.aligner.levels:
            torch.testing.assert_close(gradients[str(level)][chosen], own[str(level)] / 2, rtol=1e-4, atol=1e-8)
    for key, value in together.items():
        torch.testing.assert_close(value, (alone[0][key] + alone[1][key]) / 2)


def test_autocast_changes_nothing(case: Case, text: Any) -> None:
    levels = case.quantize_levels(case.tokenizer, features(2))
    torch.manual_seed(7)
    full = case.aligner(levels, text([3, 2]))
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16):
        half = case.aligner(levels, text([3, 2]))
    assert all(torch.equal(full[key].value, half[key].value) for key in full)


# --- the common space -------------------------------------------------------------------------------------------


def test_images_and_texts_are_unit_vectors_of_one_space(case: Case, text: Any) -> None:
    levels = case.quantize_levels(case.tokenizer, features(3))
    images, words = case.aligner.embed_images(levels), case.aligner.embed_text(text([3, 1, 2]))
    assert images.shape == words.shape
    for rows in (images, words):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert torch.equal(images, case.aligner.embed_images(levels))


def test_padding_does_not_move_a_text(case: Case, text: Any) -> None:
    words = text([3, 1])
    filled = changed(words, lambda units: replace(units, vectors=units.vectors.where(units.mask[:, :, None], 7.0)))
    assert torch.equal(case.aligner.embed_text(words), case.aligner.embed_text(filled))
    alone = case.aligner.embed_text(
        changed(images_of(words, slice(1, 2)), lambda units: each(units, lambda rows: rows[:, :1]))
    )
    torch.testing.assert_close(case.aligner.embed_text(words)[1:], alone)


@pytest.mark.parametrize("granularity", [*GRANULARITIES, "letters"])
def test_entries_are_embedded_in_the_text_space_or_not_at_all(case: Case, granularity: str) -> None:
    embedded = case.aligner.embed_entries(case.tokenizer.codebook().detach(), granularity)
    if granularity == "letters":
        assert embedded is None
    if embedded is not None:
        assert embedded.shape == (case.tokenizer.codebook.size, TEXT_WIDTH)
        assert embedded.isfinite().all()


# --- what some are asked ----------------------------------------------------------------------------------------


def test_words_with_the_least_noise_are_predicted_for_any_padding(case: Case, text: Any) -> None:
    words, levels = text([3, 0, 2]), case.quantize_levels(case.tokenizer, features(3))
    noise = torch.rand(3, 4, generator=torch.Generator().manual_seed(9))
    found = case.aligner.fill_words(levels, words, noise, 2)
    if found is None:
        pytest.skip("it fills no words")
    predicted, truth, owner = found
    assert predicted.shape == truth.shape == (4,)
    assert owner.tolist() == [0, 0, 2, 2]
    places = noise.masked_fill(~words.full_text.mask, 2).argsort(1)[:, :2].sort(1).values
    assert truth.tolist() == [*words.full_text.ids[0, places[0]].tolist(), *words.full_text.ids[2, places[2]].tolist()]
    wider = changed(words, lambda units: each(units, lambda rows: torch.cat([rows, torch.zeros_like(rows)], dim=1)))
    again = case.aligner.fill_words(levels, wider, torch.cat([noise, noise / 2], 1), 2)
    assert again is not None
    assert torch.equal(predicted, again[0])


def test_relations_are_cosines_of_pairs_of_words_and_of_their_codes(case: Case, text: Any) -> None:
    found = case.aligner.relations(case.quantize_levels(case.tokenizer, features(3)), text([3, 0, 2]))
    if found is None:
        pytest.skip("it matches no words with codes")
    *cosines, owner = found
    for values in cosines:
        assert values.shape == (3 + 0 + 1,)
        assert values.abs().max() <= 1 + 1e-6
    assert owner.tolist() == [0, 0, 0, 2]


# --- in the tokenizer -------------------------------------------------------------------------------------------


def test_it_is_used_in_training_only(case: Case, grid: Any) -> None:
    images = grid(2, 16, 24, 3).tanh()
    tokenizer, plain = case.tokenizer, case.tokenizer.without_alignment()
    assert torch.equal(tokenizer.encode(images), plain.encode(images))
    assert torch.equal(tokenizer(images).images, plain(images).images)
    assert set(plain.state_dict()) == {
        key for key in tokenizer.state_dict() if not key.startswith(("aligner.", "hierarchy."))
    }
    assert plain.decoder.conv_in.weight.data_ptr() == tokenizer.decoder.conv_in.weight.data_ptr()


def test_removing_the_aligner_uses_no_random_numbers(case: Case) -> None:
    state = torch.get_rng_state()
    plain = case.tokenizer.without_alignment()
    assert torch.equal(state, torch.get_rng_state())
    assert not any(value.is_meta for value in plain.state_dict().values())


def test_one_seed_gives_the_same_weights_with_it_and_without(make: Any, name: str, grid: Any) -> None:
    aligned, plain = make(align=name, seed=3), make(seed=3)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, aligned.state_dict()[key]), key
    images = grid(2, 16, 24, 3).tanh()
    assert torch.equal(aligned.encode(images), plain.encode(images))


def test_without_text_the_aligner_is_not_called(case: Case, grid: Any) -> None:
    output = case.tokenizer(grid(2, 16, 24, 3))
    assert not any(key.startswith("align/") for key in output.losses)
    assert set(output.levels) == {DEEP, *case.aligner.levels}


def test_its_settings_survive_as_plain_values(case: Case, name: str) -> None:
    plain = case.tokenizer.config.model_dump(mode="json")
    assert plain["align"]["name"] == name
    assert set(plain["align"]) == set(aligners[name].Config.model_fields)
    assert build(TokenizerConfig, plain, "test") == case.tokenizer.config
