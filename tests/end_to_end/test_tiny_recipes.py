"""Every `-tiny` recipe trains, resumes to the same bits, evaluates, encodes and decodes from the command line.

The network is made smaller than the recipe's; codebook, quantizer, aligner and losses are the recipe's own.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tavq import recipes
from tavq.core import files
from tavq.tokenizer import Tokenizer

Tavq = Callable[..., Any]

TINY = [name for name in recipes.names() if name.endswith("-tiny")]

SMALL = "--model.net.channels 8 --model.net.multipliers [1,1,2] --data.size 32 --train.steps 4 --train.batch 4"
SMALL += " --train.warmup 1 --train.log_every 1 --train.checkpoint_every 2"
ADVERSARY = "--train.adversarial.start 2 --train.adversarial.discriminator.channels 8"


@pytest.fixture(scope="module")
def data(shared_images: Path, tavq: Tavq, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with all that any recipe reads of their text."""
    folder = tmp_path_factory.mktemp("tiny") / "data"
    shutil.copytree(shared_images, folder, ignore=shutil.ignore_patterns("text"))
    done = tavq("text", folder, "--full-text", "--word-graph", "--min-count", 1)
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize("name", TINY)
def test_from_images_to_indices_and_back(name: str, tavq: Tavq, data: Path, tmp_path: Path) -> None:
    run, tokens = tmp_path / "run", tmp_path / "tokens.safetensors"
    adversary = ADVERSARY.split() if recipes.load(name).train.adversarial is not None else []
    command = ("train", name, "--data", data, "--out", run, *SMALL.split(), *adversary)
    done = tavq(*command)
    assert done.code == 0, done.err
    weights = (run / "model/model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints/00000004")
    shutil.rmtree(run / "model")
    assert tavq(*command, "--resume").code == 0
    assert (run / "model/model.safetensors").read_bytes() == weights

    assert tavq("evaluate", run, "--data", data, "--empty-features", "--json", tmp_path / "evaluation.json").code == 0
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    assert 0 < metrics["psnr"]["value"] < 30
    assert 0 < metrics["usage_deep"]["value"] <= 1

    assert tavq("encode", run, data, "--out", tokens).code == 0
    indices, tokenizer = files.read_tensors(tokens)["indices"], Tokenizer.from_pretrained(run)
    several = [len(tokenizer.codebook.sizes)] if len(tokenizer.codebook.sizes) > 1 else []
    assert list(indices.shape) == [16, 8, 8, *several]
    assert tavq("decode", run, tokens, "--out", tmp_path / "images").code == 0
    assert len(list((tmp_path / "images").rglob("*.png"))) == 16
