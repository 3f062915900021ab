"""What tavq writes inside a folder of images is no data, and what others write is."""

from pathlib import Path

import pytest
from PIL import Image

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset, check_dataset, iter_records
from tavq.data.own_output import mark_decoded
from tavq.tasks.generation import image_names

RUN = ("recipe.yaml", "provenance.json", "log.jsonl")

OURS: dict[str, tuple[str, ...]] = {
    "a run": (*RUN, "samples/00000002.png", "model/config.json", "checkpoints/00000002/meta.json", "grounded.png"),
    "a run killed at its start": RUN[:2],
    "a run with its report and index": (*RUN, "samples/00000002.png", "report.html", "index/model/card.png"),
    "a run with what others put there": (*RUN, "samples/00000002.png", "holiday.jpg"),
    "generated images": ("grid.png", *(f"{name}.png" for name in image_names(0, 4))),
    "images generated for prompts": ("grid.png", "grid.gif", *(f"{name}.png" for name in image_names(3, 12))),
    "completions": ("grid.png", "original.png", "hidden.png", "completed-1.png", "completed-2.png", "grid.gif"),
}

THEIRS: dict[str, tuple[str, ...]] = {
    "numbered images": ("1.png", "2.png", "003.png"),
    "images with a grid": ("grid.png", "1.png", "holiday.jpg"),
    "images with a file of settings": ("recipe.yaml", "a.png"),
    "images in a folder samples": ("samples/00000001.png", "log.jsonl"),
    "images with a folder": ("grid.png", "1.png", "more/a.png"),
}


def write(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".gif"):
            Image.new("RGB", (8, 8)).save(path)
        else:
            path.write_text("{}")


def names_in(folder: Path) -> list[str]:
    found = [record.file_name for record in FolderDataset(folder)]
    assert found == [record.file_name for record in iter_records(folder)]
    assert check_dataset(folder) == []
    return found


@pytest.mark.parametrize("inside", ["out", "deep/er/out", "images/out"])
@pytest.mark.parametrize("kind", OURS)
def test_our_output_inside_the_images_is_passed_over(tmp_path: Path, kind: str, inside: str) -> None:
    write(tmp_path, ("a.png", "images/b.png", "z/c.png"))
    before = FolderDataset(tmp_path).fingerprint
    write(tmp_path / inside, OURS[kind])
    assert names_in(tmp_path) == ["a.png", "images/b.png", "z/c.png"]
    assert FolderDataset(tmp_path).fingerprint == before


@pytest.mark.parametrize("kind", THEIRS)
def test_what_others_wrote_is_read(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "inside", THEIRS[kind])
    images = [f"inside/{name}" for name in THEIRS[kind] if name.endswith((".png", ".jpg"))]
    assert names_in(tmp_path) == sorted(images)


def test_a_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    """Images that a task generated are measured by their folder."""
    write(tmp_path, OURS["generated images"])
    assert names_in(tmp_path) == ["1.png", "2.png", "3.png", "4.png", "grid.png"]


def test_a_run_in_the_folder_of_images_itself(tmp_path: Path) -> None:
    write(tmp_path, ("a.png", "samples/mine.png"))
    before = FolderDataset(tmp_path).fingerprint
    write(tmp_path, OURS["a run"])
    assert names_in(tmp_path) == ["a.png", "samples/mine.png"]
    assert FolderDataset(tmp_path).fingerprint == before


def test_our_output_alone_is_no_data_set(tmp_path: Path) -> None:
    write(tmp_path / "run", OURS["a run"])
    with pytest.raises(UsageError, match="holds no images"):
        FolderDataset(tmp_path)


def test_decoded_images_inside_the_images_are_passed_over(tmp_path: Path) -> None:
    """They have the names of the images that were encoded: only what `decode` leaves tells them from others."""
    write(tmp_path, ("a.png", "b/c.png"))
    before = FolderDataset(tmp_path).fingerprint
    for place in (tmp_path / "out", tmp_path / "b" / "out"):
        mark_decoded(place)
        write(place, ("a.png", "b/c.png"))
        mark_decoded(place)  # of a second call with the same folder
    assert names_in(tmp_path) == ["a.png", "b/c.png"]
    assert FolderDataset(tmp_path).fingerprint == before
    assert names_in(tmp_path / "out") == ["a.png", "b/c.png"]


def test_a_folder_with_images_of_others_is_not_marked_as_decoded(tmp_path: Path) -> None:
    write(tmp_path, ("mine/a.png",))
    mark_decoded(tmp_path / "mine")
    write(tmp_path, ("mine/decoded.png",))
    assert names_in(tmp_path) == ["mine/a.png", "mine/decoded.png"]


def test_metadata_may_name_any_image(tmp_path: Path) -> None:
    write(tmp_path / "run", OURS["a run"])
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "run/samples/00000002.png"}\n')
    assert [record.file_name for record in FolderDataset(tmp_path)] == ["run/samples/00000002.png"]
