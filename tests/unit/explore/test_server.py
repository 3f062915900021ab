"""Every endpoint answers what its page needs, and says what is missing."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tavq.explore.explorer import Explorer
from tavq.explore.pages.links import original_address

from .conftest import API, COLOURS, HOSTILE, IMAGES, SIZE, addresses, get


def image_of(client: TestClient, address: str) -> np.ndarray:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] in ("image/png", "image/webp")
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def word(client: TestClient, text: str) -> int:
    return next(unit["unit"] for unit in get(client, "/units/words", query=text)["units"] if unit["text"] == text)


def test_the_overview_says_what_there_is_and_what_is_missing(client: TestClient) -> None:
    overview = get(client, "/overview")
    assert overview["data"]["images"] == overview["data"]["with_text"] == IMAGES
    assert overview["data"]["splits"] == {"train": 50, "test": 10}
    plain, aligned = overview["models"]
    assert [level["name"] for level in plain["levels"]] == ["deep"]
    assert [level["name"] for level in aligned["levels"]] == ["low", "middle", "deep"]
    assert [level["aligned"] for level in aligned["levels"]] == [["words"], ["phrases"], ["sentences"]]
    assert [part["part"] for part in plain["missing"]] == ["alignment"]
    assert aligned["missing"] == []
    assert [score["level"] for score in aligned["held_out"]] == ["low", "middle", "deep"]


@pytest.mark.parametrize("level", ["plain/deep", "aligned/low", "aligned/middle", "aligned/deep"])
def test_every_code_and_every_address_of_its_page(client: TestClient, level: str) -> None:
    model, name = level.split("/")
    base = f"/models/{model}/levels/{name}"
    codes = get(client, f"{base}/codes", limit=200)
    assert codes["total"] == len(codes["codes"]) == 12
    for row in codes["codes"]:
        page = get(client, f"{base}/codes/{row['code']}")
        assert {key: page[key] for key in row} == row
        assert sum(map(sum, page["position_map"])) == row["count"]
        cells = [cell for line in page["surroundings"] for cell in line]
        assert len(cells) == 25
        assert all(cell is None or (cell["lift"] > 1 and 0 < cell["share"] <= 1) for cell in cells)
        assert row["dead"] == (row["count"] == 0)
        for address in set(addresses(page)):
            image_of(client, address)


def test_sorting_and_filters(client: TestClient) -> None:
    base = "/models/plain/levels/deep/codes"
    for sort in ("usage", "index", "entropy", "specificity", "certainty", "precision", "held_out", "position_bias"):
        field = {"usage": "count", "index": "code", "held_out": "held_out_lift"}.get(sort, sort)
        for order, sign in (("asc", 1), ("desc", -1)):
            values = [row[field] for row in get(client, base, sort=sort, order=order)["codes"]]
            known = [value for value in values if value is not None]
            assert values == known + [None] * (len(values) - len(known))  # those without come last
            assert known == sorted(known, key=lambda value: sign * value)
    rows = get(client, base)["codes"]
    assert get(client, base, dead=True)["total"] == sum(row["dead"] for row in rows)
    assert get(client, base, labelled=True)["total"] == sum(row["label"] is not None for row in rows)
    assert get(client, base, min_count=100)["total"] == sum(row["count"] >= 100 for row in rows)
    assert [row["code"] for row in get(client, base, query="7")["codes"]] == [7]
    second = get(client, base, offset=2, limit=3)["codes"]
    assert second == rows[2:5]
    labelled = next(row for row in rows if row["label"])
    assert labelled in get(client, base, query=labelled["label"].upper())["codes"]


def test_a_label_is_a_colour_and_its_numbers_agree(client: TestClient) -> None:
    rows = get(client, "/models/plain/levels/deep/codes", sort="certainty")["codes"]
    page = get(client, f"/models/plain/levels/deep/codes/{rows[0]['code']}")
    best = page["units"]["words"][0]
    assert best["text"] in COLOURS
    assert best["certain"]
    assert best["precision"] == best["both"] / best["with_code"]
    assert best["base_rate"] == best["with_unit"] / best["images"]
    assert best["interval"][0] < best["lift"] < best["interval"][1]
    assert best["lift"] == pytest.approx(rows[0]["certainty"])
    assert {unit["text"] for unit in page["against"]} <= set(COLOURS) - {best["text"]}
    back = get(client, f"/models/plain/levels/deep/units/words/{best['unit']}")
    mine = next(code for code in back["codes"] if code["code"] == page["code"])
    assert (mine["lift"], mine["both"], mine["precision"]) == (best["lift"], best["both"], best["precision"])


def test_neighbours_in_three_senses(client: TestClient, explorer: Explorer) -> None:
    page = get(client, "/models/plain/levels/deep/codes/0")
    entries = explorer.models[0].tokenizer.codebook()
    distances = (entries - entries[0]).norm(dim=1)
    order = [code for code in distances.argsort(stable=True).tolist() if code != 0]
    assert [near["code"] for near in page["neighbours"]["codebook"]] == order[:8]
    assert page["neighbours"]["codebook"][0]["distance"] == pytest.approx(float(distances[order[0]]), abs=1e-5)
    assert {"codebook", "decoded"} <= set(page["neighbours"])
    for found in page["neighbours"].values():
        ends = [near["distance"] for near in found]
        assert ends == sorted(ends)


def test_positions_of_a_code(client: TestClient, explorer: Explorer) -> None:
    level = explorer.models[0].levels["deep"]
    code = int(level.columns.count.argmax())
    found = get(client, f"/models/plain/levels/deep/codes/{code}/examples", offset=3, limit=5)
    assert found["total"] == level.columns.count[code]
    assert len(found["patches"]) == 5
    for patch in found["patches"]:
        assert level.grid(int(patch["image"]))[patch["row"], patch["column"], 0] == code
    closest = get(client, f"/models/plain/levels/deep/codes/{code}/examples", order="closest")
    assert len({patch["image"] for patch in closest["patches"]}) == closest["total"]


def test_words_and_their_images(client: TestClient) -> None:
    units = get(client, "/units/words", query="RE")
    assert units["units"][0]["text"] == "red"  # those that begin with the query come first
    red = units["units"][0]
    images = get(client, f"/units/words/{red['unit']}/images", limit=200)
    assert images["total"] == red["images"] == IMAGES // 3
    assert all(int(image["image"]) % 3 == 0 for image in images["images"])
    page = get(client, f"/models/aligned/levels/low/units/words/{red['unit']}")
    assert len(page["aligned"]) > 0
    cosines = [code["cosine"] for code in page["aligned"]]
    assert cosines == sorted(cosines, reverse=True)
    lifts = [code["lift"] for code in page["aligned"][:5]]
    assert page["aligned_lift"] == pytest.approx(np.mean(lifts))
    assert get(client, f"/models/plain/levels/deep/units/words/{red['unit']}")["aligned"] == []


def test_an_image_and_its_files(client: TestClient, explorer: Explorer, pixels: Any) -> None:
    page = get(client, "/models/aligned/images/3")
    assert page["captions"] == ["A red wall next to a grey floor.", HOSTILE]  # plain text: the page escapes it
    assert {unit["text"] for unit in page["units"]["words"]} >= {"red", "wall"}
    assert len(page["aligned"]) > 0
    model = explorer.models[1]
    assert np.array(page["grids"]["deep"])[..., 0].tolist() == model.tokenizer.encode(pixels[3:4])[0].tolist()
    decoded = model.tokenizer.decode(model.tokenizer.encode(pixels[3:4]))[0]
    shown = image_of(client, page["reconstruction"])
    assert np.abs(shown - ((decoded.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)).max() <= 0.5
    original = explorer.images.pixels("3", SIZE).astype(int)
    difference = np.abs(original - shown).mean(axis=2)
    assert np.abs(image_of(client, page["difference"])[..., 0] - difference).max() <= 0.5
    assert page["difference_max"] == image_of(client, page["difference"]).max()
    assert np.mean(page["error"]) == pytest.approx(difference.mean(), abs=1e-3)
    assert image_of(client, page["url"]).shape == (256, 256, 3)


def test_the_words_of_the_codes_of_an_image(client: TestClient, explorer: Explorer) -> None:
    page = get(client, "/models/plain/images/4")
    lifts = explorer.model("plain").levels["deep"].profiles
    texts = explorer.model("plain").units["words"].texts
    for code, words in page["words"]["deep"].items():
        strongest = sorted(lifts[int(code)], reverse=True)[:4]
        assert [lifts[int(code), texts.index(word)] for word in words] == [lift for lift in strongest if lift > 0]
    labelled = {code for code in page["labels"]["deep"] if page["words"]["deep"].get(code)}
    assert labelled == set(page["labels"]["deep"]) != set()


def test_images_by_caption_and_split(client: TestClient) -> None:
    assert get(client, "/images", split="test")["total"] == 10
    found = get(client, "/images", query="RED wall", split="test")
    assert {image["key"] for image in found["images"]} == {f"images/{n:03}.png" for n in (51, 54, 57)}
    assert get(client, "/images", query="no such words")["images"] == []


def test_a_heat_map_is_the_lift_of_each_position(client: TestClient, explorer: Explorer) -> None:
    red = word(client, "red")
    heat = get(client, "/models/plain/levels/deep/images/0/heat", unit=red)
    level = explorer.models[0].levels["deep"]
    lift = level.with_unit("words", red).lift
    assert np.array(heat["values"]) == pytest.approx(np.log2(lift[level.grid(0)[..., 0]]))
    assert get(client, "/models/aligned/levels/low/images/0/heat", unit=red, source="aligned")["missing"] == []
    none = get(client, "/models/plain/levels/deep/images/0/heat", unit=red, source="aligned")
    assert not np.any(none["values"])
    assert none["missing"][0]["part"] == "alignment"


def test_search_by_text(client: TestClient) -> None:
    found = get(client, "/models/plain/search", text="blue wall")
    assert found["captions"]["total"] == IMAGES // 3
    assert found["units"][0]["text"] == "blue wall"
    assert found["aligned"] == []
    other = get(client, "/models/aligned/search", text="blue")
    assert other["codes"]
    assert [part["part"] for part in other["missing"]] == ["text_encoder"]  # no encoder is called "letters"


def test_search_by_upload(client: TestClient, explorer: Explorer) -> None:
    data = (explorer.dataset.folder / "images" / "007.png").read_bytes()
    found = client.post(f"{API}/models/aligned/search/image", content=data).json()
    for hits in (found["by_codes"], found["aligned"]):
        scores = {hit["image"]: hit["score"] for hit in hits}
        assert scores["7"] == pytest.approx(max(scores.values()), abs=1e-6)  # others may have the same codes
        assert scores["7"] == pytest.approx(1, abs=1e-4)
    page = get(client, f"/models/aligned/images/{found['upload']['image']}")
    assert page["grids"] == get(client, "/models/aligned/images/7")["grids"]
    assert page["captions"] == []
    assert image_of(client, page["reconstruction"]).shape == (SIZE, SIZE, 3)
    patch = f"{API}/models/aligned/levels/low/images/{found['upload']['image']}/patch.webp"
    assert image_of(client, f"{patch}?row=0&column=0").size


@pytest.mark.parametrize(
    ("model", "row", "height", "width"), [("plain", 0, 2, 2), ("plain", 1, 1, 3), ("aligned", 2, 2, 1)]
)
def test_a_search_by_patch_is_that_of_a_loop(
    client: TestClient, explorer: Explorer, model: str, row: int, height: int, width: int
) -> None:
    request = {"image": "4", "row": row, "column": 1, "height": height, "width": width, "limit": 200}
    found = client.post(f"{API}/models/{model}/search/patch", json=request).json()
    level = explorer.model(model).levels["deep"]
    grids = [level.grid(image)[:, :, 0] for image in range(IMAGES)]
    block, shape = grids[4][row : row + height, 1 : 1 + width], level.shape
    weights = np.log(level.columns.count.sum() / level.columns.count.clip(1))[block]
    scores = {
        (image, top, left): float(
            (weights * (grid[top : top + height, left : left + width] == block)).sum() / weights.sum()
        )
        for image, grid in enumerate(grids)
        for top in range(shape.height - height + 1)
        for left in range(shape.width - width + 1)
    }
    matches = {place: score for place, score in scores.items() if score > 0}
    shown = [((int(one["image"]), one["row"], one["column"]), one["score"]) for one in found["patches"]]
    assert found["total"] == len(matches)
    assert [score for _, score in shown] == pytest.approx(sorted(matches.values(), reverse=True)[:200])
    assert all(score == pytest.approx(matches[place]) for place, score in shown)
    assert shown[0][1] == pytest.approx(1)


@pytest.mark.parametrize("level", ["deep", "low"])
def test_the_map_has_a_place_for_every_code(client: TestClient, level: str) -> None:
    found = get(client, f"/models/aligned/levels/{level}/map")
    assert found["codes"] == list(range(12))
    assert all(0 <= value <= 1 for value in found["x"] + found["y"])
    assert 0 < found["explained"] <= 1
    if level == "deep":
        assert image_of(client, found["atlas"]["pages"][0]).shape == (16, 512, 3)
    else:
        assert found["atlas"] is None
        assert found["missing"][0]["part"] == "decoder"


def test_two_codes_and_two_models(client: TestClient) -> None:
    [most] = get(client, "/models/plain/levels/deep/codes", limit=1)["codes"]
    same = f"plain:deep:{most['code']}"
    pair = get(client, "/compare/codes", first=same, second=same)
    assert pair["overlap"] == 1
    assert pair["images_both"] == pair["images_either"] > 0
    other = get(client, "/compare/codes", first="plain:deep:1", second="aligned:low:2")
    assert 0 <= other["overlap"] < 1
    models = get(client, "/compare/models", models="plain,aligned", limit=2)
    assert models["models"] == ["plain", "aligned"]
    assert [len(row["best"]) for row in models["words"]] == [2, 2]


# --- edits ------------------------------------------------------------------------------------------------------


def edit(client: TestClient, model: str, image: str, *operations: dict[str, Any]) -> Any:
    body = {"image": image, "operations": list(operations)}
    answer = client.post(f"{API}/models/{model}/edits", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_edit_is_decoded_scored_and_shared(client: TestClient, explorer: Explorer) -> None:
    nothing = edit(client, "aligned", "5")
    assert nothing["changed"] == 0
    assert not np.any(nothing["change_map"])
    assert all(score["before"] == pytest.approx(score["after"], abs=1e-6) for score in nothing["aligned"])
    cells = [[row, column] for row in range(4) for column in range(2)]
    done = edit(client, "aligned", "5", {"op": "paint", "cells": cells, "code": 3})
    page = get(client, "/models/aligned/images/5")
    before, after = np.array(page["grids"]["deep"]), np.array(done["codes"])
    assert done["changed"] == (before != after).any(axis=2).sum()
    model = explorer.models[1]
    decoded = model.decode(after)
    shown = np.asarray(Image.open(io.BytesIO(_data_of(done["edited"]))))
    assert np.array_equal(shown, decoded)
    assert done["change_max"] == np.asarray(Image.open(io.BytesIO(_data_of(done["change"])))).max() > 0
    assert any(score["before"] != score["after"] for score in done["aligned"])
    assert [score["text"] for score in done["aligned"]]
    again = get(client, f"/edits/{done['share']}")
    opened = client.post(f"{API}/edits/open", json={"share": done["share"]}).json()
    for other in (again, opened):
        assert {**other, "milliseconds": 0} == {**done, "milliseconds": 0}


def test_labels_of_changed_codes_are_scored(client: TestClient, explorer: Explorer) -> None:
    level = explorer.model("aligned").levels["deep"]
    words = {code: level.label(code) for code in range(level.shape.entries)}
    code = next(code for code, word in words.items() if word not in (None, "green"))  # the word of image 5
    done = edit(client, "aligned", "5", {"op": "paint", "cells": [[0, 0], [3, 3]], "code": code})
    [score] = [score for score in done["aligned"] if score["text"] == words[code]]
    assert code in score["label_of"]
    assert score["before"] != score["after"]
    own = [score for score in done["aligned"] if score["text"] == "A green wall next to a grey floor."]
    assert [score["label_of"] for score in own] == [[]]


def test_a_shared_edit_is_edited_further(client: TestClient) -> None:
    paint = {"op": "paint", "cells": [[0, 0]], "code": 3}
    whole = {"op": "copy", "image": "7", "row": 0, "column": 0, "height": 4, "width": 4, "to_row": 0, "to_column": 0}
    share = edit(client, "aligned", "5", whole)["share"]
    further = edit(client, "aligned", "5", {"op": "open", "share": share}, paint)
    assert further["codes"] == edit(client, "aligned", "5", whole, paint)["codes"]
    for model, image, text in (("aligned", "6", share), ("plain", "5", share), ("aligned", "5", "zzz")):
        body = {"image": image, "operations": [{"op": "open", "share": text}]}
        refused = client.post(f"{API}/models/{model}/edits", json=body)
        assert refused.status_code == 400
        assert "share string" in refused.json()["error"]["message"]


@pytest.mark.parametrize("size", [16, 256, 384, 1024, 4096])
def test_originals_of_models_of_every_size_are_shown(client: TestClient, size: int) -> None:
    assert image_of(client, original_address("3", size)).shape[0] == min(max(size, 256), 512)


def _data_of(uri: str) -> bytes:
    import base64

    return base64.b64decode(uri.partition(",")[2])


def test_a_model_without_alignment_is_edited_without_scores(client: TestClient) -> None:
    done = edit(client, "plain", "1", {"op": "remove_code", "code": 0})
    assert done["aligned"] == []
    assert [part["part"] for part in done["missing"]] == ["alignment"]


def test_an_upload_is_edited_too(client: TestClient, explorer: Explorer) -> None:
    data = (explorer.dataset.folder / "images" / "007.png").read_bytes()
    upload = client.post(f"{API}/models/aligned/search/image", content=data).json()["upload"]["image"]
    done = edit(client, "aligned", upload, {"op": "copy", "image": "8", "row": 0, "column": 0, "height": 4, "width": 4,
                                            "to_row": 0, "to_column": 0})  # fmt: skip
    assert done["aligned"]  # of frequent words, as an upload has no text
    assert get(client, f"/edits/{done['share']}")["codes"] == done["codes"]


def test_share_strings_of_others_are_refused(client: TestClient, explorer: Explorer, data: Path) -> None:
    from tavq.explore.edits import pack_edit

    grid = explorer.models[0].levels["deep"].grid(0)
    sha = explorer.models[0].store.manifest.source.model
    for share, message in (
        (pack_edit("00" * 32, "0", "images/000.png", grid, grid), "of another model"),
        (pack_edit(sha, "0", "images/other.png", grid, grid), "of another data set"),
        (pack_edit(sha, "u99", "upload 99", grid, grid), "is not kept any more"),
    ):
        answer = client.get(f"{API}/edits/{share}")
        assert answer.status_code in (400, 404)
        assert message in answer.json()["error"]["message"]


def test_a_task_that_is_not_there(client: TestClient) -> None:
    share = edit(client, "plain", "0")["share"]
    answer = client.post(f"{API}/edits/ask", json={"share": share, "task": "vqa", "question": "What?"})
    assert answer.status_code == 404
    assert "there are: none" in answer.json()["error"]["message"]
