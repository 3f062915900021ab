"""The files of the page, and offline pages: what they hold, and what they leave out."""

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import tavq
from tavq.core.errors import UsageError
from tavq.explore.explorer import Explorer
from tavq.explore.page_files import read_static
from tavq.explore.server.app import make_api

from .conftest import API, addresses


def test_options_of_the_page_have_values() -> None:
    # Preact writes an empty value into an option without one, which then can neither be shown nor chosen.
    scripts = {name: data.decode() for name, data in read_static().items() if name.endswith(".js")}
    bare = {name: re.findall(r"<option(?![^>]*value=)[^>]*>", text) for name, text in scripts.items()}
    assert {name for name, found in bare.items() if found} == set()


def test_a_bundle_has_what_the_server_answers(explorer: Explorer, client: TestClient, tmp_path: Path) -> None:
    left_out = tavq.export_explorer(explorer, tmp_path / "part.json", codes=2, words=2, images=1)
    assert set(left_out.values()) == {0}
    bundle = json.loads((tmp_path / "part.json").read_text())
    for address, answer in bundle["answers"].items():
        assert client.get(address).json() == answer
        for image in addresses(answer):
            if image.partition("?")[0].endswith((".png", ".webp")):
                assert bundle["images"][image].startswith("data:image/")
    assert f"{API}/models/aligned/images/0" in bundle["answers"]


def test_a_bundle_holds_the_pages_that_were_chosen(explorer: Explorer, tmp_path: Path) -> None:
    chosen = ["http://127.0.0.1:1/#/m/aligned/low/code/3?x=1", "#/m/plain/deep/unit/words/1", "#/m/aligned/image/7"]
    left_out = tavq.export_explorer(explorer, tmp_path / "part.json", pages=chosen)
    assert set(left_out.values()) == {0}
    held = json.loads((tmp_path / "part.json").read_text())["answers"]
    pages = {path.removeprefix(API) for path in held if re.search("/(codes|units/words|images)/[0-9]+$", path)}
    assert pages == {"/models/aligned/levels/low/codes/3", "/models/plain/levels/deep/units/words/1",
                     "/models/aligned/images/7"}  # fmt: skip
    assert any("/images/7/heat" in path for path in held)


@pytest.mark.parametrize(
    ("page", "message"),
    [("#/images", "not the address of a code"), ("#/m/aligned/deep/code/99", "no code 99"), ("", "not the address"),
     ("#/m/other/image/0", "no model 'other'"), ("#/m/plain/image/99", "no image '99'"),
     ("#/m/plain/low/code/0", "no level 'low'"), ("#/m/plain/deep/unit/words/99999", "no unit 99999")],
)  # fmt: skip
def test_other_pages_are_not_exported(explorer: Explorer, tmp_path: Path, page: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tavq.export_explorer(explorer, tmp_path / "part.json", pages=[page])


def test_a_bundle_stays_within_its_budget(explorer: Explorer) -> None:
    from tavq.explore.bundle import make_bundle
    from tavq.explore.offline import choose_part
    from tavq.explore.server.inside import fetch_inside

    app = make_api(explorer)
    choice = choose_part(explorer, 4, 4, 2)
    bundle = make_bundle(choice, lambda address: fetch_inside(app, address), 150_000)
    assert sum(bundle.left_out.values()) > 0
    assert len(bundle.model_dump_json()) < 170_000
    assert f"{API}/overview" in bundle.answers
