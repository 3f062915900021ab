"""Text stores that were cut, altered or mixed up give an error that names the file, never a traceback."""

import contextlib
import inspect
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import FileError
from tavq.core.files import sha256_bytes
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder, WholeText
from tavq.text.store import TextStore

TEXTS = {"1.png": "A red car and a blue dog.", "2.png": "The dog sees two red cars. It rains."}


class LetterEncoder(TextEncoder):
    """Counts letters: an encoder without a model."""

    def __init__(self) -> None:
        self.name, self.width, self.sha256 = "letters", 4, "0" * 64

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        return torch.tensor([[float(text.count(letter)) for letter in "rbde"] for text in texts]).reshape(-1, 4)

    encode_words = encode_units

    def encode_whole(self, text: str) -> WholeText:
        ids = [len(word) for word in text.split()]
        return WholeText(ids, self.encode_units(text.split()), self.encode_units([text])[0])

    def token_rows(self, ids: Sequence[int]) -> tuple[list[str], Float[Tensor, "m t"]]:
        return [str(number) for number in ids], torch.tensor(ids, dtype=torch.float32)[:, None].expand(-1, 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "text"
    build_store(TEXTS, LetterEncoder(), "pattern", out, whole=True)
    return out


@pytest.fixture(scope="module")
def broken(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("broken") / "text"
    out.mkdir()
    return out


def lay(broken: Path, whole: Path, **changed: bytes) -> None:
    for name in ("store.safetensors", "manifest.json"):
        (broken / name).write_bytes(changed.get(name.split(".")[0], (whole / name).read_bytes()))


def read_all(folder: Path, verify: bool) -> list[Any]:
    store = TextStore.open(folder, verify)
    everything = [(key, store.units(key), store.vectors(key)) for key in store.keys]
    return [*everything, *(store.vocabulary(name) for name in (*store.manifest.units, "tokens"))]


@pytest.mark.parametrize("name", ["store", "manifest"])
def test_every_prefix_is_refused(name: str, whole: Path, broken: Path) -> None:
    path = next(whole.glob(f"{name}.*"))
    data = path.read_bytes()
    step = max(1, len(data) // 300)
    for size in sorted({*range(32), *range(0, len(data), step), *range(len(data) - 32, len(data))}):
        if name == "manifest" and not data[size:].strip():
            continue  # only the newline is gone
        lay(broken, whole, **{name: data[:size]})
        with pytest.raises(FileError, match=path.name):
            TextStore.open(broken)


def test_missing_files(whole: Path, broken: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is no text store: it has no manifest\.json"):
        TextStore.open(tmp_path)
    lay(broken, whole)
    (broken / "store.safetensors").unlink()
    with pytest.raises(FileError, match=r"store\.safetensors"):
        TextStore.open(broken)


def test_a_flipped_byte_anywhere_fails_the_check(whole: Path, broken: Path) -> None:
    data = (whole / "store.safetensors").read_bytes()
    for place in range(0, len(data), 7):
        lay(broken, whole, store=data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        with pytest.raises(FileError, match=r"store\.safetensors"):
            TextStore.open(broken, verify=True)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_flipped_byte_without_the_check_is_a_named_error_or_a_readable_store(
    whole: Path, broken: Path, place: int, value: int
) -> None:
    data = bytearray((whole / "store.safetensors").read_bytes())
    data[place % len(data)] ^= value
    lay(broken, whole, store=bytes(data))
    with contextlib.suppress(FileError):
        read_all(broken, verify=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_value_in_the_manifest(whole: Path, broken: Path, value: object) -> None:
    told = json.loads((whole / "manifest.json").read_bytes())
    for key in told:
        if value == told[key]:
            continue
        lay(broken, whole, manifest=json.dumps(told | {key: value}).encode())
        with pytest.raises(FileError, match=r"manifest\.json|store\.safetensors"):
            TextStore.open(broken, verify=True)
    lay(broken, whole, manifest=json.dumps(value).encode())
    with pytest.raises(FileError, match=r"manifest\.json|store\.safetensors"):
        TextStore.open(broken)


def test_tensors_of_another_build_are_refused(whole: Path, broken: Path, tmp_path: Path) -> None:
    build_store({"1.png": "A cat."}, LetterEncoder(), "pattern", tmp_path / "other")
    lay(broken, whole, store=(tmp_path / "other" / "store.safetensors").read_bytes())
    with pytest.raises(FileError, match=r"store\.safetensors was cut or altered"):
        TextStore.open(broken)


def test_an_index_that_leaves_its_table_is_refused_even_when_the_hash_was_made_to_fit(
    whole: Path, broken: Path
) -> None:
    data = (whole / "store.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = 8 + int.from_bytes(data[:8], "little")
    told = json.loads((whole / "manifest.json").read_bytes())
    for name, value in itertools.product(("words/ids", "words/offsets", "key_offsets"), (b"\xff" * 4, b"\x7f\0\0\0")):
        place = start + header[name]["data_offsets"][0]
        forged = data[:place] + value + data[place + 4 :]
        manifest = json.dumps(told | {"sha256": sha256_bytes(forged)}).encode()
        lay(broken, whole, store=forged, manifest=manifest)
        with pytest.raises(FileError, match=f"was altered: {name}"):
            TextStore.open(broken, verify=True)


def test_a_full_disk_keeps_the_older_store(tmp_path: Path) -> None:
    out = tmp_path / "text"
    build_store(TEXTS, LetterEncoder(), "pattern", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(FileError, match=r"Could not write .*Free space or choose another place"):
            build_store(TEXTS, LetterEncoder(), "pattern", out, whole=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


KILLED = """
import os, signal, sys, time
from collections.abc import Sequence
from pathlib import Path
import torch
from jaxtyping import Float
from torch import Tensor
from tavq.text.encoders import TextEncoder, WholeText
from tavq.text.building import build_store
from tavq.text.store import TextStore

texts = {f"{n}.png": f"A red car and {n} blue dogs." for n in range(100)}
out = Path(sys.argv[1])

#ENCODER#

def build():
    build_store(texts, LetterEncoder(), "pattern", out)

build()  # reads the lexicon
started = time.perf_counter()
build()
took = time.perf_counter() - started
whole = {path.name: path.read_bytes() for path in out.iterdir()}
stores = 0
for attempt in range(40):
    child = os.fork()
    if not child:
        while True:
            build()
    time.sleep(took * attempt / 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if out.exists():
        TextStore.open(out, verify=True)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
        stores += 1
build()
print(stores, [path.name for path in out.parent.iterdir()])
"""


def test_kill_9_leaves_the_same_store_or_none_and_the_next_build_cleans_up(tmp_path: Path) -> None:
    """None only where the kill fell between the two renames that replace an older store."""
    code = KILLED.replace("#ENCODER#", inspect.getsource(LetterEncoder))
    command = [sys.executable, "-c", code, str(tmp_path / "text")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}, timeout=120)
    assert done.returncode == 0, done.stderr
    stores, left = done.stdout.split(" ", 1)
    assert int(stores) >= 30
    assert left == "['text']\n"
