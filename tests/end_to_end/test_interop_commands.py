"""`tavq import-checkpoint` and `tavq export`, and what other commands do with the model between them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from published_tokenizers import Twin
from safetensors.torch import load_file

Tavq = Callable[..., Any]


def test_import_encode_decode_export(tavq: Tavq, tmp_path: Path) -> None:
    state = Twin("llamagen", width=8, latent=16).state_dict()
    torch.save({"model": state}, tmp_path / "vq.pt")
    done = tavq("import-checkpoint", "auto", tmp_path / "vq.pt", "--out", tmp_path / "model", "--size", 32)
    assert done.code == 0, done.err
    assert "Not read: quantize.codebook_used." in done.err
    scenes = tmp_path / "scenes"
    assert tavq("data", "scenes", scenes, "--images", 12, "--size", 32).code == 0
    assert tavq("encode", tmp_path / "model", scenes, "--out", tmp_path / "tokens.safetensors").code == 0
    assert load_file(tmp_path / "tokens.safetensors")["indices"].shape == (12, 8, 8)
    assert tavq("decode", tmp_path / "model", tmp_path / "tokens.safetensors", "--out", tmp_path / "images").code == 0
    assert tavq("evaluate", tmp_path / "model", "--data", scenes).code == 0
    back = tmp_path / "back.safetensors"
    assert tavq("export", tmp_path / "model", "--to", "llamagen", "--out", back).code == 0
    assert torch.equal(load_file(back)["quantize.embedding.weight"], state["quantize.embedding.weight"])


def test_wrong_calls(tavq: Tavq, tmp_path: Path) -> None:
    done = tavq("import-checkpoint", "auto", tmp_path / "none.pt", "--out", tmp_path / "model")
    assert (done.code, "There is no checkpoint" in done.err) == (2, True)
    (tmp_path / "x.pt").write_bytes(b"x")
    done = tavq("import-checkpoint", "auto", tmp_path / "x.pt", "--out", tmp_path / "model")
    assert (done.code, "not a checkpoint of tensors alone" in done.err) == (1, True)
    done = tavq("export", tmp_path, "--to", "taming", "--out", tmp_path / "y.safetensors")
    assert (done.code, "There is no model" in done.err) == (2, True)
