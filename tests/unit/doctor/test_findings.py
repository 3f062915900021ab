"""What each thing that is looked at comes to."""

import json
import re
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tavq import cli
from tavq.cli.doctor import WIDTH, format_page
from tavq.core.errors import UsageError
from tavq.doctor import devices, examination, installed, speed, system
from tavq.doctor.examination import examine
from tavq.doctor.finding import Finding, findings_as_json, give_verdict, run_check

ROOT = Path(__file__).parents[3]
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Finding]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "SECONDS", 0.01)
        patch.setattr(system, "DISK_BYTES", 1 << 20)
        yield examine(tmp_path_factory.mktemp("disk"))


def test_everything_is_looked_at(findings: list[Finding]) -> None:
    names = {finding.name for finding in findings}
    assert {
        "tavq", "packages", "GPU", "processor", "threads of PyTorch", "memory", "disk", "open files", "torch.compile",
        "Triton", "several processes", "products of matrices", "decoding", "encoding", "workers",
    } <= names  # fmt: skip
    assert not [finding for finding in findings if "could not be checked" in finding.shown]
    rates = [finding.values["images_per_second"] for finding in findings if finding.name in ("decoding", "encoding")]
    assert all(rate > 1 for rate in rates)


def test_the_page_fits_a_terminal(findings: list[Finding]) -> None:
    long = Finding("usable", "GPU", "word " * 60, {}, "odd", "do this " * 40)
    for line in format_page([*findings, long]):
        assert len(line) <= WIDTH
    text = "\n".join(format_page(findings))
    assert [text.index(title) for title in ("Installed", "Usable here", "How fast")] == sorted(
        text.index(title) for title in ("Installed", "Usable here", "How fast")
    )


def test_neither_page_nor_json_names_a_host_or_a_place(findings: list[Finding]) -> None:
    written = json.dumps(findings_as_json(findings), allow_nan=False)
    for text in (written, "\n".join(format_page(findings))):
        assert not re.search(r"(?<![\w.])/\w+/\w+", text)
        assert socket.gethostname() not in text


def test_every_extra_of_the_package_is_explained() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) - {"dev", "docs"} == set(installed.EXTRAS)
    for extra, (distribution, _) in installed.EXTRAS.items():
        assert any(line.startswith(distribution) for line in extras[extra]), extra


def test_what_tavq_depends_on_is_what_is_looked_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split("[<>=]", line)[0] for line in asked} == set(installed.NEEDED)


def test_a_missing_package_is_broken_and_a_missing_extra_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = installed.find_version
    monkeypatch.setattr(installed, "find_version", lambda name: None if name in ("nltk", "wandb") else own(name))
    packages = list(installed.check_packages())[1]
    assert (packages.state, packages.shown) == ("broken", "missing: nltk")
    assert packages.advice is not None
    assert packages.advice.endswith("-m pip install nltk")
    assert "wandb: missing" in [f"{extra.name[5:-1]}: {extra.state}" for extra in installed.check_extras()]


def test_without_a_working_torch_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        raise OSError("libtorch_cpu.so: cannot open shared object file\nmore")

    monkeypatch.setattr(examination, "_checks_with_torch", fail)
    assert cli.run(["doctor", "--folder", str(tmp_path), "--json", str(tmp_path / "doctor.json")]) == 1
    shown = capsys.readouterr().out
    assert "X  PyTorch" in shown
    assert "Not ready: 1 thing that tavq needs does not work." in shown
    assert json.loads((tmp_path / "doctor.json").read_text())["verdict"].startswith("Not ready")


def test_a_folder_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        examine(tmp_path / "none")


def test_a_check_that_fails_is_a_finding() -> None:
    def fail() -> Iterator[Finding]:
        yield Finding("fast", "a", "", {})
        raise ValueError("strange\nmore")

    (found,) = run_check("fast", "a", fail)
    assert (found.state, found.shown) == ("odd", "could not be checked (ValueError: strange)")


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (["ok", "missing"], "Ready."),
        (["odd", "ok"], "Ready, with 1 thing to look at."),
        (["odd", "odd"], "Ready, with 2 things to look at."),
        (["odd", "broken", "broken"], "Not ready: 2 things that tavq needs do not work."),
    ],
)
def test_the_verdict(states: list[str], verdict: str) -> None:
    assert give_verdict([Finding("fast", "a", "", {}, state) for state in states]) == verdict  # type: ignore[arg-type]


JUDGED = {
    "shared memory of a container": (system.judge_shared(64 << 20, 64 << 20), "--shm-size 8g"),
    "shared memory": (system.judge_shared(8 * GIGABYTE, 2 * GIGABYTE), None),
    "a full disk": (system.judge_disk(GIGABYTE, 1e9), "train.keep"),
    "a slow disk": (system.judge_disk(100 * GIGABYTE, 1e6), "checkpoint_every"),
    "a disk": (system.judge_disk(100 * GIGABYTE, 3e8), None),
    "slow bf16": (speed.judge_products("cpu", 30e9, 10e9), "leave train.precision at fp32"),
    "fast bf16": (speed.judge_products("cuda", 5e13, 8e14), None),
    "one thread": (speed.judge_one_thread(5, 99, 2), "OMP_NUM_THREADS=1"),
    "two threads": (speed.judge_one_thread(150, 99, 2), None),
    "a fast GPU": (speed.judge_workers(200, 20_000, 16, "cuda"), "needs 100 cores"),
    "a GPU": (speed.judge_workers(200, 2_000, 16, "cuda"), None),
    "a processor": (speed.judge_workers(200, 2_000, 2, "cpu"), None),
    "too many threads": (devices.judge_threads(64, 2.5, None), "set OMP_NUM_THREADS=2."),
    "as many threads": (devices.judge_threads(2, 2, "2"), None),
    "a build without CUDA": (devices.explain_no_gpu(True, None), "the build without CUDA"),
    "an old driver": (devices.explain_no_gpu(True, "13.0"), "driver's CUDA version"),
    "no GPU": (devices.explain_no_gpu(False, "13.0"), None),
}


@pytest.mark.parametrize("case", JUDGED)
def test_what_is_odd_comes_with_advice(case: str) -> None:
    found, advice = JUDGED[case]
    assert (found.state == "odd") == (advice is not None)
    assert advice is None or (found.advice is not None and advice in found.advice)


def test_workers_fit_decoding_to_the_device() -> None:
    assert speed.judge_workers(200, 1_900, 16, "cuda").values == {"workers": 10}


def test_a_device_that_computes_wrongly_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.check_computation("cuda:0", torch.device("cpu"), "GPU", {}).state == "ok"
    assert devices.check_computation("cuda:0", torch.device("cuda", 0), "GPU", {}).state == "broken"
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self + 1)
    found = devices.check_computation("cuda:0", torch.device("cpu"), "GPU", {})
    assert (found.state, found.shown) == ("broken", "GPU: computes wrongly")
