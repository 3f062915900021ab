"""A folder of token shards: the images as they were, damage named, and nothing mixed with something else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tavq.core.errors import FileError, TavqError, UsageError
from tavq.data.records import Record
from tavq.data.sharding import ALL_IMAGES
from tavq.data.sharding import Shard as Part
from tavq.token_folder import writing
from tavq.token_folder.manifest import MANIFEST
from tavq.token_folder.reading import TokenShards
from tavq.token_folder.shard import Shard, TokenImage, TokenSettings, shard_name

ENTRIES = (48, 1024)
COUNT = 23
RECORDS = [Record(f"images/é {number}.png", ("train", "val", "test")[number % 3]) for number in range(COUNT)]
SETTINGS = TokenSettings(
    model="a" * 64, entries=ENTRIES, size=32, split=None, data="b" * 64, images=COUNT, shard_size=5
)  # fmt: skip
UNREADABLE = {7, 10, 11, 12, 13, 14}  # one of a shard, and all of the next


def images(numbers: range | list[int] = range(COUNT)) -> list[TokenImage]:
    """Images of several shapes, without those that cannot be read."""
    made = []
    for number in numbers:
        rng = np.random.default_rng(number)
        shape = [(4, 4), (2, 7), (5, 3)][number // 4 % 3]
        grid = np.stack([rng.integers(0, size, shape) for size in ENTRIES], 2)
        if number not in UNREADABLE:
            made.append(TokenImage(RECORDS[number].file_name, RECORDS[number].split, grid))
    return made


def write(out: Path, part: Part = ALL_IMAGES, resume: bool = False, settings: TokenSettings = SETTINGS) -> None:
    with writing.begin(out, settings, part, resume):
        pending = writing.find_pending(out, settings, writing.numbers_of(settings, part), lambda text: None)
        own = [n for number in pending for n in range(number * 5, min(number * 5 + 5, COUNT))]
        writing.write_shards(out, settings, RECORDS, pending, images(own))
        writing.finish(out, settings, lambda manifest: None)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".lock")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "tokens")
    return tmp_path / "tokens"


def test_all_images_come_back_in_order(folder: Path) -> None:
    shards, expected = TokenShards(folder), images()
    assert len(shards) == len(expected) == COUNT - len(UNREADABLE)
    for item, image in zip((shards[n] for n in range(len(shards))), expected, strict=True):
        assert (item["key"], item["split"]) == (image.key, image.split)
        assert item["indices"].dtype == torch.int64
        np.testing.assert_array_equal(item["indices"].numpy(), image.indices)
    assert shards.keys() == [image.key for image in expected]
    assert shards.shapes().tolist() == [list(image.indices.shape[:2]) for image in expected]
    assert shards[-1]["key"] == expected[-1].key
    for wrong in (len(shards), -len(shards) - 1):
        with pytest.raises(IndexError, match=f"17 images; got index {wrong}"):
            shards[wrong]


def test_a_split_has_its_images_alone(folder: Path) -> None:
    shards = TokenShards(folder, "val")
    assert shards.keys() == [image.key for image in images() if image.split == "val"]
    assert {shards[n]["split"] for n in range(len(shards))} == {"val"}


def test_asking_for_many_gives_what_asking_for_each_does(folder: Path) -> None:
    shards = TokenShards(folder)
    order = np.random.default_rng(0).permutation(len(shards)).tolist()
    for item, position in zip(shards.__getitems__([*order, order[0]]), [*order, order[0]], strict=True):
        assert item["key"] == shards[position]["key"]
        assert torch.equal(item["indices"], shards[position]["indices"])


def test_workers_of_a_data_loader_read_the_folder(folder: Path) -> None:
    assert not copy(TokenShards(folder))._shards, "a copy opens the files in its own process"
    train = TokenShards(folder, "train")
    loader = DataLoader(train, batch_size=3, num_workers=2, collate_fn=list, multiprocessing_context="spawn")
    assert [item["key"] for batch in loader for item in batch] == train.keys()


@pytest.mark.parametrize("of", [2, 3, 8])
def test_parts_in_any_order_leave_the_same_bytes_as_one_writer(folder: Path, tmp_path: Path, of: int) -> None:
    for number in reversed(range(1, of + 1)):
        assert (
            not (tmp_path / "parts" / MANIFEST).exists()
            or not json.loads((tmp_path / "parts" / MANIFEST).read_text())["complete"]
        )
        write(tmp_path / "parts", Part(number, of))
    assert content(tmp_path / "parts") == content(folder)


def test_folders_of_parts_are_joined(folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for number in (1, 2):
        write(tmp_path / f"part{number}", Part(number, 2))
        with pytest.raises(FileError, match="is not complete; encode the rest with --resume, or join its parts"):
            TokenShards(tmp_path / f"part{number}")
        for path in (tmp_path / f"part{number}").glob("tokens-*"):
            shutil.copy(path, whole)
    with writing.begin(whole, SETTINGS, ALL_IMAGES, resume=True):
        assert writing.finish(whole, SETTINGS, lambda manifest: None) is not None
    assert content(whole) == content(folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "empty"])
@pytest.mark.parametrize("number", [0, 4])
def test_a_damaged_shard_is_named_and_written_again(folder: Path, damage: str, number: int) -> None:
    path, before = folder / shard_name(number), content(folder)
    data = bytearray(path.read_bytes())
    data[-PAST] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": data[:-1], "flipped": data, "empty": b""}[damage])
    with pytest.raises(FileError, match=path.name):
        TokenShards(folder)
    told: list[str] = []
    with writing.begin(folder, SETTINGS, ALL_IMAGES, resume=True):
        pending = writing.find_pending(folder, SETTINGS, range(5), told.append)
    assert pending == [number]
    assert len(told) == (damage != "missing")
    assert all(path.name in text for text in told)
    write(folder, resume=True)
    assert content(folder) == before


PAST = 100  # bytes before the end of a shard, where its tokens are


def test_every_byte_of_a_shard_is_sealed(folder: Path) -> None:
    path = folder / shard_name(1)
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(TavqError):
            Shard(path, verify=True)


CHANGES = [("model", "c" * 64), ("data", "c" * 64), ("size", 64), ("entries", (48, 512)), ("split", "val"),
           ("shard_size", 6), ("images", 24), ("precision", "bf16")]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_other_settings_are_refused(folder: Path, name: str, value: object) -> None:
    other = SETTINGS.model_copy(update={name: value})
    words = {"model": "model", "data": "data set", "images": "number of images"}
    with pytest.raises(UsageError, match=f"cannot be continued: its {words.get(name, name.replace('_', ' '))} is"):
        write(folder, resume=True, settings=other)
    (folder / MANIFEST).unlink()  # and by the shards themselves
    with (
        writing.begin(folder, other, ALL_IMAGES, resume=True),
        pytest.raises(UsageError, match=r"tokens-000000\.safetensors cannot be continued"),
    ):
        writing.find_pending(folder, other, [0], lambda text: None)


def test_shards_that_are_there_need_resume(folder: Path) -> None:
    with pytest.raises(UsageError, match="already holds 5 of these shards; keep them with --resume"):
        write(folder)


@pytest.mark.parametrize("name", ["photo.png", "tokens.safetensors", "index.json"])
def test_other_folders_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name}, which is not a part of token shards"):
        write(tmp_path)


def test_a_renamed_shard_is_found(folder: Path) -> None:
    (folder / shard_name(1)).rename(folder / shard_name(0))
    with pytest.raises(UsageError, match=r"is shard 1, renamed; name it tokens-000001"):
        write(folder, resume=True)


HOLD = """
import sys, time
from pathlib import Path
from tavq.core.locks import lock
with lock(Path(sys.argv[1]), Path("x")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("held", "part", "refused"),
    [
        (".lock", ALL_IMAGES, True),
        (".lock", Part(1, 2), True),
        (".lock-2-of-2", ALL_IMAGES, True),
        (".lock-2-of-2", Part(2, 2), True),
        (".lock-2-of-2", Part(1, 3), True),
        (".lock-2-of-2", Part(1, 2), False),
    ],
)
def test_two_writers_are_told(folder: Path, held: str, part: Part, refused: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder / held)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            if refused:
                with pytest.raises(FileError, match=rf"Another process \(pid {other.pid}\) is writing to"):
                    write(folder, part, resume=True)
            else:
                write(folder, part, resume=True)
        finally:
            other.kill()
    write(folder, part, resume=True)


def _truncate(text: str) -> str:
    return text[:-20]


def _of_version_2(text: str) -> str:
    return text.replace('"format": 1', '"format": 2')


def _outside(text: str) -> str:
    return text.replace("tokens-000000.safetensors", "../tokens-000000.safetensors")


def _swapped(text: str) -> str:
    return text.replace("tokens-000000", "tokens-00000x").replace("tokens-000001", "tokens-000000")


@pytest.mark.parametrize("change", [_truncate, _of_version_2, _outside, _swapped])
def test_a_changed_manifest_is_refused(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / MANIFEST
    path.write_text(change(path.read_text()))
    with pytest.raises(FileError):
        TokenShards(folder, verify=False).keys()


def test_what_is_no_folder_of_shards_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder of token shards"):
        TokenShards(tmp_path)
    with pytest.raises(UsageError, match="Unknown split 'dev'"):
        TokenShards(folder, "dev")
    with pytest.raises(UsageError, match="use a smaller --shard-size"):
        _write_too_much(tmp_path / "big")


def _write_too_much(path: Path) -> None:
    from tavq.token_folder import shard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "MAX_BYTES", 100)
        shard.write_shard(path, SETTINGS, 0, images(range(5)))
