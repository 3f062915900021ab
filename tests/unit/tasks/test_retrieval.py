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


def make_task(**settings: Any) -> Retrieval:
    torch.manual_seed(0)
    model = Retrieval(Retrieval.resolve_config(config(**settings), LAYOUT, TEXTS), LAYOUT, 5)
    model.prepare(TEXTS)
    return model.eval()


class Fixed(Retrieval):
    """One whose vectors are given."""

    def given(self, images: Tensor, texts: Tensor) -> "Fixed":
        self.vectors = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        return self

    def embed_images(self, features: Tensor) -> Tensor:
        return self.vectors[0]

    def _embed_batch(self, batch: Any) -> Tensor:
        return self.vectors[1]


def fixed(images: Tensor, texts: Tensor) -> Fixed:
    model = Fixed(Retrieval.resolve_config(config(), LAYOUT, TEXTS), LAYOUT, 5)
    model.prepare(TEXTS)
    return model.given(images, texts)


def loss(model: Retrieval, keys: tuple[str, ...], texts: list[str]) -> float:
    matched = UnderstandingBatch(torch.zeros(len(keys), 16, 5), keys, model.collate(texts))
    return float(sum_losses(model.loss(matched)).detach())


# --- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """CLIP's figure 3: cosines over the temperature, the cross-entropy of rows and of columns, their mean."""
    model = fixed(torch.eye(2), torch.tensor([[1.0, 0], [0.6, 0.8]]))
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
    assert loss(model, ("a", "b"), TEXTS[:2]) == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_learned_and_bounded() -> None:
    model = fixed(torch.eye(2), torch.tensor([[1.0, 0], [0.8, 0.6]]))  # the second text is nearer to the first image
    matched = UnderstandingBatch(torch.zeros(2, 16, 5), ("a", "b"), model.collate(TEXTS[:2]))
    sum_losses(model.loss(matched)).backward()
    assert model.logit_scale.grad is not None
    assert model.logit_scale.grad != 0
    with torch.no_grad():
        model.logit_scale.fill_(math.log(MAX_LOGIT_SCALE))
        bounded = loss(model, ("a", "b"), TEXTS[:2])
        model.logit_scale.fill_(50.0)
        assert loss(model, ("a", "b"), TEXTS[:2]) == bounded


def test_pairs_that_share_an_image_or_a_text_are_not_negatives() -> None:
    vectors = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]])
    model = fixed(vectors, vectors)
    alone = loss(model, ("a", "b", "c", "d"), [TEXTS[0], TEXTS[2], TEXTS[1], "A barn"])
    same_image = loss(model, ("a", "a", "c", "d"), [TEXTS[0], TEXTS[2], TEXTS[1], "A barn"])
    same_text = loss(model, ("a", "b", "c", "d"), [TEXTS[0], TEXTS[3], TEXTS[1], "A barn"])
    assert same_image == same_text < alone
    # what is left: each of the first two against the last two only
    cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T / 0.07
    cosines[0, 1] = cosines[1, 0] = -torch.inf
    wanted = torch.arange(4)
    expected = (F.cross_entropy(cosines, wanted) + F.cross_entropy(cosines.T, wanted)) / 2
    assert same_text == pytest.approx(float(expected), rel=1e-5)


# --- the vectors --------------------------------------------------------------------------------------------------


def test_vectors_have_length_one() -> None:
    model = make_task()
    for vectors in (model.embed_texts(TEXTS), model.embed_images(torch.randn(3, 16, 5))):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        assert vectors.shape[1] == 3


@torch.no_grad()
def test_the_batch_does_not_change_a_text() -> None:
    model = make_task()
    torch.testing.assert_close(model.embed_texts(TEXTS)[:1], model.embed_texts(TEXTS[:1]))
    assert torch.equal(model.embed_texts(TEXTS)[0], model.embed_texts(TEXTS)[3])


@torch.no_grad()
def test_the_mask_covers_the_class_token() -> None:
    model, features = make_task(), torch.randn(2, 5, 16)
    torch.testing.assert_close(
        model.text_tower(features, torch.ones(2, 5, dtype=torch.bool)), model.text_tower(features)
    )


@torch.no_grad()
def test_word_order_counts_up_to_max_length() -> None:
    model = make_task()
    first, second = model.embed_texts(["a red barn beside a green mill", "a green barn beside a red mill"])
    assert not torch.allclose(first, second)
    same, cut = model.embed_texts(["a red barn beside a mill lake lake lake", "a red barn beside a mill there"])
    torch.testing.assert_close(same, cut)  # six words are read
    assert model.embed_texts(["…"]).isfinite().all()  # no word at all


@torch.no_grad()
def test_positions_of_an_image_count() -> None:
    model = make_task()
    features = torch.randn(1, 16, 5)
    assert not torch.allclose(model.embed_images(features), model.embed_images(features.flip(1)))


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
    model = make_task()
    model.write_files(tmp_path)
    model.read_files(tmp_path)
    (tmp_path / "words.json").write_text("{}")
    with pytest.raises(FileError, match=r"words\.json is damaged"):
        model.read_files(tmp_path)


# --- metrics ------------------------------------------------------------------------------------------------------


class Known(Retrieval):
    """One whose vectors are looked up: an image's in its rows, a text's by its first word."""

    table: dict[str, list[float]]

    def embed_images(self, features: Tensor) -> Tensor:
        return features[:, 0, :3]

    def embed_texts(self, texts: Any) -> Tensor:
        return torch.tensor([self.table[text.split()[0]] for text in texts])


def known(table: dict[str, list[float]]) -> Known:
    model = Known(Retrieval.resolve_config(config(), LAYOUT, TEXTS), LAYOUT, 5)
    model.table = table
    return model


def batch(keys: list[str], images: dict[str, list[float]], texts: list[str]) -> Any:
    features = torch.zeros(len(keys), 16, 5)
    for row, key in zip(features, keys, strict=True):
        row[0, :3] = torch.tensor(images[key])
    return features, keys, texts


def test_metrics_by_hand() -> None:
    """Three images with two, one and two captions; one caption is that of two images."""
    images = {"a": [1.0, 0, 0], "b": [0, 1.0, 0], "c": [0, 0, 1.0]}
    model = known({"x": [0, 0.6, 0.8], "y": [0.8, 0.6, 0], "z": [0, 0.8, 0.6], "w": [0.1, 0.2, 0.9]})
    batches = [
        batch(["a", "a", "b"], images, ["x .", "y .", "x ."]),
        batch(["c", "c"], images, ["z .", "w ."]),
    ]
    found = by_key(model.compute_metrics(iter(batches), []))
    # a sees y first. b sees z (0.8) before its own x, which ties with y. c sees w, its own, first
    assert found["image_to_text/recall@1"].value == pytest.approx(2 / 3)
    assert found["image_to_text/median_rank"].value == 1.0
    # the first text of each asks: x for a finds it last, x for b finds c first, z for c finds b first
    assert found["text_to_image/recall@1"].value == 0.0
    assert found["text_to_image/median_rank"].value == 2.0
    assert found["chance/image_to_text/recall@1"].value == pytest.approx((2 + 1 + 2) / 3 / 4)  # of four texts
    assert found["chance/text_to_image/recall@1"].value == pytest.approx(1 / 3)


def test_vectors_that_are_not_finite_are_refused() -> None:
    model = known({"x": [math.nan, 0, 0]})
    with pytest.raises(TrainingError, match="vectors are not finite"):
        model.compute_metrics([batch(["a"], {"a": [1.0, 0, 0]}, ["x ."])], [])


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
        model: Any = TaskConfig(
            task=resolved, layout=TokenLayout(height=16, width=16, sizes=(256,)), feature_width=64
        ).make()
    numbers = 2 * (12 * 128**2 + 10 * 128) + 2 * 128 + 128 + 128 * 64
    assert [count_parameters(model.image_tower), count_parameters(model.text_tower)] == [numbers, numbers]
