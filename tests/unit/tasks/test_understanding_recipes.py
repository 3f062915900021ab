"""The shipped recipes of grounding and masked words."""

from typing import Any

import pytest
import torch

from tavq import recipes
from tavq.nets.convnet import count_parameters
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import TaskConfig


@pytest.mark.parametrize(
    ("task", "end", "width", "rows"),
    [
        ("grounding", "", 512, 256),
        ("grounding", "-tiny", 128, 64),
        ("masked-words", "", 512, 256),
        ("masked-words", "-tiny", 128, 16),
    ],
)
def test_a_recipe_makes_a_network_of_its_size(task: str, end: str, width: int, rows: int) -> None:
    recipe = recipes.load_task(f"{task}{end}")
    assert recipe.task.name == task
    assert len(recipe.description) > 20
    layout = TokenLayout(height=16, width=16, sizes=(256,))
    resolved = recipe.task.model_copy(update={"vocabulary": 40}).model_dump()
    with torch.device("meta"):
        made: Any = TaskConfig(task=resolved, layout=layout, feature_width=64).make()
    assert made.adapter.length == rows
    assert len(made.transformer.blocks) == 3
    # 12 c² in matrices and 10 c in norms and biases of each block, and the last norm
    assert count_parameters(made.transformer) == 3 * (12 * width**2 + 10 * width) + 2 * width
    assert made.transformer.blocks[0].self_attn.heads == (16 if end == "" else 4)
