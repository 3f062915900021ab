"""Whatever a stranger's file asks for, memory stays bounded; where it does not suffice, one line says so."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq import cli
from tavq.api.tokenizers import decode_tokens
from tavq.core.config import build
from tavq.core.errors import FileError, is_out_of_memory
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, iter_records
from tavq.data.images import save_png
from tavq.data.loader import BATCH_PIXELS, EvaluationLoader, limit_batch
from tavq.text.encoders import load_encoder
from tavq.token_file import Tokens
from tavq.tokenizer import Tokenizer, TokenizerConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
    settings = {"net": net, "codebook": {"name": "learned", "entries": 3, "width": 4}}
    Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(folder, metadata={"size": 32})
    return folder


@pytest.mark.parametrize(
    ("side", "expected"), [(16, 32), (256, 32), (512, 32), (513, 31), (1024, 8), (2048, 2), (5000, 1), (50_000, 1)]
)
def test_large_images_come_in_smaller_batches(side: int, expected: int) -> None:
    assert limit_batch(32, side * side) == expected
    assert expected == 1 or expected * side * side <= BATCH_PIXELS


def test_the_loader_limits_its_batch(image_folder: Path) -> None:
    dataset = FolderDataset(image_folder, "train")
    for size, batch in ((32, 8), (2048, 2)):
        loader = EvaluationLoader(dataset, DataConfig(size=size), 8)
        assert (loader.batch, len(loader)) == (batch, -(-len(dataset) // batch))


@pytest.mark.parametrize("shape", [(5_000, 5_000), (1, 20_000_000), (10_000_000, 2)])
def test_a_huge_grid_is_refused_before_it_is_decoded(tmp_path: Path, model: Path, shape: tuple[int, int]) -> None:
    indices = torch.zeros((), dtype=torch.int32).expand(1, *shape)
    with pytest.raises(FileError, match=r"holds grids of .* at most 64,000,000 pixels are decoded"):
        decode_tokens(model, Tokens(indices, ("a.png",), 3), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["top", "text_config"])
@pytest.mark.parametrize("labels", [10**9, 10**18, -1, "x", 1.5, True])
def test_an_encoder_of_a_billion_labels_is_refused(tmp_path: Path, where: str, labels: Any) -> None:
    settings = {"model_type": "bert", "num_labels": labels}
    (tmp_path / "config.json").write_text(json.dumps(settings if where == "top" else {where: settings}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileError, match="num_labels"):
        load_encoder(tmp_path)


ERRORS = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("f8")),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(cli.app), "__call__", fail)
    assert cli.run(["evaluate"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("tavq: The memory does not suffice (")
    assert shown.count("\n") == 1


def test_what_torch_raises_for_too_much_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    for other in (RuntimeError("shapes do not match"), ValueError("out of memory of an elephant")):
        assert not is_out_of_memory(other)


def test_folders_of_any_depth_are_read(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    depth, handle = 1500, os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.link(tmp_path / "a.png", "b.png", dst_dir_fd=handle)
    os.close(handle)
    try:
        assert [record.file_name for record in iter_records(tmp_path)] == ["a.png", "d/" * depth + "b.png"]
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # Python itself cannot
