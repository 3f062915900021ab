"""Runs whose state is sharded over processes: the same model, checkpoints that survive, other numbers of processes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_as, try_at_once
from safetensors.torch import load_file

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import FileError
from tavq.tasks.model_folder import load_task
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training import checkpoint

pytestmark = pytest.mark.slow  # starts processes that train

SCRIPT = Path(__file__).with_name("one_training_process.py")
TASK = {"name": "prior", "layers": 2, "heads": 2, "width": 16, "dropout": 0.0}
TRAIN = {
    "steps": 6, "batch": 6, "learning_rate": 1e-3, "ema": 0.9, "warmup": 2, "decay": "cosine",
    "log_every": 2, "checkpoint_every": 2, "sample_every": 3, "keep": 2,
}  # fmt: skip
NET = {"channels": 8, "multipliers": [1, 1, 2, 2], "blocks": 1, "attention": False}

Train = Callable[..., list[str]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    values = {"net": NET, "codebook": {"name": "learned", "entries": 20, "width": 6}}
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    made = Tokenizer(build(TokenizerConfig, values, "test"))
    made.save_pretrained(folder, metadata={"kind_of_images": "images", "size": 32})
    return folder


@pytest.fixture(scope="module")
def specify(tokenizer: Path, shared_images: Path) -> Callable[..., dict[str, Any]]:
    def specify(run: Path, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
        recipe = {"task": TASK, "data": {"size": 32}, "train": {**TRAIN, **settings}}
        return {"recipe": recipe, "tokenizer": str(tokenizer), "data": str(shared_images), "run": str(run), **more}

    return specify


@pytest.fixture(scope="module")
def train(specify: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains into a run folder with a number of processes; returns messages, but those of tokens."""

    def train(world: int, run: Path, sharding: str, settings: dict[str, Any] | None = None, **more: Any) -> list[str]:
        given = specify(run, {"sharding": sharding, **(settings or {})}, **more)
        out = tmp_path_factory.mktemp("out")
        run_as(world, SCRIPT, out, json.dumps(given))
        messages = json.loads((out / "messages.json").read_text())
        return [message for message in messages if not message.startswith("The tokens of the images are")]

    return train


@pytest.fixture(scope="module")
def straight(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, sharded, without a break."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train(2, run, "full") == []
    return run


@pytest.fixture(scope="module")
def half(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped after step 3."""
    run = tmp_path_factory.mktemp("half") / "run"
    train(2, run, "full", stop=3)
    assert not (run / "model").exists()
    return run


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def results(run: Path) -> list[bytes]:
    """The model and the samples."""
    samples = sorted((run / "samples").iterdir())
    assert [path.stem for path in samples] == ["00000003", "00000006"]
    return [(run / "model/model.safetensors").read_bytes(), *(path.read_bytes() for path in samples)]


def assert_close(run: Path, straight: Path) -> None:
    """Sums over processes have another order, and Adam's first steps amplify rounding."""
    model, expected = (load_file(folder / "model/model.safetensors") for folder in (run, straight))
    assert model.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(model[name], value, rtol=0, atol=2e-4, msg=name)


def test_a_sharded_run_makes_the_model_of_one_that_is_not(train: Train, straight: Path, tmp_path: Path) -> None:
    train(2, tmp_path / "run", "none")
    assert results(tmp_path / "run") == results(straight)
    kept = [json.loads((run / "model/config.json").read_text()) for run in (tmp_path / "run", straight)]
    assert kept[0] == kept[1]
    assert load_task(straight).metadata["processes"] == 2


def test_a_stopped_run_resumes_bit_for_bit(train: Train, half: Path, straight: Path, tmp_path: Path) -> None:
    train(2, copied(half, tmp_path / "run"), "full", resume=True)
    assert results(tmp_path / "run") == results(straight)


def test_a_run_goes_on_without_sharding_and_back(train: Train, half: Path, straight: Path, tmp_path: Path) -> None:
    run = copied(half, tmp_path / "run")
    train(2, run, "none", resume=True, stop=4)
    assert (run / "checkpoints/00000004/state.safetensors").is_file()
    train(2, run, "full", resume=True)
    assert results(run) == results(straight)


def test_one_process_goes_on(train: Train, half: Path, straight: Path, tmp_path: Path) -> None:
    messages = train(1, copied(half, tmp_path / "run"), "full", resume=True)
    assert messages == ["train.sharding full changes nothing in one process, which holds all weights."]
    assert_close(tmp_path / "run", straight)


def test_three_processes_go_on_and_two_after_them(train: Train, half: Path, straight: Path, tmp_path: Path) -> None:
    """Rows do not divide by three: the first process has more, and the last may have none."""
    run = copied(half, tmp_path / "run")
    train(3, run, "full", resume=True, stop=5)
    assert len(list((run / "checkpoints/00000005").glob("shard-*"))) == 3
    train(2, run, "full", resume=True)
    assert_close(run, straight)


def test_bf16_and_clipping(train: Train, tmp_path: Path) -> None:
    settings = {"precision": "bf16", "clip": 0.1}
    train(2, tmp_path / "none", "none", settings)
    train(2, tmp_path / "full", "full", settings)
    assert_close(tmp_path / "full", tmp_path / "none")


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_parts_without_a_pickle(straight: Path) -> None:
    assert sorted(path.name for path in (straight / "checkpoints").iterdir()) == ["00000004", "00000006"]
    folder = straight / "checkpoints/00000006"
    parts = sorted(path.name for path in folder.glob("*.safetensors"))
    assert sorted(path.name for path in folder.iterdir()) == sorted(["state.json", *parts])
    assert len(parts) == 2
    sizes = [(folder / part).stat().st_size for part in parts]
    assert min(sizes) > 0.4 * sum(sizes)
    groups, metadata = checkpoint.load(straight / "checkpoints", 6)
    assert (metadata["step"], metadata["processes"]) == (6, 2)
    averages, model = groups["mean"], load_file(straight / "model/model.safetensors")
    assert averages.keys() == model.keys()
    assert all(torch.equal(averages[name], value) for name, value in model.items())


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_a_damaged_part_is_named_and_an_older_checkpoint_taken(
    train: Train, half: Path, straight: Path, tmp_path: Path
) -> None:
    run = copied(half, tmp_path / "run")
    part = next((run / "checkpoints/00000003").glob("shard-00002-*"))
    damage(part)
    messages = train(2, run, "full", resume=True)
    assert [message for message in messages if str(part) in message and "was altered or truncated" in message]
    assert results(run) == results(straight)


@pytest.mark.parametrize("change", ["missing", "foreign", "cut", "record"])
def test_no_part_may_be_missing_foreign_or_cut(half: Path, change: str, tmp_path: Path) -> None:
    folder = copied(half, tmp_path / "run") / "checkpoints"
    newest = folder / "00000003"
    part = next(newest.glob("shard-00001-*"))
    if change == "missing":
        part.unlink()
    elif change == "foreign":
        shutil.copy(part, newest / "shard-00009-model-00001-of-00001.safetensors")
    elif change == "cut":
        os.truncate(part, part.stat().st_size // 2)
    else:
        record = files.read_json(newest / "state.json")
        files.write_json(newest / "state.json", {**record, "files": {"../../x": "0"}})
    step, damaged = checkpoint.find_newest(folder)
    assert (step, len(damaged)) == (2, 1)
    assert str(newest) in damaged[0]
    with pytest.raises(FileError, match="00000003"):
        checkpoint.load(folder, 3)


@pytest.mark.parametrize(("rank", "where"), [(1, "writing"), (0, "writing"), (0, "naming")])
def test_a_process_killed_at_a_checkpoint_leaves_the_one_before(
    specify: Callable[..., dict[str, Any]], train: Train, straight: Path, rank: int, where: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    given = specify(run, {"sharding": "full"}, kill={"rank": rank, "while": where, "step": 4})
    codes = try_at_once(SCRIPT, tmp_path, [(0, 2), (1, 2)], json.dumps(given))  # the other one is ended, as by torchrun
    assert codes[rank] == -signal.SIGKILL
    assert [path.name for path in (run / "checkpoints").glob("0*")] == ["00000002"]
    assert checkpoint.find_newest(run / "checkpoints") == (2, [])
    if where == "naming":  # a process that outlives the other removes what both wrote
        assert list((run / "checkpoints").glob(".tavq-tmp-*"))
        train(2, run, "full", resume=True)
        assert results(run) == results(straight)
        assert not list((run / "checkpoints").glob(".tavq-tmp-*"))
