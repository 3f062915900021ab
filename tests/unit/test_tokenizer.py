"""A tokenizer: the same images and indices after saving, and one kind of error for whatever a folder holds."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import FileError, TavqError, UsageError
from tavq.core.precision import use_precision
from tavq.ops.grids import offset_indices
from tavq.tokenizer import Tokenizer, TokenizerConfig

SETTINGS: dict[str, Any] = {
    "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1},
    "codebook": {"name": "learned", "entries": 16, "width": 4, "init": "features"},
    "align": {"name": "ta", "phrase": 0.0},
    "text_width": 6,
}


def made(**changes: Any) -> Tokenizer:
    torch.manual_seed(0)
    tokenizer = Tokenizer(build(TokenizerConfig, {**SETTINGS, **changes}, "test"))
    tokenizer.train()(random_images(seed=9))  # starts the codebook
    return tokenizer.eval()


def random_images(b: int = 2, y: int = 8, x: int = 12, seed: int = 1) -> Tensor:
    return torch.rand(b, 3, y, x, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return made()


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "model", card="# Mine\n", metadata={"steps": 7})
    return tmp_path / "model"


# --- images and indices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "y", "x"), [(1, 4, 4), (3, 8, 12), (0, 8, 8)])
def test_decoding_indices_equals_the_reconstruction_bit_for_bit(tokenizer: Tokenizer, b: int, y: int, x: int) -> None:
    images = random_images(b, y, x)
    indices = tokenizer.encode(images)
    assert indices.shape == (b, y // 4, x // 4)
    assert torch.equal(tokenizer.decode(indices), tokenizer(images).images)
    assert torch.equal(tokenizer.train()(images).images, tokenizer.eval().decode(indices))


def test_integers_of_any_width_are_indices(tokenizer: Tokenizer) -> None:
    indices = tokenizer.encode(random_images())
    assert torch.equal(tokenizer.decode(indices.int()), tokenizer.decode(indices))


@pytest.mark.parametrize("shape", [(8, 10), (9, 8), (2, 2), (0, 8), (8, 0)])
def test_an_image_of_a_wrong_size_is_refused(tokenizer: Tokenizer, shape: tuple[int, int]) -> None:
    for call in (tokenizer.encode, tokenizer.forward, tokenizer.quantize):
        with pytest.raises(UsageError) as caught:
            call(torch.zeros(1, 3, *shape))
        assert str(caught.value) == (
            f"Cannot encode images of {shape[1]} x {shape[0]}: both sides must be multiples of 4."
        )


@pytest.mark.parametrize(("index", "named"), [(16, "Indices 0 to 16"), (-1, "Indices -1 to 0")])
def test_an_index_out_of_range_is_refused(tokenizer: Tokenizer, index: int, named: str) -> None:
    indices = torch.zeros(1, 2, 2, dtype=torch.long)
    indices[0, 1, 0] = index
    with pytest.raises(UsageError, match=f"{named} are out of range: the codebook has entries 0 to 15"):
        tokenizer.decode(indices)


def test_an_empty_grid_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="Cannot decode an empty grid of 0 x 2 indices"):
        tokenizer.decode(torch.zeros(1, 0, 2, dtype=torch.long))


def test_encoding_and_decoding_keep_no_graph_and_change_nothing(tokenizer: Tokenizer) -> None:
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    indices = tokenizer.encode(random_images())
    assert not indices.requires_grad
    assert not tokenizer.decode(indices).requires_grad
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


def test_the_aligner_needs_the_text_width() -> None:
    with pytest.raises(UsageError, match=r"needs model\.text_width"):
        Tokenizer(build(TokenizerConfig, {**SETTINGS, "text_width": None}, "test"))


def test_an_aligner_needs_three_stages() -> None:
    with pytest.raises(UsageError, match=r"net\.multipliers needs at least three stages"):
        build(TokenizerConfig, {**SETTINGS, "net": {"multipliers": [1, 2]}}, "test")


def test_parameter_counts_by_part(tokenizer: Tokenizer) -> None:
    counts = tokenizer.parameter_counts()
    assert list(counts) == ["encoder", "decoder", "codebook", "quantizer", "aligner", "hierarchy", "level_codebooks"]
    assert counts["codebook"] == 16 * 4
    assert counts["hierarchy"] == 8 * 4 + 4  # the low level alone: phrases weigh nothing
    assert sum(counts.values()) == sum(parameter.numel() for parameter in tokenizer.parameters())


def test_the_codebook_starts_from_the_decoders_features_in_training_only() -> None:
    torch.manual_seed(0)
    tokenizer = Tokenizer(build(TokenizerConfig, SETTINGS, "test"))
    with torch.no_grad():
        _, features = tokenizer.encoder(random_images(4))
        fresh = tokenizer.codebook().clone()
        tokenizer.eval()(random_images(4))
        assert torch.equal(tokenizer.codebook(), fresh)
        tokenizer.train()(random_images(4))
    deep = {tuple(row) for row in features.permute(0, 2, 3, 1).reshape(-1, 4).tolist()}
    assert {tuple(row) for row in tokenizer.codebook().tolist()} <= deep


# --- put to use -------------------------------------------------------------------------------------------------


def test_a_prepared_tokenizer_gives_the_same_indices_and_images_to_rounding() -> None:
    images, plain, prepared = random_images(), made(), made()
    indices = plain.encode(images)
    assert prepared.train().prepare() is prepared
    assert not prepared.training
    assert prepared.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared.encode(images), indices)
    torch.testing.assert_close(prepared.decode(indices), plain.decode(indices))
    for level, quantized in plain.quantize(images).items():
        assert torch.equal(prepared.quantize(images)[level].indices, quantized.indices)


def test_in_bf16_all_but_the_convolutions_stays_in_float32() -> None:
    images, exact, rounded = random_images(4, 32, 32), made().prepare(), made().prepare(precision="bf16")
    features = rounded.features(images)
    assert {grid.dtype for grid in features.values()} == {torch.float32}
    assert not torch.equal(features[2], exact.features(images)[2])
    assert (rounded.encode(images) == exact.encode(images)).float().mean() > 0.9
    decoded = rounded.decode(exact.encode(images))
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, exact.decode(exact.encode(images)), rtol=0, atol=0.1)
    for copy in (rounded.without_alignment(), rounded.with_fixed_codebook()):
        assert torch.equal(copy.decode(exact.encode(images)), decoded)


def test_the_precision_is_that_of_the_context_unless_given() -> None:
    with use_precision("bf16"):
        assert made().prepare().precision == "bf16"
        assert made().prepare(precision="fp32").precision == "fp32"
        with use_precision(None):
            assert made().prepare().precision == "bf16"
    assert made().prepare().precision == "fp32"
    with pytest.raises(UsageError, match="Unknown precision 'fp16'; known: bf16, fp32"):
        made().prepare(precision="fp16")


def test_preparing_leaves_the_saved_bytes(folder: Path, tmp_path: Path) -> None:
    Tokenizer.from_pretrained(folder).prepare(precision="bf16").save_pretrained(tmp_path / "again", card="# Mine\n")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


# --- model folders ----------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_comes_back_bit_for_bit(tokenizer: Tokenizer, folder: Path) -> None:
    loaded = Tokenizer.from_pretrained(folder)
    assert loaded.config == tokenizer.config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    own, found = tokenizer.state_dict(), loaded.state_dict()
    assert own.keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in own.items())
    assert torch.equal(loaded.encode(random_images()), tokenizer.encode(random_images()))
    indices = tokenizer.encode(random_images())
    assert torch.equal(loaded.decode(indices), tokenizer.decode(indices))


def test_an_initialised_codebook_is_not_initialised_again(folder: Path) -> None:
    loaded = Tokenizer.from_pretrained(folder).train()
    table = loaded.codebook().clone()
    loaded(random_images())
    assert torch.equal(loaded.codebook(), table)


def test_the_content_of_a_model_folder(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    stored = json.loads((folder / "config.json").read_text())
    assert stored["format"] == 1
    assert stored["kind"] == "tokenizer"
    assert stored["steps"] == 7
    assert stored["sha256"] == files.sha256(folder / "model.safetensors")
    assert stored["model"]["align"]["name"] == "ta"
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_saving_loading_and_saving_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    Tokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again", card="# Mine\n", metadata={"steps": 7})
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_model_may_be_saved_over_the_folder_it_was_read_from(folder: Path) -> None:
    loaded = Tokenizer.from_pretrained(folder)
    indices = loaded.encode(random_images())
    loaded.save_pretrained(folder)
    assert torch.equal(loaded.encode(random_images()), indices)
    assert torch.equal(Tokenizer.from_pretrained(folder).encode(random_images()), indices)


def test_a_run_folder_loads_its_model(folder: Path, tokenizer: Tokenizer) -> None:
    loaded = Tokenizer.from_pretrained(str(folder.parent))
    assert torch.equal(loaded.encode(random_images()), tokenizer.encode(random_images()))


def test_a_tokenizer_without_alignment_can_be_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.without_alignment().save_pretrained(tmp_path / "plain")
    loaded = Tokenizer.from_pretrained(tmp_path / "plain")
    assert loaded.aligner is None
    assert torch.equal(loaded.encode(random_images()), tokenizer.encode(random_images()))


# --- folders that are not whole ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "none", ".", "a/b/c", "/nowhere/at/all", "a\0b", "x" * 5000, "y/" + "x" * 5000])
def test_no_model_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"^There is no model at |^The model .* is not a folder"):
        Tokenizer.from_pretrained(name)


def test_a_hub_name_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError) as caught:
        Tokenizer.from_pretrained("nobody/nothing")
    assert str(caught.value).startswith(
        "The model 'nobody/nothing' is not a folder, and its download from the hub failed"
    )
    assert "\n" not in str(caught.value)


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileError, match=r"There is no file .*model\.safetensors"):
        Tokenizer.from_pretrained(folder)


def test_truncated_weights_are_found(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for size in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:size])
        with pytest.raises(FileError, match=r"model\.safetensors was altered or truncated"):
            Tokenizer.from_pretrained(folder)


def test_every_flipped_bit_of_the_weights_is_found(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    for place in range(0, len(data), len(data) // 100):
        data[place] ^= 1 << place % 8
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(FileError, match=r"model\.safetensors was altered or truncated"):
            Tokenizer.from_pretrained(folder)
        data[place] ^= 1 << place % 8


def test_truncated_settings_are_found(folder: Path) -> None:
    data = (folder / "config.json").read_bytes()
    for size in range(len(data) - 2):
        (folder / "config.json").write_bytes(data[:size])
        with pytest.raises(FileError, match=r"config\.json"):
            Tokenizer.from_pretrained(folder)


def test_a_flipped_bit_in_the_settings_is_found_or_changes_no_index(folder: Path) -> None:
    """Numbers that only training reads (a loss weight) may change unnoticed; what encodes may not."""
    data = (folder / "config.json").read_bytes()
    indices = Tokenizer.from_pretrained(folder).encode(random_images())
    for place in range(0, len(data), 7):
        (folder / "config.json").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            loaded = Tokenizer.from_pretrained(folder)
        except TavqError:
            continue
        assert torch.equal(loaded.encode(random_images()), indices)


# --- hostile folders --------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    stored = json.loads((folder / "config.json").read_text())
    stored.pop("seal")  # as a forger does, and as older versions wrote it
    change(stored)
    (folder / "config.json").write_text(json.dumps(stored))


def model(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda stored: stored["model"].update(changes)


def deep(levels: int) -> Any:
    return {"x": deep(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (model(quantizer={"name": "nearst"}), UsageError, "Unknown quantizer 'nearst'; known: "),
        (model(quantizer={"name": "os.system"}), UsageError, "Unknown quantizer 'os.system'"),
        (model(codebook={"name": ["learned"]}), UsageError, "Unknown codebook"),
        (model(quantisers={}), UsageError, "Unknown setting 'quantisers'"),
        (model(codebook={"name": "learned", "entries": 10**12, "width": 4}), UsageError, "'codebook.entries'"),
        (model(codebook={"name": "learned", "entries": 2**20, "width": 256}), FileError, "does not fit its config"),
        (model(net={"channels": 10**12}), UsageError, "'net.channels'"),
        (model(net={"channels": 1024, "multipliers": [8] * 8}), UsageError, "at most 8,192 channels"),
        (model(net={"multipliers": [1, 10**12]}), UsageError, "at most 8,192 channels"),
        (model(net={"multipliers": [1, 0, 1]}), UsageError, "'net.multipliers.1' = 0"),
        (model(net=deep(200)), UsageError, "nests deeper"),
        (model(net={"multipliers": [1] * 20_000}), UsageError, "has more than 10,000 values"),
        (model(text_width=10**12), UsageError, "'text_width'"),
        (model(text_width=None), UsageError, "needs model.text_width"),
        (model(align={"name": "ta", "samples": [4, 8, 10**12]}), UsageError, "'align.samples.2'"),
        (model(net={"channels": 16, "multipliers": [1, 1, 2], "blocks": 1}), FileError, "tensors differ, first "),
        (lambda stored: stored.update(model=[1]), FileError, "lacks 'model'"),
        (lambda stored: stored.pop("model"), FileError, "lacks 'model'"),
        (lambda stored: stored.update(format=2), FileError, "has format 2; this version reads format 1"),
        (lambda stored: stored.pop("format"), FileError, "has format None"),
        (lambda stored: stored.update(kind="captioner"), FileError, "does not describe a tokenizer"),
        (lambda stored: stored.pop("kind"), FileError, "does not describe a tokenizer"),
        (lambda stored: stored.pop("sha256"), FileError, "was altered or truncated"),
        (lambda stored: stored.update(sha256="0" * 64), FileError, "was altered or truncated"),
        (lambda stored: stored.update(sha256=7), FileError, "was altered or truncated"),
    ],
)  # fmt: skip
def test_invalid_stored_settings(folder: Path, change: Any, kind: type[TavqError], message: str) -> None:
    rewrite(folder, change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(kind) as caught:
        Tokenizer.from_pretrained(folder)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB: nothing large was made


@pytest.mark.parametrize("text", ["[]", "null", '"tokenizer"', "{}", "[" * 10**6, '{"kind": ' * 10**5])
def test_json_that_is_no_settings(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(FileError, match=r"config\.json"):
        Tokenizer.from_pretrained(folder)


def forge(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Other weights, with the hash that belongs to them."""
    path = folder / "model.safetensors"
    save_file(change({name: value.clone() for name, value in load_file(path).items()}), path)
    rewrite(folder, lambda stored: stored.update(sha256=files.sha256(path)))


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors["codebook.tabel"] = tensors.pop("codebook.table")
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "2 tensors differ, first 'codebook.tabel'"),
        (lambda tensors: {}, "first 'aligner."),
        (lambda tensors: {**tensors, "extra": torch.zeros(1)}, "1 tensors differ, first 'extra'"),
        (lambda tensors: {**tensors, "codebook.table": torch.zeros(17, 4)}, "first 'codebook.table'"),
        (lambda tensors: {**tensors, "codebook.table": torch.zeros(16, 4).long()}, "int64"),
        (lambda tensors: {**tensors, "codebook.table": torch.zeros(16, 4).to(torch.float8_e5m2)}, "float8_e5m2"),
        (lambda tensors: {**tensors, "codebook.calls": torch.tensor(1)}, "first 'codebook.calls'"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_their_settings(folder: Path, change: Any, message: str) -> None:
    forge(folder, change)
    with pytest.raises(FileError) as caught:
        Tokenizer.from_pretrained(folder)
    assert "does not fit its config.json" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_another_precision_are_used_in_full(folder: Path, dtype: torch.dtype) -> None:
    forge(folder, lambda ts: {name: t.to(dtype) if t.is_floating_point() else t for name, t in ts.items()})
    loaded = Tokenizer.from_pretrained(folder)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.decode(loaded.encode(random_images())).shape == random_images().shape


# --- several parts, and schedules -----------------------------------------------------------------------------------

SMALL_NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}


def test_offset_indices_are_rows_of_the_whole_table() -> None:
    indices = torch.tensor([[[[0, 1, 2], [1, 0, 0]]]])
    assert offset_indices(indices, (2, 3, 4)).tolist() == [[[[0, 3, 7], [1, 2, 5]]]]
    assert torch.equal(offset_indices(indices[..., 0], (2,)), indices[..., 0])


def test_an_index_must_fit_its_own_part() -> None:
    codebook = {"name": "fixed", "sizes": [3, 5], "width": 2}
    config = build(TokenizerConfig, {"net": SMALL_NET, "codebook": codebook, "quantizer": "product"}, "test")
    tokenizer = Tokenizer(config).eval()
    assert tokenizer.decode(torch.tensor([[[[2, 4]]]])).shape == (1, 3, 4, 4)
    with pytest.raises(UsageError, match="Indices 3 to 3 are out of range: the codebook has entries 0 to 2"):
        tokenizer.decode(torch.tensor([[[[3, 4]]]]))
    with pytest.raises(UsageError, match=r"integer tensor \[b, h, w, 2\]"):
        tokenizer.decode(torch.tensor([[[2]]]))


def test_a_schedule_advances_once_a_training_step() -> None:
    """Whatever the number of grids; evaluation and encoding leave it."""
    values = {"net": SMALL_NET, "codebook": {"name": "learned", "entries": 6, "width": 4}, "quantizer": "gumbel"}
    tokenizer = Tokenizer(build(TokenizerConfig, {**values, "align": "ta", "text_width": 5}, "test")).train()
    calls: Any = tokenizer.quantizer.calls
    for step in range(3):
        assert int(calls) == step
        tokenizer(torch.rand(2, 3, 16, 16))
    tokenizer.encode(torch.rand(2, 3, 16, 16))
    tokenizer.eval()(torch.rand(2, 3, 16, 16))
    assert int(calls) == 3


# --- a codebook for each level ----------------------------------------------------------------------------------


def aligned(codebook: str = "own", **settings: Any) -> Tokenizer:
    values = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 8, "width": 4, "init": "features"},
        "align": {"name": "ta"},
        "text_width": 5,
        "hierarchy": {"codebook": codebook},
    }
    torch.manual_seed(0)
    return Tokenizer(build(TokenizerConfig, values | settings, "test")).train()


def test_each_level_starts_from_its_own_features() -> None:
    tokenizer = aligned()
    levels = tokenizer.quantize(torch.randn(4, 3, 16, 16))
    assert [len(set(map(id, tokenizer.codebooks.values()))), len(levels)] == [3, 3]
    for level, codebook in tokenizer.codebooks.items():
        used = len(levels[level].indices.unique())
        assert used > 1, level  # entries that are features of another level would be far from most features
        torch.testing.assert_close(levels[level].entries, codebook.table[levels[level].indices].permute(0, 3, 1, 2))
    shared = aligned("shared")
    assert len(set(map(id, shared.codebooks.values()))) == 1
    assert not any(name.startswith("level_codebooks") for name in shared.state_dict())


def test_own_codebooks_are_saved_and_left_out_without_alignment(tmp_path: Path) -> None:
    tokenizer = aligned()
    images = torch.randn(2, 3, 16, 16)
    tokenizer.quantize(images)
    tokenizer.eval().save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    for level, quantized in tokenizer.quantize(images).items():
        assert torch.equal(loaded.quantize(images)[level].indices, quantized.indices)
    plain = loaded.without_alignment()
    assert not any("level_codebooks" in name for name in plain.state_dict())
    assert torch.equal(plain.encode(images), tokenizer.encode(images))


def test_a_model_from_before_keeps_the_literal_alignment(tmp_path: Path) -> None:
    tokenizer = aligned("shared", align={"name": "ta", "standardize": False, "center": False}).eval()
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    for name in ("standardize", "center", "contrast", "cost"):
        del stored["model"]["align"][name]
    del stored["seal"]  # which older versions did not write
    stored["model"]["hierarchy_weight"] = stored["model"].pop("hierarchy")["weight"]
    path.write_text(json.dumps(stored))
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert (loaded.config.align.standardize, loaded.config.align.center) == (False, False)
    assert loaded.config.hierarchy.weight == 1
