"""Shards read in place: the data set that an import of the same shards would be."""

import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import pytest
import torch
from published import jpeg, pack, png

import tavq
from tavq.core.errors import DataError, StorageError, UsageError
from tavq.data import shard_index
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, check_dataset, iter_records
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.shards import describe_unread_shards, find_home
from tavq.importers.importing import sources

SIXTEEN = DataConfig(size=16)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAVQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def agrees(place: Path, out: Path) -> FolderDataset:
    """The shards at a place, whose records and bytes are those of an import."""
    sources["webdataset"]().run(place, out)
    found, expected = FolderDataset(place), FolderDataset(out)
    assert list(found) == list(expected)
    assert list(iter_records(place)) == list(found)
    for record in found:
        assert found.file(record.file_name).read_bytes() == expected.file(record.file_name).read_bytes()
        if record.segmentation is not None:
            assert found.file(record.segmentation).read_bytes() == expected.file(record.segmentation).read_bytes()
    return found


SAMPLES: dict[str, Mapping[str, bytes]] = {
    "000": {"jpg": jpeg(1), "txt": b"A dog.\nA dog runs.", "cls": b"3"},
    "001": {"jpg": jpeg(2), "json": b'{"caption": "A cat.", "split": "test", "file_name": "own/name.jpg"}'},
    "002": {"txt": b"No image."},
    "a/003": {"seg.png": png([[1] * 16] * 12), "jpg": jpeg(3)},
    "004": {"rgb.jpg": jpeg(4), "jpg": jpeg(5), "depth.png": jpeg(6)},
    "005": {"jpg": jpeg(7), "json": b'{"long_text": "Long.", "objects": [{"box": [1, 2, 3, 4], "name": "dog"}]}'},
}
MEMBERS = [(f"{key}.{extension}", data) for key, parts in SAMPLES.items() for extension, data in parts.items()]
ORDERS: dict[str, Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]] = {
    "as written": lambda members: members,
    "reversed": lambda members: members[::-1],
    "by kind": lambda members: sorted(members, key=lambda member: member[0].partition(".")[2]),
    "shuffled": lambda members: random.Random(0).sample(members, len(members)),
}
NAMES: dict[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "dot and slash": lambda name: f"./{name}",
    "backslashes": lambda name: name.replace("/", "\\"),
    "long": lambda name: f"{'folder/' * 30}{name}",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_shards_as_plain_tools_make_them(tmp_path: Path, name: str, order: str) -> None:
    members = [(NAMES[name](member), data) for member, data in ORDERS[order](MEMBERS)]
    agrees(pack(tmp_path / "s.tar", members), tmp_path / "out")


def test_folders_patterns_and_single_shards(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(3):
            pack(tmp_path / f"in/{split}/{number:03d}.tar", [(f"{number}.jpg", jpeg(number))])
    whole = agrees(tmp_path / "in", tmp_path / "a")
    assert [record.split for record in whole] == ["train"] * 3 + ["val"] * 3
    agrees(tmp_path / "in/train/{000..001}.tar", tmp_path / "b")
    agrees(tmp_path / "in/{train,val}/002.tar", tmp_path / "c")
    agrees(tmp_path / "in/val/000.tar", tmp_path / "d")
    assert len(FolderDataset(tmp_path / "in", "val")) == 3
    assert find_home(tmp_path / "in") == tmp_path / "in"
    assert find_home(tmp_path / "in/train/{000..001}.tar") == (tmp_path / "in/train").resolve()
    with pytest.raises(UsageError, match=r"no shard .*003\.tar"):
        FolderDataset(tmp_path / "in/train/{002..003}.tar")


def test_a_folder_with_images_or_metadata_is_no_collection(tmp_path: Path) -> None:
    pack(tmp_path / "s.tar", [("0.jpg", jpeg(1))])
    (tmp_path / "own.jpg").write_bytes(jpeg(2))
    assert [record.file_name for record in FolderDataset(tmp_path)] == ["own.jpg"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "own.jpg", "captions": ["Mine."]}\n')
    assert [record.captions for record in FolderDataset(tmp_path)] == [("Mine.",)]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["a.tar", "0.png"], True),
        (["deep/a.tar", "deep/b.tgz", "more/0.png"], True),
        (["a.tar"], False),
        (["0.png"], False),
        (["a.tar", "0.png", "metadata.jsonl"], False),
    ],
)
def test_shards_beside_images_are_told(
    tmp_path: Path, files: list[str], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "data"
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(png([[1] * 16] * 16) if name.endswith(".png") else b"")
    pack(place / "a.tar", [("0.png", png([[1] * 16] * 16))]) if "a.tar" in files else None
    (place / "metadata.jsonl").write_text('{"file_name": "0.png"}\n') if "metadata.jsonl" in files else None
    said = describe_unread_shards(place)
    assert (said is not None) == told
    assert not told or f"{sum('.t' in name for name in files)} shards, such as " in str(said)
    tavq.check_dataset(place)
    assert [record.getMessage() for record in caplog.records if "shards" in record.getMessage()] == [said] * told


def test_a_text_store_beside_the_shards_changes_nothing(tmp_path: Path) -> None:
    pack(tmp_path / "s.tar", [("0.jpg", jpeg(1))])
    before = FolderDataset(tmp_path).fingerprint
    (tmp_path / "text").mkdir()
    (tmp_path / "text/manifest.json").write_text("{}")
    (tmp_path / "long_text.jsonl").write_text(
        '{"file_name": "images/s/0.jpg", "model": "m", "prompt": "p", "text": "Long."}\n'
    )
    after = FolderDataset(tmp_path)
    assert after.fingerprint == before
    assert after[0].long_text == "Long."


def test_odd_members(tmp_path: Path) -> None:
    """Links and devices are no files; a sparse member and one with long headers are read like any other."""
    path = pack(tmp_path / "in/s.tar", [("0.jpg", jpeg(0))])
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo(f"odd{kind.decode()}.jpg")
            link.type, link.linkname = kind, "0.jpg"
            archive.addfile(link)
        member = tarfile.TarInfo("1.jpg")
        member.size, member.pax_headers = len(jpeg(1)), {"comment": "x" * 5000}
        archive.addfile(member, io.BytesIO(jpeg(1)))
        archive.addfile(*sparse("2.jpg", jpeg(2), 4096))
    found = FolderDataset(path)
    assert [record.file_name for record in found] == [f"images/s/{number}.jpg" for number in range(3)]
    assert [found.file(record.file_name).read_bytes() for record in found] == [
        jpeg(0), jpeg(1), jpeg(2) + bytes(4096)
    ]  # fmt: skip
    assert check_dataset(path) == []


def sparse(name: str, data: bytes, hole: int) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """A member in GNU's sparse format 1.0: its data and a hole after them."""
    sections = f"1\n0\n{len(data)}\n".encode()
    stored = sections + bytes(-len(sections) % 512) + data
    member = tarfile.TarInfo("GNUSparseFile.0/" + name)
    member.size = len(stored)
    member.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(len(data) + hole),
    }  # fmt: skip
    return member, io.BytesIO(stored)


HOSTILE = ["../../../up.jpg", "/abs.jpg", "a/../../up.jpg", ".hidden.jpg", "x.jpg/y.jpg", "a\nb.jpg"]


def test_names_that_lead_elsewhere_are_faults(tmp_path: Path) -> None:
    members = [(name, jpeg(1)) for name in HOSTILE]
    for number, name in enumerate(("../up.png", "/abs.png", "metadata.jsonl")):
        members += [(f"{number}.jpg", jpeg(2)), (f"{number}.json", json.dumps({"file_name": name}).encode())]
    path = pack(tmp_path / "in/s.tar", members)
    found = agrees(path, tmp_path / "out")
    assert {record.file_name for record in found} == {f"images/s/{number}.jpg" for number in range(3)}
    assert sum(fault.costs_image for fault in found.faults) >= 3


def test_faults_of_samples_and_their_budget(tmp_path: Path) -> None:
    members = [
        ("alone.txt", b"no image"), ("cut.jpg", jpeg(1)[:100]), ("json.jpg", jpeg(4)), ("json.json", b"{" * 100),
        ("types.jpg", jpeg(8)), ("types.json", b'{"captions": [3, "A"], "long_text": 3}'),
        ("two.jpg", jpeg(2)), ("two.png", jpeg(3)), ("e\u0301.jpg", jpeg(5)),
    ]  # fmt: skip
    path = pack(tmp_path / "s.tar", members)
    found = FolderDataset(path)
    reasons = " | ".join(map(str, found.faults))
    for part in (
        "alone: the sample has no image",
        "json: its json cannot be read",
        "1 images beyond",
        "captions entry",
    ):
        assert part in reasons
    assert not any(fault.costs_image for fault in found.faults)
    loader = EvaluationLoader(found, SIXTEEN.model_copy(update={"fault_budget": 1}), batch=2)
    assert sum(len(batch.keys) for batch in loader) == 4
    assert [fault.where for fault in loader.faults if fault.costs_image] == ["images/s/cut.jpg"]
    assert [fault.where for fault in check_dataset(path) if "decoded" in fault.reason] == ["images/s/cut.jpg"]
    with pytest.raises(DataError, match=r"1 of 5 images in .*s\.tar cannot be read; the fault_budget is 0"):
        list(EvaluationLoader(found, SIXTEEN.model_copy(update={"fault_budget": 0}), batch=2))


def test_a_truncated_shard_is_an_error(tmp_path: Path) -> None:
    path = pack(tmp_path / "in/s.tar", [(f"{number}.jpg", jpeg(number)) for number in range(3)])
    whole = path.read_bytes()
    used = next(end for end in range(0, len(whole), 512) if not any(whole[end:]))
    for length in (0, 100, 700, 1500, used // 2, used - 512, used):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"s\.tar is truncated"):
            FolderDataset(path)


def test_a_compressed_shard_is_named(tmp_path: Path) -> None:
    pack(tmp_path / "in/a.tar.gz", [("0.jpg", jpeg(0))])
    with pytest.raises(UsageError, match=r"compressed.*tavq data import webdataset"):
        FolderDataset(tmp_path / "in/a.tar.gz")
    pack(tmp_path / "in/b.tar", [("0.jpg", jpeg(0))])
    assert [fault.where for fault in FolderDataset(tmp_path / "in").faults] == ["a.tar.gz"]


# --- random access ----------------------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three shards of five images."""
    for shard in range(3):
        samples = [(f"{number}.{kind}", data) for number in range(5)
                   for kind, data in (("jpg", jpeg(5 * shard + number)), ("txt", b"A thing."))]  # fmt: skip
        pack(tmp_path / f"in/train-{shard}.tar", samples)
    return tmp_path / "in"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_that_of_the_imported_folder(collection: Path, tmp_path: Path, workers: int) -> None:
    """Shuffled over the whole collection, and resumed by one number, with workers and several processes."""
    sources["webdataset"]().run(collection, tmp_path / "out")
    config = DataConfig(size=16, workers=workers, crop_scale=0.5)

    def stream(place: Path, batch: int, consumed: int = 0, **more: int) -> list[tuple[tuple[str, ...], list[float]]]:
        loader = TrainingLoader(FolderDataset(place), config, batch, 0, None, consumed, **more)
        batches = [(each.keys, each.images.flatten().tolist()) for each in islice(loader, 6)]
        loader.close()
        return batches

    whole = stream(tmp_path / "out", 4)
    assert len({key.split("/")[1] for key in whole[0][0]}) > 1
    assert stream(collection, 4) == whole
    assert stream(collection, 4, 8)[:4] == whole[2:]
    halves = [stream(collection, 4, rank=rank, world=2) for rank in (0, 1)]
    assert [left[0] + right[0] for left, right in zip(*halves, strict=True)] == [keys for keys, _ in whole]


def test_a_storage_crosses_processes(collection: Path) -> None:
    found = FolderDataset(collection)
    copy = pickle.loads(pickle.dumps(found.storage))  # our own bytes
    name = found[7].file_name
    assert copy.file(name).read_bytes() == found.file(name).read_bytes() == jpeg(7)


def test_segmentations_are_found(tmp_path: Path) -> None:
    shape = png([[1] * 16] * 12)
    pack(tmp_path / "s.tar", [("0.png", png([[[1, 2, 3]] * 16] * 12)), ("0.seg.png", shape)])
    found = FolderDataset(tmp_path)
    (batch,) = EvaluationLoader(found, DataConfig(size=16, images="segmentation"), batch=1)
    assert batch.images.shape == (1, 3, 16, 16)
    assert torch.equal(batch.images[0, :, 0, 0], batch.images[0, :, 8, 8])


# --- the cache --------------------------------------------------------------------------------------------------


def count_indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    index = shard_index.index_samples
    monkeypatch.setattr(shard_index, "index_samples", lambda name, members: read.append(name) or index(name, members))
    return read


def test_a_shard_is_indexed_once(collection: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = count_indexed(monkeypatch)
    first = FolderDataset(collection)
    assert len(read) == 3
    assert list(FolderDataset(collection)) == list(first)
    FolderDataset(collection / "train-1.tar")
    assert len(read) == 3
    pack(collection / "train-3.tar", [("0.jpg", jpeg(1))])
    assert len(FolderDataset(collection)) == 16
    assert len(read) == 4
    assert sorted(path.suffix for path in (cache / "shards").iterdir()) == [".jsonl"] * 4


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data.replace(b".jpg", b".png"),
                                    lambda data: b"", lambda data: b"{}\n", lambda data: b"\xff" + data])  # fmt: skip
def test_a_damaged_index_is_made_again(
    collection: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    first = list(FolderDataset(collection))
    for path in (cache / "shards").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    read = count_indexed(monkeypatch)
    assert list(FolderDataset(collection)) == first
    assert len(read) == 3


def test_a_changed_shard_is_indexed_again_and_noticed_while_it_is_read(collection: Path) -> None:
    before = FolderDataset(collection)
    pack(collection / "train-0.tar", [("0.jpg", jpeg(9))])
    with pytest.raises(StorageError, match=r"train-0\.tar changed since it was indexed"):
        before.file(before[0].file_name).read_bytes()
    for workers in (0, 1):  # no image is at fault, so that the budget does not hide it
        with pytest.raises(StorageError, match="changed since"):
            list(EvaluationLoader(before, DataConfig(size=16, workers=workers), batch=4))
    after = FolderDataset(collection)
    assert len(after) == 11
    assert after.fingerprint != before.fingerprint


def test_the_fingerprint_is_that_of_the_content(collection: Path, tmp_path: Path) -> None:
    first = FolderDataset(collection).fingerprint
    collection.rename(tmp_path / "moved")
    assert FolderDataset(tmp_path / "moved").fingerprint == first


def test_a_cache_that_cannot_be_written_costs_only_time(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TAVQ_CACHE", str(tmp_path / "file"))
    assert len(FolderDataset(collection)) == 15
    assert "set TAVQ_CACHE" in caplog.text
