"""What every registered understanding task does, whatever its image source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.config import build
from tavq.data.records import NamedBox, Question, Record
from tavq.interfaces import sum_losses
from tavq.metrics.record import by_key
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.model_folder import TaskConfig, load_task, save_task
from tavq.tasks.understanding import UnderstandingBatch, UnderstandingTask
from tavq.tokenizer import Tokenizer

SMALL: dict[str, Any] = {
    "language": {"layers": 1, "heads": 2, "width": 16, "dropout": 0.0},
    "layers": 1,
    "heads": 2,
    "width": 16,
    "hidden": 16,
    "dropout": 0.0,
}
"""Settings that a task is given where it has them."""

NAMES = [name for name in tasks if issubclass(tasks[name], UnderstandingTask)]
SOURCES = ["codes", "features", "none"]
LAYOUT = TokenLayout(height=4, width=4, sizes=(7,))
WIDTH = 6
SHAPE = (32, 40)
RECORDS = [
    Record(
        f"{number}.png",
        captions=(f"A {colour} barn beside a lake.", f"There is a {colour} barn."),
        long_text=f"A {colour} barn stands beside a lake. The sky is grey.",
        objects=(NamedBox((4.0 * number, 8.0, 16.0, 24.0), "barn", (f"the {colour} barn",)),),
        questions=(Question("what is the color of the barn", colour, "color"),),
    )
    for number, colour in enumerate(["red", "green", "blue", "brown"])
]

pytestmark = [pytest.mark.parametrize("name", NAMES), pytest.mark.parametrize("source", SOURCES)]


@pytest.fixture
def examples(name: str) -> list[tuple[int, Any]]:
    config = settings(name, "codes")
    found = [
        (place, tasks[name].extract_examples(config, record, lambda: SHAPE)) for place, record in enumerate(RECORDS)
    ]
    return [(place, example) for place, some in found for example in some]


def settings(name: str, source: str) -> Any:
    known = tasks[name].Config.model_fields
    small = {key: value for key, value in SMALL.items() if key in known}
    image = {"source": source, "patch": 2, "hidden": 16}
    return tasks[name].Config.model_validate({"name": name, "image": image, **small})


@pytest.fixture
def config(name: str, source: str, examples: list[tuple[int, Any]]) -> TaskConfig:
    resolved = tasks[name].resolve_config(settings(name, source), LAYOUT, [example for _, example in examples])
    return build(TaskConfig, {"task": resolved.model_dump(), "layout": LAYOUT, "feature_width": WIDTH}, "test")


@pytest.fixture
def task(config: TaskConfig, examples: list[tuple[int, Any]]) -> Any:
    torch.manual_seed(0)
    module = config.make()
    assert isinstance(module, UnderstandingTask)
    module.prepare([example for _, example in examples])
    module.adapter.fit(random_features(range(4)))
    return module.eval()


def random_features(images: Any) -> torch.Tensor:
    drawn = torch.randn(4, 16, WIDTH, generator=torch.Generator().manual_seed(7)) * 3 + 1
    return drawn[list(images)]


def make_batch(task: Any, examples: list[tuple[int, Any]]) -> UnderstandingBatch:
    images = [place for place, _ in examples]
    return UnderstandingBatch(
        random_features(images), tuple(map(str, images)), task.collate([example for _, example in examples])
    )


def test_records_give_examples(examples: list[tuple[int, Any]], source: str) -> None:
    assert {place for place, _ in examples} == {0, 1, 2, 3}


def test_the_loss_is_finite_and_reaches_every_parameter(task: Any, examples: list[tuple[int, Any]]) -> None:
    task.train()
    gradients = dict.fromkeys(dict(task.named_parameters()), 0.0)
    for seed in range(4):
        torch.manual_seed(seed)
        task.zero_grad()
        sum_losses(task.loss(make_batch(task, examples))).backward()
        for key, parameter in task.named_parameters():
            gradients[key] += 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
    assert [key for key, value in gradients.items() if not 0 < value < float("inf")] == []


def test_training_lowers_the_loss(task: Any, examples: list[tuple[int, Any]], source: str) -> None:
    batch = make_batch(task, examples)
    task.train()

    def value() -> torch.Tensor:
        torch.manual_seed(1)
        return sum_losses(task.loss(batch))

    first = float(value().detach())
    optimizer = torch.optim.Adam(task.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        value().backward()
        optimizer.step()
    assert float(value().detach()) < first * (1.0 if source == "none" else 0.9)  # unseen images cannot be told apart


def test_the_loss_is_the_mean_over_examples_whatever_the_padding(
    task: Any, examples: list[tuple[int, Any]], name: str
) -> None:
    if not tasks[name].mean_of_examples:
        pytest.skip("its class says otherwise")
    each = [float(sum_losses(task.loss(make_batch(task, [example]))).detach()) for example in examples]
    assert float(sum_losses(task.loss(make_batch(task, examples))).detach()) == pytest.approx(
        sum(each) / len(each), rel=1e-4
    )


def test_the_image_matters_unless_the_source_is_none(task: Any, examples: list[tuple[int, Any]], source: str) -> None:
    batch = make_batch(task, examples)

    def value(change: float) -> float:
        torch.manual_seed(3)
        moved = UnderstandingBatch(
            batch.features + change * torch.randn_like(batch.features), batch.keys, batch.examples
        )
        torch.manual_seed(3)
        return float(sum_losses(task.loss(moved)).detach())

    assert (value(0.0) == value(5.0)) == (source == "none")


def test_metrics_have_values_and_baselines(task: Any, examples: list[tuple[int, Any]]) -> None:
    images = [place for place, _ in examples]
    asked = [example for _, example in examples]
    keys = [f"{place}.png" for place in images]
    found = task.compute_metrics([(random_features(images), keys, asked)], list(zip(keys, asked, strict=True)))
    blind = task.compute_metrics([(random_features(images), keys, asked)], [])
    assert {metric.key for metric in blind} <= {metric.key for metric in found}
    assert [metric for metric in found if metric.key in by_key(blind)] == blind
    assert any(metric.baseline is not None for metric in found)
    assert any(metric.interval is not None for metric in found)
    assert all(metric.title and metric.meaning and metric.group.title for metric in found)


def test_a_saved_model_computes_the_same(
    task: Any, config: TaskConfig, examples: list[tuple[int, Any]], make: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer = make(seed=1)
    save_task(tmp_path / "model", config, task, tokenizer, None, "card", {})
    loaded = load_task(tmp_path / "model")
    assert loaded.config == config
    torch.manual_seed(2)
    before = sum_losses(task.loss(make_batch(task, examples)))
    torch.manual_seed(2)
    assert torch.equal(sum_losses(loaded.task.loss(make_batch(loaded.task, examples))), before)
