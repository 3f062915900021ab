"""Names of files and folders that are still being written: short, and different for every process on every host.

A name holds the host, the process, and a hash of the final name in place of the name itself, which may take all of the
255 bytes that file systems allow. A process is known by its id and the time it started, because ids are used again.
"""

import hashlib
import itertools
import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple

TEMP_PREFIX = ".tavq-tmp-"
ASIDE_PREFIX = f"{TEMP_PREFIX}aside-"
"""Of folders that hold, under its own name, what a new folder replaces."""

REPLACED_PREFIX = f"{TEMP_PREFIX}old-"
"""Of what was replaced, as the version before named it: with its own name at the end."""

ABANDONED = 24 * 3600
"""Seconds without a change after which a leftover of another host, whose processes cannot be asked for, is removed."""

_counter = itertools.count(int.from_bytes(os.urandom(4)))
"""Starts at random, so that names differ also where hosts and processes cannot be told apart."""

_looked_through: set[str] = set()
"""Folders that `remove_abandoned` need not look through again."""


class Owner(NamedTuple):
    """The process that writes a temporary file."""

    host: str
    process: int
    started: int


def temporary_path(path: Path, prefix: str = TEMP_PREFIX) -> Path:
    """A new name next to `path` to write it under."""
    process = os.getpid()
    owner = f"{_host()}-{process}-{_start_time(process)}-{next(_counter)}"
    return path.parent / f"{prefix}{owner}-{_hash(path.name)}"


def find_owner(name: str, path: Path | None = None) -> Owner | None:
    """The owner in the name of a leftover, of `path` if that is given; None if the name is of something else."""
    final = "[0-9a-f]{16}" if path is None else _hash(path.name)
    pattern = rf"{re.escape(TEMP_PREFIX)}(?:aside-)?([0-9a-f]{{8}})-([0-9]+)-([0-9]+)-[0-9]+-{final}"
    match = re.fullmatch(pattern, name)
    return Owner(match[1], int(match[2]), int(match[3])) if match else None


def is_written(owner: Owner, leftover: Path) -> bool:
    """Whether another process may still be writing a leftover: it runs, or is of another host and wrote today."""
    if owner.host != _host():
        times = [path.lstat().st_mtime for path in (leftover, *(leftover.iterdir() if leftover.is_dir() else ()))]
        return time.time() - max(times) < ABANDONED
    own = owner.process == os.getpid()
    return not own and is_running(owner.process) and owner.started == _start_time(owner.process)


def find_writer(path: Path) -> int | None:
    """The id of another process of this machine that is writing `path` under a temporary name; None without one."""
    for leftover in path.parent.glob(f"{TEMP_PREFIX}*"):
        owner = find_owner(leftover.name, path)
        if owner is not None and owner.host == _host() and is_written(owner, leftover):
            return owner.process
    return None


def is_running(process: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def _hash(name: str) -> str:
    return hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()


def _host() -> str:
    """A hash of what process ids are counted in: the running system and, in a container, its namespace of processes.

    Containers may share name and hardware address, and each counts its processes from 1.
    """
    return hashlib.blake2b(" ".join((socket.gethostname(), *_system())).encode(), digest_size=4).hexdigest()


def _system() -> tuple[str, str]:
    """The id of this start of the system and the namespace of processes; the hardware address where it has neither."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return str(uuid.getnode()), ""


def _start_time(process: int) -> int:
    """When a process started, in ticks since the machine did; 0 where the system does not say."""
    try:
        # the name of the program comes second and may hold anything, so count from its end
        return int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


# --- what killed processes leave --------------------------------------------------------------------------------


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished in `folder`, and move back what it had moved aside."""
    for leftover in list(folder.glob(f"{TEMP_PREFIX}*")):
        _move_back(leftover)
        remove_leftover(leftover)


def remove_leftovers_of(path: Path) -> None:
    """Remove the leftovers of the folder `path` alone, where other processes may write next to it.

    Keeps what a running process of this machine is writing, and what one of another machine wrote within a day.
    """
    before = re.compile(f"{re.escape(TEMP_PREFIX)}(old-)?([0-9]+)-{re.escape(path.name)}")
    for leftover in list(path.parent.glob(f"{TEMP_PREFIX}*")):
        owner, old = find_owner(leftover.name, path), before.fullmatch(leftover.name)
        abandoned = owner is not None and not is_written(owner, leftover)
        if abandoned or (old is not None and (int(old[2]) == os.getpid() or not is_running(int(old[2])))):
            _move_back(leftover)
            remove_leftover(leftover)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left in a folder, once in the life of this process.

    Keeps what this process or another running one is writing, and what one of another machine wrote within a day.
    """
    name = os.path.abspath(folder)
    if name in _looked_through:
        return
    _looked_through.add(name)
    with os.scandir(folder) as entries:
        leftovers = [Path(entry.path) for entry in entries if entry.name.startswith(TEMP_PREFIX)]
    for leftover in leftovers:
        owner = find_owner(leftover.name)
        if owner is not None and owner != _own() and not is_written(owner, leftover):
            _move_back(leftover)
            remove_leftover(leftover)


def _own() -> Owner:
    return Owner(_host(), os.getpid(), _start_time(os.getpid()))


def _move_back(aside: Path) -> None:
    """Give what was moved aside its name again, unless something else has it now."""
    if aside.name.startswith(ASIDE_PREFIX) and aside.is_dir() and not aside.is_symlink():  # a link is never ours
        moved = [(path, path.name) for path in aside.iterdir()]
    elif aside.name.startswith(REPLACED_PREFIX):
        moved = [(aside, aside.name.removeprefix(REPLACED_PREFIX).partition("-")[2])]
    else:
        moved = []
    for path, name in moved:
        if not (aside.parent / name).exists():
            os.replace(path, aside.parent / name)


def remove_leftover(leftover: Path) -> None:
    """Remove a file, a link or a folder with what is in it; never what a link leads to."""
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)
