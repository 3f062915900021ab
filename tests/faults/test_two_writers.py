"""Two writers of one new folder: whatever the moment, the data set that is finished first stays whole."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bert import write_bert
from torch import Tensor

from tavq.api import generation
from tavq.core import files, temporary
from tavq.core.errors import UsageError
from tavq.core.precision import Precision
from tavq.data.folder import FolderDataset
from tavq.importers.exporting import formats
from tavq.importers.writer import create_dataset
from tavq.scenes.writer import write_scenes
from tavq.search.building import build_index
from tavq.text.building import build_store
from tavq.text.encoders import load_encoder

Hook = Callable[..., None]


class Grey:
    """A space in which every image and text has the same vector."""

    size, sha256, text_store = 32, "a" * 64, None
    precision: Precision = "fp32"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def read_texts(self, record: Any) -> Any:
        return record.captions

    def embed_images(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), 1)

    def embed_texts(self, texts: Any) -> Tensor:
        return torch.ones(len(texts), 1)

    def embed_query(self, text: str) -> tuple[Tensor, tuple[str, ...]]:
        return torch.ones(1, 1), ()


def _import(out: Path, hook: Hook, data: Path) -> None:
    with create_dataset(out):
        hook()


def _generate(out: Path, hook: Hook, data: Path) -> None:
    def images() -> Iterator[tuple[str, Tensor]]:
        yield "one", torch.zeros(3, 8, 8)
        hook()

    generation._write(out, images(), torch.zeros(8, 8, 3, dtype=torch.uint8).numpy(), [])


def _index(out: Path, hook: Hook, data: Path) -> None:
    build_index(Grey(out.parent / "space"), FolderDataset(data), out, progress=hook)


def _store(out: Path, hook: Hook, data: Path) -> None:
    def texts() -> Iterator[tuple[str, str]]:
        yield "0.png", "A red house."
        hook()

    build_store(texts(), load_encoder(write_bert(out.parent / "bert")), "pattern", out)


NEW: dict[str, Callable[[Path, Hook, Path], object]] = {
    "scenes": lambda out, hook, _: write_scenes(out, 2, 32, 0, hook),
    "import": _import,
    **{
        f"export {name}": lambda out, hook, data, name=name: formats[name]().run(data, out, 1000, hook)
        for name in formats
    },
}
"""What writes a folder that must not exist before."""

WRITERS = {**NEW, "generate": _generate, "index": _index, "text": _store}


@pytest.mark.parametrize("content", ["finished.txt", "inner/finished.txt"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_appears_in_the_meantime_stays(tmp_path: Path, shared_images: Path, name: str, content: str) -> None:
    out = tmp_path / "all" / "out"
    out.parent.mkdir()

    def finish(*_: Any) -> None:
        (out / content).parent.mkdir(parents=True, exist_ok=True)
        (out / content).write_text("whole")

    with pytest.raises(UsageError, match="out"):
        WRITERS[name](out, finish, shared_images)
    assert [path for path in out.rglob("*") if path.is_file()] == [out / content]
    assert (out / content).read_text() == "whole"
    assert not [path.name for path in out.parent.iterdir() if path.name.startswith(temporary.TEMP_PREFIX)]


@pytest.mark.parametrize("first", NEW)
@pytest.mark.parametrize("second", NEW)
def test_of_two_writers_the_first_to_end_wins(
    tmp_path: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    out, ended = tmp_path / "out", []

    def write_on_another_host(*_: Any) -> None:
        if not ended:
            with monkeypatch.context() as patched:
                patched.setattr(temporary, "_host", lambda: "0" * 8)
                NEW[second](out, lambda *_: None, shared_images)
            ended.append({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})

    with pytest.raises(UsageError, match="out was created by another process in the meantime and is kept"):
        NEW[first](out, write_on_another_host, shared_images)
    assert [{path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}] == ended
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


HOLD = """
import sys
from pathlib import Path
from tavq.core.files import create_folder
with create_folder(Path(sys.argv[1])) as folder:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_at_its_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=rf"Another process \(pid {holder.pid}\) is writing to .*out; wait"):
            write_scenes(tmp_path / "out", 1, 32, 0)
        write_scenes(tmp_path / "other", 1, 32, 0)
        holder.kill()
        holder.wait()
        write_scenes(tmp_path / "out", 1, 32, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


@pytest.mark.parametrize("kind", ["missing", "empty", "link to empty", "link to missing"])
def test_a_new_folder_comes_where_nothing_is_lost(tmp_path: Path, kind: str) -> None:
    out, disk = tmp_path / "out", tmp_path / "disk"
    if kind == "empty":
        out.mkdir()
    elif kind.startswith("link"):
        out.symlink_to(disk)
    if kind == "link to empty":
        disk.mkdir()
    with files.create_folder(out) as folder:
        (folder / "new").write_text("new")
    assert (out / "new").read_text() == "new"
    assert out.is_symlink() == kind.startswith("link")
    assert len(list(tmp_path.iterdir())) == 1 + kind.startswith("link")
