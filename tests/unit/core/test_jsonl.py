"""Lines of large files: found again by their place, cut where they are too long, appended whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tavq.core import jsonl
from tavq.core.errors import FileError
from tavq.core.jsonl import LineAppender, LineReader, iter_raw_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\n\n" + b"x" * 25 + b"\nlast")
    return path


def test_each_line_with_its_offset(path: Path) -> None:
    assert list(iter_raw_lines(path, 100)) == [(0, b"one\n"), (4, b"\n"), (5, b"x" * 25 + b"\n"), (31, b"last")]


@pytest.mark.parametrize("longest", [4, 5, 8, 11, 12, 24])
def test_a_long_line_is_cut_and_the_next_one_found(path: Path, longest: int) -> None:
    found = list(iter_raw_lines(path, longest))
    assert found[2] == (5, b"x" * (longest + 1))
    assert found[3] == (31, b"last")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"Could not read .*nothing: No such file"):
        list(iter_raw_lines(tmp_path / "nothing", 10))
    with pytest.raises(FileError, match=r"Could not read .*nothing"):
        LineReader(10).read(tmp_path / "nothing", 0)


def test_a_line_is_read_at_its_offset(path: Path, tmp_path: Path) -> None:
    reader = LineReader(100)
    assert [reader.read(path, place) for place in (0, 4, 5, 31, 99)] == [b"one", b"", b"x" * 25, b"last", b""]
    large = tmp_path / "large"
    large.write_bytes(b"y" * 100_000 + b"\nz\n")
    assert LineReader(10**6).read(large, 5) == b"y" * 99_995
    assert len(LineReader(5000).read(large, 0)) <= 3 * 4096
    reader.close()


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "OPEN_FILES", 3)
    paths = [tmp_path / str(number) for number in range(9)]
    for path in paths:
        path.write_text(f"{path.name}\n")
    before = len(os.listdir("/proc/self/fd"))
    reader = LineReader(10)
    assert [reader.read(path, 0) for path in paths * 2] == [path.name.encode() for path in paths * 2]
    assert len(os.listdir("/proc/self/fd")) == before + 3
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_appending_removes_a_cut_line_and_nothing_else(path: Path) -> None:
    with LineAppender(path) as appender:
        appender.append([b"a\n", b"b\n"])
        assert path.read_bytes() == b"one\n\n" + b"x" * 25 + b"\na\nb\n"  # at once, not when closed
    LineAppender(path).close()
    assert path.read_bytes().endswith(b"\na\nb\n")


def test_lines_are_flushed_to_the_disk_each_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    now = [100.0]
    monkeypatch.setattr(jsonl.os, "fsync", flushed.append)
    monkeypatch.setattr(jsonl.time, "monotonic", lambda: now[0])
    with LineAppender(tmp_path / "a") as appender:
        flushed.clear()
        appender.append([b"a\n"])
        assert flushed == []
        now[0] += 1.5
        appender.append([b"b\n"])
        appender.append([b"c\n"])
        assert len(flushed) == 1
    assert len(flushed) == 2


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="Could not write"):
        LineAppender(tmp_path / "file" / "a.jsonl")


FULL = """
import resource, signal, sys
from pathlib import Path
from tavq.core.errors import FileError
from tavq.core.jsonl import LineAppender
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
appender = LineAppender(Path(sys.argv[1]))
try:
    for number in range(100):
        appender.append([b"0123456\\n"])
except FileError as error:
    print(number, error)
"""


def test_a_full_disk_leaves_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("12 Could not write"), done.stderr
    with LineAppender(path) as appender:
        appender.append([b"on\n"])
    assert path.read_bytes() == b"0123456\n" * 12 + b"on\n"
