"""What answers say of labels, of typed texts and of what is missing is of the very thing that they name."""

import pytest
from starlette.testclient import TestClient

from .conftest import get


def test_words_of_a_typed_text_are_found(client: TestClient) -> None:
    found = get(client, "/models/plain/search", text="Green barn, red!")
    assert [unit["text"] for unit in found["units"]] == ["green", "red"]
    assert found["codes"]
    assert found["notes"] == [f"The codes are those of “{found['units'][0]['text']}” (words)."]
    part = get(client, "/models/plain/search", text="gree")
    assert part["units"][0]["text"] == "green"
    assert part["notes"] == found["notes"]  # it is not the text that was typed, so it is named
    assert get(client, "/models/plain/search", text="barn")["codes"] == []


@pytest.mark.parametrize("level", ["plain/deep", "aligned/low", "aligned/middle", "aligned/deep"])
def test_every_number_of_a_label_is_of_the_word_that_is_shown(client: TestClient, level: str) -> None:
    base = "/models/{}/levels/{}/codes".format(*level.split("/"))
    tested, shown = 0, 0
    for row in get(client, base, limit=200)["codes"]:
        page = get(client, f"{base}/{row['code']}")
        held = page["held_out"]
        assert (held is None) == (row["held_out_lift"] is None)
        for unit in page["units"].get("words", []):
            if unit["text"] == row["label"]:
                shown += 1
                assert unit["lift"] == pytest.approx(row["certainty"])
                assert unit["precision"] == pytest.approx(row["precision"])
        if held is not None:
            tested += 1
            assert held["text"] == row["label"] == page["label"]
            assert held["lift"] == row["held_out_lift"]
    if level == "plain/deep":  # the codes of the others have no certain label here
        assert min(tested, shown) > 0


def test_what_some_models_lack_is_said_of_those(client: TestClient) -> None:
    [missing] = get(client, "/overview")["missing"]
    assert missing["part"] == "alignment"
    assert missing["reason"].startswith("plain: ")
