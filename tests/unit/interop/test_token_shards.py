"""Image tokens beside captions: what the lines hold, who reads them, and what a stopped export leaves."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tavq
from tavq.cli import run
from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.data.records import Record
from tavq.interop.image_vocabulary import ImageVocabulary
from tavq.interop.token_shards import ShardSettings, to_lines, write_shards
from tavq.tokenizer import Tokenizer, TokenizerConfig

SETTINGS = ShardSettings("m" * 64, "d" * 64, (3, 2), "text", "image-text", True, 2, 8)
INDICES = torch.tensor([[[0, 1], [2, 0]], [[1, 1], [0, 0]]])  # [h w c]: 2 x 2 positions of two parts


def save_model(folder: Path, seed: int = 0, **codebook: Any) -> Tokenizer:
    torch.manual_seed(seed)
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1}
    settings = {"net": net, "codebook": {"name": "learned", "entries": 16, "width": 4, "init": "normal", **codebook}}
    model = Tokenizer(build(TokenizerConfig, settings, "test")).eval()
    model.save_pretrained(folder, metadata={"size": 16})
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five images, one without a caption and one that cannot be read."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    lines = [
        {"file_name": "a.png", "split": "train", "captions": ["A dog.", "A brown\ndog <image_3> runs."]},
        {"file_name": "b.png", "split": "train"},
        {"file_name": "c.png", "split": "train", "captions": ["Broken."]},
        {"file_name": "d.png", "split": "train", "long_text": "A long text."},
        {"file_name": "e.png", "split": "val", "captions": ["Held out."]},
    ]
    for line in lines:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / str(line["file_name"]))
    (folder / "c.png").write_bytes(b"not an image")
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- lines ------------------------------------------------------------------------------------------------------


def test_ids_of_several_parts_rows_and_ends() -> None:
    """Part 1 counts on after part 0; begin, end and row follow after both."""
    [ids] = ImageVocabulary((3, 2)).to_ids(INDICES[None])
    assert ids == [5, 0, 4, 2, 3, 7, 1, 4, 0, 3, 7, 6]
    [ids] = ImageVocabulary((3, 2), rows=False).to_ids(INDICES[None])
    assert ids == [5, 0, 4, 2, 3, 1, 4, 0, 3, 6]
    [ids] = ImageVocabulary((3,)).to_ids(torch.tensor([[[0, 2], [1, 0]]], dtype=torch.int32))
    assert ids == [3, 0, 2, 5, 1, 0, 5, 4]
    assert len(ImageVocabulary((3, 2)).names()) == 8


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("image-text", ["{image}A dog.", "{image}Long < image_2> text."]),
        ("text-image", ["A dog.{image}", "Long < image_2> text.{image}"]),
        ("both", ["{image}A dog.", "A dog.{image}", "{image}Long < image_2> text.", "Long < image_2> text.{image}"]),
    ],
)
def test_prompts_as_text(order: Any, expected: list[str]) -> None:
    record = Record("a.png", captions=("A dog.",), long_text="Long\n <image_2> text.")
    settings = ShardSettings("m", "d", (3, 2), "text", order, False, 2, 8)
    image = "<image_begin><image_0><image_4><image_2><image_3><image_1><image_4><image_0><image_3><image_end>"
    lines = to_lines(record, INDICES, settings)
    assert [line["text"] for line in lines] == [text.format(image=image) for text in expected]
    alone = to_lines(Record("b.png"), INDICES, settings)
    assert [line["text"] for line in alone] == [image]


# --- whole exports ----------------------------------------------------------------------------------------------


def test_an_export_and_who_made_it(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save_model(tmp_path / "model")
    out = tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "out", shard_size=3)
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert names == ["README.md", "manifest.json", "train-00000.jsonl", "train-00001.jsonl", "val-00000.jsonl"]
    assert "1 images have no tokens" in caplog.text
    first = read_lines(out / "train-00000.jsonl")
    assert [line["file_name"] for line in first] == ["a.png", "a.png", "b.png"]
    tokens = tavq.encode_folder(tmp_path / "model", data)
    [ids] = ImageVocabulary(model.codebook.sizes).to_ids(tokens.indices[tokens.keys.index("a.png")][None])
    assert first[0]["text"] == ImageVocabulary(model.codebook.sizes).to_text(ids) + "A dog."
    assert first[1]["text"].endswith("<image_end>A brown dog < image_3> runs.")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["settings"]["model"] == json.loads((tmp_path / "model" / "config.json").read_text())["sha256"]
    assert manifest["shards"]["train-00000.jsonl"]["missing"] == 1
    assert manifest["vocabulary"]["special"] == {"<image_begin>": 16, "<image_end>": 17, "<image_row>": 18}


def test_finished_tokens_are_not_encoded_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model")
    tavq.encode_folder(tmp_path / "model", data, out=tmp_path / "tokens.safetensors")
    encoded = tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "a", form="ids")
    with monkeypatch.context() as patched:
        patched.setattr(Tokenizer, "encode", lambda self, images: pytest.fail("encoded again"))
        looked_up = tavq.export_tokens(
            tmp_path / "model", data, out=tmp_path / "b", form="ids", tokens=tmp_path / "tokens.safetensors"
        )
    for name in ("train-00000.jsonl", "val-00000.jsonl"):
        assert (encoded / name).read_bytes() == (looked_up / name).read_bytes()
    assert read_lines(encoded / "train-00000.jsonl")[0]["captions"] == ["A dog.", "A brown\ndog <image_3> runs."]
    save_model(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="made by another model"):
        tavq.export_tokens(tmp_path / "other", data, out=tmp_path / "c", tokens=tmp_path / "tokens.safetensors")


@pytest.mark.parametrize("form", ["text", "ids"])
def test_datasets_loads_it(form: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra hf)")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    save_model(tmp_path / "model")
    out = tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "out", form=form, shard_size=2)
    loaded = datasets.load_dataset(str(out))
    assert set(loaded) == {"train", "validation"}
    lines = [line for path in sorted(out.glob("train-*.jsonl")) for line in read_lines(path)]
    assert loaded["train"].to_list() == lines
    assert loaded["validation"].num_rows == 1


# --- stopped exports --------------------------------------------------------------------------------------------


RECORDS = {"train": [Record(f"{i}.png", captions=(f"Number {i}.",)) for i in range(5)]}


def encode(records: list[Record]) -> Iterable[tuple[Record, Tensor]]:
    for record in records:
        yield record, INDICES


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("stop", range(3))
def test_a_stopped_export_goes_on_to_the_same_bytes(stop: int, tmp_path: Path) -> None:
    def stopping(records: list[Record]) -> Iterable[tuple[Record, Tensor]]:
        for record in records:
            if record.file_name == f"{2 * stop}.png":
                raise KeyboardInterrupt
            yield record, INDICES

    write_shards(tmp_path / "whole", SETTINGS, RECORDS, encode)
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "stopped", SETTINGS, RECORDS, stopping)
    assert len(list((tmp_path / "stopped").glob("*.jsonl"))) == stop
    assert not json.loads((tmp_path / "stopped" / "manifest.json").read_text())["complete"]
    with pytest.raises(UsageError, match="continue them with --resume"):
        write_shards(tmp_path / "stopped", SETTINGS, RECORDS, encode)
    asked: list[str] = []

    def noting(records: list[Record]) -> Iterable[tuple[Record, Tensor]]:
        asked.extend(record.file_name for record in records)
        return encode(records)

    write_shards(tmp_path / "stopped", SETTINGS, RECORDS, noting, resume=True)
    assert asked == [f"{i}.png" for i in range(2 * stop, 5)], "finished shards are not encoded again"
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_an_altered_shard_is_written_again(tmp_path: Path) -> None:
    write_shards(tmp_path / "out", SETTINGS, RECORDS, encode)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "train-00001.jsonl").write_text("{}\n")
    write_shards(tmp_path / "out", SETTINGS, RECORDS, encode, resume=True)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "x" * 64}, "its model is mmm.*, and now xxx"),
        ({"data": "x" * 64}, "its data is ddd"),
        ({"order": "both"}, "its order is image-text, and now both"),
        ({"rows": False}, "its rows is True, and now False"),
        ({"shard_size": 3}, "its shard_size is 2, and now 3"),
    ],
)
def test_other_settings_do_not_go_on(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "out", SETTINGS, RECORDS, encode)
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match=message):
        write_shards(tmp_path / "out", ShardSettings(**{**vars(SETTINGS), **changes}), RECORDS, encode, resume=True)
    assert contents(tmp_path / "out") == before


def test_places_that_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UsageError, match="already exists and is not empty"):
            write_shards(tmp_path, SETTINGS, RECORDS, encode, resume)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("[]")
    with pytest.raises(FileError, match="is not the manifest of exported tokens"):
        write_shards(tmp_path / "out", SETTINGS, RECORDS, encode, resume=True)


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--to"]
    assert run([*command, "onnx", "--order", "both"]) == 2
    assert "--to onnx does not use --order; leave it out" in capsys.readouterr().err
    assert run([*command, "tokens"]) == 2
    assert "--to tokens needs --data" in capsys.readouterr().err
    assert run([*command, "tokens", "--data", str(data), "--no-row-tokens", "--split", "val", "--form", "ids"]) == 0
    [line] = read_lines(tmp_path / "out" / "val-00000.jsonl")
    assert len(line["image_ids"]) == 2 + 64


def test_tokens_of_other_splits_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    tokens = tmp_path / "tokens.safetensors"
    tavq.encode_folder(tmp_path / "model", data, out=tokens, split="val")
    with pytest.raises(UsageError, match=r"holds no tokens of the split 'train'; say with --split"):
        tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "out", tokens=tokens)
    assert not (tmp_path / "out").exists()
    tavq.export_tokens(tmp_path / "model", data, out=tmp_path / "out", tokens=tokens, split="val")
    assert [line["file_name"] for line in read_lines(tmp_path / "out" / "val-00000.jsonl")] == ["e.png"]
