"""Exported tokenizers: the files of other projects, which give the same bits when they are imported again."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from published_bias_free import MAGVIT2Twin, MaskGITTwin
from published_tokenizers import Twin
from safetensors.torch import load_file, save_file

import tavq
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interop.exporting import export_tokenizer
from tavq.interop.importing import import_tokenizer
from tavq.interop.kind import checkpoint_kinds
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 32, "multipliers": [1, 2], "blocks": 1, "groups": 32}
FIXED = {"name": "fixed", "sizes": [9], "width": 4}
IMAGES = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


TWINS = {
    **{kind: partial(Twin, kind) for kind in ("taming", "gumbel", "llamagen", "ibq")},
    "maskgit": MaskGITTwin,
    "open-magvit2": MAGVIT2Twin,
}


def tokenizer(**settings: Any) -> Tokenizer:
    torch.manual_seed(0)
    defaults = {"net": NET, "codebook": {"name": "learned", "entries": 16, "width": 4, "init": "normal"}}
    return Tokenizer(build(TokenizerConfig, {**defaults, **settings}, "test")).eval()


@pytest.mark.parametrize("kind", TWINS)
def test_there_and_back_gives_the_same_file_and_the_same_bits(kind: str, tmp_path: Path) -> None:
    twin = TWINS[kind]().state_dict()
    save_file(twin, tmp_path / "first.safetensors")
    given = "ibq" if kind == "ibq" else "auto"
    tavq.import_checkpoint(given, tmp_path / "first.safetensors", out=tmp_path / "model")
    name = "taming" if kind == "gumbel" else kind
    second = tavq.export_model(tmp_path / "model", to=name, out=tmp_path / "second.safetensors")
    twin.pop("quantize.codebook_used", None)
    exported = load_file(second)
    assert exported.keys() == twin.keys()
    for key, value in exported.items():
        assert torch.equal(value, twin[key]), key
    tavq.import_checkpoint(name, second, out=tmp_path / "again")
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("model", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", checkpoint_kinds)
def test_every_kind_is_written_recognized_and_read(name: str, tmp_path: Path) -> None:
    kind = checkpoint_kinds[name]
    for quantizer in kind.quantizers:
        for attention in kind.attention:
            latent = {"latent_width": 6} if kind.switches.get("project", True) else {}
            middle = {"middle_blocks": 1} if len(kind.layout.middle) == 1 else {}  # as many as blocks in a stage
            net = {**NET, **kind.switches, **latent, **middle, "attention": attention}
            codebook = {"codebook": {"name": "lattice", "levels": [2] * 5}} if quantizer == "binary" else {}
            ours = tokenizer(net=net, quantizer=quantizer, **codebook)
            place = tmp_path / f"{quantizer}-{attention}.safetensors"
            kind().write(place, export_tokenizer(ours, kind()))
            again = import_tokenizer(name, place)
            assert again.kind.name == name
            assert again.tokenizer.config.net == ours.config.net
            for key, value in ours.state_dict().items():
                assert torch.equal(again.tokenizer.state_dict()[key], value), key


@pytest.mark.parametrize("attention", ["none", "deepest", "middle", "both"])
def test_diffusers_loads_what_was_exported(attention: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra dev)")
    ours = tokenizer(net={**NET, "attention": attention, "latent_width": 6, "groups": 16})
    ours.save_pretrained(tmp_path / "model", metadata={"size": 16})
    theirs = diffusers.VQModel.from_pretrained(
        tavq.export_model(tmp_path / "model", to="diffusers", out=tmp_path / "x")
    )
    assert theirs.config.sample_size == 16
    with torch.no_grad():
        assert torch.allclose(theirs.encode(IMAGES).latents, ours.encoder(IMAGES)[1], atol=1e-5)
        assert torch.allclose(theirs(IMAGES).sample, ours.decode(ours.encode(IMAGES)), atol=1e-4)
    tavq.import_checkpoint("diffusers", tmp_path / "x", out=tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    for name, value in again.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_codebooks_without_a_parameter_and_aligners(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SimVQ computes its entries; the exported table has them, and the aligner stays behind."""
    net = {**NET, "multipliers": [1, 1, 2]}
    ours = tokenizer(
        net=net,
        codebook={"name": "linear", "entries": 16, "width": 4},
        align={"name": "ta", "phrase": 0.0},
        text_width=6,
    )
    ours.save_pretrained(tmp_path / "model")
    tavq.export_model(tmp_path / "model", to="taming", out=tmp_path / "x.safetensors")
    assert "The aligner is not exported" in caplog.text
    tavq.import_checkpoint("auto", tmp_path / "x.safetensors", out=tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    assert torch.equal(again.encode(IMAGES), ours.encode(IMAGES))
    assert torch.equal(again.decode(ours.encode(IMAGES)), ours.decode(ours.encode(IMAGES)))


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"quantizer": "dot"}, "taming", "model.quantizer is 'dot', not 'nearest' or 'gumbel'"),
        ({"net": {**NET, "downsample": "average"}}, "taming", "model.net.downsample is 'average', not 'conv'"),
        ({"net": {**NET, "middle_blocks": 3}}, "diffusers", "model.net.middle_blocks is 3, not 2"),
        ({"net": {**NET, "attention": "none"}}, "maskgit", "model.net.decoder_extra is 1, not 0"),
        ({"quantizer": "spherical"}, "taming", "model.quantizer is 'spherical', not 'nearest' or 'gumbel'"),
        ({}, "llamagen", "model.quantizer is 'nearest', not 'spherical'"),
        ({"net": {**NET, "attention": "none"}}, "taming", "model.net.attention is 'none', not 'middle' or 'both'"),
        ({"net": {**NET, "groups": 16}}, "taming", "has 32 groups in every normalization; here they are 16. Train"),
        ({"net": {**NET, "groups": None}}, "diffusers", "the same number of groups in every normalization; here they"),
        ({"net": {**NET, "multipliers": [2, 3]}}, "taming", "multiples of the first; here they have 64, 96 channels"),
        ({"codebook": {**FIXED, "distance": "cosine"}}, "taming", "the distance of its codebook is 'cosine', not 'l2'"),
        ({"codebook": {**FIXED, "sizes": [9, 9]}, "quantizer": "product"}, "taming", "model.quantizer is 'product'"),
    ],
)  # fmt: skip
def test_what_others_cannot_compute(settings: Any, kind: str, message: str, tmp_path: Path) -> None:
    tokenizer(**settings).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError) as caught:
        tavq.export_model(tmp_path / "model", to=kind, out=tmp_path / "x.safetensors")
    assert message in str(caught.value)
    assert not (tmp_path / "x.safetensors").exists()


def test_places_that_are_not_written(tmp_path: Path) -> None:
    tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=r"choose --out .*x\.safetensors"):
        tavq.export_model(tmp_path / "model", to="taming", out=tmp_path / "x.pt")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        tavq.export_model(tmp_path / "model", to="diffusers", out=tmp_path)
    with pytest.raises(UsageError, match=r"Unknown target of the export 'onxx'; known: .*llamagen, .*onnx"):
        tavq.export_model(tmp_path / "model", to="onxx", out=tmp_path / "x")
