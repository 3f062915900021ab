"""Saved statistics survive a file and are refused where they do not match."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.errors import FileError, UsageError
from tavq.core.files import write_tensors
from tavq.metrics.distances import Gaussian
from tavq.metrics.reference import (
    ReferenceStatistics,
    SetDescription,
    describe_reference,
    read_statistics,
    write_statistics,
)

OF = SetDescription("fd_scenes", "ab" * 32, (32, 48), "none", "images (train)", "cd" * 32)
SAVED = ReferenceStatistics(
    Gaussian(9, torch.tensor([1.0, 2.0]).double(), torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()), OF
)


def test_statistics_survive_a_file(tmp_path: Path) -> None:
    write_statistics(tmp_path / "x", SAVED)
    found = read_statistics(tmp_path / "x")
    assert found.description == OF
    assert found.gaussian.count == 9
    assert torch.equal(found.gaussian.covariance, SAVED.gaussian.covariance)
    assert json.loads(json.dumps(describe_reference(found)))["size"] == [32, 48]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "fid"}, r"the network of its images is fd_scenes \(sha256 abababababab…\), and here it is fid"),
        ({"network_sha256": "ef" * 32}, r"here it is fd_scenes \(sha256 efefefefefef…\)"),
        ({"size": (48, 32)}, "the size of its images is 48 x 32, and here it is 32 x 48"),
        ({"resize": "bicubic"}, "the resizing of its images is 'none', and here it is 'bicubic'"),
    ],
)
def test_mismatched_statistics_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"x cannot be the reference: .*{message}"):
        SAVED.check(Path("x"), replace(OF, **change))
    SAVED.check(Path("x"), replace(OF, data="others", data_sha256="00"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    good = {"mean": torch.zeros(2).double(), "covariance": torch.eye(2).double()}
    write_tensors(path, good)
    with pytest.raises(FileError, match="x does not hold statistics of images; write them with --save-statistics"):
        read_statistics(path)
    said = {"network": "fd_scenes", "network_sha256": "", "size": [2, 2], "resize": "", "data": "", "data_sha256": ""}
    text = json.dumps({**said, "count": 3})
    bad = [
        ({"mean": good["mean"]}, text),
        ({**good, "mean": torch.zeros(3).double()}, text),
        ({**good, "covariance": torch.eye(2)}, text),
        ({**good, "covariance": torch.tensor([[1.0, 2.0], [0.0, 1.0]]).double()}, text),
        ({**good, "covariance": -torch.eye(2).double()}, text),
        ({**good, "mean": torch.tensor([0.0, float("nan")]).double()}, text),
        (good, json.dumps(said)),
        (good, json.dumps({**said, "count": 1})),
        (good, json.dumps({**said, "count": 3, "size": [2]})),
        (good, json.dumps({**said, "count": 3, "more": "x"})),
        (good, json.dumps({**said, "count": 3, "data": 5})),
        (good, "[]"),
        (good, "3"),
    ]
    for tensors, metadata in bad:
        write_tensors(path, tensors, {"statistics": metadata})
        with pytest.raises(FileError, match="x does not hold complete statistics"):
            read_statistics(path)
