"""The networks of TA-VQ's levels, each alone, and all levels at once in few operations.

A GPU takes longer to start an operation on a few vectors than to do it, so the levels are padded to one size and go
through the same operations together; only what reads a level's own grid runs level by level.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tavq.ops.collective import all_gather, all_gather_with_gradient

STATISTICS_RATE = 0.1
"""How far the running statistics of the means move towards those of a batch; the first batch sets them."""

VARIANCE_FLOOR = 1e-12
"""Added to the variance of the means, which is as small as 1e-9 at the start: the usual 1e-5 would hide it."""


class MLP(nn.Sequential):
    """The paper's FNN: two layers with ReLU."""

    def __init__(self, width: int, hidden: int, out: int, last_bias: bool = True) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=last_bias))

    @property
    def first(self) -> nn.Linear:
        """The first layer."""
        assert isinstance(self[0], nn.Linear)
        return self[0]

    @property
    def last(self) -> nn.Linear:
        """The second layer."""
        assert isinstance(self[2], nn.Linear)
        return self[2]

    def pool(self, vectors: Float[Tensor, "b n _"]) -> Float[Tensor, "b _"]:
        """The mean of its outputs over positions; as the last layer is linear, it runs once, on the mean."""
        return self[2](self[1](self[0](vectors)).mean(1))


class LevelAligner(nn.Module):
    """The networks of one level: FNN_m, FNN_Σ, and the FNN that maps a sampled vector to the text's space.

    Args:
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
        standardize: whether means are standardized over images; see `standardized`.
        center: whether text units are centered; see `centered`.
    """

    running_mean: Tensor
    running_variance: Tensor
    batches: Tensor
    text_mean: Tensor

    def __init__(self, width: int, text_width: int, standardize: bool, center: bool) -> None:
        super().__init__()
        self.standardize, self.center = standardize, center
        # a constant added to every mean is standardized away, so that a bias would never learn
        self.mean = MLP(width, width, width, last_bias=not standardize)
        self.variance = MLP(width, width, width)
        self.to_text = MLP(width, text_width, text_width)
        if standardize:
            self.register_buffer("running_mean", torch.zeros(width))
            self.register_buffer("running_variance", torch.ones(width))
            self.register_buffer("batches", torch.zeros(()))
        if center:
            self.register_buffer("text_mean", torch.zeros(text_width))

    def gaussian(
        self, codes: Float[Tensor, "b n d"], has_text: Bool[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Mean and diagonal variance of an image's codes (eq. 4).

        Differs from the paper: how a grid becomes one Gaussian is unstated; here both networks act on each position
        and their outputs are averaged, the variance after a softplus. The means are standardized where the settings
        ask for it.
        """
        means, variances = gaussians([self], [codes], has_text[None])
        return means[0], variances[0]

    def standardized(self, means: Float[Tensor, "b d"], has_text: Bool[Tensor, " b"] | None) -> Float[Tensor, "b d"]:
        """Each dimension of the means with mean 0 and variance 1 over images; the means as they are if it is off.

        In training by the batch of all processes, without images that have no text, and the running statistics follow
        it; in evaluation, and where `has_text` is None, by the running statistics.

        Differs from the paper: averaged over positions the means differ by far less between images than the noise that
        is added to them, so that without this an image hardly enters the loss.
        """
        return _standardized([self], means[None], None if has_text is None else has_text[None])[0]

    def centered(self, vectors: Float[Tensor, "*b t"]) -> Float[Tensor, "*b t"]:
        """Unit vectors of text units less the mean of the store's; the vectors as they are if it is off."""
        return F.normalize(vectors, dim=-1) - self.text_mean if self.center else vectors

    def sample(
        self, codes: Float[Tensor, "b n d"], samples: int, has_text: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b s t"]:
        """`samples` draws m + Σ^½ ε of each image's Gaussian, in the text's space (eq. 4)."""
        noise = torch.randn(codes.shape[0], samples, codes.shape[2], device=codes.device, dtype=codes.dtype)
        return sample_points([self], [codes], noise[None], has_text[None])[0]


def gaussians(
    networks: Sequence[LevelAligner], codes: Sequence[Float[Tensor, "b _ d"]], has_text: Bool[Tensor, "l b"]
) -> tuple[Float[Tensor, "l b d"], Float[Tensor, "l b d"]]:
    """`LevelAligner.gaussian` of all levels, from the codes of each."""
    hidden, variances = zip(*(_pool(*pair) for pair in zip(networks, codes, strict=True)), strict=True)
    means = _linear([network.mean.last for network in networks], torch.stack(hidden))
    return _standardized(networks, means, has_text), torch.stack(variances)


def sample_points(
    networks: Sequence[LevelAligner],
    codes: Sequence[Float[Tensor, "b _ d"]],
    noise: Float[Tensor, "l b s d"],
    has_text: Bool[Tensor, "l b"],
) -> Float[Tensor, "l b s t"]:
    """`LevelAligner.sample` of all levels with the standard normal `noise`."""
    means, variances = gaussians(networks, codes, has_text)
    # at a variance that underflows to 0 the gradient of the root would be infinite
    drawn = means[:, :, None] + (variances + 1e-12).sqrt()[:, :, None] * noise
    hidden = F.relu(_linear([network.to_text.first for network in networks], drawn.flatten(1, 2)))
    points = _linear([network.to_text.last for network in networks], hidden)
    return points.unflatten(1, drawn.shape[1:3])


def center_units(networks: Sequence[LevelAligner], vectors: Float[Tensor, "l b m t"]) -> Float[Tensor, "l b m t"]:
    """`LevelAligner.centered` of all levels."""
    if not networks[0].center:
        return vectors
    means = torch.stack([network.text_mean for network in networks])
    return F.normalize(vectors, dim=-1) - means[:, None, None]


def _pool(network: LevelAligner, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden layer of FNN_m and the output of FNN_Σ, averaged over positions; the first layers run as one."""
    first = (network.mean.first, network.variance.first)
    weight = torch.cat([layer.weight for layer in first])
    hidden = F.relu(F.linear(codes, weight, torch.cat([layer.bias for layer in first])))
    for_mean, for_variance = hidden.split([layer.out_features for layer in first], dim=-1)
    return for_mean.mean(1), F.softplus(network.variance[2](for_variance)).mean(1)


def _linear(layers: Sequence[nn.Linear], inputs: Float[Tensor, "l n i"]) -> Float[Tensor, "l n o"]:
    """One linear layer a level."""
    weights = torch.stack([layer.weight for layer in layers]).mT
    if layers[0].bias is None:
        return inputs @ weights
    return torch.baddbmm(torch.stack([layer.bias for layer in layers])[:, None], inputs, weights)


def _standardized(
    networks: Sequence[LevelAligner], means: Float[Tensor, "l b d"], has_text: Bool[Tensor, "l b"] | None
) -> Float[Tensor, "l b d"]:
    """`LevelAligner.standardized` of all levels."""
    if not networks[0].standardize:
        return means
    mean = torch.stack([network.running_mean for network in networks])
    variance = torch.stack([network.running_variance for network in networks])
    if has_text is not None and networks[0].training:
        counted = all_gather(has_text.T.float()).T[:, :, None]  # [l b 1], over all processes
        count = counted.sum(1)
        batch_mean, batch_variance = _moments(means, counted, count.clamp(min=1))
        several = count >= 2  # a single image has no variance
        _follow(networks, several, mean, variance, batch_mean.detach(), batch_variance.detach())
        mean, variance = torch.where(several, batch_mean, mean), torch.where(several, batch_variance, variance)
    return (means - mean[:, None]) / (variance + VARIANCE_FLOOR).sqrt()[:, None]


def _moments(means: Tensor, counted: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [l d] over the images that count, of all processes."""
    batch = all_gather_with_gradient(means.transpose(0, 1)).transpose(0, 1)
    mean = (batch * counted).sum(1) / count
    return mean, ((batch - mean[:, None]).square() * counted).sum(1) / count


@torch.no_grad()
def _follow(
    networks: Sequence[LevelAligner], several: Tensor, mean: Tensor, variance: Tensor, to_mean: Tensor, to: Tensor
) -> None:
    """Move the running statistics towards those of a batch, where it has `several` images.

    Args:
        networks: of the levels.
        several: [l 1]; False where a level has no batch to follow.
        mean: the running means [l d].
        variance: the running variances.
        to_mean: the batch's means.
        to: the batch's variances.
    """
    batches = torch.stack([network.batches for network in networks])[:, None]
    # A variance of 1e-5 would take a hundred batches to leave the 1 that it starts at.
    rate = torch.where(several, (1 / (batches + 1)).clamp(min=STATISTICS_RATE), 0)
    moved = (mean.lerp(to_mean, rate), variance.lerp(to, rate), (batches + several)[:, 0])
    names = ("running_mean", "running_variance", "batches")
    buffers = [getattr(network, name) for name in names for network in networks]
    torch._foreach_copy_(buffers, [row for rows in moved for row in rows.unbind()])
