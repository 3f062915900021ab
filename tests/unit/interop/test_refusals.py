"""Imports of files that are damaged, hostile or of another kind: one clear error each, and nothing of them is run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_bias_free import MAGVIT2Twin, MaskGITTwin
from published_tokenizers import Twin
from safetensors.torch import save_file
from torch import Tensor

import tavq
from tavq.core.errors import FileError, TavqError, UsageError
from tavq.interop.importing import import_tokenizer
from tavq.interop.reading import read_checkpoint
from tavq.tokenizer import Tokenizer

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(Twin("taming").state_dict())


@pytest.fixture(scope="module")
def llamagen() -> State:
    return dict(Twin("llamagen", width=8, latent=16).state_dict())


def written(tensors: State, folder: Path) -> Path:
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def saved(value: Any, folder: Path) -> Path:
    torch.save(value, folder / "last.ckpt")
    return folder / "last.ckpt"


# --- names and shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["taming", "gumbel", "llamagen", "maskgit", "open-magvit2"])
def test_no_tensor_may_be_missing(kind: str, tmp_path: Path) -> None:
    twins = {"maskgit": MaskGITTwin, "open-magvit2": MAGVIT2Twin}
    tensors = (twins[kind]() if kind in twins else Twin(kind)).state_dict()
    tensors.pop("quantize.codebook_used", None)
    named = 0
    for name in sorted(tensors)[::6]:
        path = written({other: value for other, value in tensors.items() if other != name}, tmp_path)
        with pytest.raises(TavqError) as caught:
            import_tokenizer("auto", path)
        named += name in str(caught.value)
    assert named > 0.9 * len(tensors) / 6  # those that say how many stages there are make others unknown


@pytest.mark.parametrize("name", ["encoder.extra", "encoder.down.0.block.0.conv3.weight", "quantize.used", "x" * 10**4])
def test_no_tensor_may_be_left_over(state: State, tmp_path: Path, name: str) -> None:
    path = written({**state, name: torch.zeros(2)}, tmp_path)
    with pytest.raises(
        FileError, match=f"cannot be imported as taming. It has unknown tensors: {name[:100]}"
    ) as caught:
        import_tokenizer("auto", path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "encoder.conv_in.weight",
            torch.zeros(32, 4, 3, 3),
            "'encoder.conv_in.weight' is float32 [32, 4, 3, 3]; expected",
        ),
        ("encoder.conv_in.bias", torch.zeros(32, dtype=torch.int64), "is int64 [32]; expected float [32]"),
        ("encoder.mid.attn_1.q.weight", torch.zeros(64, 64, 3, 3), "expected float [64, 64, 1, 1]"),
        ("quantize.embedding.weight", torch.zeros(24), "has the shape [24], which is not one of a weight"),
        ("quantize.embedding.weight", torch.zeros(0, 6), "has the shape [0, 6], which is not one of a weight"),
        ("quant_conv.weight", torch.zeros(()), "has the shape [], which is not one of a weight"),
        ("encoder.down.1.block.0.conv1.weight", torch.zeros(33, 32, 3, 3), "not accepted"),
        ("decoder.conv_out.bias", torch.tensor([0.0, torch.nan, 0.0]), "weights that are not finite"),
    ],
)
def test_tensors_that_do_not_fit(state: State, tmp_path: Path, name: str, value: Tensor, message: str) -> None:
    with pytest.raises(FileError) as caught:
        import_tokenizer("auto", written({**state, name: value}, tmp_path))
    assert message in str(caught.value)


def test_kinds_are_not_mixed_up(state: State, llamagen: State, tmp_path: Path) -> None:
    path = written(state, tmp_path)
    with pytest.raises(UsageError, match="is a checkpoint of the kind 'taming', not 'llamagen'; use taming or auto"):
        import_tokenizer("llamagen", path)
    with pytest.raises(UsageError, match=r"Unknown kind of checkpoint 'tamming'; known: .*, llamagen, .*, taming"):
        import_tokenizer("tamming", path)
    with pytest.raises(UsageError, match=r"not a checkpoint of a known kind: .* Its first tensors: 'a'"):
        import_tokenizer("auto", written({"a": torch.zeros(1)}, tmp_path))


def test_names_that_two_kinds_share_need_the_kind(tmp_path: Path) -> None:
    """Four blocks a stage are as the published models of IBQ have them, whose indices are not those of taming."""
    four = Twin("ibq", blocks=4).state_dict()
    path = written(four, tmp_path)
    with pytest.raises(UsageError, match="say which it is: ibq or taming"):
        import_tokenizer("auto", path)
    assert import_tokenizer("ibq", path).tokenizer.config.quantizer.name == "dot"
    assert import_tokenizer("taming", path).tokenizer.config.quantizer.name == "nearest"


# --- files ------------------------------------------------------------------------------------------------------


class Runs:
    """What a pickle can hold: a call that is made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(state: State, tmp_path: Path) -> None:
    path = saved({"state_dict": state, "callbacks": Runs(tmp_path / "ran")}, tmp_path)
    with pytest.raises(FileError, match="which could run code here") as caught:
        import_tokenizer("auto", path)
    assert not (tmp_path / "ran").exists()
    remedy = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(remedy) == 2
    exec("\n".join(remedy), {})  # as the user would, in a place that may run the file
    assert (tmp_path / "ran").exists()
    assert import_tokenizer("auto", tmp_path / "last-weights.pt").tokenizer.entries == 24


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
@pytest.mark.parametrize("write", [written, saved])
def test_truncated_files(state: State, tmp_path: Path, keep: float, write: Callable[[Any, Path], Path]) -> None:
    path = write(state, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(FileError) as caught:
        import_tokenizer("auto", path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds no tensors by name"),
        ({}, "holds no tensors by name"),
        ({"state_dict": {"a": 1}}, "'a' is a int, not a tensor"),
        ({"state_dict": {7: torch.zeros(1)}}, "'7' is a Tensor, not a tensor"),
        ({"a": torch.zeros(1).expand(10**12)}, "'a', which is not a plain tensor"),
        ({"a": torch.zeros(3, 3).to_sparse()}, "'a', which is not a plain tensor"),
        ({"a": torch.zeros(3, device="meta")}, "'a', which is not a plain tensor"),
    ],
)
def test_checkpoints_of_other_things(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(FileError) as caught:
        import_tokenizer("auto", saved(value, tmp_path))
    assert message in str(caught.value)


def test_places_without_a_checkpoint(state: State, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no checkpoint"):
        import_tokenizer("auto", tmp_path / "none.pt")
    with pytest.raises(UsageError, match=r"has no config\.json"):
        import_tokenizer("auto", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="has no weights; expected one of: diffusion_pytorch_model"):
        import_tokenizer("auto", tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(FileError, match="holds no settings"):
        import_tokenizer("auto", tmp_path)
    (tmp_path / "config.json").unlink()
    tavq.import_checkpoint("auto", written(state, tmp_path), out=tmp_path / "model")
    with pytest.raises(UsageError, match="is a model of tavq already"):
        import_tokenizer("auto", tmp_path / "model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_type": "spatial"}, "has norm_type 'spatial'; only 'group' can be imported"),
        ({"act_fn": "relu"}, "has act_fn 'relu'; only 'silu' or 'swish' can be imported"),
        ({"_class_name": "AutoencoderKL"}, "has _class_name 'AutoencoderKL'"),
        ({"in_channels": 4}, "has in_channels '4'"),
        ({"norm_num_groups": "many"}, "must be a number"),
        ({"norm_num_groups": 7}, "7 groups do not divide the 32 channels"),
        ({"norm_num_groups": 0}, "not accepted"),
    ],
)
def test_settings_of_diffusers_that_our_network_lacks(tmp_path: Path, settings: Any, message: str) -> None:
    names = ["encoder.down_blocks.0.resnets.0.conv1", "encoder.conv_out", "quant_conv"]
    tensors = {f"{name}.weight": torch.zeros(32, 32, 1, 1) for name in names}
    path = written({**tensors, "quantize.embedding.weight": torch.zeros(8, 32)}, tmp_path)
    path.rename(tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel", **settings}))
    with pytest.raises(FileError) as caught:
        import_tokenizer("auto", tmp_path)
    assert message in str(caught.value)


def test_a_model_of_diffusers_needs_its_settings(tmp_path: Path) -> None:
    path = written({"encoder.down_blocks.0.resnets.0.conv1.weight": torch.zeros(32, 32, 3, 3)}, tmp_path)
    with pytest.raises(FileError, match=r"has no config\.json of diffusers beside it"):
        import_tokenizer("auto", path)


# --- what is read, and what the card says -----------------------------------------------------------------------


def test_running_means_are_read_where_there_are_any(state: State, llamagen: State, tmp_path: Path) -> None:
    doubled = {name: 2 * value for name, value in llamagen.items()}
    path = saved({"model": doubled, "ema": llamagen, "steps": 7}, tmp_path)
    found = import_tokenizer("auto", path)
    assert torch.equal(found.tokenizer.encoder.conv_in.weight, llamagen["encoder.conv_in.weight"])
    assert (found.weights, found.left) == ("the section `ema`", ("model", "steps"))
    means = {"model_ema." + name.replace(".", ""): 2 * value for name, value in state.items()}
    path = written({**state, **means, "model_ema.decay": torch.tensor(0.99)}, tmp_path)
    found = import_tokenizer("auto", path)
    assert torch.equal(found.tokenizer.encoder.conv_in.weight, 2 * state["encoder.conv_in.weight"])
    assert "running means" in found.weights


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
def test_names_of_wrapped_models(state: State, tmp_path: Path, wrapper: str) -> None:
    path = written({wrapper + name: value for name, value in state.items()}, tmp_path)
    assert import_tokenizer("auto", path).tokenizer.entries == 24


def test_half_precision_becomes_single(state: State, tmp_path: Path) -> None:
    found = import_tokenizer("auto", written({name: value.half() for name, value in state.items()}, tmp_path))
    assert {value.dtype for value in found.tokenizer.parameters()} == {torch.float32}


def test_the_card(state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loss = {f"loss.discriminator.main.{i}.weight": torch.zeros(1) for i in range(3)}
    path = saved({"state_dict": {**state, **loss}, "epoch": 4}, tmp_path)
    out = tavq.import_checkpoint(
        "auto", path, out=tmp_path / "model", size=32, licence="MIT | no\nwarranty", origin="https://example.org/vq"
    )
    card = (out / "README.md").read_text()
    for line in (
        "| origin | https://example.org/vq |",
        "| licence | MIT \\| no warranty |",
        "| weights that were read | the section `state_dict` |",
        "| not read | `loss (3 tensors)`, `epoch` |",
        "| codebook | 24 entries of width 6 |",
        "| image size | 32 px |",
        "    legacy: true",
    ):
        assert line in card
    stored = json.loads((out / "config.json").read_text())
    assert stored["size"] == 32
    assert stored["imported"]["dropped"] == ["loss (3 tensors)", "epoch"]
    assert "Not read: loss (3 tensors), epoch." in caplog.text
    assert Tokenizer.from_pretrained(out).config.quantizer.legacy  # type: ignore[attr-defined]


def test_folders_that_are_not_replaced(state: State, tmp_path: Path) -> None:
    path = written(state, tmp_path)
    with pytest.raises(UsageError, match="already exists and is not empty"):
        tavq.import_checkpoint("auto", path, out=tmp_path)
    with pytest.raises(UsageError, match="already exists and is not empty"):
        tavq.import_checkpoint("auto", path, out=path)
    with pytest.raises(UsageError, match="--size 30 is not accepted: this tokenizer needs multiples of 4"):
        tavq.import_checkpoint("auto", path, out=tmp_path / "model", size=30)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "does not say in which files the tensors are"),
        ({"weight_map": {"a": 1}}, "does not say in which files the tensors are"),
        ({"weight_map": {"vqmodel.a": "../model.safetensors"}}, "is not a file beside it"),
        ({"weight_map": {"vqmodel.a": ".."}}, ""),
        ({"weight_map": {"vqmodel.a": ""}}, ""),
        ({"weight_map": {"vqmodel.a": "none.safetensors"}}, "none.safetensors"),
    ],
)
def test_an_index_of_files_that_is_no_index(tmp_path: Path, index: Any, message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileError) as caught:
        import_tokenizer("auto", tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is neither an archive of torch nor a pickle"),
        (b"hello world, no weights here", "is neither an archive of torch nor a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "git lfs pull"),
        (b"PK\x03\x04 and then nothing", "is cut short or damaged"),
    ],
)
def test_a_damaged_file_is_not_called_unsafe(tmp_path: Path, content: bytes, message: str) -> None:
    """The remedy for files with objects, to unpickle them elsewhere, would be no use here and is not offered."""
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)
