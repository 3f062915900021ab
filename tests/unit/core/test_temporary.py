"""Names of unfinished files: short, unique across processes and hosts, and removed when nobody writes them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tavq.core import files, temporary
from tavq.core.errors import FileError
from tavq.core.temporary import ASIDE_PREFIX, TEMP_PREFIX, find_owner, remove_leftovers_of, temporary_path

LONG = ["x" * 251 + ".png", "é" * 125 + ".json", "猫" * 85, "a.b", "-", "old-12-x"]
"""Names of up to 255 bytes, the most that file systems allow."""


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("prefix", [TEMP_PREFIX, ASIDE_PREFIX])
def test_a_temporary_name_is_short_and_says_whose_it_is(tmp_path: Path, name: str, prefix: str) -> None:
    found = temporary_path(tmp_path / name, prefix)
    assert len(os.fsencode(found.name)) < 100
    assert found.parent == tmp_path
    assert find_owner(found.name, tmp_path / name) is not None
    assert find_owner(found.name, tmp_path / f"{name}2") is None


@pytest.mark.parametrize("name", LONG)
def test_everything_is_written_under_the_longest_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    files.write_bytes(path, b"1")
    files.write_bytes(path, b"2")
    assert path.read_bytes() == b"2"
    path.unlink()
    for content in "12":
        with files.write_folder(path) as folder:
            (folder / content).touch()
    assert [inner.name for inner in path.iterdir()] == ["2"]
    files.remove_folder(path)
    with files.create_folder(path) as folder:
        (folder / "3").touch()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_is_too_long_is_the_reason_given(tmp_path: Path) -> None:
    for name in ("x" * 256, "猫" * 86):
        with pytest.raises(FileError, match="does not allow names this long; choose a shorter one"):
            files.write_bytes(tmp_path / name, b"")


def test_no_two_writers_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither two calls, nor two hosts whose processes have the same id, as in containers on a shared disk."""
    path = tmp_path / "model"
    names = {temporary_path(path).name, temporary_path(path).name}
    for host in ("one", "two"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        monkeypatch.setattr(temporary, "_counter", iter([7]))
        names.add(temporary_path(path).name)
    assert len(names) == 4


SWEEP = """
import sys
from pathlib import Path
from tavq.core.temporary import remove_leftovers_of
remove_leftovers_of(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("namespace", [[], ["unshare", "--pid", "--fork"]])
def test_a_container_keeps_what_a_process_of_another_is_writing(tmp_path: Path, namespace: list[str]) -> None:
    """Its process ids mean nothing here, though both have the name and the hardware address of one machine."""
    if namespace and subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no namespaces")
    path = tmp_path / "out"
    written = temporary_path(path)  # by this process, which runs
    written.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    subprocess.run([*namespace, sys.executable, "-c", SWEEP, str(path)], env=environment, check=True)
    assert written.is_dir()


def test_names_differ_where_nothing_tells_two_processes_apart(tmp_path: Path) -> None:
    """Copies of one running machine have the same host, ids and times."""
    code = "import sys; from tavq.core.temporary import _counter; print(next(_counter))"
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])}
    found = [subprocess.check_output([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert found[0] != found[1]


def leftover(path: Path, *, host: str = "", process: int = 0, started: int = 0, age: float = 0.0) -> Path:
    """What another process left of a folder."""
    made = temporary_path(path).name.removeprefix(TEMP_PREFIX).split("-")
    parts = [host or made[0], str(process or made[1]), str(started or made[2]), *made[3:]]
    found = path.parent / f"{TEMP_PREFIX}{'-'.join(parts)}"
    found.mkdir()
    (found / "part").touch()
    for each in (found / "part", found):
        os.utime(each, (time.time() - age,) * 2)
    return found


@pytest.fixture
def running() -> "subprocess.Popen[bytes]":
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_leftovers_are_removed_when_nobody_writes_them(tmp_path: Path, running: "subprocess.Popen[bytes]") -> None:
    path = tmp_path / "out"
    begun = temporary._start_time(running.pid)
    kept = [
        leftover(path, process=running.pid, started=begun),
        leftover(path, host="0123abcd", process=1),
        leftover(tmp_path / "out2", process=999_999_999),
    ]
    removed = [
        leftover(path),  # of this process, which wrote it before
        leftover(path, process=999_999_999),
        leftover(path, process=running.pid, started=begun + 1),  # the id is used again
        leftover(path, host="0123abcd", process=1, age=2 * temporary.ABANDONED),
    ]
    remove_leftovers_of(path)
    assert [each for each in kept if not each.exists()] == []
    assert [each for each in removed if each.exists()] == []


@pytest.mark.parametrize("name", LONG)
def test_what_was_moved_aside_gets_its_name_back(tmp_path: Path, name: str) -> None:
    """Killed between the two renames: the folder has no name until the next process."""
    path = tmp_path / name
    for remove in (temporary.remove_leftovers, lambda folder: remove_leftovers_of(folder / name)):
        with files.write_folder(path) as folder:
            (folder / "mine").touch()
        aside = temporary_path(path, ASIDE_PREFIX)
        aside.mkdir()
        path.rename(aside / name)
        remove(tmp_path)
        assert [inner.name for inner in path.iterdir()] == ["mine"]
        assert [inner.name for inner in tmp_path.iterdir()] == [name]
