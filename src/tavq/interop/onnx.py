"""A tokenizer as two ONNX files: an encoder (image -> indices) and a decoder (indices -> image).

The road is torch.export: it traces `Tokenizer.encode` and `decode` themselves, with batch, height and width free, and
torch.onnx translates the graphs.
"""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tavq.core import files
from tavq.core.errors import FileError, UsageError, first_line
from tavq.tokenizer import Tokenizer

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

LARGEST_SIDE = 1 << 12
"""Positions along a side of the grid that the exported networks accept; torch.export wants a bound."""

LARGEST_FILE = 1_900_000_000
"""Bytes of weights that one ONNX file holds; protobuf allows 2 GiB. More go into a second file beside it."""


@dataclass(frozen=True)
class Agreement:
    """How the exported networks compare with torch on a random image, computed by onnxruntime."""

    equal: int  # indices that are equal
    indices: int  # of all
    pixel: float  # largest difference of a pixel


def check_packages() -> None:
    """Raise UsageError where the packages of the extra `onnx` are missing."""
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        raise UsageError(f"The export to ONNX needs {', '.join(missing)}: pip install 'tavq[onnx]'.")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module that was put into sys.modules without its specification
        return False


class _Encode(nn.Module):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, images: Tensor) -> Tensor:
        return self.tokenizer.encode(images)


class _Decode(nn.Module):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, indices: Tensor) -> Tensor:
        return self.tokenizer.decode(indices)


def write_onnx(tokenizer: Tokenizer, folder: Path) -> Agreement:
    """Write encoder.onnx and decoder.onnx, and compare them with the tokenizer.

    Args:
        tokenizer: in evaluation mode, on the CPU.
        folder: an existing folder.

    Raises:
        UsageError: the extra `onnx` is missing, or a part of the tokenizer cannot be traced or translated.
        FileError: the result is not what the tokenizer computes.
    """
    check_packages()
    plain = tokenizer.without_alignment().with_fixed_codebook().eval().float()
    factor = plain.factor
    images = torch.rand(2, 3, 3 * factor, 4 * factor, generator=torch.Generator().manual_seed(0)) * 2 - 1
    indices = plain.encode(images)
    batch, h, w = (torch.export.Dim(name, min=1, max=LARGEST_SIDE) for name in ("batch", "h", "w"))
    _write(_Encode(plain), folder / "encoder.onnx", "images", images, {0: batch, 2: factor * h, 3: factor * w})
    _write(_Decode(plain), folder / "decoder.onnx", "indices", indices, {0: batch, 1: h, 2: w})
    return _compare(plain, folder)


def _write(module: nn.Module, path: Path, name: str, example: Tensor, dynamic: dict[int, Any]) -> None:
    """Trace a module of one input, and write it; `name` is that of the input, and the output has the other name."""
    output = {"images": "indices", "indices": "images"}[name]
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(module, (example,), dynamic_shapes=({**dynamic},), strict=False)
            program: Any = torch.onnx.export(
                traced.run_decompositions(DECOMPOSITIONS), (), None, dynamo=True, verbose=False,
                input_names=[name], output_names=[output],
            )  # fmt: skip
    except Exception as error:  # torch.export and torch.onnx raise errors of a dozen kinds
        reason = first_line(error.__cause__ or error)[:300]
        raise UsageError(f"This tokenizer cannot be exported as ONNX ({path.stem}): {reason}") from error
    _strip(program.model)
    size = sum(value.nbytes for value in module.state_dict().values())
    program.save(path, external_data=size > LARGEST_FILE)


def _strip(model: Any) -> None:
    """Remove what the tracer notes of its own work: more bytes than a small network, with the paths of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """Attention in single operations: the translation of the fused one accepts several heads only, and ours has one."""
    return torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1) @ value


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.scaled_dot_product_attention.default: _attend}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.onnx says about packages and passes that do not concern a tokenizer."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# --- comparison with torch --------------------------------------------------------------------------------------


def _compare(tokenizer: Tokenizer, folder: Path) -> Agreement:
    """Run both files on an image of another shape than the traced one."""
    factor = tokenizer.factor
    images = torch.rand(1, 3, 5 * factor, 2 * factor, generator=torch.Generator().manual_seed(1)) * 2 - 1
    indices = tokenizer.encode(images)
    found = run_onnx(folder / "encoder.onnx", images)
    decoded, expected = run_onnx(folder / "decoder.onnx", indices), tokenizer.decode(indices)
    if found.shape != indices.shape or decoded.shape != expected.shape:
        shapes = f"{list(found.shape)} and {list(decoded.shape)}"
        raise FileError(
            f"The exported networks give {shapes}, not {list(indices.shape)} and {list(expected.shape)}; use other "
            "versions of torch and onnxscript."
        )
    return Agreement(int((found == indices).sum()), indices.numel(), float((decoded - expected).abs().max()))


def run_onnx(path: Path, values: Tensor) -> Tensor:
    """The output of an exported network, computed by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [result] = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    return torch.from_numpy(result)


# --- the folder -------------------------------------------------------------------------------------------------


def export_onnx(tokenizer: Tokenizer, place: Path, size: int | None, sha256: str | None) -> Agreement:
    """Write the folder: encoder.onnx, decoder.onnx and a README.md; completely or not at all.

    Args:
        tokenizer: in evaluation mode, on the CPU.
        place: a new or empty folder.
        size: side of the images that it was trained on, if it is known.
        sha256: of its weights.

    Raises errors as `write_onnx` does.
    """
    check_packages()
    with files.create_folder(place) as folder:
        agreement = write_onnx(tokenizer, folder)
        files.write_text(folder / "README.md", _card(tokenizer, agreement, size, sha256))
    return agreement


def _card(tokenizer: Tokenizer, agreement: Agreement, size: int | None, sha256: str | None) -> str:
    parts = len(tokenizer.codebook.sizes)
    grid = "[batch, h, w]" if parts == 1 else f"[batch, h, w, {parts}]"
    entries = " + ".join(f"{entries:,}" for entries in tokenizer.codebook.sizes)
    side = f"{size} px" if size else "the size of training"
    pixels = f"[batch, 3, {tokenizer.factor} h, {tokenizer.factor} w]"
    return f"""# Image tokenizer as ONNX

| file | input | output |
|---|---|---|
| encoder.onnx | `images` float32 {pixels} | `indices` int64 {grid} |
| decoder.onnx | `indices` int64 {grid} | `images` float32 {pixels} |

Batch, height and width are free; both sides of an image must be multiples of {tokenizer.factor}. Nothing is checked:
other sides, bytes instead of floats or indices outside the codebook give wrong results or an error of the runtime.

| | |
|---|---|
| values of images | RGB in [-1, 1]: byte / 127.5 - 1. The decoder does not clamp: clip its images to [-1, 1] |
| preprocessing | upright image, centre square, bicubic with antialias to {side} |
| codebook | {entries} entries; quantizer {tokenizer.config.quantizer.name} |
| sha256 of the weights | {sha256 or "unknown"} |
| compared with torch | {agreement.equal:,} of {agreement.indices:,} indices of a random image equal; \
pixels differ by {agreement.pixel:.1e} at most |

Where two entries are nearly as near, rounding decides, so that another runtime may choose the other one.

```python
import numpy, onnxruntime
encoder = onnxruntime.InferenceSession("encoder.onnx")
decoder = onnxruntime.InferenceSession("decoder.onnx")
[indices] = encoder.run(None, {{"images": images}})
[images] = decoder.run(None, {{"indices": indices}})
pixels = numpy.clip((images + 1) * 127.5 + 0.5, 0, 255).astype("uint8")
```
"""
