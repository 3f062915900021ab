"""The shipped settings of completion."""

from pathlib import Path

import pytest
import torch

import tavq
from tavq.core.config import build, read_yaml
from tavq.nets.convnet import count_parameters
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import TaskConfig

FOLDER = Path(tavq.__file__).parent / "recipes" / "tasks"


@pytest.mark.parametrize(
    ("name", "layout", "numbers"),
    [
        # 12 c² in matrices and 10 c in norms and biases of each block, and what stands around them
        ("completion", TokenLayout(height=16, width=16, sizes=(1024,)), 16 * (12 * 1024**2 + 10 * 1024) + 2_368_512),
        ("completion-tiny", TokenLayout(height=16, width=16, sizes=(256,)), 4 * (12 * 128**2 + 10 * 128) + 83_200),
    ],
)
def test_a_recipe_makes_a_network_of_its_size(name: str, layout: TokenLayout, numbers: int) -> None:
    recipe = build(TaskRecipe, read_yaml((FOLDER / f"{name}.yaml").read_text(), name), name)
    assert len(recipe.description) > 20
    with torch.device("meta"):
        made = TaskConfig(task=recipe.task, layout=layout).make()
    assert count_parameters(made) == numbers
