"""One of the processes that train together: takes its share of two steps of every kind of training, and saves them.

Called by test_engine.py as: one_engine_process.py RANK WORLD STORE OUT WAY,… NAME,…
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))

import test_understanding_tasks as understanding
import torch
import torch.distributed as dist
from conftest import TEXT_WIDTH, TOKENS, small_tokenizer
from torch import Tensor, nn

from tavq.core import files
from tavq.core.config import build
from tavq.interfaces import Batch, Losses, TextFeatures, TextUnits, aligners, codebooks, quantizers
from tavq.nets.discriminators import PatchDiscriminator
from tavq.ops.collective import all_reduce_mean
from tavq.ops.shares import share_of, sharing
from tavq.recipes.schema import TaskTrainConfig, TrainConfig
from tavq.tasks.base import GenerationBatch, GenerationTask, TokenLayout, tasks
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.understanding import UnderstandingBatch
from tavq.training.batches import take_part
from tavq.training.recomputation import recompute_blocks
from tavq.training.task.step import TaskStep
from tavq.training.tokenizer.accumulation import AccumulatedStep
from tavq.training.tokenizer.step import GeneratorStep

BATCH, SIZE, STEPS = 8, 16, 2
CPU = torch.device("cpu")

TOKENIZERS: dict[str, dict[str, Any]] = {
    **{f"codebook {name}": {"codebook": name} for name in codebooks},
    **{f"quantizer {name}": {"quantizer": name} for name in quantizers},
    **{f"aligner {name}": {"align": name} for name in aligners},
    "ta with contrast": {"align": "ta", "contrast": 0.5, "sampling": False},
    "ta with contrast of samples": {"align": "ta", "contrast": 0.5},
}
"""What each is made of, by `small_tokenizer`."""

ADVERSARIAL = {"start": 0, "lecam": 0.1, "discriminator": {"channels": 8, "layers": 1, "norm": "group"}}
WAYS: dict[str, dict[str, Any]] = {"whole": {}, "accumulated": {"accumulate": 2}, "recomputed": {"recompute": True}}
LAYOUT = TokenLayout(height=2, width=3, sizes=(3, 5, 2))
CONDITION = TokenLayout(height=2, width=2, sizes=(6,))


def without_noise() -> ExitStack:
    """Within this context every random number of a sample is the same, however the batch is divided."""
    stack = ExitStack()

    def fill(value: float) -> Callable[..., Tensor]:
        return lambda *size, **options: torch.full(
            size[0] if size and not isinstance(size[0], int) else size, value, **options
        )

    stack.enter_context(patch("torch.rand", fill(0.37)))
    stack.enter_context(patch("torch.randn", fill(0.5)))
    stack.enter_context(patch("torch.Tensor.uniform_", lambda values: values.fill_(0.5)))
    stack.enter_context(patch("torch.multinomial", lambda weights, count, *_, **__: torch.ones(count).long()))
    return stack


def draw_text(seed: int) -> TextFeatures:
    """Texts of different lengths; the last image has none."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(4) < torch.tensor([1, 3, 4, 2, 1, 2, 4, 0])[:, None]
    tables = [TextUnits(torch.randn(BATCH, 4, TEXT_WIDTH, generator=generator) * mask[:, :, None], mask)] * 3
    ids = torch.randint(TOKENS, (BATCH, 4), generator=generator)
    vectors = torch.randn(BATCH, 4, TEXT_WIDTH, generator=generator)
    pooled = torch.randn(BATCH, TEXT_WIDTH, generator=generator)
    return TextFeatures(*tables, TextUnits(vectors, mask, ids), pooled)


def draw_images(seed: int, aligned: bool) -> Batch:
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Batch(images, tuple(map(str, range(BATCH))), draw_text(seed) if aligned else None)


def take_steps(
    module: nn.Module, draw: Callable[[int], Any], backward: Callable[[Any, int], Losses], others: list[nn.Module]
) -> dict[str, Tensor]:
    """The losses and gradients of each step, and the state after the last, by plain descent."""
    found: dict[str, Tensor] = {}
    trained = [parameter for each in (module, *others) for parameter in each.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.02)
    for step in range(STEPS):
        batch = draw(step)
        optimizer.zero_grad()
        torch.manual_seed(step)
        with without_noise():
            terms = backward(batch, step)
        found |= {f"loss/{step}/{key}": all_reduce_mean(loss.value.detach()) for key, loss in terms.items()}
        named = [*module.named_parameters(), *(pair for other in others for pair in other.named_parameters("other"))]
        found |= {f"gradient/{step}/{key}": p.grad.clone() for key, p in named if p.grad is not None}
        optimizer.step()
    return found | {f"state/{key}": value.clone() for key, value in module.state_dict().items()}


def train_tokenizer(name: str, way: dict[str, Any], own: slice) -> dict[str, Tensor]:
    tokenizer = small_tokenizer(**TOKENIZERS[name]).train()
    for parameter in tokenizer.codebook.parameters():  # apart, so that no rounding decides which entry is the nearest
        parameter.data.normal_(generator=torch.Generator().manual_seed(2))
    config = TrainConfig(steps=STEPS, batch=BATCH, adversarial=ADVERSARIAL, **way)  # type: ignore[arg-type]
    assert config.adversarial is not None
    discriminator = PatchDiscriminator(config.adversarial.discriminator, seed=1)
    if config.recompute:
        recompute_blocks(tokenizer)
    kind = AccumulatedStep if config.accumulate > 1 else GeneratorStep
    stepper = kind(tokenizer, discriminator, None, config, CPU)
    aligned = tokenizer.aligner is not None
    return take_steps(
        tokenizer,
        lambda step: take_part(draw_images(step, aligned), own),
        lambda batch, step: stepper.backward(batch, step)[1],
        [discriminator],
    )


def make_task(name: str) -> tuple[Any, Any]:
    """A small task and its batch."""
    torch.manual_seed(0)
    if issubclass(tasks[name], GenerationTask):
        known = tasks[name].Config.model_fields
        small = {"layers": 2, "heads": 2, "width": 16, "steps": 4}
        settings: dict[str, Any] = {"name": name, **{key: value for key, value in small.items() if key in known}}
        settings |= {"segmentation": True} if "segmentation" in known else {}
        required = tasks[name].required_conditions(tasks[name].Config.model_validate(settings))
        values: dict[str, Any] = {"task": settings, "layout": LAYOUT}
        values |= {"condition_layout": CONDITION} if "segmentation" in required else {}
        values |= {"text_width": TEXT_WIDTH} if "text" in required else {}
        made = build(TaskConfig, values, "test").make()
        return made, GenerationBatch(
            draw_tokens(LAYOUT),
            tuple(map(str, range(BATCH))),
            draw_text(1) if "text" in required else None,
            draw_tokens(CONDITION) if "segmentation" in required else None,
        )
    return make_understanding(name)


def draw_tokens(layout: TokenLayout) -> Tensor:
    shares = layout.allowed_tokens().float()
    return torch.multinomial(shares, BATCH, True, generator=torch.Generator().manual_seed(8)).T


def make_understanding(name: str) -> tuple[Any, UnderstandingBatch]:
    settings = understanding.settings(name, "codes")
    found = [
        (place, example)
        for place, record in enumerate(understanding.RECORDS)
        for example in tasks[name].extract_examples(settings, record, lambda: understanding.SHAPE)  # type: ignore
    ]
    examples = [found[number % len(found)] for number in range(BATCH)]
    values = [example for _, example in examples]
    resolved = tasks[name].resolve_config(settings, understanding.LAYOUT, values)  # type: ignore[attr-defined]
    width = understanding.WIDTH
    given = {"task": resolved.model_dump(), "layout": understanding.LAYOUT, "feature_width": width}
    task: Any = build(TaskConfig, given, "test").make()
    task.prepare(values)
    task.adapter.fit(understanding.random_features(range(4)))
    return task, understanding.make_batch(task, examples)


def train_task(name: str, way: dict[str, Any], own: slice) -> dict[str, Tensor]:
    task, batch = make_task(name)
    for part in task.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    config = TaskTrainConfig(steps=STEPS, batch=BATCH, **way)
    if config.recompute:
        recompute_blocks(task)
    stepper = TaskStep(task.train(), config, CPU)
    return take_steps(task, lambda step: take_part(batch, own), lambda part, step: stepper.backward(part), [])


def main(rank: int, world: int, store: str, out: str, ways: str, names: str) -> None:
    """Train what is named in each of the ways."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    share, tensors = share_of(BATCH, rank, world), {}
    own = slice(share.first, share.first + share.count)
    with sharing(BATCH, world):
        for way in ways.split(","):
            settings = WAYS[way]
            for name in names.split(","):
                task = name.removeprefix("task ")
                found = train_task(task, settings, own) if task != name else train_tokenizer(name, settings, own)
                tensors |= {f"{name}|{way}|{key}": value.contiguous() for key, value in found.items()}
    files.write_tensors(Path(out) / f"{world}-{rank}.safetensors", tensors)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
