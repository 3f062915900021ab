"""The whole way of an imported model: benchmarks/imported.py at a size of seconds."""

import re
import runpy
from pathlib import Path

import pytest

import tavq

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "imported.py"


def test_a_model_of_diffusers_goes_in_is_aligned_and_goes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra dev)")
    data, out = tmp_path / "scenes", tmp_path / "out"
    tavq.make_scenes(data, images=40, size=32)
    tiny = ["--size", "32", "--channels", "8", "16", "16", "--steps", "5", "4", "4", "--batch", "4"]
    runpy.run_path(str(SCRIPT))["main"](["--data", str(data), "--out", str(out), *tiny])
    said = capsys.readouterr().out
    for stage in ("imported", "exported"):
        found = re.search(rf"{stage}: ([\d,]+) of ([\d,]+) indices equal \(.*?\), pixels within (\S+)", said)
        assert found is not None
        assert found[1] == found[2]
        assert float(found[3]) < 1e-4
    assert "every tensor and index of the imported model is as it was" in said
    psnr = re.findall(r"^(imported|aligned, frozen|fine-tuned with text): psnr ([\d.]+)", said, re.MULTILINE)
    assert [name for name, _ in psnr] == ["imported", "aligned, frozen", "fine-tuned with text"]
    assert psnr[0][1] == psnr[1][1] != psnr[2][1]  # the frozen one reconstructs as the imported one does
    assert (out / "compare.html").is_file()
    assert (out / "aligned" / "codes.safetensors").is_file()
    assert (out / "tuned" / "evaluation_start.json").is_file()
