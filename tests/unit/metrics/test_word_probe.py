"""The word probe: a known match is found, its value follows by hand, and chance is chance."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tavq.metrics.ridge import Ridge, choose_penalty
from tavq.metrics.word_probe import PositionMatch, probe_word_relations
from tavq.metrics.words import keyed_noise

WIDTH, TEXT_WIDTH, KINDS = 6, 9, 5


def scenes(count: int, positions: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Entries and words of some kinds of things; each image shows three things, named by its words."""
    generator = torch.Generator().manual_seed(seed)
    entries, words = torch.randn(KINDS, WIDTH, generator=generator), torch.randn(KINDS, TEXT_WIDTH, generator=generator)
    shown = [torch.randperm(KINDS, generator=generator)[:3] for _ in range(count)]
    grids = [entries[own[torch.arange(positions) % 3]] for own in shown]
    return entries, words, grids, [words[own] for own in shown]


def names(count: int) -> list[str]:
    return [f"{number}.png" for number in range(count)]


def cosine(first: Tensor, second: Tensor) -> float:
    return float(normalize(first, dim=0) @ normalize(second, dim=0))


def test_each_word_finds_the_position_that_shows_it() -> None:
    entries, words, grids, texts = scenes(60)
    means = torch.stack([grid.mean(0) for grid in grids]).double()
    match = PositionMatch(means, torch.stack([text.mean(0) for text in texts]).double())
    for grid, text in zip(grids, texts, strict=True):
        found = grid[match(text.double(), grid.double())]
        kinds = [int((words == word).all(1).nonzero()) for word in text]
        assert torch.equal(found, entries[kinds])


def test_a_match_equals_that_of_mapped_entries() -> None:
    generator = torch.Generator().manual_seed(1)
    means, targets, grid, words = (
        torch.randn(*shape, generator=generator).double() for shape in ((40, 4), (40, 7), (30, 4), (12, 7))
    )
    ridge = Ridge.fit(means, targets)
    mapped = ridge.predict(grid, choose_penalty(means, targets))
    apart = normalize(words - targets.mean(0), dim=1) @ normalize(mapped, dim=1).mT
    assert PositionMatch(means, targets)(words, grid).tolist() == apart.argmax(1).tolist()


def test_the_value_by_hand() -> None:
    _, words, grids, texts = scenes(60)
    found, chance = probe_word_relations(names(60), grids.__getitem__, texts)
    entries = scenes(60)[0]
    errors, random_errors = [], []
    for key, grid, text in zip(names(60), grids, texts, strict=True):
        kinds = [int((words == word).all(1).nonzero()) for word in text]
        drawn = grid[(keyed_noise([key], 3)[0] * len(grid)).long()]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            wanted = cosine(text[i], text[j])
            errors.append((wanted - cosine(entries[kinds[i]], entries[kinds[j]])) ** 2)
            random_errors.append((wanted - cosine(drawn[i], drawn[j])) ** 2)
    assert found.value == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert chance.value == pytest.approx(sum(random_errors) / len(random_errors), rel=1e-5)
    assert (found.key, chance.key) == ("probe_word_code_mse", "random_position/probe_word_code_mse")
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_codes_with_the_angles_of_their_words_score_near_0_and_equal_codes_do_not() -> None:
    _, _, grids, texts = scenes(60)
    turned = torch.linalg.qr(torch.randn(TEXT_WIDTH, TEXT_WIDTH, generator=torch.Generator().manual_seed(2)))[0]
    alike = [text[torch.arange(8) % 3] @ turned for text in texts]
    same = [torch.ones_like(grid) for grid in grids]
    assert probe_word_relations(names(60), alike.__getitem__, texts)[0].value < 1e-9
    expected = torch.stack([1 - normalize(text, dim=1) @ normalize(text, dim=1).T for text in texts])
    pairs = expected[:, [0, 0, 1], [1, 2, 2]].square().mean()
    for metric in probe_word_relations(names(60), same.__getitem__, texts):
        assert metric.value == pytest.approx(float(pairs), rel=1e-5)


@pytest.mark.parametrize(("images", "words"), [(7, 3), (20, 1)])
def test_it_is_undefined_for_few_images_or_single_words(images: int, words: int) -> None:
    _, _, grids, texts = scenes(images)
    found = probe_word_relations(names(images), grids.__getitem__, [text[:words] for text in texts])
    assert [metric.value for metric in found] == [None, None]
