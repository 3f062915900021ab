"""Imports from the Hugging Face hub, by a stand-in that serves a folder as the hub's client serves a repository."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from published_tokenizers import Twin
from safetensors.torch import save_file

import tavq
from tavq.core.errors import UsageError
from tavq.interop.hub import is_on_hub
from tavq.tokenizer import Tokenizer

COMMIT = "c0ffee" + "0" * 34


class Hub:
    """A repository in a folder; files are links to blobs, as in the cache of the client."""

    def __init__(self, root: Path) -> None:
        self.files, self.cache = root / "repository", root / "cache"
        self.network, self.calls = True, []  # type: ignore[var-annotated]
        self.reason = "the network cannot be reached."
        self.files.mkdir()

    def download(self, name: str, file: str, *, revision: str, token: Any, local_files_only: bool) -> str:
        self.calls.append((name, file, revision, token, local_files_only))
        place = self.cache / "snapshots" / COMMIT / file
        if place.exists():
            return str(place)
        if local_files_only:
            raise LocalEntryNotFoundError("it is not in the cache.")
        if not self.network:
            raise LocalEntryNotFoundError(self.reason)
        if name != "owner/name" or revision not in ("main", "v1", COMMIT):
            raise RuntimeError(f"404: there is no {name} at {revision}.")
        if not (self.files / file).is_file():
            raise EntryNotFoundError(f"404: no {file}.")
        blob = self.cache / "blobs" / file.replace("/", "-")
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes((self.files / file).read_bytes())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(blob)
        return str(place)

    def list_repo_files(self, name: str, *, revision: str, token: Any) -> list[str]:
        return [str(path.relative_to(self.files)) for path in self.files.rglob("*") if path.is_file()]

    def loaded(self) -> set[str]:
        folder = self.cache / "snapshots" / COMMIT
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


def record_of(model: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((model / "config.json").read_text())["imported"]
    return record


def test_a_file_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    torch.save({"model": Twin("llamagen").state_dict()}, hub.files / "vq.pt")
    (hub.files / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# Name\n")
    out = tavq.import_checkpoint("llamagen", "owner/name@v1", out=tmp_path / "model", file="vq.pt")
    record = record_of(out)
    assert record["origin"] == f"https://huggingface.co/owner/name/tree/{COMMIT}"
    assert record["licence"] == "mit (as stated on the hub)"
    assert "| licence | mit (as stated on the hub) |" in (out / "README.md").read_text()
    assert [call[2] for call in hub.calls] == ["v1", COMMIT]  # all files are of one commit
    assert {call[3] for call in hub.calls} == {False}  # no token that is stored on this machine
    own = tavq.import_checkpoint(
        "auto", "owner/name", out=tmp_path / "other", file="vq.pt", licence="other", origin="here"
    )
    assert (record_of(own)["licence"], record_of(own)["origin"]) == ("other", "here")


def test_the_token_is_that_of_the_environment(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    torch.save(Twin("taming").state_dict(), hub.files / "last.ckpt")
    out = tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model", file="last.ckpt")
    assert {call[3] for call in hub.calls} == {"hf_secret"}
    assert "hf_secret" not in (out / "config.json").read_text() + (out / "README.md").read_text()


@pytest.mark.parametrize("place", ["", "vqvae/"])
def test_a_usual_name_is_found(hub: Hub, place: str, tmp_path: Path) -> None:
    (hub.files / place).mkdir(exist_ok=True)
    save_file(Twin("taming").state_dict(), hub.files / place / "model.safetensors")
    (hub.files / place / "config.json").write_text("{}")
    (hub.files / "unet.safetensors").write_bytes(b"large")
    tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model")
    assert hub.loaded() == {f"{place}model.safetensors", f"{place}config.json"}


def test_of_a_large_model_the_files_of_the_tokenizer_are_loaded(hub: Hub, tmp_path: Path) -> None:
    tensors = {f"model.vqmodel.{name}": value for name, value in Twin("taming").state_dict().items()}
    save_file(tensors, hub.files / "model-2.safetensors")
    (hub.files / "model-1.safetensors").write_bytes(b"large")
    (hub.files / "config.json").write_text("{}")
    places = {"model.language.weight": "model-1.safetensors"} | dict.fromkeys(tensors, "model-2.safetensors")
    (hub.files / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    out = tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model")
    assert hub.loaded() == {"model-2.safetensors", "config.json", "model.safetensors.index.json"}
    assert record_of(out)["file"] == "model-2.safetensors"
    assert record_of(out)["dropped"] == ["the rest of the model (1 tensors)"]


def test_without_a_network_the_cache_is_read(hub: Hub, tmp_path: Path) -> None:
    save_file(Twin("taming").state_dict(), hub.files / "model.safetensors")
    first = tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model")
    hub.network, hub.calls = False, []
    second = tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "again")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert sum(not local for *_, local in hub.calls) == 1  # the network is not tried again for each file
    assert Tokenizer.from_pretrained(second).entries == 24


@pytest.mark.parametrize("file", [None, "last.ckpt"])
def test_no_network_and_no_cache(hub: Hub, file: str | None, tmp_path: Path) -> None:
    hub.network = False
    with pytest.raises(UsageError) as caught:
        tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model", file=file)
    message = str(caught.value)
    assert (
        "'owner/name' is not a file or folder, and its download from the hub failed: the network cannot be" in message
    )
    assert "HF_HUB_OFFLINE=1" in message  # and the first reason stands, not that of the cache
    assert "HF_TOKEN" in message
    assert not (tmp_path / "model").exists()


def test_other_failures(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, revision in (("owner/other", None), ("owner/name", "v2")):
        with pytest.raises(UsageError, match=rf"failed: 404: there is no {name} at {revision or 'main'}"):
            tavq.import_checkpoint("auto", f"{name}@{revision}" if revision else name, out=tmp_path / "model")
    torch.save(Twin("taming").state_dict(), hub.files / "vq.pt")
    with pytest.raises(UsageError, match=r"no weights of a usual name .* name a file of it with --file: vq\.pt\."):
        tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.network, hub.reason = False, "401 for Bearer hf_secret"
    with pytest.raises(UsageError, match=r"401 for Bearer \*\*\*"):
        tavq.import_checkpoint("auto", "owner/name", out=tmp_path / "model", file="vq.pt")
    with pytest.raises(UsageError, match="--file is for the hub"):
        tavq.import_checkpoint("auto", hub.files / "vq.pt", out=tmp_path / "model", file="vq.pt")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", True), ("a-b/c.d_e", True), ("weights/vq.pt", False), ("/owner/name", False),
        ("owner", False), ("owner/name/x", False), ("../name", False), ("owner/", False), ("runs/model.ckpt", False),
    ],
)  # fmt: skip
def test_what_is_a_name_of_the_hub(source: str, expected: bool) -> None:
    assert is_on_hub(source) == expected


def test_a_folder_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_on_hub("owner/name")
