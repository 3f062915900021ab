"""Whatever a stranger's file asks for, memory stays bounded; where it does not suffice, one line says so."""

import inspect
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq import cli
from tavq.api.tokenizers import decode_tokens
from tavq.cli.memory import advise, find_command
from tavq.core.config import build
from tavq.core.errors import FileError
from tavq.core.memory import describe_out_of_memory, format_bytes, is_out_of_memory
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, iter_records
from tavq.data.images import save_png
from tavq.data.loader import BATCH_PIXELS, EvaluationLoader, limit_batch
from tavq.text.encoders import load_encoder
from tavq.token_file import Tokens
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.loop import Loop


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


CPU = (
    "[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried to allocate {} bytes."
)
CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 9.61 GiB is "
    "free. Of the allocated memory 129.00 GiB is allocated by PyTorch, and 500.00 MiB is reserved by "
    "PyTorch but unallocated."
)
ERRORS = {
    MemoryError(): "(MemoryError)",
    np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("f8")): "(7.28 TiB more asked for, ",
    RuntimeError(CPU.format(1 << 40)): "(1.00 TiB more asked for, ",
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"): "(cuDNN error: CUDNN_STATUS_ALLOC_FAILED)",
    torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has"
    ): "(20 GiB more asked for on the GPU)",
    torch.OutOfMemoryError(CUDA): "(20.00 GiB more asked for on the GPU, 129.00 GiB held)",
    RuntimeError("MPS backend out of memory (MPS allocated: 1.50 GB). Tried to allocate 256 bytes on private pool."): (
        "(256 bytes more asked for on the GPU, 1.50 GB held)"
    ),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_is_one_line_with_what_helps(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(cli.app), "__call__", fail)
    assert cli.run(["evaluate"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("tavq: The memory does not suffice " + ERRORS[error])
    assert "--size" in shown
    assert shown.count("\n") == 1


HELPS = {
    "train": "--train.batch",
    "task train": "--data.size",
    "describe": "--batch",
    "encode": "--size",
    "generate": "--count",
    "text": "--jobs",
    "data check": "Close other programs",
}


@pytest.mark.parametrize("command", HELPS)
def test_each_command_names_only_options_that_it_has(command: str) -> None:
    advice, function = advise(cli.app, command.split()), find_command(cli.app, command.split())[1]
    assert HELPS[command] in advice
    assert function is not None
    own = {name.replace("_", "-") for name in inspect.signature(function).parameters}
    named = {name for name in re.findall(r"--([a-z-]+)(?![a-z.-])", advice) if name not in ("train", "data")}
    assert named <= own


def test_a_training_that_runs_out_of_memory_can_be_resumed(
    shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, steps = Loop.train_step, []

    def lacking(loop: Loop, batch: Any) -> Any:
        steps.append(loop.step)
        if loop.step == 3 and steps.count(3) == 1:
            raise torch.OutOfMemoryError(CUDA)
        return own(loop, batch)

    settings = ["--data.size", "32", "--train.steps", "4", "--train.checkpoint_every", "2", "--train.batch", "2"]
    call = ["train", "vqgan-tiny", "--data", str(shared_images), *settings]
    assert cli.run([*call, "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(Loop, "train_step", lacking)
    capsys.readouterr()
    assert cli.run([*call, "--out", str(tmp_path / "run")]) == 1
    shown = capsys.readouterr().err
    assert "20.00 GiB more asked for on the GPU, 129.00 GiB held" in shown
    assert "a smaller --train.batch" in shown
    assert "Traceback" not in shown
    assert cli.run([*call, "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert steps == [0, 1, 2, 3, 2, 3]
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "run")]
    assert weights[0] == weights[1]


def test_bytes_as_torch_writes_them() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1.5 * 2**30, 2**52)] == [
        "0 bytes", "1023 bytes", "1.00 KiB", "1.50 GiB", "4,096.00 TiB",
    ]  # fmt: skip


def test_what_torch_raises_for_too_much_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert "1,048,576.00 TiB more asked for" in describe_out_of_memory(caught.value, "Help")
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
