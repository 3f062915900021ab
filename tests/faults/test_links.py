"""Links in a stranger's data set or run: whatever tavq writes, nothing outside the folder changes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bert import write_bert

from tavq.core import files, temporary
from tavq.core.errors import FileError, TavqError
from tavq.core.jsonl import LineAppender
from tavq.core.locks import lock
from tavq.core.mmap_tensors import TensorFileWriter
from tavq.data.images import save_png
from tavq.describe.job import DescriptionJob, DescriptionRun
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder, load_encoder
from tavq.text.merging import merge_stores
from tavq.training import checkpoint
from tavq.training.log import RunLog
from tavq.training.run_folder import RunFolder


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def attempt(call: Callable[[], object], otherwise: str) -> str:
    """What the error of a call says; `otherwise` where there is none."""
    try:
        call()
    except TavqError as error:
        return str(error)
    return otherwise


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What the links lead to: a profile without a newline at its end, and folders with names as tavq gives them."""
    folder = tmp_path / "outside"
    for name in ("store", "00000001", "samples"):
        (folder / name).mkdir(parents=True)
        (folder / name / "letter.txt").write_text("dear")
    (folder / "profile").write_text("PATH=/bin\nexport PATH")
    (folder / "state.json").write_text("{}")
    (folder / "plan.json").write_text("{}")
    return folder


# --- each way to write ------------------------------------------------------------------------------------------


def _lock(path: Path) -> None:
    with lock(path, path):
        pass


def _append(path: Path) -> None:
    with LineAppender(path) as lines:
        lines.append([b"{}\n"])


def _write_rows(path: Path) -> None:
    writer = TensorFileWriter(path, {"a": ("<f4", [2, 2])}, {})
    writer.write("a", 0, np.ones((2, 2), np.float32))
    writer.close()


def _write_folder(path: Path) -> None:
    with files.write_folder(path) as folder:
        files.write_text(folder / "new", "new")


def _create_folder(path: Path) -> None:
    with files.create_folder(path) as folder:
        files.write_text(folder / "new", "new")


WRITERS: dict[str, Callable[[Path], object]] = {
    "lock": _lock,
    "appender": _append,
    "rows": _write_rows,
    "folder": _write_folder,
    "new folder": _create_folder,
    "bytes": lambda path: files.write_bytes(path, b"new"),
    "json": lambda path: files.write_json(path, []),
    "json lines": lambda path: files.write_json_lines(path, [[]]),
    "log": lambda path: files.append_json_line(path, {}),
    "tensors": lambda path: files.write_tensors(path, {"a": torch.zeros(2)}),
    "image": lambda path: save_png(path, np.zeros((4, 4, 3), np.uint8)),
    "removal": files.remove_folder,
    "leftovers": temporary.remove_leftovers_of,
}
TARGETS = ("profile", "store", ".", "missing", "missing/deeper")


@pytest.mark.parametrize(
    ("name", "target"),
    # a new folder is created where a link leads, if there is nothing; see below
    [(name, target) for name in WRITERS for target in TARGETS if (name, target[:7]) != ("new folder", "missing")],
)
def test_no_way_to_write_changes_what_a_link_leads_to(tmp_path: Path, outside: Path, name: str, target: str) -> None:
    before = snapshot(outside)
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "name"
    path.symlink_to(outside / target)
    assert str(path) in attempt(lambda: WRITERS[name](path), str(path))
    assert snapshot(outside) == before


@pytest.mark.parametrize("target", ["missing", "missing/deeper"])
def test_a_new_folder_is_created_where_its_link_leads(tmp_path: Path, outside: Path, target: str) -> None:
    """As for a link to a larger disk; it adds a folder and changes nothing that was there."""
    before = snapshot(outside)
    path = tmp_path / "name"
    path.symlink_to(outside / target)
    with files.create_folder(path) as folder:
        (folder / "file").write_text("new")
    assert path.is_symlink()
    assert (outside / target / "file").read_text() == "new"
    shutil.rmtree(outside / "missing")
    assert snapshot(outside) == before


@pytest.mark.parametrize("name", ["lock", "appender", "rows", "log"])
def test_what_is_written_in_place_names_the_link(tmp_path: Path, outside: Path, name: str) -> None:
    path = tmp_path / "name"
    path.symlink_to(outside / "profile")
    with pytest.raises(FileError, match=r"name is a link to '.*profile'; tavq would change"):
        WRITERS[name](path)


@pytest.mark.parametrize("name", ["lock", "appender", "rows", "log"])
def test_what_is_written_in_place_does_not_wait_for_a_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "name")
    with pytest.raises(FileError, match="name is not a regular file"):
        WRITERS[name](tmp_path / "name")


@pytest.mark.parametrize("name", ["lock", "appender", "rows", "log"])
def test_linked_folders_above_are_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    WRITERS[name](tmp_path / "folder" / "name")
    assert (tmp_path / "disk" / "name").stat().st_size


@pytest.mark.parametrize("content", [b"PATH=/bin", b"\xff\xfe", b"12 \n13", b"1" * 40])
def test_a_lock_never_empties_what_is_no_lock(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".lock"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"\.lock is needed as a lock and holds something else"):
        _lock(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"123", b"99999999\n"])
def test_a_stale_lock_is_taken_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".lock"
    path.write_bytes(content)
    with lock(path, tmp_path):
        assert path.read_text() == str(os.getpid())


@pytest.mark.parametrize("prefix", [temporary.TEMP_PREFIX, temporary.ASIDE_PREFIX, f"{temporary.REPLACED_PREFIX}1-"])
def test_linked_leftovers_bring_nothing_from_outside(tmp_path: Path, outside: Path, prefix: str) -> None:
    before = snapshot(outside)
    run = tmp_path / "run"
    run.mkdir()
    (run / f"{prefix}x").symlink_to(outside)
    temporary.remove_leftovers(run)
    assert snapshot(outside) == before
    assert not [path for path in run.iterdir() if not path.is_symlink()]


# --- the commands that write into a data set or run --------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return load_encoder(write_bert(tmp_path_factory.mktemp("models") / "tiny-bert"))


def _describe(data: Path, encoder: TextEncoder) -> None:
    DescriptionRun(DescriptionJob(data, "m", "p")).execute(lambda: pytest.fail("it was not refused before"))


def _store(data: Path, encoder: TextEncoder) -> None:
    build_store({"0.png": "A red house."}, encoder, "pattern", data / "text")


def _merge(data: Path, encoder: TextEncoder) -> None:
    shards = [build_store({f"{n}.png": "A red house."}, encoder, "pattern", data / f"part-{n}") for n in range(2)]
    merge_stores([shard.folder for shard in shards], data / "text")


LINKS: dict[tuple[str, str], Callable[[Path, TextEncoder], None]] = {
    (".long_text.jsonl.lock", "profile"): _describe,
    ("long_text.jsonl", "profile"): _describe,
    ("text.building", "."): _store,
    ("text.building/.lock", "profile"): _store,
    ("text.building/store", "store"): _store,
    ("text.building/store/store.safetensors", "profile"): _store,
    ("text.building/plan.json", "profile"): _store,
    ("text.building/unique-words", "store"): _store,
    ("text", "store"): _store,
    ("text.merging", "."): _merge,
    ("text.merging/.lock", "profile"): _merge,
}


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_links_in_a_data_set_change_nothing_outside(
    tmp_path: Path, outside: Path, encoder: TextEncoder, name: str, target: str
) -> None:
    before = snapshot(outside)
    data = tmp_path / "data"
    save_png(data / "0.png", np.zeros((8, 8, 3), np.uint8))
    (data / name).parent.mkdir(exist_ok=True, parents=True)
    (data / name).symlink_to(outside / target)
    assert name.split("/")[0] in attempt(lambda: LINKS[name, target](data, encoder), name)
    assert snapshot(outside) == before


def _write_all_of_run(run: RunFolder) -> None:
    with run.lock():
        checkpoint.save(run.checkpoints, 5, {"a": {"b": torch.zeros(1)}}, {}, keep=1)
        run.append_alarm({"alarm": "x"})
        RunLog(run.log, 5).write(5, {})
        run.write_faults([])
        run.write_failure(1, {}, [], {})


@pytest.mark.parametrize("target", ["profile", "store", "."])
@pytest.mark.parametrize(
    "name", [".lock", "log.jsonl", "checkpoints", "faults.json", "failure", "checkpoints/00000001"]
)
def test_links_in_a_run_change_nothing_outside(tmp_path: Path, outside: Path, name: str, target: str) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(outside / target)
    before = snapshot(outside)
    assert name.split("/")[0] in attempt(lambda: _write_all_of_run(RunFolder(tmp_path / "run")), name)
    after = snapshot(outside)
    assert {key: after.get(key) for key in before} == before  # a checkpoint may be added where `checkpoints` leads


def test_folders_that_are_no_checkpoints_stay(tmp_path: Path) -> None:
    (tmp_path / "00002019").mkdir()
    (tmp_path / "2020").mkdir()
    (tmp_path / "2020" / "photo.png").write_bytes(b"x")
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"a": {"b": torch.zeros(1)}}, {}, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00002019", "2020"]
