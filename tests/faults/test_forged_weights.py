"""A file of weights that calls itself the published one: results carry that name only where it was converted here."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from formula_weights import weight
from safetensors.torch import load_file, save_file

from tavq.core.conversion import ORIGIN, Origin, _digest, read_converted, write_converted
from tavq.core.errors import FileError
from tavq.nets.features import inception, lpips
from tavq.nets.features.inception import InceptionNetwork, inception_shapes
from tavq.nets.features.lpips import PLANS, LpipsNetwork


def lpips_tensors(kind: str) -> dict[str, torch.Tensor]:
    tensors = {}
    for stage, (number, inputs, outputs, kernel, *_) in enumerate(PLANS[kind]):
        tensors[f"features.{number}.weight"] = weight(f"{number}.w", (outputs, inputs, kernel, kernel))
        tensors[f"features.{number}.bias"] = weight(f"{number}.b", (outputs,))
        if number in lpips.TAPS[kind]:
            tensors[f"head{lpips.TAPS[kind].index(number)}"] = torch.ones(outputs) * (stage + 1)
    return tensors


def inception_tensors() -> dict[str, torch.Tensor]:
    shapes = inception_shapes().items()
    return {name: torch.tensor(0) if "num_batches" in name else weight(name, shape) for name, shape in shapes}


CASES: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], Origin, Callable[[Path], str], str, str]] = {
    "inception": (
        inception_tensors,
        Origin("inception", {"weights": inception.PUBLISHED}),
        lambda path: InceptionNetwork(path).metric_name("fd"),
        "fid",
        "fd_inception",
    ),
    "alex": (
        lambda: lpips_tensors("alex"),
        Origin("lpips", lpips.PUBLISHED["alex"]),
        lambda path: LpipsNetwork(path).metric_name("distance"),
        "lpips_alex",
        "perceptual_alex",
    ),
}


def forge(path: Path, tensors: dict[str, torch.Tensor], origin: Origin) -> None:
    """What anybody can write with a few lines."""
    record = {"kind": origin.kind, "sources": dict(origin.sources), "tensors": _digest(tensors)}
    save_file(tensors, path, {ORIGIN: json.dumps(record, sort_keys=True)})


@pytest.mark.parametrize("name", CASES)
def test_only_what_was_converted_here_has_the_published_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, origin, metric, published, plain = CASES[name]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, tensors = tmp_path / "weights.safetensors", make()
    forge(path, tensors, origin)
    with caplog.at_level(logging.WARNING, "tavq"):
        assert metric(path) == plain
    assert "weights.safetensors says that it holds the published weights" in caplog.text
    write_converted(path, tensors, origin)
    assert metric(path) == published
    assert metric(Path(path.rename(tmp_path / "moved"))) == published
    first = next(iter(sorted(tensors)))
    forge(tmp_path / "other", {**tensors, first: tensors[first] + 1}, origin)  # the name was earned by other tensors
    assert metric(tmp_path / "other") == plain
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of another user"))
    assert metric(tmp_path / "moved") == plain


def test_other_sources_earn_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make, origin, metric, _, plain = CASES["alex"]
    tensors = make()
    write_converted(tmp_path / "honest", tensors, Origin("lpips", {**origin.sources, "heads": "0" * 64}))
    assert metric(tmp_path / "honest") == plain
    forge(tmp_path / "forged", tensors, origin)
    assert metric(tmp_path / "forged") == plain


@pytest.mark.parametrize("kind", ["file in the way", "read only"])
def test_a_conversion_that_cannot_be_noted_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    (tmp_path / "state").write_text("")
    place = tmp_path / "state" if kind == "file in the way" else Path("/proc/tavq")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    tensors = {"a": torch.zeros(2)}
    with caplog.at_level(logging.WARNING, "tavq"):
        write_converted(tmp_path / "out", tensors, Origin("x", {"y": "z"}))
    assert "results do not carry the published name" in caplog.text
    found, origin = read_converted(tmp_path / "out")
    assert torch.equal(found["a"], tensors["a"])
    assert (origin, origin.confirmed) == (Origin("x", {"y": "z"}), False)


def test_altered_tensors_are_still_refused(tmp_path: Path) -> None:
    write_converted(tmp_path / "out", {"a": torch.zeros(2)}, Origin("x", {"y": "z"}))
    metadata = {ORIGIN: json.dumps({"kind": "x", "sources": {"y": "z"}, "tensors": "0" * 64})}
    save_file({"a": load_file(tmp_path / "out")["a"] + 1}, tmp_path / "out", metadata)
    with pytest.raises(FileError, match="was altered"):
        read_converted(tmp_path / "out")
