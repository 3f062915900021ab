"""Every quantizer, several parts, imported models, data without text, an aligner without entries: all are explored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_tokenizers import Twin
from safetensors.torch import save_file
from starlette.testclient import TestClient

import tavq
from tavq.explore.explorer import Explorer
from tavq.explore.server.app import make_api
from tavq.interfaces import codebooks, quantizers
from tavq.text.store import TextStore

from .conftest import draw, make_tokenizer, save_model

API = "/api/v1"


def check(explorer: Explorer) -> Any:
    """Ask for every kind of page; returns the overview's first model."""
    client = TestClient(make_api(explorer))

    def get(path: str) -> Any:
        answer = client.get(path if path.startswith(API) else f"{API}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.content

    info = get("/overview")["models"][0]
    base = f"/models/{info['id']}"
    for level in info["levels"]:
        own = f"{base}/levels/{level['name']}"
        rows = get(f"{own}/codes")["codes"]
        for code in {rows[0]["code"], rows[-1]["code"], level["entries"] - 1}:
            page = get(f"{own}/codes/{code}")
            for address in (page["tile"], page["mean_context"], *(context["without"] for context in page["contexts"])):
                assert address is None or get(address)
        for part in range(len(level["parts"])):
            assert len(get(f"{own}/map?part={part}")["codes"]) == level["parts"][part]
        assert get(f"{own}/images/1/patch.webp?row=0&column=0")
    image = get(f"{base}/images/1")
    assert get(image["reconstruction"])
    codes = np.array(image["grids"]["deep"])
    operations = [{"op": "replace", "code": int(codes[0, 0, 0]), "by": int(codes[-1, -1, 0])},
                  {"op": "remove", "cells": [[1, 1]]}]  # fmt: skip
    edit = client.post(f"{API}{base}/edits", json={"image": "1", "operations": operations}).json()
    assert edit["codes"] == get(f"/edits/{edit['share']}")["codes"]
    patch = {"image": "1", "row": 0, "column": 0, "width": 2}
    assert client.post(f"{API}{base}/search/patch", json=patch).json()["total"] > 0
    return info


def table_of(quantizer: str) -> dict[str, Any]:
    table = dict(quantizers[quantizer].compatible_codebook)
    sizes = {"entries": 16, "width": 8} if "entries" in codebooks[table["name"]].Config.model_fields else {}
    return {**sizes, **table}


@pytest.mark.parametrize("quantizer", quantizers)
def test_every_quantizer(quantizer: str, data: Path, pixels: Any, tmp_path: Path) -> None:
    table = table_of(quantizer)
    tokenizer = make_tokenizer(codebook=table, quantizer={"name": quantizer})
    folder = save_model(tokenizer, tmp_path / "model", pixels)
    info = check(tavq.open_explorer([folder], data=data, store=tmp_path / "stores"))
    assert info["quantizer"] == quantizer
    assert info["levels"][0]["parts"] == list(tokenizer.codebook.sizes)
    assert (len(info["levels"][0]["parts"]) > 1) <= quantizers[quantizer].multi_part


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("quantizer", ["residual", "product"])
def test_several_parts_at_a_position(quantizer: str, parts: int, data: Path, pixels: Any, tmp_path: Path) -> None:
    table = {"name": "learned", "entries": 8, "width": 8, "parts": parts}
    tokenizer = make_tokenizer(codebook=table, quantizer={"name": quantizer})
    folder = save_model(tokenizer, tmp_path / "model", pixels)
    explorer = tavq.open_explorer([folder], data=data, store=tmp_path / "stores")
    assert check(explorer)["levels"][0]["parts"] == [8] * parts
    model = explorer.models[0]
    own = torch.from_numpy(model.levels["deep"].grid(2))
    assert torch.equal(model.to_indices(own.numpy()), model.tokenizer.encode(pixels[2:3]))


def test_a_frozen_table(data: Path, pixels: Any, tmp_path: Path) -> None:
    table = {"name": "fixed", "sizes": (9,), "width": 8}
    folder = save_model(make_tokenizer(codebook=table), tmp_path / "model", pixels)
    assert check(tavq.open_explorer([folder], data=data, store=tmp_path / "stores"))["codebook"] == "fixed"


def test_an_aligner_that_gives_codes_no_place_in_text(data: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(align={"name": "lg", "width": 8, "tokens": 6, "vocabulary": 4})
    text = TextStore.open(data / "text").manifest.model_dump(mode="json")
    tokenizer.eval().save_pretrained(tmp_path / "model", metadata={"size": 16, "text": text})
    info = check(tavq.open_explorer([tmp_path / "model"], data=data, store=tmp_path / "stores"))
    assert [part["part"] for part in info["missing"]] == ["alignment"]
    assert "no place in text" in info["missing"][0]["reason"]


def test_data_without_text(aligned: Path, plain: Path, tmp_path: Path) -> None:
    data = draw(tmp_path / "walls", text=False)
    explorer = tavq.open_explorer([aligned, plain], data=data, store=tmp_path / "stores")
    info = check(explorer)
    assert [part["part"] for part in info["missing"]] == ["text", "alignment"]
    assert info["held_out"] == []
    client = TestClient(make_api(explorer))
    assert client.get(f"{API}/units/words").json()["units"] == []
    assert client.get(f"{API}/models/plain/search?text=red").json()["units"] == []
    assert client.get(f"{API}/models/plain/game").status_code == 404
    assert client.get(f"{API}/models/aligned/levels/low/codes/0").json()["cooccurrences"] is not None


def test_captions_without_a_text_store_are_split(
    plain: Path, aligned: Path, explorer: Explorer, tmp_path: Path
) -> None:
    data = draw(tmp_path / "walls")
    own = tavq.open_explorer([plain, aligned], data=data, store=tmp_path / "stores")
    check(own)
    for name, table in explorer.models[0].units.items():
        assert own.models[0].units[name].texts == table.texts
        assert np.array_equal(own.models[0].units[name].counts, table.counts)
    assert [part.part for part in own.models[1].missing] == ["alignment"]
    assert "tavq text" in own.models[1].missing[0].remedy


def test_an_imported_tokenizer(data: Path, tmp_path: Path) -> None:
    save_file(Twin("taming").state_dict(), tmp_path / "taming.safetensors")
    tavq.import_checkpoint("auto", tmp_path / "taming.safetensors", out=tmp_path / "model", size=32)
    few = tavq.open_explorer([tmp_path / "model"], data=data, split="test", store=tmp_path / "stores")
    info = check(few)
    assert info["size"] == 32
