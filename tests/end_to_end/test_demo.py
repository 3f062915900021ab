"""`tavq demo`: data, text, both trainings, figures and pages, from one command."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]
WEIGHTS = files("tavq") / "assets" / "scenes_features.safetensors"


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the package lies here without its feature network")
def test_the_demo_runs_to_its_page(tavq: Tavq, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = tavq("demo", "--out", out, "--images", 40, "--size", 32, "--steps", 2, "--seed", 3)
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1].endswith(f"Open {out / 'report.html'}")
    assert (out / "report.html").stat().st_size > 10_000
    for run, aligned in (("vqgan", False), ("ta-vqgan", True)):
        figures = json.loads((out / run / "evaluation.json").read_text())
        assert figures["images"] == 4
        assert figures["fd_scenes"] > 0
        assert (figures["code_text_cosine"] is not None) == aligned
        assert (out / run / "report.html").is_file()
        assert "seed: 3" in (out / run / "recipe.yaml").read_text()
    assert "fd_scenes: " in done.err  # four images are too few for it, and it is said
    assert tavq("demo", "--out", out).code == 2
