"""How a GPU rounds in a run, and its norms."""

import pytest
import torch
from torch import nn

from tavq import recipes
from tavq.nets.convnet import Norm
from tavq.ops.rounding import matmul_precision
from tavq.recipes.identity import COSMETIC_SETTINGS
from tavq.training.gpu import gpu_settings


def settings_in_force() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark


def test_settings_hold_for_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    train = recipes.load("vqgan-tiny", {"train.tf32": True, "train.cudnn_benchmark": True}).train
    before = settings_in_force()
    with gpu_settings(train):
        assert settings_in_force() == (True, True)
        with matmul_precision(tf32=False):
            assert settings_in_force() == (False, True)
        assert settings_in_force() == (True, True)
    assert settings_in_force() == before


def test_nothing_changes_without_a_gpu() -> None:
    train = recipes.load("vqgan-tiny", {"train.tf32": True, "train.cudnn_benchmark": True}).train
    before = settings_in_force()
    with gpu_settings(train):
        assert settings_in_force() == before


def test_tasks_round_to_tf32_and_tokenizers_do_not() -> None:
    assert recipes.load_task("unconditional-tiny").train.tf32
    assert not recipes.load("vqgan-tiny").train.tf32
    assert {"train.tf32", "train.cudnn_benchmark"} <= COSMETIC_SETTINGS


def test_a_norm_on_a_cpu_is_the_group_norm() -> None:
    norm, images = Norm(8), torch.randn(2, 8, 3, 3)
    assert torch.equal(norm(images), nn.GroupNorm.forward(norm, images))
