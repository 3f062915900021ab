"""Two processes with half a batch each align it as one does with the whole: standardized means, contrast, gradients."""

from pathlib import Path

import pytest
import torch
from processes import run_alone_and_as_two

from tavq.core import files

pytestmark = pytest.mark.slow  # starts processes


def test_two_processes_align_as_one(tmp_path: Path) -> None:
    run_alone_and_as_two(Path(__file__).with_name("one_alignment_process.py"), tmp_path)
    alone, first, second = (files.read_tensors(tmp_path / f"{name}.safetensors") for name in ("1-0", "2-0", "2-1"))
    assert any(name.endswith("running_mean") and value.abs().max() > 0 for name, value in alone.items())
    assert any("/gradient/" in name and value.abs().max() > 1e-6 for name, value in alone.items())
    for found in (first, second):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                found[name], value, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}"
            )
