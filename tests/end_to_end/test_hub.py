"""A model goes to the hub and comes back, pinned to a revision, from the cache, and with no network."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Hub, Repository, serve_hub
from processes import run_tavq

from tavq.core.config import build
from tavq.tokenizer import Tokenizer, TokenizerConfig

SECRET = "hf_SecretOfTheTest"
LOAD = "import sys, tavq; print(*(float(tavq.Tokenizer.from_pretrained(x).codebook.table[0, 0]) for x in sys.argv[1:]))"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(SECRET) as running:
        yield running


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Runs `tavq`, or the script LOAD, in a process whose hub is the stand-in.

    Keywords are further variables of its environment.
    """
    (tmp_path / "load.py").write_text(LOAD)

    def call(*words: Any, **variables: str) -> "subprocess.CompletedProcess[str]":
        script = tmp_path / "load.py" if words[0] == LOAD else None
        variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), **variables}
        done = run_tavq(1, words[1:] if script else words, script, **variables)
        assert SECRET not in done.stdout + done.stderr, "the token is shown"
        return done

    return call


def save(folder: Path, value: float, **metadata: Any) -> Path:
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1}
    codebook = {"name": "learned", "entries": 8, "width": 4}
    model = Tokenizer(build(TokenizerConfig, {"net": net, "codebook": codebook}, "test"))
    torch.nn.init.constant_(model.codebook.table, value)  # type: ignore[arg-type]
    model.save_pretrained(folder, "# Mine\n", metadata)
    return folder


@pytest.mark.slow
def test_there_and_back(hub: Hub, run: Run, tmp_path: Path) -> None:
    push = ("push",)
    first = run(*push, save(tmp_path / "a", 1.0), "me/model", "--private", "--licence", "MIT", HF_TOKEN=SECRET)
    assert first.returncode == 0, first.stderr
    commit = first.stderr.rsplit("@", 1)[1].strip().rstrip(".")
    held = hub.repositories["me/model"]
    assert held.private
    assert sorted(held.commits[commit]) == ["README.md", "config.json", "model.safetensors"]
    assert held.commits[commit]["model.safetensors"] == (tmp_path / "a" / "model.safetensors").read_bytes()
    head, text = held.commits[commit]["README.md"].decode().removeprefix("---\n").split("---\n\n")
    assert yaml.safe_load(head) == {"library_name": "tavq", "tags": ["image-tokenizer"], "license": "mit"}
    assert text == "# Mine\n"

    save(tmp_path / "b", 2.0, imported={"licence": "Apache-2.0 (as stated on the hub)"})
    assert run(*push, tmp_path / "b", "me/model", HF_TOKEN=SECRET).returncode == 0
    save(tmp_path / "c", 3.0)
    assert run(*push, tmp_path / "c", "me/model", "--branch", "next", HF_TOKEN=SECRET).returncode == 0
    assert b"license: apache-2.0" in held.commits[held.branches["main"]]["README.md"]

    names = ("me/model", f"me/model@{commit}", "me/model@next")
    assert run(LOAD, *names, HF_TOKEN=SECRET).stdout == "2.0 1.0 3.0\n"
    hub.requests.clear()
    assert run(LOAD, *names, HF_HUB_OFFLINE="1").stdout == "2.0 1.0 3.0\n"
    assert hub.requests == [], "offline nothing is asked"
    for path in (tmp_path / "cache").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), "the token is stored"


@pytest.mark.slow
def test_what_fails(hub: Hub, run: Run, tmp_path: Path) -> None:
    model = save(tmp_path / "a", 1.0)
    without = run("push", model, "me/model")
    assert (without.returncode, hub.requests) == (2, [])
    assert "An upload needs an access token with the right to write in the environment: HF_TOKEN." in without.stderr
    wrong = run("push", model, "me/model", HF_TOKEN=f"{SECRET}X")  # the stand-in's answer quotes it
    assert wrong.returncode == 2
    assert "The upload to 'me/model' failed: " in wrong.stderr
    assert run("push", model, "me/model", "--private", HF_TOKEN=SECRET).returncode == 0
    hub.repositories["me/public"] = Repository(private=False)
    hub.repositories["me/public"].commit("main", {}, "initial")
    public = run("push", model, "me/public", "--private", HF_TOKEN=SECRET)
    assert (public.returncode, len(hub.repositories["me/public"].commits)) == (2, 1)
    assert "me/public exists and is public; leave out --private" in public.stderr
    for name, variables in (
        ("me/model", {}),
        ("me/model@nothing", {"HF_TOKEN": SECRET}),
        ("me/x", {"HF_HUB_OFFLINE": "1"}),
    ):
        refused = run("export", name, "--to", "diffusers", "--out", tmp_path / "x", **variables)
        assert refused.returncode == 2, refused.stderr
        assert f"The model {name!r} is not a folder, and its download from the hub failed: " in refused.stderr


@pytest.mark.parametrize("name", ["model", "me/model/x", "../model", "me/mo del", ""])
def test_names_that_the_hub_does_not_have(name: str, tmp_path: Path) -> None:
    import tavq
    from tavq.core.errors import UsageError

    with pytest.raises(UsageError, match="is not a name on the hub; expected OWNER/NAME"):
        tavq.push_model(save(tmp_path / "a", 1.0), name)


def test_a_damaged_model_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tavq
    from tavq.core.errors import FileError

    monkeypatch.setenv("HF_TOKEN", SECRET)
    model = save(tmp_path / "a", 1.0)
    (model / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(FileError, match="was altered or truncated"):
        tavq.push_model(model, "me/model")
