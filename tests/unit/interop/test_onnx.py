"""Exported ONNX networks: onnxruntime computes what torch does, for any batch, height and width."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from published_tokenizers import randomize
from torch import Tensor

import tavq
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import quantizers
from tavq.interop import onnx
from tavq.quantizers.nearest import NearestQuantizer, to_euclidean
from tavq.tokenizer import Tokenizer, TokenizerConfig

SHAPES = ((1, 2, 2), (2, 8, 6), (3, 4, 12))


def tokenizer(quantizer: str = "nearest", **settings: Any) -> Tokenizer:
    codebook = {"entries": 16, "width": 4, **quantizers[quantizer].compatible_codebook}
    if codebook["name"] == "learned":
        codebook["init"] = "normal"
    else:
        codebook.pop("entries")
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1}
    config = {"net": net, "codebook": codebook, "quantizer": quantizer, **settings}
    built = Tokenizer(build(TokenizerConfig, config, "test")).eval()
    randomize(built.encoder)
    randomize(built.decoder)
    return built.requires_grad_(False)


def check_parity(ours: Tokenizer, folder: Path) -> None:
    for batch, height, width in SHAPES:
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height)) * 2 - 1
        indices = ours.encode(images)
        found = onnx.run_onnx(folder / "encoder.onnx", images)
        assert found.dtype == torch.int64
        assert torch.equal(found, indices)
        pixels = onnx.run_onnx(folder / "decoder.onnx", indices)
        assert torch.allclose(pixels, ours.decode(indices), atol=1e-4)


def test_a_model_folder_becomes_two_networks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With an aligner, and with a codebook that a network computes: neither is in the files."""
    ours = tokenizer(
        net={"channels": 8, "multipliers": [1, 1, 2], "blocks": 1},
        codebook={"name": "linear", "entries": 16, "width": 4},
        align={"name": "ta", "phrase": 0.0},
        text_width=6,
    )
    ours.save_pretrained(tmp_path / "model", metadata={"size": 16})
    folder = tavq.export_model(tmp_path / "model", to="onnx", out=tmp_path / "onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "decoder.onnx", "encoder.onnx"]
    assert "The aligner is not exported" in caplog.text
    assert "onnxruntime and torch agree on" not in caplog.text
    for batch, height, width in SHAPES:
        images = torch.rand(batch, 3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(height)) * 2 - 1
        indices = ours.encode(images)
        assert torch.equal(onnx.run_onnx(folder / "encoder.onnx", images), indices)
        decoded = onnx.run_onnx(folder / "decoder.onnx", indices)
        assert torch.allclose(decoded, ours.decode(indices), atol=1e-4)
    card = (folder / "README.md").read_text()
    for fact in ("byte / 127.5 - 1", "to 16 px", "[batch, 3, 4 h, 4 w]", "16 entries", "10 of 10 indices"):
        assert fact in card
    for path in folder.glob("*.onnx"):
        assert b"site-packages" not in path.read_bytes(), "the tracer's notes are in the file"


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", quantizers)
def test_every_quantizer(quantizer: str, tmp_path: Path) -> None:
    """With the smallest network, as seconds of each export go to the layers around the quantizer."""
    ours = tokenizer(quantizer, net={"channels": 8, "multipliers": [1], "blocks": 1, "attention": False})
    agreement = onnx.write_onnx(ours, tmp_path)
    assert agreement.equal == agreement.indices
    assert agreement.pixel < 1e-4
    check_parity(ours, tmp_path)


def test_what_cannot_be_traced_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def branch_on_a_value(self: Any, features: Tensor, codebook: Any) -> Tensor:
        vectors, entries = to_euclidean(features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]), codebook)
        indices = torch.cdist(vectors, entries).argmin(1)
        return indices.view(len(features), *features.shape[2:]) if indices.max() >= 0 else indices

    monkeypatch.setattr(NearestQuantizer, "indices", branch_on_a_value)
    with pytest.raises(UsageError, match=r"^This tokenizer cannot be exported as ONNX \(encoder\): .+$") as caught:
        onnx.export_onnx(tokenizer(), tmp_path / "onnx", None, None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"needs onnxscript: pip install 'tavq\[onnx\]'"):
        tavq.export_model(tmp_path / "model", to="onnx", out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
