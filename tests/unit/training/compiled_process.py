"""One step of a transformer block and one of a tokenizer, as they are and compiled; must agree.

Called by test_compilation.py; a process of its own, because the compiler cannot read the shape checks of the tests.
"""

from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from tavq import recipes
from tavq.interfaces import Batch
from tavq.nets.discriminators import PatchDiscriminator
from tavq.nets.transformer import Block
from tavq.tokenizer import Tokenizer
from tavq.training.compilation import compile_blocks, compile_tokenizer
from tavq.training.tokenizer.accumulation import AccumulatedStep
from tavq.training.tokenizer.step import GeneratorStep

TINY = {
    "model.net": {"channels": 8, "multipliers": [1, 1], "blocks": 1, "middle_blocks": 1, "attention": "none"},
    "model.codebook": {"name": "learned", "entries": 8, "width": 4},
    "train.adversarial": {"start": 0, "discriminator": {"channels": 4, "layers": 1, "norm": "group"}},
    "data.size": 16,
}


def step_block(compiled: bool) -> dict[str, Tensor]:
    """What a block gives, and its weights after a step of descent, with PyTorch's own backend."""
    torch.manual_seed(0)
    task = nn.Sequential(nn.ModuleList([Block(8, 2, 8, cross=False)]))
    if compiled:
        compile_blocks(task, sharded=False)
    optimizer = torch.optim.SGD(task.parameters(), 0.1)
    made = task[0][0](torch.randn(2, 3, 8))
    made.square().sum().backward()
    optimizer.step()
    return {"output": made.detach(), **task.state_dict()}


def step_tokenizer(compiled: bool, **train: Any) -> dict[str, Tensor]:
    """The losses and the weights after a step with a discriminator, with a backend that needs no C++ compiler."""
    recipe = recipes.load("vqgan-tiny", {**TINY, **{f"train.{key}": value for key, value in train.items()}})
    torch.manual_seed(0)
    tokenizer, adversarial = Tokenizer(recipe.model), recipe.train.adversarial
    assert adversarial is not None
    discriminator = PatchDiscriminator(adversarial.discriminator)
    if compiled:
        with patch("torch.compile", lambda method, **_: torch_compile(method)):
            compile_tokenizer(tokenizer, discriminator)
    kind = AccumulatedStep if recipe.train.accumulate > 1 else GeneratorStep
    config = recipe.train.model_copy(update={"compile": compiled})
    stepper = kind(tokenizer, discriminator, None, config, torch.device("cpu"))
    weights = [*tokenizer.parameters(), *discriminator.parameters()]
    optimizer = torch.optim.SGD(weights, 0.1)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    _, terms = stepper.backward(Batch(images, ("a", "b")), 0)
    optimizer.step()
    losses = {key: loss.value.detach() for key, loss in terms.items()}
    return {**losses, **tokenizer.state_dict(), **{f"d/{key}": v for key, v in discriminator.state_dict().items()}}


torch_compile = partial(torch.compile, backend="aot_eager")


def compare(plain: dict[str, Tensor], compiled: dict[str, Tensor], graphs: int) -> None:
    """Require equal names and values, and that at least so many graphs were compiled, without a break in one."""
    assert list(plain) == list(compiled)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: name + text)
    assert counters["stats"]["unique_graphs"] >= graphs, counters["stats"]
    assert not counters["graph_break"], counters["graph_break"]
    counters.clear()


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare(step_block(False), step_block(True), graphs=1)
    compare(step_tokenizer(False, accumulate=2), step_tokenizer(True, accumulate=2), graphs=4)
