"""The survey against counting by brute force, and the nearest units against a space made by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EvaluationLoader
from tavq.interfaces import Batch
from tavq.report.meaning import Survey, decode_alone, entry_vectors, explain_codes, frequent_units, nearest_units
from tavq.report.pictures import as_bytes
from tavq.report.view import held_out_first, spread
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

TOP, PATCHES = 4, 3


class Words:
    """A text store of a few words with vectors by hand, the first rarer than is looked at."""

    texts = ("rare", "north", "south", "east")
    vectors = np.array([[9.0, 1.0], [8.0, 1.0], [8.0, -1.0], [10.0, 0.0]], np.float32)  # all far along one axis
    often = np.array([4, 7, 9, 5])

    def __contains__(self, key: object) -> bool:
        return False

    def units(self, key: str) -> dict[str, Sequence[str]]:
        raise KeyError(key)

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        return (list(self.texts), self.vectors) if granularity == "words" else ([], np.zeros((0, 2), np.float32))

    def counts(self, granularity: str) -> Int[np.ndarray, " u"]:
        return self.often if granularity == "words" else np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def tokenizer(runs: Any) -> Tokenizer:
    return Tokenizer.from_pretrained(runs.aligned)


def batches(data: Path, size: int) -> EvaluationLoader:
    return EvaluationLoader(FolderDataset(data), DataConfig(size=16, flip=0), size, None)


def surveyed(tokenizer: Tokenizer, data: Path, size: int = 3) -> Survey:
    survey = Survey(tokenizer, TextStore.open(data / "text"), PATCHES)
    for batch in batches(data, size):
        survey.update(batch)
    return survey


def places(tokenizer: Tokenizer, data: Path) -> dict[int, list[tuple[float, str, int, int]]]:
    """For each code the best place in each picture, the best first, by a plain loop."""
    found: dict[int, list[tuple[float, str, int, int]]] = {}
    entries = entry_vectors(tokenizer)
    for batch in batches(data, 32):
        indices = tokenizer.encode(batch.images)
        features = tokenizer.encoder(batch.images)[1]
        for number, key in enumerate(batch.keys):
            best: dict[int, tuple[float, str, int, int]] = {}
            for y, x in np.ndindex(*indices.shape[1:]):
                code = int(indices[number, y, x])
                distance = float((features[number, :, y, x] - entries[code]).square().sum())
                best[code] = min(best.get(code, (np.inf, "", 0, 0)), (distance, key, y, x))
            for code, place in best.items():
                found.setdefault(code, []).append(place)
    return {code: sorted(list_) for code, list_ in found.items()}


def test_counts_are_those_of_encode(tokenizer: Tokenizer, runs: Any) -> None:
    expected = torch.zeros(tokenizer.entries, dtype=torch.long)
    for batch in batches(runs.data, 5):
        expected += torch.bincount(tokenizer.encode(batch.images).flatten(), minlength=tokenizer.entries)
    survey = surveyed(tokenizer, runs.data)
    assert survey.counts.tolist() == expected.tolist()
    assert len(survey.presence.codes) == len(survey.keys) == 20
    ordered = [survey.counts[code] for code in survey.order]
    assert ordered == sorted(ordered, reverse=True)


def test_patches_are_the_best_places_of_different_pictures(tokenizer: Tokenizer, runs: Any) -> None:
    cards = surveyed(tokenizer, runs.data).cards(FolderDataset(runs.data), TOP)
    truth = places(tokenizer, runs.data)
    assert len(cards) > 1
    for card in cards:
        expected = truth[card.code][:PATCHES]
        worst = expected[-1][0]
        allowed = {place[1] for place in truth[card.code] if place[0] <= worst * 1.0001 + 1e-9}
        keys = [patch.key for patch in card.patches]
        assert len(keys) == len(set(keys)) == len(expected)
        assert set(keys) <= allowed


def test_a_patch_shows_the_place_in_the_picture(tokenizer: Tokenizer, runs: Any) -> None:
    survey = surveyed(tokenizer, runs.data)
    dataset = FolderDataset(runs.data)
    pictures = {key: as_bytes(b.images[n]) for b in batches(runs.data, 20) for n, key in enumerate(b.keys)}
    truth = places(tokenizer, runs.data)
    for card in survey.cards(dataset, TOP):
        _, key, y, x = truth[card.code][0]
        if card.patches[0].key != key:  # two places as good as each other
            continue
        f = tokenizer.factor
        expected = pictures[key][max(y - 1, 0) * f : (y + 2) * f, max(x - 1, 0) * f : (x + 2) * f]
        assert np.array_equal(card.patches[0].picture, expected)


def test_batch_sizes_do_not_matter(tokenizer: Tokenizer, runs: Any) -> None:
    one, other = (surveyed(tokenizer, runs.data, size) for size in (1, 20))
    assert one.counts.tolist() == other.counts.tolist()
    assert one.keys == other.keys
    assert np.allclose(np.sort(one._distance), np.sort(other._distance), rtol=1e-4, atol=1e-6)


def test_cards_by_the_public_name(tokenizer: Tokenizer, runs: Any) -> None:
    dataset = FolderDataset(runs.data)
    cards = explain_codes(tokenizer, dataset, batches(runs.data, 8), None, top=2, patches=1)
    assert [len(card.patches) for card in cards] == [1, 1]
    assert cards[0].count >= cards[1].count > 0
    assert cards[0].share == pytest.approx(cards[0].count / (20 * 16))
    assert cards[0].found_with is None
    assert cards[0].nearest is None
    with pytest.raises(DataError, match="no picture"):
        explain_codes(tokenizer, dataset, [])


def test_an_aligned_run_has_both_readings_and_a_plain_one_only_the_first(tokenizer: Tokenizer, runs: Any) -> None:
    dataset = FolderDataset(runs.data)
    aligned = surveyed(tokenizer, runs.data).cards(dataset, 1)[0]
    plain = surveyed(Tokenizer.from_pretrained(runs.plain), runs.data).cards(dataset, 1)[0]
    assert aligned.found_with is not None
    assert plain.found_with is not None
    assert aligned.nearest is not None
    assert plain.nearest is None


def test_alone_is_the_middle_of_a_grid_of_one_code(tokenizer: Tokenizer) -> None:
    tiles = decode_alone(tokenizer, [5, 0])
    f = tokenizer.factor
    assert [tile.shape for tile in tiles] == [(2 * f, 2 * f, 3)] * 2
    picture = tokenizer.decode(torch.full((1, 4, 4), 5))
    assert np.array_equal(tiles[0], as_bytes(picture[0, :, f : 3 * f, f : 3 * f]))


def test_rare_words_are_left_out_and_rare_sentences_are_not() -> None:
    assert frequent_units(Words(), "words")[0] == ["south", "north", "east"]
    sentences = Words()
    sentences.vocabulary = lambda _: (list(Words.texts), Words.vectors)  # type: ignore[method-assign]
    sentences.counts = lambda _: np.array([1, 1, 2, 0])  # type: ignore[method-assign]
    assert frequent_units(sentences, "sentences")[0] == ["south", "rare", "north"]


def test_nearest_units_are_found_beside_the_common_direction(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = torch.full((tokenizer.entries, 2), 50.0)  # entries never used, far off
    embedded[:3] = torch.tensor([[5.0, 1.0], [5.0, -1.0], [8.0, 0.0]])

    def embed(entries: Tensor, granularity: str) -> Tensor | None:
        return embedded if granularity == "words" else None

    monkeypatch.setattr(tokenizer.aligner, "embed_entries", embed)
    used = np.arange(tokenizer.entries) < 3
    found = nearest_units(tokenizer, Words(), [0, 1, 2], used)
    assert found is not None
    assert list(found) == ["words"]
    # without the means removed, "east" would be nearest to all three
    assert [row[0].unit for row in found["words"]] == ["north", "south", "east"]
    # entry 2 less the mean (6, 0) of the used ones is (2, 0); "east" less the mean of the units is (4/3, 0)
    assert found["words"][2][0].cosine == pytest.approx(1)
    assert found["words"][0][0].cosine == pytest.approx((2 / 3 + 1) / (2**0.5 * (4 / 9 + 1) ** 0.5))
    assert nearest_units(tokenizer, None, [0], used) is None
    assert nearest_units(tokenizer, Words(), [], used) is None


def test_held_out_pictures_come_first_and_evenly_spread(runs: Any) -> None:
    dataset = held_out_first(runs.data, 5)
    assert [record.split for record in dataset] == ["test", "test", "val", "val", "train"]
    assert spread(dataset, 12) == [dataset[0].file_name, dataset[1].file_name]
    train = FolderDataset(runs.data, "train")
    assert spread(train, 4) == [f"images/{number}.png" for number in (0, 4, 8, 12)]


def test_a_picture_without_text_counts_for_usage_only(tokenizer: Tokenizer) -> None:
    survey = Survey(tokenizer, Words())
    survey.update(Batch(torch.zeros(2, 3, 16, 16), ("a", "b")))
    assert survey.counts.sum() == 2 * 16
    assert survey.presence.codes == []
