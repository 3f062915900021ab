"""Files: an old file or a new one, never a part; what is not whole is refused by name."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq.core import files, temporary
from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_arrays
from tavq.core.mmap_tensors import MappedTensors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- writes -----------------------------------------------------------------------------------------------------


def test_bytes_text_json_and_lines_come_back(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "new" / "b", b"\0\xff")
    files.write_text(tmp_path / "t", "née\n")
    files.write_json(tmp_path / "j", {"é": [1, None, 0.5]})
    files.write_json_lines(tmp_path / "l", [{"a": 1}, "b\nc"])
    assert files.read_bytes(tmp_path / "new" / "b") == b"\0\xff"
    assert files.read_text(tmp_path / "t") == "née\n"
    assert files.read_json(tmp_path / "j") == {"é": [1, None, 0.5]}
    assert files.read_json_lines(tmp_path / "l") == [{"a": 1}, "b\nc"]
    assert names(tmp_path) == ["j", "l", "new", "t"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, value: float) -> None:
    files.write_json(tmp_path / "j", 1)
    for write in (files.write_json, files.append_json_line):
        with pytest.raises(ValueError, match="Out of range"):
            write(tmp_path / "j", {"loss": value})
    assert files.read_json(tmp_path / "j") == 1


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "weights"
    files.write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if broken == "write":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(FileError) as caught:
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert str(caught.value) == f"Could not write {path}: No space left on device. Free space or choose another path."
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["weights"]


def test_data_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    files.write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_bytes(path, b"x"),
        lambda path: files.write_tensors(path, {"a": torch.zeros(1)}),
        lambda path: files.append_json_line(path, 1),
        lambda path: files.write_folder(path).__enter__(),
    ],
)
def test_a_file_where_a_folder_should_be(tmp_path: Path, write: Any) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match=r"Could not write .*out"):
        write(tmp_path / "file" / "out")


# --- logs -------------------------------------------------------------------------------------------------------


def test_lines_are_added(tmp_path: Path) -> None:
    for value in range(3):
        files.append_json_line(tmp_path / "log", {"step": value})
    assert (tmp_path / "log").read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("length", [0, 1, 5, 12, 13, 10_000])
def test_an_incomplete_last_line_is_dropped_and_overwritten(tmp_path: Path, length: int) -> None:
    line = json.dumps({"step": 2, "text": "x" * 10_000})
    (tmp_path / "log").write_text('{"step": 1}\n' + line[:length])
    assert files.read_json_lines(tmp_path / "log") == [{"step": 1}]
    files.append_json_line(tmp_path / "log", {"step": 3})
    assert files.read_json_lines(tmp_path / "log") == [{"step": 1}, {"step": 3}]


def test_a_log_of_one_incomplete_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step')
    assert files.read_json_lines(tmp_path / "log") == []
    files.append_json_line(tmp_path / "log", 1)
    assert (tmp_path / "log").read_text() == "1\n"


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('1\n\n{"step"\n2\n')
    with pytest.raises(FileError, match="log line 3 is not valid JSON"):
        files.read_json_lines(tmp_path / "log")


# --- folders ----------------------------------------------------------------------------------------------------


def fill(path: Path, name: str) -> None:
    with files.write_folder(path) as place:
        files.write_text(place / name, name)


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "model", "old")
    fill(tmp_path / "deep" / "model", "new")
    assert names(tmp_path / "deep" / "model") == ["new"]
    assert names(tmp_path / "deep") == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, FileError])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    def failing() -> None:
        with files.write_folder(tmp_path / "model") as place:
            files.write_text(place / "half", "")
            raise error("stop")

    fill(tmp_path / "model", "old")
    with pytest.raises(error, match="stop"):
        failing()
    assert names(tmp_path / "model") == ["old"]
    assert names(tmp_path) == ["model"]


def test_a_new_folder_is_flushed_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (flushed.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (flushed.append("renamed"), rename(*names)))
    (tmp_path / "new").mkdir()
    with files.create_folder(tmp_path / "new") as place:
        (place / "a" / "b").mkdir(parents=True)
        for name in ("1", "a/2", "a/b/3"):
            (place / name).write_text(name)
    found = {path.stat().st_ino for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]}
    assert found <= set(flushed[: flushed.index("renamed")])
    for path in (tmp_path / "new", tmp_path / "new/1"):
        with pytest.raises(UsageError, match="already exists and is not empty; choose a new folder"):
            files.create_folder(path).__enter__()
    assert (tmp_path / "new/a/b/3").read_text() == "a/b/3"
    assert names(tmp_path) == ["new"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileError, match="is a file, not a folder"):
        fill(tmp_path / "model", "new")
    assert (tmp_path / "model").read_text() == "mine"
    assert names(tmp_path) == ["model"]


class Killed(BaseException):
    """Stands for the end of the process: nothing may be cleaned up after it."""


def test_a_folder_moved_aside_by_a_killed_process_is_moved_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "model-1", "old")
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        replace(source, target)
        if source == tmp_path / "model-1":
            monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
            raise Killed

    monkeypatch.setattr(os, "replace", killed)
    monkeypatch.setattr(files, "exchange_names", lambda first, second: False)  # as on NFS
    with pytest.raises(Killed):
        fill(tmp_path / "model-1", "new")
    monkeypatch.undo()
    assert not (tmp_path / "model-1").exists()
    temporary.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["model-1"]
    assert names(tmp_path / "model-1") == ["old"]


def test_a_replaced_folder_is_there_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at once after the exchange, the new folder has the name and the next write removes the old one."""
    fill(tmp_path / "model-1", "old")

    def killed(path: Path) -> None:
        raise Killed

    monkeypatch.setattr(files, "remove_leftover", killed)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        fill(tmp_path / "model-1", "new")
    monkeypatch.undo()
    assert names(tmp_path / "model-1") == ["new"]
    assert len(names(tmp_path)) == 2
    temporary.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["model-1"]
    assert names(tmp_path / "model-1") == ["new"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_is_replaced_and_what_it_leads_to_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    fill(tmp_path / "others", "theirs")
    (tmp_path / "model").symlink_to("others")
    if not exchange:
        monkeypatch.setattr(files, "exchange_names", lambda first, second: False)
    fill(tmp_path / "model", "new")
    assert names(tmp_path) == ["model", "others"]
    assert names(tmp_path / "others") == ["theirs"]
    assert names(tmp_path / "model") == ["new"]


def leftover_of(process: int, name: str) -> str:
    """What a process that has ended left of a file."""
    host, hashed = temporary._host(), temporary._hash(name)
    return f"{temporary.TEMP_PREFIX}{host}-{process}-1-0-{hashed}"


def test_a_first_write_into_a_folder_removes_what_ended_processes_left(tmp_path: Path) -> None:
    running = temporary.temporary_path(tmp_path / "b")
    running.write_text("of another thread")
    other_host = tmp_path / leftover_of(1, "c").replace(temporary._host(), "00000000")
    other_host.write_text("")
    (tmp_path / leftover_of(ended(), "a")).write_text("half")
    (tmp_path / leftover_of(ended(), "folder") / "inner").mkdir(parents=True)
    (tmp_path / leftover_of(ended(), "link")).symlink_to("b")
    for mine in (".tavq-tmp-mine", ".tavq-tmp-1-a", "data"):
        (tmp_path / mine).write_text("")
    files.write_text(tmp_path / "a", "new")
    kept = [".tavq-tmp-mine", ".tavq-tmp-1-a", "a", "data", running.name, other_host.name]
    assert names(tmp_path) == sorted(kept)


POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from tavq.core.signals import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    command = [sys.executable, str(tmp_path / "pool.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
    for _ in range(100):
        if not temporary.is_running(worker) or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    raise AssertionError("the worker still runs")


def test_removing_leftovers_keeps_everything_else(tmp_path: Path) -> None:
    fill(tmp_path / "model", "mine")
    (tmp_path / f"{temporary.TEMP_PREFIX}12-a.json").write_text("{")
    (tmp_path / f"{temporary.TEMP_PREFIX}12-folder" / "inner").mkdir(parents=True)
    (tmp_path / f"{temporary.REPLACED_PREFIX}12-model" / "inner").mkdir(parents=True)
    (tmp_path / ".hidden").write_text("")
    temporary.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "model"]
    assert names(tmp_path / "model") == ["mine"]


def ended() -> int:
    """The number of a process that runs no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_a_new_folder_removes_its_own_leftovers_only(tmp_path: Path) -> None:
    dead = ended()
    kept = [
        f"{temporary.TEMP_PREFIX}{dead}-my-out",
        f"{temporary.TEMP_PREFIX}{dead}-out2",
        f"{temporary.TEMP_PREFIX}{os.getppid()}-out",
    ]
    for name in (*kept, f"{temporary.TEMP_PREFIX}{dead}-out", f"{temporary.TEMP_PREFIX}{os.getpid()}-out"):
        (tmp_path / name / "images").mkdir(parents=True)
    with files.create_folder(tmp_path / "out") as place:
        (place / "a").write_text("")
    assert names(tmp_path) == sorted([*kept, "out"])
    assert names(tmp_path / "out") == ["a"]


def test_removing_leftovers_of_a_folder_moves_back_what_was_moved_aside(tmp_path: Path) -> None:
    aside = tmp_path / f"{temporary.REPLACED_PREFIX}{ended()}-out"
    aside.mkdir()
    (aside / "mine").write_text("")
    temporary.remove_leftovers_of(tmp_path / "out")
    assert names(tmp_path / "out") == ["mine"]
    temporary.remove_leftovers_of(tmp_path / "none" / "out")


def test_a_removed_folder_does_not_come_back(tmp_path: Path) -> None:
    fill(tmp_path / "model", "old")
    files.remove_folder(tmp_path / "model")
    files.remove_folder(tmp_path / "never")
    temporary.remove_leftovers(tmp_path)
    assert names(tmp_path) == []


# --- reads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        files.read_bytes,
        files.read_text,
        files.read_json,
        files.read_json_lines,
        files.read_tensors,
        read_arrays,
        MappedTensors,
        files.sha256,
    ],
)
def test_no_file_and_a_folder_instead_of_one(tmp_path: Path, read: Any) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "{'a': 1}", "nul", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\\u12"', "1 2"],
)
def test_text_that_is_not_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "j.json").write_text(text)
    with pytest.raises(FileError, match=r"j\.json is not valid JSON"):
        files.read_json(tmp_path / "j.json")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "j.json").write_bytes(b'"a\xff"')
    with pytest.raises(FileError, match=r"j\.json is not UTF-8 text: byte 2"):
        files.read_json(tmp_path / "j.json")


def test_json_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "j.json", "wb") as file:
        file.truncate(files.MAX_SETTINGS + 1)  # a hole: nothing is on the disk
    with pytest.raises(FileError, match=r"20,000,001 bytes; at most 20,000,000 are read"):
        files.read_json(tmp_path / "j.json")
    with pytest.raises(FileError, match="is not valid JSON"):
        files.read_json(tmp_path / "j.json", files.MAX_JSON)


def test_arrays_come_back_and_pickled_ones_do_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FileError, match=r"b\.npz is not a readable \.npz file: Object arrays cannot be loaded"):
        read_arrays(tmp_path / "b.npz")
    np.save(tmp_path / "c.npz", np.arange(3))
    os.replace(tmp_path / "c.npz.npy", tmp_path / "c.npz")
    with pytest.raises(FileError, match=r"c\.npz is not a readable"):
        read_arrays(tmp_path / "c.npz")


def test_tensors_come_back_in_both_ways(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6.0).view(2, 3).T,  # not contiguous
        "none": torch.zeros(0, 3),
        "one": torch.tensor(True),
        "half": torch.ones(2, dtype=torch.float16),
    }
    files.write_tensors(tmp_path / "t", tensors, {"kind": "test"})
    whole, mapped = files.read_tensors(tmp_path / "t"), MappedTensors(tmp_path / "t")
    assert mapped.metadata == {"kind": "test"}
    assert set(whole) == set(mapped) == set(tensors)
    assert len(mapped) == 4
    for name, tensor in tensors.items():
        assert torch.equal(whole[name], tensor)
        assert mapped[name].tolist() == tensor.tolist()
        assert mapped[name].shape == tensor.shape
    assert not mapped["a"].flags.writeable
    with pytest.raises(FileError, match=r"t lacks the tensor 'b'; it has: a, half, none, one"):
        mapped["b"]


def test_different_files_have_different_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "a") == files.sha256_bytes(b"abc") == known
    files.check_sha256(tmp_path / "a", known)
    with pytest.raises(FileError, match="was altered or truncated: its sha256 is ba7816bf8f01…, expected None"):
        files.check_sha256(tmp_path / "a", "None")
