"""Truncated, altered or mixed-up text stores give an error that names the file, never a traceback."""

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

from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.files import sha256_bytes
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.merging import merge_stores
from tavq.text.store import TextStore

TEXTS = {"1.png": "A red car and a blue dog.", "2.png": "The dog sees two red cars. It rains."}


class LetterEncoder(TextEncoder):
    """Counts letters: an encoder without a model."""

    max_unit = 10**6

    def __init__(self) -> None:
        self.name, self.width, self.sha256, self.precision = "letters", 4, "0" * 64, "float32"

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        return torch.tensor([[float(text.count(letter)) for letter in "rbde"] for text in texts]).reshape(-1, 4)

    encode_words = encode_units

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(word) for word in text.split()] for text in texts]

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> tuple[Float[Tensor, "m t"], Float[Tensor, "b t"]]:
        rows = [self.token_vectors(ids) for ids in tokens]
        return torch.cat(rows), torch.stack([part.sum(0) for part in rows])

    def token_names(self, ids: Sequence[int]) -> list[str]:
        return [str(number) for number in ids]

    def token_vectors(self, ids: Sequence[int]) -> Float[Tensor, "m t"]:
        return torch.tensor(ids, dtype=torch.float32)[:, None].expand(-1, 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "text"
    build_store(TEXTS, LetterEncoder(), "pattern", out, full_text=True)
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
    with pytest.raises(FileError, match=r"is not a text store: it has no manifest\.json"):
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
    with contextlib.suppress(FileError, DataError):  # DataError: a key that is another one now
        read_all(broken, verify=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_value_in_the_manifest(whole: Path, broken: Path, value: object) -> None:
    manifest_fields = json.loads((whole / "manifest.json").read_bytes())
    for key in manifest_fields:
        if value == manifest_fields[key]:
            continue
        lay(broken, whole, manifest=json.dumps(manifest_fields | {key: value}).encode())
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


def test_an_id_outside_its_table_is_refused_even_with_a_matching_hash(whole: Path, broken: Path) -> None:
    data = (whole / "store.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = 8 + int.from_bytes(data[:8], "little")
    manifest_fields = json.loads((whole / "manifest.json").read_bytes())
    for name, value in itertools.product(
        ("words/ids", "words/offsets", "key_offsets", "index/places", "whole/ids"), (b"\xff" * 4, b"\x7f\0\0\0")
    ):
        place = start + header[name]["data_offsets"][0]
        forged = data[:place] + value + data[place + 4 :]
        manifest = json.dumps(manifest_fields | {"sha256": sha256_bytes(forged)}).encode()
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
        with pytest.raises(FileError, match=r"Could not write .*Free space or choose another path"):
            build_store(TEXTS, LetterEncoder(), "pattern", out, full_text=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    build_store(TEXTS, LetterEncoder(), "pattern", out, full_text=True)  # goes on in what the full disk left
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
    assert TextStore.open(out, verify=True).manifest.full_text


KILLED = """
import os, random, signal, sys, time
from collections.abc import Sequence
from pathlib import Path
import torch
from jaxtyping import Float
from torch import Tensor
from tavq.text import encoding, splitting
from tavq.text.encoders import TextEncoder
from tavq.text.building import build_store

texts = {f"{n}.png": f"A red car number {n} and {n % 7} blue dogs." for n in range(60)}
encoding.UNITS_CHUNK, encoding.TEXTS_CHUNK, splitting.BLOCK_TEXTS = 16, 16, 16

#ENCODER#

def build(out, log):
    encoder = LetterEncoder()
    whole_texts = encoder.encode_tokens
    def counted(tokens):
        with open(log, "a") as file:
            file.write(f"{len(tokens)}\\n")
        return whole_texts(tokens)
    encoder.encode_tokens = counted
    build_store(texts, encoder, "pattern", out, full_text=True)

def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}

root = Path(sys.argv[1])
build(root / "first", root / "log")  # reads the lexicon
started = time.perf_counter()
build(root / "undisturbed" / "text", root / "log")
took = time.perf_counter() - started
random.seed(0)
kills = again = 0
for attempt in range(15):
    out, log = root / str(attempt) / "text", root / f"log-{attempt}"
    for _ in range(6):
        child = os.fork()
        if not child:
            build(out, log)
            os._exit(0)
        time.sleep(took * random.uniform(0, 0.9))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        if (out / "manifest.json").exists():
            break
    if not (out / "manifest.json").exists():
        build(out, log)
    assert contents(out) == contents(root / "undisturbed" / "text"), attempt
    build(out, root / "log")  # cleans up what a kill after the last rename left
    assert [path.name for path in out.parent.iterdir()] == ["text"]
    again += sum(map(int, log.read_text().split())) - len(texts)
print(kills, again)
"""


def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    code = KILLED.replace("#ENCODER#", inspect.getsource(LetterEncoder))
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}, timeout=300)
    assert done.returncode == 0, done.stderr
    kills, again = map(int, done.stdout.split())
    assert kills >= 8  # how many of the moments come before its end is the machine's speed
    assert again <= 16 * kills  # at most the chunk under way is done again, never what was marked


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    building = tmp_path / "text.building"
    code = (
        f"import sys; from pathlib import Path; from tavq.core.locks import lock\nwith lock(Path({str(building)!r}) / "
    )
    code += "'.lock', Path('x')): print('held', flush=True); sys.stdin.read()"
    env = {**os.environ, "PYTHONPATH": "src"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FileError, match=rf"Another process \(pid {other.pid}\) is writing to .*text"):
            build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
        other.kill()
    build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def stopped(self: LetterEncoder, texts: Sequence[str]) -> Float[Tensor, "m t"]:
    """An encoder that is stopped by Ctrl-C."""
    raise KeyboardInterrupt


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path: Path) -> None:
    for name in ("text.building", "text.merging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"text\.building is needed for work in progress and holds something else"):
        build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    part = build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "part").folder
    with pytest.raises(UsageError, match=r"text\.merging is needed for work in progress"):
        merge_stores([part], tmp_path / "text")
    for name in ("text.building", "text.merging"):
        assert (tmp_path / name / "mine.txt").read_text() == "mine"


def test_work_is_kept_when_a_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object) -> None:
        raise TavqError("a process was ended")

    with monkeypatch.context() as patched:
        patched.setattr("tavq.text.building.split_blocks", ended)
        with pytest.raises(TavqError, match="was ended"):
            build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    assert (tmp_path / "text.building" / "plan.json").is_file()


def test_work_with_an_altered_state_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LetterEncoder, "encode_words", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    for content in ("{}", "[]", '{"contents": {}, "shapes": 3, "done": 4}', "{"):
        (tmp_path / "text.building" / "state.json").write_text(content)
        with monkeypatch.context() as patched:
            patched.setattr(LetterEncoder, "encode_words", stopped)
            with pytest.raises(KeyboardInterrupt):
                build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    assert build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text").matches(
        TEXTS.items(), LetterEncoder(), "pattern", False
    )


def test_an_empty_shard_is_a_store(tmp_path: Path) -> None:
    parts = [
        build_store(texts, LetterEncoder(), "pattern", tmp_path / str(number), full_text=True, empty=True).folder
        for number, texts in enumerate(({}, TEXTS, {"none.png": "?"}))
    ]
    assert [len(TextStore.open(part, verify=True)) for part in parts] == [0, 2, 0]
    merged = merge_stores(parts, tmp_path / "text")
    assert merged.matches(TEXTS.items(), LetterEncoder(), "pattern", True)
    assert merged.faults() == [("none.png", "no word or number in its text")]
    assert "1.png" not in TextStore.open(parts[0])


def test_a_store_of_another_encoder_is_reported(whole: Path) -> None:
    store = TextStore.open(whole)
    store.check_encoder(None)
    store.check_encoder({"encoder": {"name": "letters", "sha256": "0" * 64, "width": 4}})
    for record in ({"sha256": "1" * 64, "width": 4}, {"sha256": "0" * 64, "width": 5}):
        with pytest.raises(UsageError, match=r"made by the encoder 'letters', the model was trained with 'other'"):
            store.check_encoder({"encoder": {"name": "other", **record}})


def test_a_block_that_was_damaged_is_split_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LetterEncoder, "encode_words", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    [block] = (tmp_path / "text.building").glob("block-*")
    block.write_bytes(block.read_bytes()[:-1])
    (tmp_path / "text.building" / "state.json").unlink()
    store = build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    assert store.matches(TEXTS.items(), LetterEncoder(), "pattern", False)


def test_work_of_another_encoder_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LetterEncoder, "encode_units", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_store(TEXTS, LetterEncoder(), "pattern", tmp_path / "text")
    other = LetterEncoder()
    other.sha256 = "1" * 64
    store = build_store(TEXTS, other, "pattern", tmp_path / "text")
    assert store.manifest.encoder.sha256 == "1" * 64
    fresh = build_store(TEXTS, other, "pattern", tmp_path / "fresh")
    assert (store.folder / "store.safetensors").read_bytes() == (fresh.folder / "store.safetensors").read_bytes()
