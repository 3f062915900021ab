"""Grounding by hand: boxes and their losses, the attention heat map, and the metrics."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_bert import write_bert

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.records import NamedBox, Record
from tavq.metrics.record import by_key
from tavq.tasks.base import TokenLayout
from tavq.tasks.grounding import (
    Grounding,
    GroundingConfig,
    GroundingExample,
    coverage,
    cxcywh_to_xywh,
    generalized_iou,
    xywh_to_cxcywh,
)
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.understanding import UnderstandingBatch, collect_examples

LAYOUT = TokenLayout(height=2, width=4, sizes=(7,))
WHOLE = (0.0, 0.0, 1.0, 1.0)
EXAMPLES = [
    GroundingExample("the red barn", (0.25, 0.25, 0.5, 0.5), "barn"),
    GroundingExample("the big lake on the left", (0.0, 0.0, 0.5, 1.0), "lake"),
]


def make_task(examples: list[GroundingExample] = EXAMPLES, **settings: Any) -> Grounding:
    small = {"name": "grounding", "layers": 2, "heads": 2, "width": 16, "dropout": 0.0, "max_length": 6, **settings}
    resolved = Grounding.resolve_config(build(GroundingConfig, small, "test"), LAYOUT, examples)
    torch.manual_seed(0)
    task: Any = TaskConfig(task=resolved.model_dump(), layout=LAYOUT, feature_width=3).make()
    task.prepare(examples)
    return task.eval()


def random_features(count: int) -> torch.Tensor:
    return torch.randn(count, 8, 3, generator=torch.Generator().manual_seed(5))


def predict_box(task: Grounding, *box: float) -> Grounding:
    """The task with a head that gives one box (centre and size) for everything."""
    with torch.no_grad():
        task.head[-1].weight.zero_()
        task.head[-1].bias.copy_(torch.tensor(box).logit())
    return task


# --- boxes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), -1 / 2),  # touching at a corner: the hull is half empty
        ((0, 0, 0.2, 1), (0.8, 0, 0.2, 1), -0.6),  # apart
        (WHOLE, (0.25, 0.25, 0.5, 0.5), 1 / 4),  # nested
        ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4), 1.0),  # equal
        ((0, 0, 0.5, 0.5), (0.25, 0, 0.5, 0.5), 1 / 3),  # side by side: the hull is full
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.5, 0.5), 1 / 7 - 2 / 9),
        ((0, 0, 1, 0.25), (0, 0, 0.25, 1), 1 / 7 - 9 / 16),  # width and height are no same thing
    ],
)
def test_the_generalized_iou(a: tuple[float, ...], b: tuple[float, ...], expected: float) -> None:
    one, other = (xywh_to_cxcywh(torch.tensor([box], dtype=torch.float64)) for box in (a, b))
    assert float(generalized_iou(one, other)) == pytest.approx(expected)
    assert float(generalized_iou(other, one)) == pytest.approx(expected)


@pytest.mark.parametrize("point", [(0.5, 0.5, 0.0, 0.0), (0.2, 0.9, 0.0, 0.4), (0.5, 0.5, 1e-9, 1e-9)])
@pytest.mark.parametrize("other", [(0.5, 0.5, 0.0, 0.0), (0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 1e-9, 1e-9)])
def test_a_box_without_area_has_a_finite_gradient(point: tuple[float, ...], other: tuple[float, ...]) -> None:
    box = torch.tensor([point], requires_grad=True)
    value = generalized_iou(box, torch.tensor([other]))
    value.sum().backward()
    assert -1 <= float(value.detach()) <= 1
    assert box.grad is not None
    assert box.grad.isfinite().all()


def test_disjoint_boxes_attract_each_other() -> None:
    box = torch.tensor([[0.2, 0.2, 0.1, 0.1]], requires_grad=True)
    generalized_iou(box, torch.tensor([[0.8, 0.2, 0.1, 0.1]])).sum().backward()
    assert box.grad is not None
    assert box.grad[0, 0] > 0


def test_box_formats() -> None:
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.25]])
    torch.testing.assert_close(xywh_to_cxcywh(boxes), torch.tensor([[0.5, 0.625, 0.5, 0.25]]))
    torch.testing.assert_close(cxcywh_to_xywh(xywh_to_cxcywh(boxes)), boxes)
    outside = torch.tensor([[0.1, 0.9, 0.4, 0.4]])
    torch.testing.assert_close(cxcywh_to_xywh(outside), torch.tensor([[0.0, 0.7, 0.3, 0.3]]))


# --- examples ---------------------------------------------------------------------------------------------------


def test_every_phrase_of_an_object_in_the_square_is_an_example() -> None:
    record = Record(
        "a.png",
        objects=(
            NamedBox((40, 10, 20, 20), "barn", ("the red barn", "the barn")),
            NamedBox((0, 0, 20, 20), "dog", ("the dog outside",)),
            NamedBox((30, 0, 40, 40), "sky"),
        ),
    )
    found = Grounding.extract_examples(GroundingConfig(), record, lambda: (40, 100))
    assert found == [
        GroundingExample(phrase, (0.25, 0.25, 0.5, 0.5), "barn") for phrase in ("the red barn", "the barn")
    ]


def test_an_image_without_phrases_is_not_opened() -> None:
    def shape() -> tuple[int, int]:
        raise AssertionError("the file was opened")

    assert (
        Grounding.extract_examples(GroundingConfig(), Record("a.png", objects=(NamedBox(WHOLE, "sky"),)), shape) == []
    )


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 100 wide and 40 high, shown 40 wide and 100 high
    Image.new("RGB", (100, 40)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"no image")
    thing = {"box": [10, 40, 20, 20], "name": "barn", "phrases": ["the barn"]}
    lines = [{"file_name": name, "objects": [thing]} for name in ("a.jpg", "broken.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = collect_examples(Grounding, GroundingConfig(), FolderDataset(tmp_path))
    assert found == [("a.jpg", GroundingExample("the barn", (0.25, 0.25, 0.5, 0.5), "barn"))]


def test_a_data_set_without_phrases_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"learns from objects that have phrases and lie in the centre square"):
        collect_examples(Grounding, GroundingConfig(), FolderDataset(tmp_path))


# --- the network ------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    task = predict_box(make_task(), 0.25, 0.5, 0.5, 0.5)  # left 0, top 0.25
    losses = task.loss(UnderstandingBatch(random_features(2), ("a", "b"), task.collate(EXAMPLES)))
    # of the barn: centre (0.5, 0.5), size (0.5, 0.5); of the lake: centre (0.25, 0.5), size (0.5, 1)
    assert float(losses["grounding/l1"].value.detach()) == pytest.approx((0.25 + 0.5) / 2)
    assert float(losses["grounding/giou"].value.detach()) == pytest.approx((1 - 1 / 3 + 1 - 1 / 2) / 2, rel=1e-5)
    assert {loss.weight for loss in losses.values()} == {1.0}


def test_what_a_box_covers_of_a_grid_by_hand() -> None:
    boxes = torch.tensor([[0.25, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.9, 0.6, 0.05, 0.1]])
    expected = [[[0.5, 0.5], [0, 0]], [[0.25, 0.25], [0.25, 0.25]], [[0, 0], [0, 1]]]
    torch.testing.assert_close(coverage(boxes, 2, 2), torch.tensor(expected))
    assert coverage(boxes, 1, 4)[0].tolist() == [[0.0, 0.5, 0.5, 0.0]]


def test_the_attention_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(attention_supervision=0.5)
    length = 1 + 8 + task.collate(EXAMPLES).mask.shape[1]
    weights = torch.full((2, 2, length, length), 9.0)
    weights[:, :, 0, 1:9] = torch.tensor([1.0, 1, 2, 4, 1, 1, 2, 4])  # of a grid of 2 x 4
    monkeypatch.setattr(task.transformer, "forward_with_attention", lambda tokens, mask: (tokens, weights))
    attention_supervision = task.loss(UnderstandingBatch(random_features(2), ("a", "b"), task.collate(EXAMPLES)))[
        "grounding/attention"
    ]
    assert attention_supervision.weight == 0.5
    # of the barn a quarter each of the second and third column, of the lake the first two columns: weights of 16
    assert attention_supervision.value.item() == pytest.approx(((math.log(16) + math.log(8)) / 2 + math.log(16)) / 2)
    blind = make_task(attention_supervision=0.5, image={"source": "none"})
    assert "grounding/attention" not in blind.loss(
        UnderstandingBatch(random_features(2), ("a", "b"), blind.collate(EXAMPLES))
    )
    assert "grounding/attention" not in make_task().loss(
        UnderstandingBatch(random_features(2), ("a", "b"), task.collate(EXAMPLES))
    )


def test_zero_attention_has_a_finite_gradient() -> None:
    task = make_task(attention_supervision=1.0)
    losses = task.loss(UnderstandingBatch(random_features(2), ("a", "b"), task.collate(EXAMPLES)))
    losses["grounding/attention"].value.backward()
    weights = task.transformer.blocks[-1].self_attn.query.weight  # type: ignore[union-attr]
    assert weights.grad is not None
    assert 0 < float(weights.grad.norm()) < 1e6


def test_a_predicted_box_is_left_top_width_and_height() -> None:
    [found] = predict_box(make_task(), 0.375, 0.5, 0.5, 0.25).ground(random_features(1), ["the barn"])
    assert found.box == pytest.approx((0.125, 0.375, 0.5, 0.25))


def test_the_batch_does_not_change_a_box() -> None:
    task = make_task()
    together = task.ground(random_features(2), ["the barn", "the big lake on the left"])
    [alone] = task.ground(random_features(2)[:1], ["the barn"])
    assert together[0].box == pytest.approx(alone.box, abs=1e-6)
    assert together[0].heatmap is not None
    assert alone.heatmap is not None
    torch.testing.assert_close(together[0].heatmap, alone.heatmap)
    [other] = task.ground(random_features(2)[:1], ["the lake"])
    assert other.box != pytest.approx(alone.box, abs=1e-6)
    [turned] = task.ground(random_features(2)[:1], ["barn the"])
    assert turned.box != pytest.approx(alone.box, abs=1e-6)  # words have places


def test_the_heatmap_is_the_attention_of_the_reg_token(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    length = 1 + 8 + 2  # the box's row, the image's, the words'
    weights = torch.full((1, 2, length, length), 9.0)
    weights[0, :, 0] = 7.0
    weights[0, 0, 0, 1:9] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 3])
    weights[0, 1, 0, 1:9] = torch.tensor([1.0, 0, 2, 0, 0, 0, 0, 1])
    monkeypatch.setattr(task.transformer, "forward_with_attention", lambda tokens, mask: (tokens, weights))
    [found] = task.ground(random_features(1), ["the barn"])
    assert found.heatmap is not None
    torch.testing.assert_close(found.heatmap, torch.tensor([[2.0, 0, 2, 0], [0, 0, 0, 4]]) / 8)


def test_the_heatmap_follows_the_attended_code() -> None:
    """The box's row is made to like one direction of keys, and one patch is made to lie in it."""
    task = make_task(layers=1)
    block: Any = task.transformer.blocks[0]
    with torch.no_grad():
        task.position_embedding.zero_()
        task.adapter.position_embedding.zero_()
        task.adapter.position_embedding[5] = 100 * task.reg_token
        block.self_attn.query.weight.copy_(torch.eye(16))
        block.self_attn.key_value.weight[:16] = torch.eye(16)
    [found] = task.ground(torch.zeros(1, 8, 3), ["the barn"])
    assert found.heatmap is not None
    assert int(found.heatmap.argmax()) == 5
    assert found.heatmap.shape == (2, 4)
    assert float(found.heatmap.sum()) == pytest.approx(1)


def test_patches_make_a_coarser_heatmap() -> None:
    [found] = make_task(image={"patch": 2}).ground(random_features(1), ["the barn"])
    assert found.heatmap is not None
    assert found.heatmap.shape == (1, 2)


def test_without_an_image_there_is_no_heatmap() -> None:
    [found] = make_task(image={"source": "none"}).ground(random_features(1), ["the barn"])
    assert found.heatmap is None


def test_a_long_phrase_is_truncated() -> None:
    task = make_task()
    first = "the big lake on the left"
    [whole], [longer] = (task.ground(random_features(1), [phrase]) for phrase in (first, f"{first} barn barn"))
    assert whole.box == longer.box


@pytest.mark.parametrize(
    ("phrase", "message"),
    [("", r"phrase is empty"), (" \n", r"phrase is empty"), ("κόκκινο σπίτι", r"no word that the model knows")],
)
def test_a_phrase_without_a_known_word_is_refused(phrase: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_task().check_text(phrase)


def test_unknown_words_are_reported() -> None:
    assert make_task().check_text("the purple barn") == ["The model does not know the word 'purple'."]


def test_phrases_may_be_encoded_by_a_frozen_encoder(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bert")
    examples = [GroundingExample("a red car", WHOLE, "car"), GroundingExample("the dog", WHOLE, "dog")]
    task = make_task(examples, text_encoder=str(folder))
    assert task.config.encoder is not None
    assert task.config.encoder.name == "bert"
    assert len(task.config.encoder.sha256) == 64
    assert task.config.vocabulary is None
    [one], [other] = (task.ground(random_features(1), [phrase]) for phrase in ("a red car", "the dog"))
    assert one.box != other.box
    task.loss(UnderstandingBatch(random_features(2), ("a", "b"), task.collate(examples)))[
        "grounding/l1"
    ].value.backward()
    assert any(float(p.grad.abs().sum()) > 0 for p in task.phrase_encoder.parameters() if p.grad is not None)


# --- metrics ----------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    task = predict_box(make_task(), 0.5, 0.5, 0.5, 0.5)  # right for the barn; of the lake a quarter of five
    training = [
        ("c", GroundingExample("the barn", (0.0, 0.0, 0.5, 0.5), "barn")),
        ("d", GroundingExample("the barn", (0.5, 0.5, 0.5, 0.5), "barn")),
        ("e", GroundingExample("the sky", (0.25, 0.25, 0.5, 0.5), "sky")),
        ("f", GroundingExample("the lake", (0.0, 0.0, 0.5, 0.5), "lake")),
    ]
    found = by_key(task.compute_metrics([(random_features(2), ["a", "b"], EXAMPLES)], training))
    values = {key: metric.value for key, metric in found.items()}
    # the lake: common 0.25 x 0.5, both 0.5 + 0.25 - 0.125
    assert values["accuracy@0.5"] == 0.5
    assert values["mean_iou"] == pytest.approx((1 + 0.125 / 0.625) / 2)
    # the mean box is (0.1875, 0.1875, 0.5, 0.5): of the barn 0.4375² in common, of the lake 0.3125 x 0.5
    barn, lake = 0.4375**2 / (0.5 - 0.4375**2), 0.15625 / (0.75 - 0.15625)
    assert values["constant/mean_iou"] == pytest.approx((barn + lake) / 2)
    assert values["constant/accuracy@0.5"] == 0.5
    # by name: the mean barn is the barn, the mean lake is its upper half
    assert values["constant/name/mean_iou"] == pytest.approx((1 + 0.5) / 2)
    assert values["constant/name/accuracy@0.5"] == 0.5
    assert len(found) == 6
    assert all(metric.interval is not None for metric in found.values())


def test_the_baseline_of_an_unseen_name_is_the_mean_box() -> None:
    task = predict_box(make_task(), 0.5, 0.5, 0.5, 0.5)
    training = [("c", GroundingExample("the sky", (0.0, 0.0, 0.5, 0.5), "sky"))]
    found = by_key(task.compute_metrics([(random_features(2), ["a", "b"], EXAMPLES)], training))
    assert found["constant/name/mean_iou"].value == found["constant/mean_iou"].value


def test_without_a_training_split_there_is_no_baseline() -> None:
    assert set(by_key(make_task().compute_metrics([(random_features(2), ["a", "b"], EXAMPLES)], []))) == {
        "accuracy@0.5",
        "mean_iou",
    }


def test_heads_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"width 16 is not a multiple of 3 heads"):
        make_task(heads=3)


def test_patches_divide_the_grid() -> None:
    with pytest.raises(UsageError, match=r"patch 3 does not divide the grid of 2 x 4"):
        make_task(image={"patch": 3})
