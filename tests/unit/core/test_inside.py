from pathlib import Path

import pytest

from tavq.core.errors import FileError
from tavq.core.inside import resolve_inside

NAMES = ["a.png", "a/b.png", "a/../b.png", "./a", "..a", "a b", "é.png", "a//b", "a/", "a\\b", "c:a", "x" * 999]
LINKS = ["to_file", "to_folder", "to_folder/b.png", "to_folder/../b.png", "deep/up", "deep/up/a/b.png"]


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("name", NAMES + LINKS)
def test_paths_that_stay_inside_are_those_of_the_file_system(tmp_path: Path, name: str, through_link: bool) -> None:
    inside, link = tmp_path / "inside", tmp_path / "link"
    (inside / "a").mkdir(parents=True)
    (inside / "deep").mkdir()
    (inside / "to_file").symlink_to("a/b.png")
    (inside / "to_folder").symlink_to(inside / "a")
    (inside / "deep" / "up").symlink_to("..")
    link.symlink_to(inside)
    folder = link if through_link else inside
    for root in (None, folder.resolve()):
        assert resolve_inside(folder, name, root) == (folder / name).resolve()


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/etc/passwd", "a\0b", "\ud800", "out/a", "loop/a"])
def test_paths_that_lead_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "out").symlink_to(tmp_path)
    (tmp_path / "inside" / "loop").symlink_to(tmp_path / "inside" / "loop")
    with pytest.raises(FileError, match="leads outside"):
        resolve_inside(tmp_path / "inside", name)


def test_an_absolute_path_is_refused_even_when_it_stays_inside(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="leads outside"):
        resolve_inside(tmp_path, str(tmp_path / "a"))
