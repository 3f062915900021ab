"""The map of the entries by UMAP, which an extra brings."""

import sys
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tavq.explore.explorer import Explorer
from tavq.explore.pages import maps
from tavq.explore.server.app import make_api


def test_a_map_by_umap_is_made_once_and_said_where_it_cannot_be(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class FirstTwo:
        def __init__(self, **settings: Any) -> None:
            made.append(settings)

        def fit_transform(self, entries: np.ndarray) -> np.ndarray:
            return entries[:, :2]

    client = TestClient(make_api(explorer))

    def ask(method: str) -> Any:
        return client.get("/api/v1/models/aligned/levels/deep/map", params={"method": method}).json()

    monkeypatch.setattr(maps, "_umaps", OrderedDict())
    monkeypatch.setitem(sys.modules, "umap", None)
    instead = ask("umap")
    assert instead == {**ask("pca"), "missing": instead["missing"]}
    assert [(part["part"], part["remedy"]) for part in instead["missing"]] == [("umap", maps.REMEDY)]
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstTwo))
    found = [ask("umap") for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0]["method"], found[0]["missing"]) == ("umap", [])
    assert max(found[0]["x"] + found[0]["y"]) == 1
    assert [settings["n_neighbors"] for settings in made] == [len(found[0]["codes"]) - 1]
