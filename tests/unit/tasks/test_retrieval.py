"""Retrieval: the loss and metrics by hand, the vectors, and refused settings and files."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import tavq
from tavq.core.config import build, read_yaml
from tavq.core.errors import FileError, TrainingError, UsageError
from tavq.data.records import Record
from tavq.interfaces import sum_losses
from tavq.metrics.record import by_key
from tavq.nets.convnet import count_parameters
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.retrieval import MAX_LOGIT_SCALE, Retrieval, RetrievalConfig
from tavq.tasks.understanding import UnderstandingBatch

FOLDER = Path(tavq.__file__).parent / "recipes" / "tasks"
LAYOUT = TokenLayout(height=4, width=4, sizes=(7,))
TEXTS = ["A red barn.", "A green mill beside a lake.", "There is a red barn.", "A red barn."]
SMALL: dict[str, Any] = {"layers": 1, "heads": 2, "width": 16, "space": 3, "dropout": 0.0, "max_length": 6}


def config(**settings: Any) -> RetrievalConfig:
    return build(RetrievalConfig, {"name": "retrieval", **SMALL, **settings}, "test")


def task(**settings: Any) -> Retrieval:
    torch.manual_seed(0)
    made = Retrieval(Retrieval.resolve_config(config(**settings), LAYOUT, TEXTS), LAYOUT, 5)
    made.prepare(TEXTS)
    return made.eval()


class Fixed(Retrieval):
    """One whose vectors are given."""

    def given(self, images: Tensor, texts: Tensor) -> "Fixed":
        self.vectors = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        return self

    def embed_images(self, rows: Tensor) -> Tensor:
        return self.vectors[0]

    def _embed_batch(self, batch: Any) -> Tensor:
        return self.vectors[1]


def fixed(images: Tensor, texts: Tensor) -> Fixed:
    made = Fixed(Retrieval.resolve_config(config(), LAYOUT, TEXTS), LAYOUT, 5)
    made.prepare(TEXTS)
    return made.given(images, texts)


def loss(made: Retrieval, keys: tuple[str, ...], texts: list[str]) -> float:
    seen = UnderstandingBatch(torch.zeros(len(keys), 16, 5), keys, made.collate(texts))
    return float(sum_losses(made.loss(seen)).detach())


# --- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """CLIP's figure 3: cosines over the temperature, the cross-entropy of rows and of columns, their mean."""
    made = fixed(torch.eye(2), torch.tensor([[1.0, 0], [0.6, 0.8]]))
    scale = 1 / 0.07
    rows = [
        math.log(math.exp(scale) + math.exp(0.6 * scale)) - scale,
        math.log(1 + math.exp(0.8 * scale)) - 0.8 * scale,
    ]
    columns = [
        math.log(math.exp(scale) + 1) - scale,
        math.log(math.exp(0.6 * scale) + math.exp(0.8 * scale)) - 0.8 * scale,
    ]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert loss(made, ("a", "b"), TEXTS[:2]) == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_learned_and_bounded() -> None:
    made = fixed(torch.eye(2), torch.tensor([[1.0, 0], [0.8, 0.6]]))  # the second text is nearer to the first image
    seen = UnderstandingBatch(torch.zeros(2, 16, 5), ("a", "b"), made.collate(TEXTS[:2]))
    sum_losses(made.loss(seen)).backward()
    assert made.logit_scale.grad is not None
    assert made.logit_scale.grad != 0
    with torch.no_grad():
        made.logit_scale.fill_(math.log(MAX_LOGIT_SCALE))
        bounded = loss(made, ("a", "b"), TEXTS[:2])
        made.logit_scale.fill_(50.0)
        assert loss(made, ("a", "b"), TEXTS[:2]) == bounded


def test_pairs_that_share_an_image_or_a_text_are_not_negatives() -> None:
    vectors = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]])
    made = fixed(vectors, vectors)
    alone = loss(made, ("a", "b", "c", "d"), [TEXTS[0], TEXTS[2], TEXTS[1], "A barn"])
    same_image = loss(made, ("a", "a", "c", "d"), [TEXTS[0], TEXTS[2], TEXTS[1], "A barn"])
    same_text = loss(made, ("a", "b", "c", "d"), [TEXTS[0], TEXTS[3], TEXTS[1], "A barn"])
    assert same_image == same_text < alone
    # what is left: each of the first two against the last two only
    cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T / 0.07
    cosines[0, 1] = cosines[1, 0] = -torch.inf
    wanted = torch.arange(4)
    expected = (F.cross_entropy(cosines, wanted) + F.cross_entropy(cosines.T, wanted)) / 2
    assert same_text == pytest.approx(float(expected), rel=1e-5)


# --- the vectors --------------------------------------------------------------------------------------------------


def test_vectors_have_length_one() -> None:
    made = task()
    for vectors in (made.embed_texts(TEXTS), made.embed_images(torch.randn(3, 16, 5))):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        assert vectors.shape[1] == 3


@torch.no_grad()
def test_the_batch_does_not_change_a_text() -> None:
    made = task()
    torch.testing.assert_close(made.embed_texts(TEXTS)[:1], made.embed_texts(TEXTS[:1]))
    assert torch.equal(made.embed_texts(TEXTS)[0], made.embed_texts(TEXTS)[3])


@torch.no_grad()
def test_the_mask_covers_the_class_token() -> None:
    made, rows = task(), torch.randn(2, 5, 16)
    torch.testing.assert_close(made.text_tower(rows, torch.ones(2, 5, dtype=torch.bool)), made.text_tower(rows))


@torch.no_grad()
def test_word_order_counts_up_to_max_length() -> None:
    made = task()
    first, second = made.embed_texts(["a red barn beside a green mill", "a green barn beside a red mill"])
    assert not torch.allclose(first, second)
    same, cut = made.embed_texts(["a red barn beside a mill lake lake lake", "a red barn beside a mill there"])
    torch.testing.assert_close(same, cut)  # six words are read
    assert made.embed_texts(["…"]).isfinite().all()  # no word at all


@torch.no_grad()
def test_positions_of_an_image_count() -> None:
    made = task()
    rows = torch.randn(1, 16, 5)
    assert not torch.allclose(made.embed_images(rows), made.embed_images(rows.flip(1)))


# --- examples -----------------------------------------------------------------------------------------------------


def test_examples() -> None:
    record = Record("a.png", captions=("A barn.", "A red barn."), long_text="A red barn stands.")
    assert list(Retrieval.extract_examples(config(), record, lambda: (8, 8))) == ["A barn.", "A red barn."]
    assert list(Retrieval.extract_examples(config(text_field="long_text"), record, lambda: (8, 8))) == [
        "A red barn stands."
    ]
    assert not Retrieval.extract_examples(
        config(text_field="long_text"), Record("a.png", captions=("A barn.",)), lambda: (8, 8)
    )
    assert Retrieval.describe_requirement(config()) == "captions"
    assert Retrieval.describe_requirement(config(text_field="long_text")) == "long texts (task.text_field long_text)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_field": "questions"}, "'captions' or 'long_text'"),
        ({"width": 18, "heads": 4}, "width 18 is not a multiple of 4 heads"),
        ({"layers": 10**9}, "layers"),
        ({"space": 0}, "space"),
        ({"max_length": 10**6}, "max_length"),
        ({"vocabulary": 2**40}, "vocabulary"),
        ({"dropout": 1}, "dropout"),
        ({"temperature": 1}, "Unknown setting 'temperature'"),
    ],
)
def test_settings_are_bounded(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**settings)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    made = task()
    made.write_files(tmp_path)
    made.read_files(tmp_path)
    (tmp_path / "words.json").write_text("{}")
    with pytest.raises(FileError, match=r"words\.json is damaged"):
        made.read_files(tmp_path)


# --- metrics ------------------------------------------------------------------------------------------------------


class Known(Retrieval):
    """One whose vectors are looked up: an image's in its rows, a text's by its first word."""

    table: dict[str, list[float]]

    def embed_images(self, rows: Tensor) -> Tensor:
        return rows[:, 0, :3]

    def embed_texts(self, texts: Any) -> Tensor:
        return torch.tensor([self.table[text.split()[0]] for text in texts])


def known(table: dict[str, list[float]]) -> Known:
    made = Known(Retrieval.resolve_config(config(), LAYOUT, TEXTS), LAYOUT, 5)
    made.table = table
    return made


def batch(keys: list[str], images: dict[str, list[float]], texts: list[str]) -> Any:
    rows = torch.zeros(len(keys), 16, 5)
    for row, key in zip(rows, keys, strict=True):
        row[0, :3] = torch.tensor(images[key])
    return rows, keys, texts


def test_metrics_by_hand() -> None:
    """Three images with two, one and two captions; one caption is that of two images."""
    images = {"a": [1.0, 0, 0], "b": [0, 1.0, 0], "c": [0, 0, 1.0]}
    made = known({"x": [0, 0.6, 0.8], "y": [0.8, 0.6, 0], "z": [0, 0.8, 0.6], "w": [0.1, 0.2, 0.9]})
    batches = [
        batch(["a", "a", "b"], images, ["x .", "y .", "x ."]),
        batch(["c", "c"], images, ["z .", "w ."]),
    ]
    found = by_key(made.compute_metrics(iter(batches), []))
    # a sees y first. b sees z (0.8) before its own x, which ties with y. c sees w, its own, first
    assert found["image_to_text/recall@1"].value == pytest.approx(2 / 3)
    assert found["image_to_text/median_rank"].value == 1.0
    # the first text of each asks: x for a finds it last, x for b finds c first, z for c finds b first
    assert found["text_to_image/recall@1"].value == 0.0
    assert found["text_to_image/median_rank"].value == 2.0
    assert found["chance/image_to_text/recall@1"].value == pytest.approx((2 + 1 + 2) / 3 / 4)  # of four texts
    assert found["chance/text_to_image/recall@1"].value == pytest.approx(1 / 3)


def test_vectors_that_are_not_finite_are_refused() -> None:
    made = known({"x": [math.nan, 0, 0]})
    with pytest.raises(TrainingError, match="vectors are not finite"):
        made.compute_metrics([batch(["a"], {"a": [1.0, 0, 0]}, ["x ."])], [])


# --- recipes ------------------------------------------------------------------------------------------------------


def test_a_recipe_makes_towers_of_its_size() -> None:
    """Of each 12 c² + 10 c in each block, a norm, a row of its own and the map to the space."""
    full, tiny = (
        build(TaskRecipe, read_yaml((FOLDER / f"{name}.yaml").read_text(), name), name)
        for name in ("retrieval", "retrieval-tiny")
    )
    assert min(len(full.description), len(tiny.description)) > 20
    resolved = tiny.task.model_copy(update={"vocabulary": 100})
    with torch.device("meta"):
        made: Any = TaskConfig(
            task=resolved, layout=TokenLayout(height=16, width=16, sizes=(256,)), feature_width=64
        ).make()
    numbers = 2 * (12 * 128**2 + 10 * 128) + 2 * 128 + 128 + 128 * 64
    assert [count_parameters(made.image_tower), count_parameters(made.text_tower)] == [numbers, numbers]
