"""One of the processes that train every registered task, each with whole weights and with a part of them.

Called by test_sharding.py as: one_sharded_process.py RANK WORLD STORE OUT NAME,…
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from test_understanding_tasks import LAYOUT, NAMES, RECORDS, SHAPE, WIDTH, make_batch, settings
from torch import nn

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import TextFeatures, TextUnits, sum_losses
from tavq.ops import collective
from tavq.tasks.base import GenerationBatch, GenerationTask, tasks
from tavq.tasks.model_folder import TaskConfig
from tavq.training.ema import EMA
from tavq.training.sharding import clip_gradients, gather_state, shard, total_norm, whole
from tavq.training.task.trainer import parameter_groups

STEPS, TEXT_WIDTH, CLIP = 2, 5, 0.1
SMALL = {"layers": 2, "heads": 2, "width": 16, "dropout": 0.1, "steps": 4}
SUPERVISED = {"image": {"source": "codes", "patch": 2}, "attention_supervision": 0.5}

Batches = Callable[[int], Any]


def generation_tasks() -> Iterator[tuple[str, Any, Batches]]:
    """Name, network and batches of every task that makes images."""
    for name in tasks:
        kind: Any = tasks[name]
        if not issubclass(kind, GenerationTask):
            continue
        known = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
        config = build(
            TaskConfig, {"task": {"name": name, **known}, "layout": LAYOUT, "text_width": TEXT_WIDTH}, "test"
        )
        needs_text = "text" in kind.required_conditions(config.task)

        def batch(seed: int, needs_text: bool = needs_text) -> GenerationBatch:
            generator = torch.Generator().manual_seed(seed)
            tokens = torch.randint(LAYOUT.vocabulary, (4, LAYOUT.length), generator=generator)
            units = TextUnits(torch.randn(4, 2, TEXT_WIDTH, generator=generator), torch.ones(4, 2, dtype=torch.bool))
            return GenerationBatch(tokens, tuple("abcd"), TextFeatures(units, units, units) if needs_text else None)

        torch.manual_seed(0)
        yield name, config.make(), batch


def understanding_tasks() -> Iterator[tuple[str, Any, Batches]]:
    """Name, network and batches of every task that reads images; of grounding also with supervised attention."""
    for name, more in [*((name, {}) for name in NAMES), ("grounding", SUPERVISED)]:
        config: Any = tasks[name].Config.model_validate({**settings(name, "codes").model_dump(), **more})
        examples = [
            (place, example)
            for place, record in enumerate(RECORDS)
            for example in tasks[name].extract_examples(config, record, lambda: SHAPE)
        ]
        resolved = tasks[name].resolve_config(config, LAYOUT, [example for _, example in examples]).model_dump()
        torch.manual_seed(0)
        made = build(TaskConfig, {"task": resolved, "layout": LAYOUT, "feature_width": WIDTH}, "test").make()
        made.prepare([example for _, example in examples])
        label = f"{name}-supervised" if more else name
        yield label, made, lambda seed, made=made, found=examples: make_batch(made, found[seed % 2 : seed % 2 + 3])


def train(model: Any, batches: Batches, precision: str, sharded: bool, clip: float | None) -> dict[str, torch.Tensor]:
    """The weights, their moving average and the losses after a few steps; `refused` where a task cannot be sharded."""
    if sharded:
        try:
            shard(model, precision)
        except UsageError:  # it has no blocks
            return {"refused": torch.ones(())}
    optimizer = torch.optim.AdamW(parameter_groups(model.train(), 0.1), 1e-2)
    ema, found = EMA(model, 0.9), {}
    for step in range(STEPS):
        optimizer.zero_grad()
        torch.manual_seed(10 * step + collective.rank())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = model.loss(batches(10 * step + collective.rank()))
        sum_losses(losses).backward()
        model.finish_step()
        if not sharded:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad = collective.all_reduce_mean(parameter.grad)
        norm = total_norm([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
        if clip is not None:
            clip_gradients(model.parameters(), clip)
        optimizer.step()
        ema.update(step + 1)
        found |= {f"loss/{step}/{name}": loss.value.detach().clone() for name, loss in losses.items()}
        found[f"norm/{step}"] = norm
    averages = {f"ema/{name}": whole(tensor) for name, tensor in ema.shadow.items()}
    blocks = any(isinstance(module, nn.ModuleList) for module in model.modules())
    return {**found, **gather_state(model), **averages, "blocks": torch.tensor(blocks)}


def main(rank: int, world: int, store: str, out: str, names: str) -> None:
    """Train each task that is named in each way from the same weights, and save what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    results: dict[str, torch.Tensor] = {}
    for precision, clip in (("fp32", None), ("bf16", None), ("fp32", CLIP)):
        for sharded in (False, True):
            way = f"{precision}-{clip}-{'sharded' if sharded else 'whole'}"
            for name, model, batches in [*generation_tasks(), *understanding_tasks()]:
                if name not in names.split(","):
                    continue
                made = train(model, batches, precision, sharded, clip)
                results |= {f"{way}:{name}:{key}": tensor.contiguous() for key, tensor in made.items()}
    if rank == 0:
        files.write_tensors(Path(out) / "results.safetensors", results)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
