"""`tavq encode --shard-size`: stopped, split and joined it leaves the bytes of one run, and `decode` reads them."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_tavq

import tavq as package

from .conftest import Tavq


@pytest.fixture(scope="module")
def tokens(tavq: Tavq, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of one run."""
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    done = tavq("encode", home / "plain", home / "data", "--out", out, "--shard-size", 3)
    assert done.code == 0, done.err
    assert f"The tokens of 16 images are in {out}, 6 shards." in done.err
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".lock")}


def test_shards_hold_what_the_file_holds(tavq: Tavq, home: Path, tokens: Path, tmp_path: Path) -> None:
    assert tavq("encode", home / "plain", home / "data", "--out", tmp_path / "file").code == 0
    file, shards = package.Tokens.load(tmp_path / "file"), package.TokenShards(tokens)
    assert tuple(shards.keys()) == file.keys
    assert torch.equal(torch.stack([shards[n]["indices"] for n in range(16)]), file.indices)
    for source, out in ((tokens, "a"), (tmp_path / "file", "b")):
        done = tavq("decode", home / "plain", source, "--out", tmp_path / out)
        assert done.code == 0, done.err
    images = [{str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png")}
              for out in (tmp_path / "a", tmp_path / "b")]  # fmt: skip
    assert images[0] == images[1]
    assert len(images[0]) == 16


def test_shards_are_exported_as_the_file_is(tavq: Tavq, home: Path, tokens: Path, tmp_path: Path) -> None:
    assert tavq("encode", home / "plain", home / "data", "--out", tmp_path / "file").code == 0
    for source, out in ((tokens, "a"), (tmp_path / "file", "b")):
        done = tavq("export", home / "plain", "--to", "tokens", "--data", home / "data", "--tokens", source, "--out",
                    tmp_path / out)  # fmt: skip
        assert done.code == 0, done.err
    assert content(tmp_path / "a") == content(tmp_path / "b")
    done = tavq("export", home / "aligned", "--to", "tokens", "--data", home / "data", "--tokens", tokens, "--out",
                tmp_path / "c")  # fmt: skip
    assert (done.code, "was made by another model" in done.err) == (2, True)


def test_a_killed_run_resumes_to_the_same_bytes(home: Path, tokens: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    command = [sys.executable, "-m", "tavq", "encode", str(home / "plain"), str(home / "data"), "--out", str(out)]
    command += ["--shard-size", "3", "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    ends = []
    for shards in (1, 3):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(out.glob("tokens-*"))) < shards:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        ends.append(process.returncode)
    assert -signal.SIGKILL in ends
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(tokens)


def test_a_job_array_leaves_the_same_bytes(tavq: Tavq, home: Path, tokens: Path, tmp_path: Path) -> None:
    arguments = ["encode", home / "plain", home / "data", "--out", tmp_path / "tokens", "--shard-size", 3]
    done = tavq(*arguments, "--shard", "2/2")
    assert done.code == 0, done.err
    assert "lacks 3 of 6 shards: tokens-000000.safetensors, tokens-000002.safetensors" in done.err
    done = tavq(*arguments, "--merge")
    assert (done.code, "Encode them, or copy them there, and merge again" in done.err) == (2, True)
    assert "already holds 3 of these shards" in tavq(*arguments, "--shard", "2/2").err
    done = tavq(*arguments, "--shard", "1/2")
    assert (done.code, "16 images" in done.err) == (0, True), done.err
    assert content(tmp_path / "tokens") == content(tokens)
    (tmp_path / "tokens" / "manifest.json").unlink()
    assert tavq(*arguments, "--merge").code == 0
    assert content(tmp_path / "tokens") == content(tokens)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume"], "--resume is for token shards; add --shard-size"),
        (["--shard", "1/2"], "--shard is for token shards; add --shard-size"),
        (["--shard-size", "3", "--merge", "--shard", "1/2"], "--merge joins the shards of all parts; remove --shard"),
        (["--shard-size", "3", "--shard", "3/2"], "--shard must be i/n"),
        (["--shard-size", "3", "--split", "val"], "cannot be continued: its split is None, and now val"),
        (["--shard-size", "4", "--resume"], "cannot be continued: its shard size is 3, and now 4"),
    ],
)
def test_calls_that_do_not_fit_are_refused(tavq: Tavq, home: Path, tokens: Path, more: list[str], message: str) -> None:
    before = content(tokens)
    done = tavq("encode", home / "plain", home / "data", "--out", tokens, *more)
    assert (done.code, message in done.err) == (2, True), done.err
    assert content(tokens) == before


def test_another_model_is_refused(tavq: Tavq, home: Path, tokens: Path, tmp_path: Path) -> None:
    done = tavq("encode", home / "aligned", home / "data", "--out", tokens, "--shard-size", 3, "--resume")
    assert (done.code, "cannot be continued: its model is" in done.err) == (2, True), done.err
    done = tavq("decode", home / "aligned", tokens, "--out", tmp_path / "out")
    assert "was made by another model" in done.err


def test_unreadable_images_are_left_out_up_to_the_budget(tavq: Tavq, image_folder: Path, home: Path) -> None:
    for number in (1, 3, 4, 5):
        (image_folder / f"images/{number}.png").write_bytes(b"no image")
    arguments = ["encode", home / "plain", image_folder, "--out", image_folder.parent / "tokens", "--shard-size", 3]
    done = tavq(*arguments, "--fault-budget", 3)
    assert (done.code, "4 of 16 images" in done.err) == (1, True), done.err
    done = tavq(*arguments, "--fault-budget", 4, "--resume")
    assert done.code == 0, done.err
    shards = package.TokenShards(image_folder.parent / "tokens")
    assert (len(shards), shards.manifest.missing) == (12, 4)
    assert [note.missing for note in shards.manifest.shards] == [1, 3, 0, 0, 0, 0]


@pytest.mark.parametrize("budget", ["100", "20%"])
def test_a_share_may_be_all_unreadable(tavq: Tavq, image_folder: Path, home: Path, budget: str) -> None:
    for number in (3, 4, 5):
        (image_folder / f"images/{number}.png").write_bytes(b"no image")
    out = image_folder.parent
    arguments = ["encode", home / "plain", image_folder, "--shard-size", 3, "--fault-budget", budget, "--out"]
    done = tavq(*arguments, out / "whole")
    assert done.code == 0, done.err
    (out / "whole/tokens-000001.safetensors").rename(out / "kept")
    done = tavq(*arguments, out / "whole", "--resume")
    assert done.code == 0, done.err
    assert (out / "whole/tokens-000001.safetensors").read_bytes() == (out / "kept").read_bytes()
    for part in range(1, 7):
        done = tavq(*arguments, out / "parts", "--shard", f"{part}/6")
        assert done.code == 0, done.err
    assert content(out / "parts") == content(out / "whole")


def test_shares_without_a_readable_image_are_refused_together(tavq: Tavq, image_folder: Path, home: Path) -> None:
    for path in image_folder.glob("images/*.png"):
        path.write_bytes(b"no image")
    arguments = ["encode", home / "plain", image_folder, "--shard-size", 8, "--out", image_folder.parent / "tokens"]
    assert tavq(*arguments, "--shard", "1/2").code == 0
    done = tavq(*arguments, "--shard", "2/2")
    assert (done.code, "None of the images can be read" in done.err) == (1, True), done.err


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_leave_the_same_bytes_as_one(home: Path, tokens: Path, tmp_path: Path, processes: int) -> None:
    arguments = ["encode", str(home / "plain"), str(home / "data"), "--out", str(tmp_path / "tokens")]
    done = run_tavq(processes, [*arguments, "--shard-size", "3"])
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "tokens") == content(tokens)
    assert done.stderr.count("16 images are in") == 1
    (tmp_path / "tokens" / "tokens-000004.safetensors").write_bytes(b"damaged")
    done = run_tavq(processes, [*arguments, "--shard-size", "3", "--resume"])
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "tokens") == content(tokens)


def test_numpy_alone_reads_the_folder(tokens: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/tokens.md").read_text()
    [reader] = [block for block in page.split("```python\n")[1:] if "np.unpackbits" in block]
    reader = reader.partition("```")[0]
    assert "tavq" not in reader
    assert len([line for line in reader.splitlines() if line.strip()]) <= 20
    (tmp_path / "reader.py").write_text(reader)
    shards = package.TokenShards(tokens)
    read = list(runpy.run_path(str(tmp_path / "reader.py"))["read_tokens"](tokens))
    assert [key for key, _ in read] == shards.keys()
    for (_, grid), position in zip(read, range(16), strict=True):
        np.testing.assert_array_equal(grid, shards[position]["indices"].numpy().reshape(grid.shape))


def test_datasets_reads_the_folder(tokens: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed (extra tavq[hf])")
    shards = package.TokenShards(tokens)
    made = datasets.Dataset.from_generator(shards.examples, cache_dir=str(tmp_path))
    assert made["key"][:] == shards.keys()
    assert made[3]["indices"] == shards[3]["indices"].tolist()
