"""Which form computes, and whether the kernels compile for GPUs, which needs none."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tavq.core.errors import UsageError
from tavq.ops import kernels
from tavq.ops.nearest_entry import find_nearest

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A build of PyTorch for CUDA with Triton, on whose GPU the trial gives the right answers."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(kernels, "_is_installed", lambda: True)
    monkeypatch.setattr(kernels, "_find_wrong_answers", lambda device: "")
    kernels._passes_trial.cache_clear()
    yield monkeypatch
    kernels._passes_trial.cache_clear()


def test_the_kernels_run_on_a_cuda_gpu_only(gpu: pytest.MonkeyPatch) -> None:
    assert kernels.use_triton(CUDA)
    assert not kernels.use_triton(torch.device("cpu"))
    assert not kernels.use_triton(torch.device("mps"))
    gpu.setattr(torch.version, "cuda", None)  # PyTorch for AMD calls its devices cuda as well
    assert not kernels.use_triton(CUDA)


def test_the_environment_turns_them_off(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("TAVQ_KERNELS", "torch")
    assert not kernels.use_triton(CUDA)
    gpu.setenv("TAVQ_KERNELS", "triton")
    assert kernels.use_triton(CUDA)
    gpu.setenv("TAVQ_KERNELS", "cuda")
    with pytest.raises(UsageError, match=r"TAVQ_KERNELS is 'cuda'; set it to 'triton' or 'torch', or leave it out\."):
        find_nearest(torch.ones(1, 2), torch.ones(1, 2))


def test_without_triton_pytorch_computes(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(kernels, "_is_installed", lambda: False)
    assert not kernels.use_triton(CUDA)
    gpu.setenv("TRITON_INTERPRET", "1")
    assert not kernels.use_triton(torch.device("cpu"))


def fail(device: torch.device) -> str:
    raise RuntimeError("Failed to find C compiler.\nPlease specify one")


@pytest.mark.parametrize(("trial", "reason"), [(fail, "RuntimeError: Failed to find C compiler."), (str, "cuda:0")])
def test_a_failed_trial_is_said_once_and_pytorch_computes(
    gpu: pytest.MonkeyPatch, trial: Callable[[Any], str], reason: str
) -> None:
    gpu.setattr(kernels, "_find_wrong_answers", trial)
    with pytest.warns(UserWarning, match=f"do not work on cuda:0 \\({reason}\\); PyTorch computes instead"):
        assert not kernels.use_triton(CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernels.use_triton(CUDA)


def test_the_trial_knows_right_answers(interpreted: Callable[..., Any]) -> None:
    assert interpreted(kernels._find_wrong_answers, torch.device("cpu")) == ""


OTHERS = {"index": "*i64", "epsilon": "fp32"}
INTEGERS = ("n", "m", "k", "d", "tiles", "iterations", "absorb_every")


def compile_for_gpu(kernel: Any, capability: int, **constants: Any) -> int:
    """Compile a kernel as far as machine code; returns its size."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {}
    for name in kernel.arg_names:
        is_integer = name in INTEGERS or name.endswith("stride")
        types[name] = OTHERS.get(name, "i32" if is_integer else "*fp32")
    options = {"num_warps": constants.pop("num_warps"), "enable_fp_fusion": True}
    source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constexprs=constants)
    return len(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"])


@pytest.mark.parametrize(("capability", "precision"), [(80, "tf32"), (90, "ieee")])
def test_the_kernels_compile_for_gpus(capability: int, precision: str, tmp_path: Any, monkeypatch: Any) -> None:
    """The interpreter runs what the compiler refuses."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'tavq[triton]'")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from tavq.ops.kernels import best_two, sinkhorn

    blocks = {name: getattr(best_two, name) for name in ("BLOCK_ROWS", "BLOCK_ENTRIES", "BLOCK_WIDTH")}
    assert compile_for_gpu(best_two._best_two, capability, PRECISION=precision, num_warps=best_two.WARPS, **blocks) > 0
    assert compile_for_gpu(sinkhorn._solve, capability, SMALLEST=1e-36, ROWS=16, COLUMNS=16, num_warps=1) > 0
