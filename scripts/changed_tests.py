"""Prints the unit tests of the files that a change touches: what is uncommitted, and what the branch has over main.

A file `src/tavq/ROOM/NAME.py` is tested by `tests/unit/ROOM/test_NAME.py`; a test that changed is printed itself.
"""

import subprocess
from pathlib import Path


def git(*arguments: str) -> list[str]:
    """The lines that a git command prints; none where it fails, as `merge-base` does without a branch main."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed_files() -> set[Path]:
    """Every file of the working tree that differs from where this branch left main."""
    base = git("merge-base", "HEAD", "main") or git("rev-parse", "HEAD")
    untracked = git("ls-files", "--others", "--exclude-standard")
    changed = git("diff", "--name-only", *base[:1])
    return {Path(name) for name in [*changed, *untracked]}


def test_of(path: Path) -> Path | None:
    """The file that tests `path`: itself, its mirror in tests/unit, or None."""
    if path.parts[:1] == ("tests",) and path.name.startswith("test_"):
        return path
    if path.parts[:2] == ("src", "tavq"):
        return Path("tests/unit", *path.parts[2:-1], f"test_{path.stem}.py")
    return None


def main() -> None:
    tests = {test_of(path) for path in changed_files()}
    print(*sorted(str(test) for test in tests if test is not None and test.is_file()))


if __name__ == "__main__":
    main()
