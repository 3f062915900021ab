"""The Inception network of the Fréchet Inception distance (FID), in the format of its PyTorch ports."""

from pathlib import Path

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu_

from tavq.core.conversion import Origin, read_checkpoint, read_converted, write_converted
from tavq.core.errors import FileError
from tavq.core.files import sha256
from tavq.nets.features.extractors import FeatureNetwork

PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of pt_inception-2015-12-05-6726825d.pth, which pytorch-fid and torch-fidelity read."""

KIND = "inception"
SIDE = 299
CLASSES = 1008

Layer = tuple[str, int, tuple[int, int]]
"""Name, output channels, kernel size."""

Branch = tuple[tuple[Layer, ...], ...]
"""A sequence of groups of layers; the layers of a group are parallel and read the same features."""

MEAN, LARGEST, HALVE = "mean", "largest", "halve"
"""How a block pools: before its last branch, or, to halve the size, as a branch of its own."""

TO_17: tuple[Branch, ...] = (
    ((("branch3x3", 384, (3, 3)),),),
    ((("branch3x3dbl_1", 64, (1, 1)),), (("branch3x3dbl_2", 96, (3, 3)),), (("branch3x3dbl_3", 96, (3, 3)),)),
)
TO_8: tuple[Branch, ...] = (
    ((("branch3x3_1", 192, (1, 1)),), (("branch3x3_2", 320, (3, 3)),)),
    (
        (("branch7x7x3_1", 192, (1, 1)),),
        (("branch7x7x3_2", 192, (1, 7)),),
        (("branch7x7x3_3", 192, (7, 1)),),
        (("branch7x7x3_4", 192, (3, 3)),),
    ),
)
POOLED = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
STAGES = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_6e", "Mixed_7c")


class Unit(nn.Module):
    """A convolution without bias, batch normalization, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, same: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, features: Float[Tensor, "b f h w"]) -> Float[Tensor, "b g u v"]:
        """Features of the same or of half the size."""
        return relu_(self.bn(self.conv(features)))


class Mixed(nn.Module):
    """Parallel branches, concatenated along the channels."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...], pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.names = [_layer_names(branch) for branch in branches]
        for branch in branches:
            width = inputs
            for group in branch:
                halves = pool == HALVE and group is branch[-1]
                for name, outputs, kernel in group:
                    self.add_module(name, Unit(width, outputs, kernel, 2 if halves else 1, same=not halves))
                width = sum(outputs for _, outputs, _ in group)

    def forward(self, features: Float[Tensor, "b f h w"]) -> Float[Tensor, "b g u v"]:
        """The concatenated features of all branches."""
        if self.pool == HALVE:
            outputs = [self._run_branch(names, features) for names in self.names]
            return torch.cat([*outputs, max_pool2d(features, 3, 2)], dim=1)
        if self.pool == LARGEST:
            pooled = max_pool2d(features, 3, 1, 1)
        else:  # TensorFlow's average pool does not count padding
            pooled = avg_pool2d(features, 3, 1, 1, count_include_pad=False)
        outputs = [self._run_branch(names, features) for names in self.names[:-1]]
        return torch.cat([*outputs, self._run_branch(self.names[-1], pooled)], dim=1)

    def _run_branch(self, names: list[list[str]], features: Tensor) -> Tensor:
        for group in names:
            features = torch.cat([self.get_submodule(name)(features) for name in group], dim=1)
        return features


def _layer_names(branch: Branch) -> list[list[str]]:
    return [[name for name, _, _ in group] for group in branch]


def _early(inputs: int, pooled: int) -> Mixed:
    return Mixed(
        inputs,
        (
            ((("branch1x1", 64, (1, 1)),),),
            ((("branch5x5_1", 48, (1, 1)),), (("branch5x5_2", 64, (5, 5)),)),
            ((("branch3x3dbl_1", 64, (1, 1)),), (("branch3x3dbl_2", 96, (3, 3)),), (("branch3x3dbl_3", 96, (3, 3)),)),
            ((("branch_pool", pooled, (1, 1)),),),
        ),
        MEAN,
    )


def _middle(inner: int) -> Mixed:
    wide, tall = (1, 7), (7, 1)
    return Mixed(
        768,
        (
            ((("branch1x1", 192, (1, 1)),),),
            ((("branch7x7_1", inner, (1, 1)),), (("branch7x7_2", inner, wide),), (("branch7x7_3", 192, tall),)),
            (
                (("branch7x7dbl_1", inner, (1, 1)),),
                (("branch7x7dbl_2", inner, tall),),
                (("branch7x7dbl_3", inner, wide),),
                (("branch7x7dbl_4", inner, tall),),
                (("branch7x7dbl_5", 192, wide),),
            ),
            ((("branch_pool", 192, (1, 1)),),),
        ),
        MEAN,
    )


def _late(inputs: int, pool: str) -> Mixed:
    return Mixed(
        inputs,
        (
            ((("branch1x1", 320, (1, 1)),),),
            ((("branch3x3_1", 384, (1, 1)),), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))),
            (
                (("branch3x3dbl_1", 448, (1, 1)),),
                (("branch3x3dbl_2", 384, (3, 3)),),
                (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
            ),
            ((("branch_pool", 192, (1, 1)),),),
        ),
        pool,
    )


class InceptionNetwork(FeatureNetwork):
    """Inception V3 of the TensorFlow graph of 2015-12-05: 2,048 features, 21.8 million parameters.

    Source: Heusel et al. 2017 take the features of TensorFlow's "inception-2015-12-05" graph; names and shapes are
    those of its ports in pytorch-fid and torch-fidelity. Unlike torchvision's Inception V3, average pools do not
    count padding, the last block has a max pool, and there are 1,008 classes. Images are rounded to 8 bits, resized to
    299 x 299 as TensorFlow 1 does (bilinear, `align_corners=False`: no half-pixel shift, no antialias) and mapped by
    (x - 128) / 128. Rounding stops the gradient. Four stages, of 64, 192, 768 and 2,048 channels.

    With the published weights its Fréchet distance is called `fid` and its kernel distance `kid`; with any others
    `fd_inception` and `kid_inception`.

    Args:
        path: file that `convert_inception` wrote.
    """

    name = "inception"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.width = 2048
        self.layers = _layers()
        tensors, origin = read_converted(path)
        self._load(
            {f"layers.{name}": t for name, t in _add_counters(tensors).items() if not name.startswith("fc.")}, path
        )
        self.sha256 = sha256(path)
        self.published = origin.proves(KIND, {"weights": PUBLISHED}, path)

    def metric_name(self, metric: str) -> str:
        """`fid` and `kid` with the published weights; see FeatureNetwork."""
        return {"fd": "fid"}.get(metric, metric) if self.published else super().metric_name(metric)

    def stages(self, images: Float[Tensor, "b 3 y x"]) -> list[Tensor]:
        """Feature maps of 73 x 73, 35 x 35, 17 x 17 and 8 x 8 positions, for images of any size."""
        bytes_ = images.float().add(1).mul(127.5).round().clamp(0, 255)
        features, maps = (resized(bytes_, SIDE) - 128) / 128, []
        for name, layer in self.layers.items():
            features = layer(features)
            if name in POOLED:
                features = max_pool2d(features, 3, 2)
            if name in STAGES:
                maps.append(features)
        return maps


def _layers() -> nn.ModuleDict:
    """All layers up to the last block, named as in the published file."""
    return nn.ModuleDict(
        {
            "Conv2d_1a_3x3": Unit(3, 32, (3, 3), 2, same=False),
            "Conv2d_2a_3x3": Unit(32, 32, (3, 3), same=False),
            "Conv2d_2b_3x3": Unit(32, 64, (3, 3)),
            "Conv2d_3b_1x1": Unit(64, 80, (1, 1)),
            "Conv2d_4a_3x3": Unit(80, 192, (3, 3), same=False),
            "Mixed_5b": _early(192, 32),
            "Mixed_5c": _early(256, 64),
            "Mixed_5d": _early(288, 64),
            "Mixed_6a": Mixed(288, TO_17, HALVE),
            "Mixed_6b": _middle(128),
            "Mixed_6c": _middle(160),
            "Mixed_6d": _middle(160),
            "Mixed_6e": _middle(192),
            "Mixed_7a": Mixed(768, TO_8, HALVE),
            "Mixed_7b": _late(1280, MEAN),
            "Mixed_7c": _late(2048, LARGEST),
        }
    )


def resized(images: Float32[Tensor, "b c y x"], side: int) -> Float32[Tensor, "b c {side} {side}"]:
    """Bilinear resizing of TensorFlow 1 with `align_corners=False`: output i reads the input at i * input / output."""
    y, x = (_interpolation(extent, side).to(images.device) for extent in images.shape[-2:])
    return y @ images @ x.mT


def _interpolation(extent: int, side: int) -> Float32[Tensor, "{side} {extent}"]:
    """The interpolation matrix along one axis."""
    positions = torch.arange(side, dtype=torch.float64) * extent / side
    low = positions.floor().long()
    fraction = positions - low
    matrix = torch.zeros(side, extent, dtype=torch.float64)
    matrix.scatter_add_(1, low[:, None], 1 - fraction[:, None])
    matrix.scatter_add_(1, (low + 1).clamp(max=extent - 1)[:, None], fraction[:, None])
    return matrix.float()


# --- the published file -----------------------------------------------------------------------------------------


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published file's tensors: 94 units and a classifier of 1,008 classes."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in _layers().state_dict().items()}
    return {**shapes, "fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}


def convert_inception(source: Path, out: Path) -> Origin:
    """Writes the pickle `source` as safetensors and returns its origin; FileError if it is another network."""
    tensors = _add_counters(read_checkpoint(source))
    expected = inception_shapes()
    wrong = sorted(n for n in expected.keys() | tensors.keys() if expected.get(n) != _shape(tensors.get(n)))
    if wrong:
        raise FileError(
            f"{source} is not FID's Inception network: {wrong[0]!r} is missing, unexpected or of another shape."
        )
    origin = Origin(KIND, {"weights": sha256(source)})
    write_converted(out, tensors, origin)
    return origin


def _shape(tensor: Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _add_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the batch counters that older versions of torch did not save; nothing reads them."""
    counters = [f"{name.removesuffix('running_var')}num_batches_tracked" for name in tensors if ".running_var" in name]
    return {**{name: torch.zeros((), dtype=torch.int64) for name in counters}, **tensors}
