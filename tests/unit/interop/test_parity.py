"""Imported tokenizers compute what their projects' networks compute: features, indices and pixels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_bias_free import MAGVIT2Twin, MaskGITTwin
from published_tokenizers import Twin, randomize
from safetensors.torch import save_file
from torch import Tensor

import tavq
from tavq.core.errors import FileError
from tavq.interop.importing import import_tokenizer
from tavq.tokenizer import Tokenizer

KINDS: dict[str, dict[str, Any]] = {
    "taming": {},
    "taming, attention in the middle, latents of another width": {"attention": False, "width": 4, "latent": 9},
    "gumbel": {},
    "llamagen": {"width": 8, "latent": 16},
    "ibq": {},
    "maskgit": {},
    "open-magvit2": {},
}


def twin_of(case: str) -> Any:
    """The twin of a case, and the kind under which it is imported."""
    name = case.split(",")[0]
    twins = {"maskgit": MaskGITTwin, "open-magvit2": MAGVIT2Twin}
    twin = twins[name]() if name in twins else Twin(name, **KINDS[case])
    return twin, {"gumbel": "taming"}.get(name, name)


IMAGES = [(1, 4, 8), (2, 12, 20), (3, 28, 8)]


def images(b: int, y: int, x: int) -> Tensor:
    return torch.rand(b, 3, y, x, generator=torch.Generator().manual_seed(b)) * 2 - 1


def check_parity(
    tokenizer: Tokenizer,
    x: Tensor,
    features: Tensor,
    scores: Tensor,
    decode: Callable[[Tensor], Tensor],
) -> None:
    """Compare with another implementation: its features, the score of each entry [b k h w] and its decoder."""
    assert torch.allclose(tokenizer.encoder(x)[1], features, atol=1e-5, rtol=1e-5)
    best = scores.topk(2, dim=1, largest=False).values
    decided = best[:, 1] - best[:, 0] > 1e-4
    indices = tokenizer.encode(x)
    assert decided.float().mean() > 0.9
    assert torch.equal(indices[decided], scores.argmin(1)[decided])
    assert torch.allclose(tokenizer.decode(indices), decode(indices), atol=1e-4, rtol=0)
    assert indices.unique().numel() > 1 or indices.numel() < 4


@pytest.mark.parametrize("case", KINDS)
@torch.no_grad()
def test_twins(case: str, tmp_path: Path) -> None:
    twin, kind = twin_of(case)
    torch.save({"state_dict": twin.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    imported = import_tokenizer("auto" if kind != "ibq" else kind, tmp_path / "last.ckpt")
    assert imported.kind.name == kind
    tokenizer = imported.tokenizer
    for shape in IMAGES:
        x = images(*shape)
        check_parity(tokenizer, x, twin.features(x), twin.scores(x), twin.decode)


@pytest.mark.parametrize("case", KINDS)
@torch.no_grad()
def test_a_model_folder_has_the_same_weights(case: str, tmp_path: Path) -> None:
    twin, kind = twin_of(case)
    save_file(twin.state_dict(), tmp_path / "weights.safetensors")
    tavq.import_checkpoint(kind, tmp_path / "weights.safetensors", out=tmp_path / "model", size=32)
    direct = import_tokenizer(kind, tmp_path / "weights.safetensors").tokenizer
    loaded = Tokenizer.from_pretrained(tmp_path / "model")
    assert loaded.state_dict().keys() == direct.state_dict().keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, direct.state_dict()[name]), name
    assert torch.equal(loaded.encode(images(2, 8, 12)), direct.encode(images(2, 8, 12)))


DIFFUSERS: dict[str, dict[str, Any]] = {
    "as aMUSEd": {"mid_block_add_attention": False, "latent_channels": 8, "block_out_channels": (32, 64, 96)},
    "as latent diffusion": {"latent_channels": 3, "vq_embed_dim": 3, "block_out_channels": (32, 64)},
    "other widths": {"latent_channels": 5, "vq_embed_dim": 7, "norm_num_groups": 8, "block_out_channels": (16,)},
    "attention in the deepest stage": {
        "latent_channels": 4, "block_out_channels": (32, 64),
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    },
}  # fmt: skip


def vq_model(**settings: Any) -> Any:
    """A `VQModel` of diffusers itself."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra dev)")
    stages = len(settings["block_out_channels"])
    defaults = {
        "layers_per_block": 2, "num_vq_embeddings": 24, "down_block_types": ("DownEncoderBlock2D",) * stages,
        "up_block_types": ("UpDecoderBlock2D",) * stages,
    }  # fmt: skip
    return randomize(diffusers.VQModel(**{**defaults, **settings}))


@pytest.mark.parametrize("case", DIFFUSERS)
@torch.no_grad()
def test_diffusers(case: str, tmp_path: Path) -> None:
    model = vq_model(**DIFFUSERS[case])
    model.save_pretrained(tmp_path / "theirs")
    tavq.import_checkpoint("auto", tmp_path / "theirs", out=tmp_path / "ours")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "ours")

    def decode(indices: Tensor) -> Tensor:
        entries = model.quantize.embedding.weight[indices].permute(0, 3, 1, 2)
        return model.decode(entries, force_not_quantize=True).sample

    for shape in IMAGES:
        x = images(*shape)
        latents = model.encode(x).latents
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2)
        scores = torch.cdist(flat, model.quantize.embedding.weight).square()
        scores = scores.view(shape[0], *latents.shape[2:], -1).permute(0, 3, 1, 2)
        check_parity(tokenizer, x, latents, scores, decode)
        theirs = model.quantize(latents)[2][2].view(latents.shape[0], *latents.shape[2:])
        assert (tokenizer.encode(x) == theirs).float().mean() > 0.99


@torch.no_grad()
def test_earlier_names_of_diffusers_attention(tmp_path: Path) -> None:
    model = vq_model(**DIFFUSERS["as latent diffusion"])
    model.save_pretrained(tmp_path / "theirs")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = model.state_dict()
    for now, before in old.items():
        tensors = {name.replace(f".{now}.", f".{before}."): value for name, value in tensors.items()}
    assert "encoder.mid_block.attentions.0.query.weight" in tensors
    save_file(tensors, tmp_path / "theirs/diffusion_pytorch_model.safetensors")
    tokenizer = import_tokenizer("diffusers", tmp_path / "theirs").tokenizer
    assert torch.allclose(tokenizer.encoder(images(1, 8, 8))[1], model.encode(images(1, 8, 8)).latents, atol=1e-5)


# --- transformers -----------------------------------------------------------------------------------------------

SMALL = {
    "base_channels": 32, "channel_multiplier": [1, 1, 2], "num_res_blocks": 2, "embed_dim": 6, "latent_channels": 9,
    "num_embeddings": 24,
}  # fmt: skip


def chameleon() -> tuple[Any, Twin]:
    """Chameleon's encoder of transformers itself, and a twin whose tensors of the same names are its."""
    from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

    model = randomize(ChameleonVQVAE(ChameleonVQVAEConfig(**SMALL)))
    twin = Twin("taming", latent=9, attention=False)
    twin.load_state_dict({**twin.state_dict(), **model.state_dict()})
    return model, twin


@torch.no_grad()
@pytest.mark.parametrize("kind", ["chameleon", "auto"])
def test_chameleon_encodes_as_in_transformers(kind: str, tmp_path: Path) -> None:
    model, twin = chameleon()
    torch.save({"state_dict": twin.state_dict()}, tmp_path / "vqgan.ckpt")
    out = tavq.import_checkpoint(kind, tmp_path / "vqgan.ckpt", out=tmp_path / "model")
    tokenizer = Tokenizer.from_pretrained(out)
    assert tokenizer.config.net.attention == "middle"
    assert json.loads((out / "config.json").read_text()).get("size") == (512 if kind == "chameleon" else None)
    for shape in IMAGES:
        x = images(*shape)
        found = model.encode(x)
        latents = model.quant_conv(found.last_hidden_state)
        check_parity(tokenizer, x, latents, twin.scores(x), twin.decode)
        assert torch.equal(tokenizer.encode(x).flatten(), found.image_tokens)


def test_an_encoder_alone_is_refused(tmp_path: Path) -> None:
    model, _ = chameleon()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for kind in ("auto", "chameleon"):
        with pytest.raises(FileError, match="has no decoder"):
            import_tokenizer(kind, tmp_path / "model.safetensors")


def janus() -> Any:
    """Janus's tokenizer of transformers itself."""
    from transformers import JanusVQVAE, JanusVQVAEConfig

    return randomize(JanusVQVAE(JanusVQVAEConfig(**SMALL)))


@torch.no_grad()
def test_janus_decodes_as_in_transformers(tmp_path: Path) -> None:
    model = janus()
    model.save_pretrained(tmp_path / "theirs")
    imported = import_tokenizer("auto", tmp_path / "theirs")
    assert imported.kind.name == "janus"
    table = torch.nn.functional.normalize(model.quantize.embedding.weight, dim=1)[None, :, :, None, None]
    for shape in IMAGES:
        x = images(*shape)
        latents = model.quant_conv(model.encoder(x))
        scores = (torch.nn.functional.normalize(latents, dim=1)[:, None] - table).square().sum(2)

        def decode(indices: Tensor) -> Tensor:
            model.quantize.quant_state_dims = list(indices.shape[1:])
            return model.decode(indices.flatten(1))

        check_parity(imported.tokenizer, x, latents, scores, decode)


@torch.no_grad()
@pytest.mark.parametrize("shards", [0, 1, 3])
@pytest.mark.parametrize("part", ["model.vqmodel.", "gen_vision_model.", "first_stage_model."])
def test_a_tokenizer_within_a_larger_model(part: str, shards: int, tmp_path: Path) -> None:
    """A checkpoint of torch, one of safetensors, and several with an index; nothing of the rest is read."""
    twin = janus() if part == "model.vqmodel." else Twin("llamagen" if part == "gen_vision_model." else "taming")
    tensors = {f"{part}{name}": value for name, value in twin.state_dict().items()}
    tensors |= {f"language_model.{i}": torch.full((3,), torch.nan) for i in range(5)}
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    if not shards:
        path = tmp_path / "pytorch_model.bin"
        torch.save(tensors, path)
    elif shards == 1:
        save_file(tensors, path)
    else:
        path, names = tmp_path, list(tensors)
        placed = {f"model-{i}.safetensors": names[i * 70 : (i + 1) * 70] for i in range(len(names) // 70 + 1)}
        for file, own in placed.items():
            save_file({name: tensors[name] for name in own}, tmp_path / file)
        index = {"weight_map": {name: file for file, own in placed.items() for name in own}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    imported = import_tokenizer("auto", path)
    assert imported.left[-1:] == ("the rest of the model (5 tensors)",)
    assert imported.weights == f"the section `{part.rstrip('.')}`"
    assert torch.equal(imported.tokenizer.encoder.conv_in.weight, twin.encoder.conv_in.weight)
