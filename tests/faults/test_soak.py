"""The short form of `make soak`: every attack on a few writers and files; docs/reliability.md has the long one."""

from pathlib import Path

from soak import Counts, add, soak


def test_nothing_is_lost_and_nothing_wrong_is_loaded(tmp_path: Path) -> None:
    total = Counts()
    for _, counts in soak(tmp_path, kills=8, flips=40, disk=1, twice=1, seed=1):
        add(total, counts)
    assert total.failed == 0, total.notes
    assert total.kills >= 8
    assert total.tries >= 50
