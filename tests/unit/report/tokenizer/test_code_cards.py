"""Code cards: counts, patches, associated units and nearest units."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tavq.codebooks.learned import LearnedCodebook
from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.inspection.entries import decode_alone, find_nearest_units, list_frequent_units
from tavq.inspection.pixels import as_bytes, crop
from tavq.interfaces import Batch
from tavq.report.tokenizer.code_cards import Survey, explain_codes
from tavq.tokenizer import Tokenizer, TokenizerConfig

SETTINGS = {
    "net": {"channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": False},
    "codebook": {"name": "learned", "entries": 2, "width": 3},
    "quantizer": {"name": "nearest"},
}


class Means(nn.Module):
    """An encoder whose features are the mean colours of square cells."""

    def __init__(self, cell: int = 4) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, images: Float[Tensor, "b 3 y x"]) -> tuple[list[Tensor], Float[Tensor, "b 3 h w"]]:
        return [], nn.functional.avg_pool2d(images, self.cell)


class FakeStore:
    """Text by hand; every vector is a row of two numbers."""

    def __init__(self, units: Mapping[str, Sequence[str]], vectors: Mapping[str, tuple[float, ...]]) -> None:
        self.text, self.table = units, vectors

    def __contains__(self, key: object) -> bool:
        return key in self.text

    def units(self, key: str) -> Mapping[str, Sequence[str]]:
        return {"words": self.text[key], "phrases": [], "sentences": []}

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        if granularity != "words":
            return [], np.zeros((0, 2), np.float32)
        return list(self.table), np.array(list(self.table.values()), np.float32)

    def counts(self, granularity: str) -> np.ndarray:
        names = self.vocabulary(granularity)[0]
        return np.array([sum(name in words for words in self.text.values()) for name in names], np.int64)


class Flat(nn.Module):
    """An aligner that drops the third coordinate of an entry."""

    levels = (0, 2)

    def __init__(self, level: int = 2) -> None:
        super().__init__()
        self.entry_levels = {"words": level}

    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        return entries[:, :2] if granularity == "words" else None


@pytest.fixture
def tokenizer() -> Tokenizer:
    """Entry 0 is black, entry 1 is white; features are cell means, so what is chosen can be seen."""
    found = Tokenizer(TokenizerConfig.model_validate(SETTINGS)).eval()
    found.encoder = Means()  # type: ignore[assignment]
    found.codebook.table.data = torch.tensor([[-1.0, -1, -1], [1.0, 1, 1]])
    return found


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    """Eight black images of 16 px; of the first six, one cell (row 1, column n % 4) is ever purer white."""
    for number in range(8):
        image = np.zeros((16, 16, 3), np.uint8)
        if number < 6:
            column = 4 * (number % 4)
            image[4:8, column : column + 4] = 200 + 10 * number
        save_png(tmp_path / f"images/{number}.png", image)
    lines = [f'{{"file_name": "images/{number}.png", "split": "train"}}\n' for number in range(8)]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    return FolderDataset(tmp_path)


def batches(dataset: FolderDataset) -> list[Batch]:
    found = []
    for start in (0, 5):
        keys = tuple(record.file_name for record in dataset)[start : start + 5]
        image_set = [crop(dataset.path(key), 16, (0, 0, 16, 16)) for key in keys]
        images = torch.from_numpy(np.stack(image_set)).permute(0, 3, 1, 2).float() / 127.5 - 1
        found.append(Batch(images, keys))
    return found


def store() -> FakeStore:
    words = {f"images/{number}.png": ["dark", *(["cell"] if number < 6 else [])] for number in range(8)}
    return FakeStore(words, {"dark": (0.0, 1.0), "cell": (1.0, 0.0)})


def test_counts_and_fractions(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    cards = explain_codes(tokenizer, dataset, batches(dataset), store())
    assert [(card.code, card.count) for card in cards] == [(0, 8 * 16 - 6), (1, 6)]
    assert cards[1].fraction == pytest.approx(6 / 128)
    assert cards[0].tile.shape == (8, 8, 3)  # the middle 2 x 2 cells
    assert all(card.nearest is None for card in cards)  # there is no aligner


def test_a_card_has_the_word_that_its_entry_is_made_of(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    assert {card.word for card in explain_codes(tokenizer, dataset, batches(dataset))} == {None}
    tokenizer.codebook.words = ("night", "snow")  # type: ignore[assignment]
    assert [card.word for card in explain_codes(tokenizer, dataset, batches(dataset))] == ["night", "snow"]


@pytest.mark.parametrize(("cell", "side"), [(1, 13), (2, 14), (4, 12), (8, 24)])
def test_a_patch_is_three_cells_wide_and_twelve_pixels_at_least(
    tokenizer: Tokenizer, tmp_path: Path, cell: int, side: int
) -> None:
    tokenizer.encoder = Means(cell)  # type: ignore[assignment]
    size, center = 40 * cell, 20 * cell
    image = np.zeros((size, size, 3), np.uint8)
    image[center : center + cell, center : center + cell] = 255
    save_png(tmp_path / "images/0.png", image)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "images/0.png", "split": "train"}\n')
    survey = Survey(tokenizer)
    survey.update(Batch(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1, ("images/0.png",)))
    found = survey.crop_patches(1, FolderDataset(tmp_path))
    assert [patch.image.shape for patch in found] == [(side, side, 3)]


def test_patches_are_cropped_where_the_code_matches_best(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    card = explain_codes(tokenizer, dataset, batches(dataset), patches=4)[1]
    assert [patch.key for patch in card.patches] == [f"images/{number}.png" for number in (5, 4, 3, 2)]
    purest = card.patches[0].image  # cell (1, 1): rows 0 to 12, columns 0 to 12, the cell in the middle
    assert purest.shape == (12, 12, 3)
    assert (purest[4:8, 4:8] == 250).all()
    assert purest.sum() == 250 * 16 * 3
    assert card.patches[1].image.shape == (12, 8, 3)  # column 0: what lies outside is left out
    assert (card.patches[1].image[4:8, :4] == 240).all()
    assert card.patches[2].image.shape == (12, 8, 3)  # number 3, cell (1, 3): columns 8 to 16
    assert (card.patches[2].image[4:8, 4:8] == 230).all()


def test_with_a_store_cards_have_associated_words(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    cards = explain_codes(tokenizer, dataset, batches(dataset), store())
    assert cards[1].associated is not None
    assert [item.unit for item in cards[1].associated["words"]] == ["cell"]
    assert explain_codes(tokenizer, dataset, batches(dataset))[0].associated is None


def test_without_images_codes_cannot_be_explained(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    with pytest.raises(DataError, match="no image in"):
        explain_codes(tokenizer, dataset, [])


def test_batch_sizes_do_not_matter(tokenizer: Tokenizer, dataset: FolderDataset) -> None:
    whole = batches(dataset)
    single = [Batch(batch.images[n : n + 1], (key,)) for batch in whole for n, key in enumerate(batch.keys)]
    one, other = (explain_codes(tokenizer, dataset, some, store()) for some in (whole, single))
    assert [(card.code, card.count, card.associated) for card in one] == [
        (card.code, card.count, card.associated) for card in other
    ]
    assert [[patch.key for patch in card.patches] for card in one][1] == [patch.key for patch in other[1].patches]


def test_the_middle_of_a_grid_of_one_code_is_shown(tokenizer: Tokenizer) -> None:
    tiles = decode_alone(tokenizer, [1, 0])
    f = tokenizer.factor
    assert [tile.shape for tile in tiles] == [(2 * f, 2 * f, 3)] * 2
    image = tokenizer.decode(torch.ones(1, 4, 4, dtype=torch.long))
    assert np.array_equal(tiles[0], as_bytes(image[0, :, f : 3 * f, f : 3 * f]))


def test_a_sentence_of_one_image_is_a_candidate() -> None:
    once = FakeStore({"a": ["It rains."]}, {"It rains.": (1.0, 0), "Never.": (0.0, 1)})
    once.vocabulary = lambda _: (list(once.table), np.eye(2, dtype=np.float32))  # type: ignore[method-assign]
    assert list_frequent_units(once, "sentences")[0] == ["It rains."]


def test_an_image_without_text_counts_for_usage_only(tokenizer: Tokenizer) -> None:
    survey = Survey(tokenizer, FakeStore({}, {}))
    survey.update(Batch(torch.zeros(2, 3, 16, 16), ("a", "b")))
    assert survey.counts.sum() == 2 * 16
    assert survey.cooccurrences.codes == []


def many(vectors: Mapping[str, tuple[float, ...]]) -> FakeStore:
    return FakeStore({str(number): list(vectors) for number in range(5)}, vectors)


def test_nearest_units_after_the_means_are_removed(tokenizer: Tokenizer) -> None:
    """Both codes and all units share a large common part; without it the order is another."""
    tokenizer.aligner = Flat()  # type: ignore[assignment]
    tokenizer.codebook.table.data = torch.tensor([[11.0, 10, 0], [10.0, 11, 0]])
    words = many({"right": (101.0, 100), "up": (100.0, 101), "common": (101.0, 101), "low": (98.0, 98)})
    found = find_nearest_units(tokenizer, words, [0, 1], [True, True])
    assert found is not None
    assert list(found) == ["words"]
    # entries minus (10.5, 10.5): (±½, ∓½); units minus (100, 100): (1, 0), (0, 1), (1, 1), (-2, -2)
    assert found["words"][0][0].unit == "right"
    assert found["words"][0][0].cosine == pytest.approx(2**-0.5, abs=1e-5)
    assert found["words"][1][0].unit == "up"
    cosines = {near.unit: near.cosine for near in found["words"][1]}
    assert cosines == pytest.approx({"up": 2**-0.5, "right": -(2**-0.5), "common": 0, "low": 0}, abs=1e-5)


def test_units_aligned_with_another_codebook_are_left_out(tokenizer: Tokenizer) -> None:
    tokenizer.level_codebooks = nn.ModuleDict({"low": LearnedCodebook(LearnedCodebook.Config(entries=2, width=3))})
    words = many({"right": (1.0, 0), "up": (0.0, 1)})
    tokenizer.aligner = Flat(level=0)  # type: ignore[assignment]
    assert find_nearest_units(tokenizer, words, [0, 1], [True, True]) is None
    tokenizer.aligner = Flat(level=2)  # type: ignore[assignment]
    assert find_nearest_units(tokenizer, words, [0, 1], [True, True]) is not None


def test_entries_never_used_do_not_move_the_mean(tokenizer: Tokenizer) -> None:
    tokenizer.aligner = Flat()  # type: ignore[assignment]
    words = many({"right": (1.0, 0), "up": (0.0, 1), "left": (-1.0, -1)})
    weights = torch.tensor([[1.0, 0, 0], [0.0, 1, 0]])
    found = []
    for value in (0.0, 900.0):
        three = torch.cat([weights, torch.full((1, 3), value)])
        tokenizer.lookup_entries = lambda w=three: w  # type: ignore[method-assign, misc]
        found.append(find_nearest_units(tokenizer, words, [0, 1], [True, True, False]))
    assert found[0] == found[1]


def test_units_in_few_images_are_not_candidates() -> None:
    texts = {str(number): ["often", *(["seldom"] if number < 4 else [])] for number in range(6)}
    units, vectors = list_frequent_units(FakeStore(texts, {"seldom": (1.0, 0), "often": (0.0, 1)}), "words")
    assert units == ["often"]
    assert vectors.tolist() == [[0.0, 1.0]]


def test_a_store_of_another_width_is_refused(tokenizer: Tokenizer) -> None:
    tokenizer.aligner = Flat()  # type: ignore[assignment]
    with pytest.raises(DataError, match="vectors have 3 dimensions, but the model was aligned with 2"):
        find_nearest_units(tokenizer, many({"a": (1.0, 0, 0), "b": (0.0, 1, 0)}), [0], [True, True])
