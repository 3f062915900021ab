"""Search by command: an index of an aligner's space and of a retrieval task's, asked rightly and wrongly."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_bert import write_bert

Tavq = Callable[..., Any]

SMALL = "--task.layers 1 --task.heads 2 --task.width 16 --task.space 8 --train.steps 2 --train.batch 4"


@pytest.fixture(scope="module")
def place(tavq: Tavq, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, the runs `aligned`, `plain` and `retrieval`, and the index of each that has a space."""
    place = tmp_path_factory.mktemp("search")
    for name in ("data", "aligned", "plain"):
        shutil.copytree(home / name, place / name)
    commands: list[tuple[Any, ...]] = [
        ("search", "index", place / "aligned", "--data", place / "data", "--out", place / "found", "--json",
         place / "found.json"),
        ("task", "train", "retrieval-tiny", "--tokenizer", place / "plain", "--data", place / "data", "--out",
         place / "retrieval", *SMALL.split()),
        ("search", "index", place / "retrieval", "--data", place / "data", "--split", "test", "--float16"),
    ]  # fmt: skip
    for command in commands:
        done = tavq(*command)
        assert done.code == 0, done.err
    return place


def test_an_index_of_all_images(place: Path) -> None:
    written = json.loads((place / "found.json").read_text())
    assert (written["images"], written["texts"], written["unreadable"]) == (16, 16, 0)
    assert written["width"] == 3 * 384


def test_images_of_a_text(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    """The order is that of the cosines which `tavq evaluate` takes."""
    found, sheet = tmp_path / "found.json", tmp_path / "sheet.png"
    done = tavq("search", place / "found", "--text", "A red square.", "--count", 4, "--json", found, "--out", sheet)
    assert done.code == 0, done.err
    written = json.loads(found.read_text())
    assert written["text"] == "A red square."
    assert len(written["images"]) == 4
    assert all(hit["file_name"] in done.out for hit in written["images"])
    assert np.asarray(Image.open(sheet)).shape == (258, 258, 3)

    import torch

    from tavq import Tokenizer
    from tavq.data.config import DataConfig
    from tavq.data.folder import FolderDataset
    from tavq.data.loader import EvaluationLoader
    from tavq.model_folder import read_model_config
    from tavq.tasks.prompts import PromptEncoder

    tokenizer = Tokenizer.from_pretrained(place / "aligned").prepare()
    assert tokenizer.aligner is not None
    features = PromptEncoder(read_model_config(place / "aligned/model"))(["A red square."]).features
    query = tokenizer.aligner.embed_text(features)[0]
    cosines = {}
    for batch in EvaluationLoader(FolderDataset(place / "data"), DataConfig(size=32), 5):
        with torch.no_grad():
            rows = tokenizer.aligner.embed_images(tokenizer.quantize(batch.images))
        cosines |= dict(zip(batch.keys, (rows @ query).tolist(), strict=True))
    best = sorted(cosines.values(), reverse=True)[:4]
    assert [hit["score"] for hit in written["images"]] == pytest.approx(best, abs=1e-5)
    assert [cosines[hit["file_name"]] for hit in written["images"]] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("index", ["found", "retrieval"])
def test_texts_and_images_of_an_image(index: str, tavq: Tavq, place: Path, tmp_path: Path) -> None:
    image = place / "data/images/14.png"
    found, sheet = tmp_path / "found.json", tmp_path / "sheet.png"
    done = tavq("search", place / index, "--image", image, "--count", 3, "--json", found, "--out", sheet)
    assert done.code == 0, done.err
    written = json.loads(found.read_text())
    assert written["image"] == str(image)
    # its own vector is in the index: nothing is nearer, in half precision as good as nothing
    scores = {hit["file_name"]: hit["score"] for hit in written["images"]}
    assert scores.get("images/14.png", max(scores.values())) == pytest.approx(1, abs=2e-3)
    assert len(written["texts"]) == 3
    lines = {
        line["file_name"]: line for line in map(json.loads, (place / "data/metadata.jsonl").read_text().splitlines())
    }
    for hit in written["texts"]:
        line = lines[hit["file_name"]]
        assert hit["text"] in ([line["long_text"]] if index == "found" else line["captions"])
        assert index == "found" or line["split"] == "test"
    # the sheet begins with the image that was asked
    page, own = np.asarray(Image.open(sheet)), np.asarray(Image.open(image).convert("RGB"))
    assert np.abs(page[:128:4, :128:4].astype(int) - own).mean() < 25


def test_a_retrieval_task_is_measured(tavq: Tavq, place: Path) -> None:
    done = tavq("task", "evaluate", place / "retrieval", "--data", place / "data")
    assert done.code == 0, done.err
    metrics = json.loads((place / "retrieval/evaluation.json").read_text())["metrics"]
    assert metrics["image_to_text/recall@10"]["value"] == 1.0  # of three texts
    assert metrics["chance/text_to_image/recall@1"]["value"] == pytest.approx(1 / 3)
    assert metrics["text_to_image/median_rank"]["interval"] is not None


def test_unknown_words_are_reported(tavq: Tavq, place: Path) -> None:
    done = tavq("search", place / "retrieval", "--text", "a red zeppelin", "--count", 1)
    assert done.code == 0, done.err
    assert "does not know the word 'zeppelin'" in done.err


def test_a_moved_data_set(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "found", tmp_path / "found")
    written = json.loads((tmp_path / "found/index.json").read_text())
    (tmp_path / "found/index.json").write_text(json.dumps(written | {"data_folder": str(tmp_path / "gone")}))
    image, sheet = place / "data/images/1.png", tmp_path / "sheet.png"
    done = tavq("search", tmp_path / "found", "--image", image, "--out", sheet)
    assert done.code == 2
    assert "with the images of the index; use --data to say where they are" in done.err
    assert not sheet.exists()
    assert tavq("search", tmp_path / "found", "--image", image, "--out", sheet, "--data", place / "data").code == 0


def test_an_index_that_names_a_folder_of_other_images(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "found", tmp_path / "found")
    shutil.copytree(place / "data", tmp_path / "private")
    with open(tmp_path / "private/metadata.jsonl", "a") as lines:
        lines.write("\n")
    written = json.loads((tmp_path / "found/index.json").read_text())
    (tmp_path / "found/index.json").write_text(json.dumps(written | {"data_folder": str(tmp_path / "private")}))
    image, sheet = place / "data/images/1.png", tmp_path / "sheet.png"
    done = tavq("search", tmp_path / "found", "--image", image, "--out", sheet)
    assert done.code == 2
    assert "private, which the index names, holds other images than the index was built of" in done.err
    assert not sheet.exists()


def test_an_index_with_another_model_in_it(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "found", tmp_path / "found")
    shutil.rmtree(tmp_path / "found/model")
    shutil.copytree(place / "retrieval/model", tmp_path / "found/model")
    done = tavq("search", tmp_path / "found", "--text", "a red square")
    assert done.code == 2
    assert "was made by another model" in done.err
    weights = tmp_path / "found/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    done = tavq("search", tmp_path / "found", "--text", "a red square")
    assert (done.code, "was altered or truncated" in done.err) == (1, True), done.err


def test_a_store_of_another_encoder(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    write_bert(tmp_path / "tiny")
    assert tavq("text", place / "data", "--encoder", tmp_path / "tiny", "--out", tmp_path / "text").code == 0
    command = ("search", "index", place / "aligned", "--data", place / "data", "--out", tmp_path / "other")
    done = tavq(*command, "--text", tmp_path / "text")
    assert done.code == 2
    assert "was made by the encoder 'tiny', the model was trained with 'minilm'" in done.err
    assert not (tmp_path / "other").exists()
    done = tavq("search", place / "found", "--text", "a red square", "--text-encoder", tmp_path / "tiny")
    assert done.code == 2
    assert "reads text by the encoder 'minilm'" in done.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("search index plain --data data --out x", r"without an aligner.*tavq task train retrieval-tiny --tokenizer"),
        ("search index nowhere --data data --out x", r"There is no model at 'nowhere'"),
        ("search index some/model --data data", r"some/model is not a local folder; use --out"),
        ("search index aligned --data nowhere --out x", r"There is no folder nowhere"),
        ("search index aligned --data data --split odd --out x", r"no images in the split 'odd'"),
        ("search index aligned --data data --out data", r"already holds something that is not a search index"),
        ("search index aligned --data data --out x --text data", r"data is not a text store"),
        ("search index retrieval --data data --out x --text data/text", r"does not use a text store; remove --text"),
        ("search nowhere --text barn", r"There is no search index at 'nowhere'.*tavq search index MODEL"),
        ("search data --text barn", r"There is no search index at 'data'"),
        ("search found", r"Say what to look for, with either --text"),
        ("search found --text barn --image data/images/1.png", r"either --text .* or --image"),
        ("search found --text=", r"Caption 1 is empty"),
        ("search found --text ...", r"contains no word or number"),
        ("search found --text ꙮꙮꙮ", r"is in a script that the text encoder 'minilm' does not read"),
        ("search retrieval --text=", r"The text is empty"),
        ("search retrieval --text 赤い納屋", r"has no word that the model knows"),
        ("search found --image nowhere.png", r"nowhere\.png"),
        ("search found --image data/metadata.jsonl", r"is not an image in one of the formats"),
        ("search found --image data", r"it is not a file"),
        ("search found --text barn --count 0", r"count"),
        ("search found --text barn --text-encoder nowhere/at/all", r"There is no text encoder folder"),
    ],
)
def test_a_wrong_call_is_one_line(
    command: str, message: str, tavq: Tavq, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = tavq(*command.split())
    assert done.code in (1, 2)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert re.search(message, lines[0]), done.err
    assert done.out == ""
    assert not (place / "x").exists()
