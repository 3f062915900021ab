"""Shards at remote addresses: in fsspec's memory, and on an S3 server of this machine."""

import logging
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from published import jpeg, pack

from tavq.core import remote
from tavq.core.addresses import full_address, hide_secrets, is_remote
from tavq.core.errors import StorageError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.shards import find_home

fsspec = pytest.importorskip("fsspec")
SIXTEEN = DataConfig(size=16)
Upload = Callable[[dict[str, bytes]], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAVQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, bytes]:
    """Three shards of four images by name."""
    made = {}
    for shard in range(3):
        members = [(f"{number}.jpg", jpeg(4 * shard + number)) for number in range(4)]
        made[f"train-{shard}.tar"] = pack(tmp_path / f"local/train-{shard}.tar", members).read_bytes()
    return made


@pytest.fixture
def memory(shards: dict[str, bytes]) -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    for name, data in shards.items():
        files.pipe_file(f"/bucket/{name}", data)
    yield files
    files.store.clear()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("s3://b/x", "s3://b/x"), ("s3:/b/x", "s3://b/x"), ("S3://b/x.tar", "s3://b/x.tar"),
        ("https://h:1/a/{0..3}.tar", "https://h:1/a/{0..3}.tar"), ("memory://x", "memory://x"),
    ],
)  # fmt: skip
def test_an_address_survives_a_path(given: str, address: str) -> None:
    assert is_remote(Path(given))
    assert full_address(Path(given)) == address


def test_paths_of_this_machine_are_not_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:/x").mkdir()
    for place in ("a/b", "/a:/b", "C:/data", ".", "s3:/x"):
        assert not is_remote(Path(place))


def test_secrets_are_hidden() -> None:
    text = "https://me:pass@host/a.tar?X-Amz-Signature=abc was refused: 'https://host/b?token=x'"
    assert hide_secrets(text) == "https://host/a.tar was refused: 'https://host/b'"


@pytest.mark.parametrize("place", ["memory://bucket", "memory://bucket/train-{0..2}.tar"])
def test_a_remote_collection_is_that_of_the_folder(memory: Any, tmp_path: Path, place: str) -> None:
    local, found = FolderDataset(tmp_path / "local"), FolderDataset(Path(place))
    assert list(found) == list(local)
    assert found.fingerprint == local.fingerprint
    assert [found.file(each.file_name).read_bytes() for each in found] == [jpeg(number) for number in range(12)]
    assert found.home.is_relative_to(tmp_path / "cache/collections")
    assert find_home(Path(place)) == found.home
    (single,) = {record.file_name.split("/")[1] for record in FolderDataset(Path("memory://bucket/train-1.tar"))}
    assert single == "train-1"


def test_only_the_bytes_of_an_image_are_read(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FolderDataset(Path("memory://bucket"))
    read: list[int] = []
    cat = type(memory).cat_file
    monkeypatch.setattr(type(memory), "cat_file", lambda self, path, start=None, end=None, **more: (
        read.append(end - start) or cat(self, path, start=start, end=end, **more)))  # fmt: skip
    found.file(found[5].file_name).read_bytes()
    assert read == [len(jpeg(5))]


def fail_first(memory: Any, monkeypatch: pytest.MonkeyPatch, times: int, error: Exception) -> list[int]:
    """Make the first reads of ranges fail; counts all of them."""
    calls: list[int] = []
    cat = type(memory).cat_file

    def failing(self: Any, *place: Any, **more: Any) -> bytes:
        calls.append(1)
        if len(calls) <= times:
            raise error
        data: bytes = cat(self, *place, **more)
        return data

    monkeypatch.setattr(type(memory), "cat_file", failing)
    return calls


def test_a_failed_request_is_tried_again(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FolderDataset(Path("memory://bucket"))
    calls = fail_first(memory, monkeypatch, 3, TimeoutError("slow down"))
    assert found.file(found[0].file_name).read_bytes() == jpeg(0)
    assert len(calls) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_network_that_stays_away_ends_the_work(memory: Any, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """No image is at fault, so that the budget of faults does not hide it."""
    found = FolderDataset(Path("memory://bucket"))
    fail_first(memory, monkeypatch, 10**6, ConnectionError("no route to https://u:secret@h/x?sig=1"))
    config = DataConfig(size=16, workers=workers, fault_budget=1.0)
    with pytest.raises(StorageError, match=r"memory://bucket/train-0\.tar .*after 5 attempts") as raised:
        list(EvaluationLoader(found, config, batch=2))
    assert "secret" not in str(raised.value)
    assert "sig" not in str(raised.value)


def test_what_another_attempt_would_meet_again_is_told_at_once(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FolderDataset(Path("memory://bucket"))
    calls = fail_first(memory, monkeypatch, 10**6, PermissionError("no"))
    with pytest.raises(StorageError, match="may not be read; give its storage's credentials"):
        found.file(found[0].file_name).read_bytes()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("memory://nothing", UsageError, "no shards at memory://nothing"),
        ("memory://bucket/other.tar", StorageError, r"memory://bucket/other\.tar does not exist"),
        ("nosuch://x/y.tar", UsageError, "nosuch://x/y.tar has an unknown scheme"),
    ],
)
def test_addresses_without_shards(memory: Any, place: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        FolderDataset(Path(place))


def test_the_generator_of_a_run_is_left_alone(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    found = FolderDataset(Path("memory://bucket"))
    fail_first(memory, monkeypatch, 2, TimeoutError("slow down"))
    random.seed(7)
    before = random.getstate()
    found.file(found[0].file_name).read_bytes()
    assert random.getstate() == before


# --- S3 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, shards: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bucket with the shards."""
    for name, value in {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3")
    files.mkdirs("data/deep", exist_ok=True)
    for name, data in shards.items():
        files.pipe_file(f"data/deep/{name}", data)
    return Path("s3://data/deep")


@pytest.mark.filterwarnings("ignore")  # of the server's packages
@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_s3_is_training_from_the_disk(bucket: Path, tmp_path: Path, workers: int) -> None:
    """Shuffled over all shards, in forked workers too, and resumed by one number."""
    config = DataConfig(size=16, workers=workers, crop_scale=0.5)

    def stream(place: Path, consumed: int = 0) -> list[tuple[tuple[str, ...], list[float]]]:
        loader = TrainingLoader(FolderDataset(place), config, 3, 0, None, consumed)
        batches = [(batch.keys, batch.images.flatten().tolist()) for batch in islice(loader, 6)]
        loader.close()
        return batches

    local = stream(tmp_path / "local")
    assert stream(bucket) == local
    assert stream(bucket, 6)[:4] == local[2:]


@pytest.mark.filterwarnings("ignore")
def test_faults_of_s3_name_the_address_alone(bucket: Path) -> None:
    assert len(FolderDataset(Path("s3://data/deep/train-{0..1}.tar"))) == 8
    for place in ("s3://data/deep/none.tar", "s3://nobucket/a.tar"):
        with pytest.raises(StorageError, match=r"does not exist|could not be read") as raised:
            FolderDataset(Path(place))
        assert place in str(raised.value)
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


@pytest.mark.filterwarnings("ignore")
def test_a_shard_that_was_written_anew_is_indexed_anew(bucket: Path, tmp_path: Path) -> None:
    before = FolderDataset(bucket)
    data = pack(tmp_path / "new.tar", [("9.jpg", jpeg(9))]).read_bytes()
    fsspec.filesystem("s3").pipe_file("data/deep/train-0.tar", data)
    after = FolderDataset(bucket)
    assert (len(before), len(after)) == (12, 9)
    assert before.fingerprint != after.fingerprint
