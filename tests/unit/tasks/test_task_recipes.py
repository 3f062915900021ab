"""The shipped settings of completion, and the old names of settings of generation tasks."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tavq
from tavq import recipes
from tavq.core.config import build, read_yaml
from tavq.core.errors import RenamedWarning
from tavq.nets.convnet import count_parameters
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import TokenLayout, tasks
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


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "samples"),
    [
        ("text-to-image", 24, 90, 24_183),  # images of CelebA-HQ for training
        ("captioning", 60, 100, 59_940),  # captions of CUB-200
        ("vqa", 60, 50, 78_736),  # questions of COCO-QA
        ("grounding", 30, 100, 42_404),  # expressions of RefCOCOg
    ],
)
def test_batches_and_epochs_are_those_of_the_paper(name: str, batch: int, epochs: int, samples: int) -> None:
    """LG-VQ, appendix A.1; steps are rounded to hundreds."""
    recipe = recipes.load_task(name)
    assert recipe.train.batch == batch
    assert abs(recipe.train.steps - epochs * samples / batch) < 100
    text = recipes.text_of(name, recipes.TASKS)
    assert f"{epochs} epochs" in text
    assert f"{samples:,}" in text


@pytest.mark.parametrize(("name", "batch"), [("semantic", 15), ("unconditional", 36)])
def test_batches_of_the_priors_are_those_of_the_paper(name: str, batch: int) -> None:
    """LG-VQ, appendix A.1, which gives no epochs for them; the learning rate is VQ-GAN's rule."""
    train = recipes.load_task(name).train
    assert train.batch == batch
    assert train.learning_rate == pytest.approx(4.5e-6 * batch)
    assert f"A.1, in the batch of {batch}" in recipes.text_of(name, recipes.TASKS)
    assert train.steps * batch == pytest.approx(4e6, rel=1e-3)


@pytest.mark.parametrize(
    ("task", "old", "new", "settings"),
    [
        ("prior", "unconditional", "condition_dropout", {"unconditional": 0.3}),
        ("masked", "noise", "choice_temperature", {"noise": 2.0}),
        ("diffusion", "kept", "keep_probability", {"kept": (0.9, 0.1), "mask_probability": (0.05, 0.8)}),
        ("diffusion", "masked", "mask_probability", {"keep_probability": (0.9, 0.1), "masked": (0.05, 0.8)}),
        ("diffusion", "auxiliary", "auxiliary_weight", {"auxiliary": 0.01}),
    ],
)
def test_old_names_of_settings_still_work(task: str, old: str, new: str, settings: dict[str, Any]) -> None:
    with pytest.warns(RenamedWarning, match=f"The setting '{old}' is now called '{new}'"):
        config = tasks[task].Config.model_validate(settings)
    assert getattr(config, new) == settings[old]
