"""`tavq bench` at toy size: every row, its files, its floors and its messages."""

import json
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tavq.bench import case as cases
from tavq.bench.rows import ROWS
from tavq.bench.run import FLOORS, find_failures, read_floors, run_bench, write_floors
from tavq.cli import run
from tavq.core.errors import UsageError

PEERS = {"diffusers", "vector-quantize-pytorch", "POT, loop", "POT, batch", "POT, exact", "geomloss", "simplejpeg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "out"
    assert run(["bench", "--toy", "--seconds", "0.5", "--out", str(out)]) == 0
    return out


def test_every_row_is_measured_beside_its_peers(folder: Path) -> None:
    result = json.loads((folder / "bench.json").read_text())
    assert {key.partition("/")[0] for key in result["cases"]} == set(ROWS)
    measured: set[str] = set()
    for key, case in result["cases"].items():
        first = next(iter(case["rows"].values()))
        assert (first["ratio"], first["least"], first["greatest"]) == (1, 1, 1)
        assert any(name.startswith("tavq") for name in case["rows"]), key
        for row in case["rows"].values():
            assert row["milliseconds"] > 0
            assert row["least"] <= row["ratio"] <= row["greatest"]
        assert {name: why for name, why in case["absent"].items() if "not installed" not in why} == {}, key
        measured |= {*case["rows"]}
    assert measured >= {"taming", "Pillow"} | (PEERS if find_spec("ot") else set())
    assert result["machine"]["class"]


def test_the_table_and_the_plot_show_every_alternative(folder: Path) -> None:
    result = json.loads((folder / "bench.json").read_text())
    page, plot = (folder / "bench.md").read_text(), ET.fromstring((folder / "bench.svg").read_text())
    words = [element.text for element in plot.iter("{http://www.w3.org/2000/svg}text")]
    for case in result["cases"].values():
        assert f"**{case['title']}**" in page
        assert case["title"] in words
        for name in case["rows"]:
            assert f"| {name} | " in page
            assert name in words


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "find_spec", lambda name: None)
    result = run_bench(torch.device("cpu"), ["nearest", "sinkhorn"], toy=True)
    wide, sampled = result["cases"]["nearest/wide"], result["cases"]["sinkhorn/sampled"]
    assert wide["absent"]["diffusers"] == "diffusers is not installed: pip install 'tavq[bench]'"
    assert {*wide["rows"]} == {"taming", "tavq", "the product alone"}
    assert {*sampled["absent"]} == {"POT", "geomloss"}


def test_a_peer_of_another_version_is_named() -> None:
    def build() -> list[cases.Alternative]:
        raise ImportError("cannot import name 'VectorQuantizer'")

    case = cases.Case("x/y", "a case")
    case.add_peer("torch", "torch", build)
    assert case.absent == {"torch": "torch cannot be used (cannot import name 'VectorQuantizer')"}


def result_with(ratio: float, name: str = "tavq", toy: bool = False) -> dict:
    rows = {"taming": {"ratio": 1.0}, name: {"ratio": ratio}}
    return {"toy": toy, "machine": {"class": "avx2"}, "cases": {"nearest/wide": {"rows": rows}}}


FLOOR = {"avx2": {"nearest/wide/tavq": 2.0, "step/batch-1/tavq": 1.2}, "amx": {"nearest/wide/tavq": 9.0}}


@pytest.mark.parametrize(("ratio", "failures"), [(2.0, 0), (1.99, 1), (float("nan"), 1)])
def test_a_ratio_below_the_floor_of_its_class_fails(ratio: float, failures: int) -> None:
    found, missing = find_failures(result_with(ratio), FLOOR)
    assert len(found) == failures
    assert missing == []  # the row of the other floor was not chosen
    if ratio == 1.99:
        assert found == ["nearest/wide/tavq: 1.99, below its floor 2.00"]


def test_a_floor_of_a_chosen_row_that_was_not_measured_is_named() -> None:
    found, missing = find_failures(result_with(3.0, name="tavq, bf16"), FLOOR)
    assert (found, missing) == ([], ["nearest/wide/tavq: not measured (floor 2.00)"])


def test_machines_without_floors_and_toy_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"No floors are kept for machines of class 'avx2' \(kept: amx\)"):
        find_failures(result_with(3.0), {"amx": {}})
    with pytest.raises(UsageError, match="Toy sizes measure nothing"):
        find_failures(result_with(3.0, toy=True), FLOOR)


def test_floors_are_kept_by_class(tmp_path: Path) -> None:
    path = tmp_path / "floors.json"
    path.write_text(json.dumps(FLOOR))
    write_floors(result_with(3.0), path, 0.8)
    assert read_floors(path) == {**FLOOR, "avx2": {"nearest/wide/tavq": 2.4, "step/batch-1/tavq": 1.2}}
    with pytest.raises(UsageError, match=r"at most 1, not 1\.5"):
        write_floors(result_with(3.0), path, 1.5)
    path.write_text('{"avx2": {"nearest/wide/tavq": "fast"}}')
    with pytest.raises(UsageError, match="is not a file of floors"):
        read_floors(path)


def test_the_floors_that_tavq_brings_name_cases_that_exist(folder: Path) -> None:
    result = json.loads((folder / "bench.json").read_text())
    toy = {f"{key}/{name}" for key, case in result["cases"].items() for name in case["rows"]}
    for own in read_floors(FLOORS).values():
        assert {name for name in own if not name.startswith("sinkhorn/full")} <= toy


def test_rows_and_seconds_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "nearst", "--toy"]) == 2
    assert "Did you mean 'nearest'?" in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(UsageError, match="seconds must be positive, not 0"):
        run_bench(torch.device("cpu"), ["nearest"], seconds=0, toy=True)
