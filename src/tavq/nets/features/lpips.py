"""LPIPS: a distance of images in a classifier's features, with channel weights learned from human judgements."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu_

from tavq.core.conversion import Origin, read_checkpoint, read_converted, write_converted
from tavq.core.errors import FileError
from tavq.core.files import sha256
from tavq.nets.features.extractors import FeatureNetwork

PUBLISHED = {
    "vgg": {
        "backbone": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "heads": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    },
    "alex": {
        "backbone": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "heads": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    },
}
"""SHA-256 of torchvision's vgg16-397923af.pth and alexnet-owt-7be5be79.pth, and of LPIPS' v0.1 vgg.pth and alex.pth."""

KIND = "lpips"
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)

Plan = tuple[tuple[int, int, int, int, int, int], ...]
"""Index in torchvision's `features`, input and output channels, kernel, stride, padding of each convolution."""

PLANS: dict[str, Plan] = {
    "vgg": (
        (0, 3, 64, 3, 1, 1), (2, 64, 64, 3, 1, 1), (5, 64, 128, 3, 1, 1), (7, 128, 128, 3, 1, 1),
        (10, 128, 256, 3, 1, 1), (12, 256, 256, 3, 1, 1), (14, 256, 256, 3, 1, 1), (17, 256, 512, 3, 1, 1),
        (19, 512, 512, 3, 1, 1), (21, 512, 512, 3, 1, 1), (24, 512, 512, 3, 1, 1), (26, 512, 512, 3, 1, 1),
        (28, 512, 512, 3, 1, 1),
    ),
    "alex": (
        (0, 3, 64, 11, 4, 2), (3, 64, 192, 5, 1, 2), (6, 192, 384, 3, 1, 1), (8, 384, 256, 3, 1, 1),
        (10, 256, 256, 3, 1, 1),
    ),
}  # fmt: skip
TAPS = {"vgg": (2, 7, 14, 21, 28), "alex": (0, 3, 6, 8, 10)}
"""The convolutions whose features, after ReLU, are compared."""

POOLS = {"vgg": (2, (5, 10, 17, 24)), "alex": (3, (3, 6))}
"""Kernel size of the max pools, and the convolutions that follow one."""


class LpipsNetwork(FeatureNetwork):
    """VGG-16 or AlexNet up to the last convolution, with the channel weights of LPIPS.

    Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features", eq. 1, version 0.1 of the public code:
    images in [-1, 1] are shifted and scaled by its constants, features are scaled to length 1 at each position of
    five stages, and squared differences are weighted by channel, averaged over positions and summed over stages.
    Differs from the paper: only the guard against features of length 0.

    With the published backbone and heads its distance is called `lpips_vgg` or `lpips_alex`; with any others
    `perceptual_vgg` or `perceptual_alex`.

    Args:
        path: file that `convert_lpips` wrote.
    """

    name = KIND

    def __init__(self, path: Path) -> None:
        super().__init__()
        tensors, origin = read_converted(path)
        self.kind = "vgg" if "features.28.weight" in tensors else "alex"
        self.features = _convolutions(self.kind)
        channels = _stage_channels(self.kind)
        self.width = channels[-1]
        for stage, count in enumerate(channels):
            self.register_buffer(f"head{stage}", torch.zeros(count))
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self._load(tensors, path)
        self.sha256 = sha256(path)
        self.published = origin.proves(KIND, PUBLISHED[self.kind], path)

    @property
    def heads(self) -> list[Tensor]:
        """The weights [f] of each stage's channels."""
        return [self.get_buffer(f"head{stage}") for stage in range(len(TAPS[self.kind]))]

    def metric_name(self, metric: str) -> str:
        """`lpips_vgg` or `lpips_alex` with the published weights; see FeatureNetwork."""
        if metric == "distance":
            return f"{'lpips' if self.published else 'perceptual'}_{self.kind}"
        return f"{metric}_{self.kind}"

    def stages(self, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
        """Five feature maps: of 64, 128, 256, 512, 512 channels (VGG-16) or 64, 192, 384, 256, 256 (AlexNet)."""
        self._check_size(images)
        features, maps = (images - self.get_buffer("shift")) / self.get_buffer("scale"), []
        side, pooled = POOLS[self.kind]
        for index, *_ in PLANS[self.kind]:
            if index in pooled:
                features = max_pool2d(features, side, 2)
            features = relu_(self.features[str(index)](features))
            if index in TAPS[self.kind]:
                maps.append(features)
        return maps


def _convolutions(kind: str) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            str(index): nn.Conv2d(inputs, outputs, kernel, stride, padding)
            for index, inputs, outputs, kernel, stride, padding in PLANS[kind]
        }
    )


def _stage_channels(kind: str) -> list[int]:
    return [outputs for index, _, outputs, *_ in PLANS[kind] if index in TAPS[kind]]


def convert_lpips(kind: str, backbone: Path, heads: Path, out: Path) -> Origin:
    """Writes a backbone and its heads as one safetensors file and returns its origin.

    Raises FileError if either file belongs to another network. The backbone's classifier is left out.

    Args:
        kind: `vgg` or `alex`.
        backbone: torchvision's pickle of VGG-16 or AlexNet.
        heads: LPIPS' pickle of the five weights.
        out: the file to write.
    """
    tensors = {name: t for name, t in read_checkpoint(backbone).items() if not name.startswith("classifier.")}
    with torch.device("meta"):
        expected = {f"features.{name}": tensor.shape for name, tensor in _convolutions(kind).state_dict().items()}
    _check_shapes(backbone, {"vgg": "VGG-16", "alex": "AlexNet"}[kind], expected, tensors)
    weights = read_checkpoint(heads)
    channels = _stage_channels(kind)
    shapes = {f"lin{stage}.model.1.weight": torch.Size((1, count, 1, 1)) for stage, count in enumerate(channels)}
    _check_shapes(heads, f"LPIPS' heads for {kind}", shapes, weights)
    origin = Origin(KIND, {"backbone": sha256(backbone), "heads": sha256(heads)})
    flat = {f"head{stage}": weights[name].flatten() for stage, name in enumerate(shapes)}
    write_converted(out, {**tensors, **flat}, origin)
    return origin


def _check_shapes(path: Path, what: str, expected: dict[str, torch.Size], found: dict[str, Tensor]) -> None:
    shapes = {name: tensor.shape for name, tensor in found.items()}
    wrong = sorted(n for n in expected.keys() | shapes.keys() if expected.get(n) != shapes.get(n))
    if wrong:
        raise FileError(f"{path} is not {what}: {wrong[0]!r} is missing, unexpected or of another shape.")
