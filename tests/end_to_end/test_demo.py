"""`tavq demo`: data, text, two trainings side by side, metrics and pages, from one command."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]
WEIGHTS = files("tavq") / "assets" / "scenes_features.safetensors"


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the package is here without its feature network")
def test_the_demo_runs_to_its_page(tavq: Tavq, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = tavq("demo", "--out", out, "--images", 40, "--size", 32, "--steps", 2, "--seed", 3)
    assert done.code == 0, done.err
    *_, report, explore = done.err.splitlines()
    assert report.endswith(f"Open {out / 'report.html'}")
    assert explore.endswith(f"tavq explore {out / 'ta-vqgan'} --data {out / 'scenes'}")
    assert (out / "report.html").stat().st_size > 10_000
    for run, aligned in (("vqgan", False), ("ta-vqgan", True)):
        found = json.loads((out / run / "evaluation.json").read_text())
        assert found["images"] == 4
        assert found["metrics"]["fd_scenes"]["value"] > 0
        assert (found["metrics"]["code_text_cosine"]["value"] is not None) == aligned
        assert f"Training {run}: 2 of 2" in done.err
        assert (out / run / "report.html").is_file()
        assert "seed: 3" in (out / run / "recipe.yaml").read_text()
    assert done.out.count("│ fd_scenes") == 2  # a table of each run
    assert "Fréchet distance (scenes): " in done.err  # four images are too few for it, and a warning says so
    refused = tavq("demo", "--out", out)
    assert (refused.code, "exists and is not an empty folder" in refused.err) == (2, True)

    alone = tmp_path / "alone"
    settings = ["--data.size", 32, "--train.steps", 2, "--train.seed", 3]
    done = tavq("train", "ta-vqgan-tiny", "--data", out / "scenes", "--out", alone, *settings)
    assert done.code == 0, done.err
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (out / "ta-vqgan", alone)]
    assert weights[0] == weights[1]
