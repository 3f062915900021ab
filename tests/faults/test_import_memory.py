"""Memory of an import: about the larger of the file and the model, and never a second copy of either."""

import os
import subprocess
import sys
from pathlib import Path

import published_tokenizers
import pytest
import torch
from published_tokenizers import Twin
from safetensors.torch import save_file

import tavq

MB = 2**20
OVERHEAD = 40  # MB, for the largest tensors, which are twice in memory at a time, and what Python loads meanwhile

SCRIPT = """
import sys
from pathlib import Path
import tavq

def memory(key):
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(key)).split()[1]) / 1024

small, large, out = sys.argv[1:]
tavq.import_checkpoint("auto", small, out=Path(out) / "small")
Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value
before = memory("VmRSS")
tavq.import_checkpoint("auto", large, out=Path(out) / "large")
print(memory("VmHWM") - before)
"""


def peak(tmp_path: Path, large: Path) -> float:
    """The memory in MB that an import takes at most, measured in a process that has imported a small file before."""
    save_file(Twin("taming").state_dict(), tmp_path / "small.safetensors")
    arguments = [str(tmp_path / "small.safetensors"), str(large), str(tmp_path)]
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1])}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say what memory is used")
@pytest.mark.parametrize(("name", "times"), [("full.safetensors", 1), ("full.ckpt", 1), ("half.safetensors", 2)])
def test_an_import_takes_no_copy(name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file in half precision the model is twice as large; nothing else is in memory beside it."""
    monkeypatch.setattr(published_tokenizers, "WIDTHS", (32, 64, 512))
    tensors = Twin("taming").state_dict()
    if name.startswith("half"):
        tensors = {name: value.half() for name, value in tensors.items()}
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    size = path.stat().st_size / MB
    assert size > 2 * OVERHEAD
    assert peak(tmp_path, path) < times * size + OVERHEAD
