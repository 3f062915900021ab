"""Two processes of `torchrun` train and evaluate like one, and resume bit-for-bit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run_tavq
from safetensors.torch import load_file

import tavq as package
from tavq.training.log_lines import TIMING

from .conftest import Tavq

ADVERSARY = "--train.adversarial.discriminator.norm none"  # batch norm has the statistics of each process


def launch(processes: int, data: Path, out: Path, settings: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `tavq train vqgan-tiny` with a number of processes."""
    return run_tavq(processes, train_command(data, out, settings))


def train_command(data: Path, out: Path, settings: list[str]) -> list[str]:
    return ["train", "vqgan-tiny", "--data", str(data), "--out", str(out), *settings]


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def settings(small: list[str]) -> list[str]:
    steps = "--train.steps 6 --train.checkpoint_every 3 --train.adversarial.start 3 --train.decay none"
    return [*small, *steps.split(), *ADVERSARY.split()]


@pytest.fixture(scope="module")
def twice(shared_images: Path, tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> Path:
    """A run of two processes of `torchrun` itself."""
    out = tmp_path_factory.mktemp("twice") / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tavq"]
    command = [*torchrun, *train_command(shared_images, out, settings)]
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("The model is in") == 1
    return out


def test_two_processes_train_as_one_does(twice: Path, shared_images: Path, tmp_path: Path, settings: list[str]) -> None:
    done = launch(1, shared_images, tmp_path / "run", settings)
    assert done.returncode == 0, done.stderr
    for two, one in zip(lines(twice), lines(tmp_path / "run"), strict=True):
        assert two.keys() == one.keys()
        for key in set(one) - TIMING:
            assert two[key] == pytest.approx(one[key], rel=0.01, abs=1e-4), key
    # Adam's first steps amplify rounding, so weights agree only to about a thousandth.
    both = [load_file(run / "model" / "model.safetensors") for run in (twice, tmp_path / "run")]
    for key, value in both[0].items():
        torch.testing.assert_close(value, both[1][key], rtol=0, atol=5e-3, msg=key)
    assert json.loads((twice / "provenance.json").read_text())["processes"] == 2


def test_two_processes_resume_bit_for_bit(
    twice: Path, shared_images: Path, tmp_path: Path, settings: list[str]
) -> None:
    out = tmp_path / "run"
    half = launch(2, shared_images, out, [*settings, "--train.steps", "3"])
    assert half.returncode == 0, half.stderr
    done = launch(2, shared_images, out, [*settings, "--resume"])
    assert done.returncode == 0, done.stderr
    assert (out / "model" / "model.safetensors").read_bytes() == (twice / "model" / "model.safetensors").read_bytes()
    assert [line["step"] for line in lines(out)] == [line["step"] for line in lines(twice)]


def test_a_batch_that_cannot_be_divided_trains_as_in_one_process(
    shared_images: Path, tmp_path: Path, settings: list[str]
) -> None:
    few = [*settings, "--train.batch", "5", "--train.steps", "4"]
    for processes, more in ((1, []), (2, ["--train.accumulate", "2", "--train.recompute", "true"])):
        done = launch(processes, shared_images, tmp_path / str(processes), [*few, *more])
        assert done.returncode == 0, done.stderr
    for two, one in zip(lines(tmp_path / "2"), lines(tmp_path / "1"), strict=True):
        for key in set(one) - TIMING:
            assert two[key] == pytest.approx(one[key], rel=0.01, abs=1e-4), key
    hashes = [json.loads((tmp_path / run / "model/config.json").read_text())["method_hash"] for run in "12"]
    assert hashes[0] == hashes[1]  # one method, however it is computed


def test_a_run_goes_on_with_another_number_of_processes(
    shared_images: Path, tmp_path: Path, settings: list[str], twice: Path
) -> None:
    out = tmp_path / "run"
    for processes, steps in ((2, 3), (1, 6)):
        done = launch(processes, shared_images, out, [*settings, "--train.steps", str(steps), "--resume", "auto"])
        assert done.returncode == 0, done.stderr
    for changed, two in zip(lines(out), lines(twice), strict=True):
        for key in set(two) - TIMING:
            assert changed[key] == pytest.approx(two[key], rel=0.01, abs=1e-4), key
    for record in ("provenance.json", "model/config.json"):
        assert json.loads((out / record).read_text())["process_changes"] == [{"step": 3, "processes": 1}]


@pytest.mark.parametrize(("batch", "accumulate", "error"), [
    (1, 1, "train.batch 1 is smaller than the number of processes, 2"),
    (6, 4, "train.accumulate 4 is more than the 3 samples that each process has of train.batch 6 in 2 processes"),
])  # fmt: skip
def test_a_process_without_work_is_refused(
    shared_images: Path, tmp_path: Path, settings: list[str], batch: int, accumulate: int, error: str
) -> None:
    few = ["--train.batch", str(batch), "--train.accumulate", str(accumulate)]
    done = launch(2, shared_images, tmp_path / "run", [*settings, *few])
    assert done.returncode != 0
    assert error in done.stderr


def test_two_processes_measure_as_one_does(
    twice: Path, shared_images: Path, tmp_path: Path, tavq: Callable[..., Any]
) -> None:
    arguments = ["evaluate", str(twice), "--data", str(shared_images), "--split", "train", "--json"]
    done = run_tavq(2, [*arguments, str(tmp_path / "two.json")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("psnr") == 1
    two = json.loads((tmp_path / "two.json").read_text())
    assert two == json.loads((twice / "evaluation.json").read_text())
    assert tavq(*arguments, tmp_path / "one.json").code == 0
    one = json.loads((tmp_path / "one.json").read_text())
    machines = [found["protocol"].pop("machine") for found in (one, two)]
    assert [machine["processes"] for machine in machines] == [1, 2]
    ours, theirs = (found["metrics"].pop("fd_scenes")["value"] for found in (two, one))
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert two == one
    assert one["images"] == 10


REFUSED = {
    "ask run image question": "call it without torchrun",
    "ground run image phrase": "call it without torchrun",
    "fill run image caption": "call it without torchrun",
    "search index-folder --text x": "call it without torchrun",
    "metrics vqa --predictions a --references b": "call it without torchrun",
    "report run": "call it without torchrun",
    "leaderboard a b": "measure each model by tavq evaluate",
    "study file": "each on a GPU of its own",
    "export run --to tokens --out out": "first use tavq encode",
}


@pytest.mark.parametrize("command", REFUSED)
def test_commands_that_do_not_share_work_are_refused(tavq: Tavq, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = command.split()
    done = tavq(*words)
    assert done.code == 2
    name = " ".join(words[:2]) if words[0] in ("task", "metrics") else words[0]
    assert f"tavq {name} works in one process, and torchrun started 2" in done.err
    assert REFUSED[command] in done.err
    assert "search index, task evaluate, task train, text, train" in done.err
    assert tavq(*words[:1], "--help").code == 0


OWN_FOLDERS = """
import os, sys
from tavq.cli import run
sys.exit(run([*sys.argv[1:], "--out", os.environ["FOLDER"] + os.environ["RANK"]]))
"""


@pytest.mark.parametrize("holder", [0, 1])
@pytest.mark.parametrize("resume", [["--resume"], ["--resume", "auto"]])
def test_run_folders_that_are_not_shared_are_refused(
    twice: Path, shared_images: Path, tmp_path: Path, settings: list[str], holder: int, resume: list[str]
) -> None:
    """Each process would go on from the checkpoints on its own disk, and a mixture would be saved."""
    shutil.copytree(twice, tmp_path / f"run{holder}")
    script = tmp_path / "own_folders.py"
    script.write_text(OWN_FOLDERS)
    train = ["train", "vqgan-tiny", "--data", str(shared_images), *resume, *settings, "--train.steps", "8"]
    done = run_tavq(2, train, script, FOLDER=str(tmp_path / "run"))
    assert done.returncode != 0
    if holder == 0 or resume[-1] == "auto":
        assert "found different checkpoints" in done.stderr
        steps = ["6", "0"] if holder == 0 else ["0", "6"]
        assert f"(process 0: step {steps[0]}, process 1: step {steps[1]})" in done.stderr
    else:
        # the process that has one does not wait, and the first to fail tells for both
        assert done.stderr.count("to resume; start without --resume") == 1
    assert not (tmp_path / f"run{1 - holder}/model").exists()


def test_codes_and_the_first_evaluation_are_those_of_one_process(
    twice: Path, shared_images: Path, tmp_path: Path
) -> None:
    """The first process encodes the images while the other one waits; both measure a part of the held-out ones."""
    few = ["--train.steps", "4", "--train.batch", "4", "--train.warmup", "0", "--train.evaluate_first", "3"]
    found = []
    for processes in (1, 2):
        out = tmp_path / f"by-{processes}"
        arguments = ["--data", str(shared_images), "--out", str(out), "--train.start_from", str(twice), *few]
        done = run_tavq(processes, ["train", "align-frozen", *arguments])
        assert done.returncode == 0, done.stderr
        start = json.loads((out / "evaluation_start.json").read_text())["metrics"]
        values = {key: metric["value"] for key, metric in start.items() if not key.startswith(("fd_", "kid_"))}
        found.append(((out / "codes.safetensors").read_bytes(), values, out))
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    before = load_file(twice / "model/model.safetensors")
    for _, _, out in found:
        after = load_file(out / "model/model.safetensors")
        assert all(torch.equal(value, after[name]) for name, value in before.items())
