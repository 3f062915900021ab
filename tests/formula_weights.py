"""Weights and images by formula, so that golden numbers hold wherever they are computed."""

import numpy as np
import torch
from torch import Tensor


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that look random, of a size that keeps a deep network's features alive; `name` says which."""
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    seed = sum(ord(letter) * place for place, letter in enumerate(name, 1)) % 1000
    noise = np.modf(np.sin(i * 12.9898 + seed * 78.233) * 43758.5453)[0]  # from -1 to 1
    if name.endswith("running_var"):
        noise = 1 + 0.3 * abs(noise)
    elif name.endswith(("running_mean", "bias")):
        noise = 0.1 * noise
    elif name.endswith("bn.weight"):
        noise = 1 + 0.2 * noise
    elif name.startswith("lin"):
        noise = abs(noise)
    elif len(shape) == 4:
        noise = noise * np.sqrt(6 / np.prod(shape[1:]))
    else:
        noise = 0.05 * noise
    return torch.from_numpy(noise.reshape(shape)).float()


def random_images(y: int, x: int, count: int = 2) -> Tensor:
    """Images [count 3 y x] of whole numbers from 0 to 255, brought to [-1, 1]."""
    b, c, i, j = np.meshgrid(np.arange(count), np.arange(3), np.arange(y), np.arange(x), indexing="ij")
    return torch.from_numpy((37 * i + 59 * j + 83 * c + (i * j) // (3 + b) + 101 * b) % 256).float() / 127.5 - 1


def checksums(features: Tensor) -> list[float]:
    """For each row its mean and its mean against a wave, which tells channels that changed places."""
    wave = torch.cos(torch.arange(features.shape[1], dtype=torch.float64))
    rows = features.double()
    return [value for row in rows for value in (float(row.mean()), float((row * wave).mean()))]
