"""A ridge regression in closed form, with its penalty chosen on the fitting data: the linear probes are such maps."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

PENALTIES = tuple(10.0**exponent for exponent in range(-4, 4))
"""The grid for lambda, in units of the variance of one normalized input."""

SAME = 1e-6
"""Mean cosines closer than this are equal: rounding must not choose between penalties that predict the same."""


@dataclass(frozen=True)
class Ridge:
    """A regression from inputs, each coordinate normalized, to targets minus their mean.

    One eigenproblem serves every penalty.
    """

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    target_mean: Float[Tensor, " t"]
    values: Float[Tensor, " d"]
    vectors: Float[Tensor, "d d"]
    along: Float[Tensor, "d t"]

    @classmethod
    def fit(cls, inputs: Float[Tensor, "n d"], targets: Float[Tensor, "n t"]) -> "Ridge":
        """The regression on these rows."""
        mean, std = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
        # A coordinate that never varies is rounding noise, which must not be scaled up.
        scale = torch.where(std > 1e-9 * (1 + mean.abs()), 1 / std.clamp(min=1e-300), 0.0)
        normalized, target_mean = (inputs - mean) * scale, targets.mean(dim=0)
        values, vectors = torch.linalg.eigh(normalized.mT @ normalized / len(normalized))
        along = vectors.mT @ (normalized.mT @ (targets - target_mean)) / len(normalized)
        return cls(mean, scale, target_mean, values, vectors, along)

    def rotate(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The coordinates of inputs that `weights` maps."""
        return ((inputs - self.mean) * self.scale) @ self.vectors

    def weights(self, penalty: float) -> Float[Tensor, "d t"]:
        """The linear map from rotated inputs to centred targets."""
        return self.along / (self.values.clamp(min=0) + penalty)[:, None]

    def predict(self, inputs: Float[Tensor, "n d"], penalty: float) -> Float[Tensor, "n t"]:
        """Centred targets of inputs."""
        return self.rotate(inputs) @ self.weights(penalty)


def choose_penalty(inputs: Float[Tensor, "n d"], targets: Float[Tensor, "n t"]) -> float:
    """The penalty with the highest cosine on odd rows of a regression on even rows; of equal ones the largest."""
    ridge = Ridge.fit(inputs[::2], targets[::2])
    rotated = ridge.rotate(inputs[1::2])
    truth = directions(targets[1::2] - ridge.target_mean)
    trials = [rotated @ ridge.weights(penalty) for penalty in PENALTIES]
    cosines = [float((directions(trial) * truth).sum(dim=1).mean()) for trial in trials]
    best = max(cosines) - SAME
    return max(penalty for penalty, cosine in zip(PENALTIES, cosines, strict=True) if cosine >= best)


def directions(vectors: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
    """Unit vectors; 0 for vectors of no length."""
    return normalize(vectors, dim=1, eps=1e-9)
