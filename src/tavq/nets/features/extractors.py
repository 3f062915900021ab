"""Frozen networks whose features measure how similar images look, for perceptual losses and Fréchet distances.

`scenes` ships with the package and was trained on its embedded scenes; `squeezenet` is an ImageNet network that is
read from the user's file. Neither is the Inception network of FID or a backbone of LPIPS, so results do not carry
these names; those two are in `inception` and `lpips`. `loading` finds each by its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, mse_loss, normalize, relu_

from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_arrays, read_tensors, sha256

MIN_SIDE = 32
"""Smallest side of an image that a feature network accepts; below it the last stage would be empty."""


class FeatureNetwork(nn.Module, ABC):
    """A frozen network: gradients reach the images but not its weights.

    Attributes:
        width: f, number of features of the last stage.
        sha256: hash of the file of weights, which results record.
    """

    name: ClassVar[str]
    has_classifier: ClassVar[bool] = False
    """It has a classifier, so that `logits` works."""
    width: int
    sha256: str
    published: bool = False
    """Its weights are the published ones, so that its distances may carry the published metric's name."""

    @property
    def heads(self) -> list[Tensor]:
        """Learned weights [f] of each stage's channels in the distance of two images; empty if it has none."""
        return []

    def metric_name(self, metric: str) -> str:
        """The name of a metric on this network's features: `fd_scenes`, `kid_scenes`, `distance_scenes`."""
        return f"{metric}_{self.name}"

    @abstractmethod
    def stages(self, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
        """Feature maps [b f h w], fine to coarse, of images in [-1, 1] whose sides are at least MIN_SIDE."""

    def logits(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b o"]:
        """Classifier logits of images in [-1, 1], resized to the size the network was trained on.

        Only if `has_classifier`.
        """
        raise TypeError(f"{type(self).__name__} has no classifier")

    def forward(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b f"]:
        """The last stage averaged over positions: `width` features for each image."""
        return self.stages(images)[-1].mean(dim=(2, 3))

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def _check_size(self, images: Tensor) -> None:
        if min(images.shape[-2:]) < MIN_SIDE:
            raise UsageError(
                f"The feature network {self.name!r} needs images of at least {MIN_SIDE} x {MIN_SIDE}; "
                f"got {images.shape[-1]} x {images.shape[-2]}."
            )

    def _load(self, arrays: dict[str, Tensor], path: Path) -> None:
        expected = {name: tensor.shape for name, tensor in self.state_dict().items()}
        found = {name: array.shape for name, array in arrays.items()}
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise FileError(
                f"{path} does not hold the weights of {self.name!r}: {wrong[0]!r} is missing, unexpected or of another "
                "shape."
            )
        self.load_state_dict({name: array.float() for name, array in arrays.items()})
        self._freeze()


# --- scenes -----------------------------------------------------------------------------------------------------


class ScenesNetwork(FeatureNetwork):
    """Eight convolutions trained to classify the objects in the embedded scenes; about 0.5 million parameters.

    `scripts/train_scenes_features.py` makes the weights. It trains with batch normalisation and folds it into the
    convolutions. Four stages, at 1/2, 1/4, 1/8 and 1/16 of the image.
    """

    name = "scenes"
    CHANNELS = (24, 48, 96, 160)

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.width = self.CHANNELS[-1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1) for inputs, outputs, stride in scenes_layers()
        )
        with as_file(files("tavq") / "assets" / "scenes_features.safetensors") as shipped:
            source = path or shipped
            self._load(read_tensors(source), source)
            self.sha256 = sha256(source)

    def stages(self, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
        """Feature maps of 24, 48, 96 and 160 channels."""
        self._check_size(images)
        features, maps = images, []
        for position, convolution in enumerate(self.convolutions):
            features = relu_(convolution(features))
            if position % 2:
                maps.append(features)
        return maps


def scenes_layers() -> list[tuple[int, int, int]]:
    """Input channels, output channels and stride of each convolution of the scenes network, two for each stage."""
    layers, inputs = [], 3
    for outputs in ScenesNetwork.CHANNELS:
        layers += [(inputs, outputs, 2), (outputs, outputs, 1)]
        inputs = outputs
    return layers


# --- SqueezeNet -------------------------------------------------------------------------------------------------


class Fire(nn.Module):
    """A 1 x 1 convolution to few channels, then parallel 1 x 1 and 3 x 3 convolutions."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: Float[Tensor, "b f h w"]) -> Float[Tensor, "b g h w"]:
        """Both expansions after ReLU, concatenated along the channels."""
        squeezed = relu_(self.squeeze1x1(features))
        return relu_(torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1))


class SqueezeNet(FeatureNetwork):
    """SqueezeNet 1.1 with the Caffe weights of its authors; 0.7 million parameters, 1.2 with its classifier.

    Source: Iandola et al. 2016, "SqueezeNet", release 1.1; arrays named as in the authors' Caffe model
    (`fire2/squeeze1x1.weight`). Images are read at their own size, as BGR from 0 to 255 minus the training means;
    pools round up. Four stages: before each pool and at the end, at about 1/2, 1/4, 1/8 and 1/16 of the image.
    It was trained at 227 x 227; on much smaller images its features are those of small objects. For the logits
    images are resized to 227 x 227 (bilinear, antialiased).

    Args:
        path: the .npz file.
        classifier: load the classifier too (`conv10`, 1,000 classes of ImageNet), which `logits` needs.
    """

    name = "squeezenet"
    has_classifier = True
    SIDE = 227
    MEANS = (103.9, 116.8, 123.7)
    FIRES = (
        (64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128),
        (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256),
    )  # fmt: skip
    POOLED = (2, 4, 6)  # the fires that follow a pool

    def __init__(self, path: Path, classifier: bool = False) -> None:
        super().__init__()
        self.width = 512
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        for number, sizes in enumerate(self.FIRES, 2):
            self.add_module(f"fire{number}", Fire(*sizes))
        if classifier:
            self.conv10 = nn.Conv2d(self.width, 1000, 1)
        self.means: Tensor
        self.register_buffer("means", torch.tensor(self.MEANS).view(1, 3, 1, 1), persistent=False)
        arrays = {
            name.replace("/", "."): torch.from_numpy(array.astype(np.float32))
            for name, array in read_arrays(path).items()
            if classifier or not name.startswith("conv10.")
        }
        self._load(arrays, path)
        self.sha256 = sha256(path)

    def stages(self, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
        """Feature maps of 64, 128, 256 and 512 channels."""
        self._check_size(images)
        features = relu_(self.conv1((images.flip(1) + 1) * 127.5 - self.means))
        maps = []
        for number in range(2, 10):
            if number in self.POOLED:
                maps.append(features)
                features = max_pool2d(features, 3, stride=2, ceil_mode=True)
            features = self.get_submodule(f"fire{number}")(features)
        return [*maps, features]

    def logits(self, images: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b o"]:
        """1,000 logits: ReLU, then the mean over positions, as in the authors' release."""
        resized = interpolate(images, (self.SIDE, self.SIDE), mode="bilinear", antialias=True)
        return relu_(self.conv10(self.stages(resized)[-1])).mean(dim=(2, 3))


# --- perceptual distance ----------------------------------------------------------------------------------------


def unit_stages(network: FeatureNetwork, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
    """The stages of images with the features of each position scaled to length 1; see `perceptual_distances`."""
    return [normalize(features, dim=1, eps=1e-6) for features in network.stages(images)]


def perceptual_distances(
    network: FeatureNetwork, a: Float[Tensor, "b 3 y x"], b: Float[Tensor, "b 3 y x"] | Sequence[Tensor]
) -> Float[Tensor, " b"]:
    """The perceptual distance of each pair of images of two batches; 0 for equal images.

    The squared distance between the unit feature vectors of a position, averaged over positions and then over stages,
    so that it is at most 2 (features are not negative). If the network has learned `heads`, they weight the channels
    and the stages are summed: that is LPIPS. `b` may be the `unit_stages` of the reference images, computed once for
    several calls.

    Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features", eq. 1.
    Differs from the paper: without heads, no channel weights and the mean over stages, which is not LPIPS.
    """
    reference = unit_stages(network, b) if isinstance(b, Tensor) else b
    squares = [(one - other).square() for one, other in zip(unit_stages(network, a), reference, strict=True)]
    if network.heads:
        squares = [square * head.view(1, -1, 1, 1) for square, head in zip(squares, network.heads, strict=True)]
    by_stage = torch.stack([square.sum(dim=1).mean(dim=(1, 2)) for square in squares])
    return by_stage.sum(dim=0) if network.heads else by_stage.mean(dim=0)


def perceptual_distance(
    network: FeatureNetwork, a: Float[Tensor, "b 3 y x"], b: Float[Tensor, "b 3 y x"] | Sequence[Tensor]
) -> Float[Tensor, ""]:
    """The mean of `perceptual_distances` over images: a loss."""
    return perceptual_distances(network, a, b).mean()


def logits_distance(
    network: FeatureNetwork, a: Float[Tensor, "b 3 y x"], b: Float[Tensor, "b 3 y x"]
) -> Float[Tensor, ""]:
    """The mean squared difference of the logits of two batches of images: a loss.

    Source: Weber et al. 2024, "MaskBit", §3 and public code (there of a ResNet-50 at 224 x 224).
    """
    return mse_loss(network.logits(a), network.logits(b))
