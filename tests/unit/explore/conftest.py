"""Images of two halves with captions that name their colours, and untrained tokenizers of all kinds on them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from starlette.testclient import TestClient
from torch import Tensor

import tavq
from tavq.core.config import build
from tavq.core.files import write_json_lines
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.explore.explorer import Explorer
from tavq.explore.server.app import make_api
from tavq.interfaces import quantizers
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer, TokenizerConfig

API = "/api/v1"
IMAGES = 60
SIZE = 16
COLOURS = {"red": (220, 40, 40), "blue": (50, 60, 220), "green": (40, 200, 60)}
NET = {"channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": False}
ALIGN = {"name": "ta", "word": 0.1, "phrase": 0.1, "sentence": 0.1, "samples": [2, 2, 2], "iterations": 3}
HOSTILE = "<script>alert(1)</script> \u202egnp.exe"
"""A caption that would be markup, and one that turns the direction of writing, if a page forgot about either."""


class LetterEncoder(TextEncoder):
    """Vectors drawn from a hash of the text; needs no model."""

    max_unit = 10**6

    def __init__(self) -> None:
        self.name, self.sha256, self.width, self.precision = "letters", "0" * 64, 6, "float32"

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(6).astype(np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, 6)

    def encode_words(self, words: Sequence[str]) -> Float[Tensor, "m t"]:
        return self.encode_units(words)


def draw(folder: Path, text: bool = True) -> Path:
    """Images of which the left half has a colour that the caption names, and the right half is grey."""
    lines = []
    for number in range(IMAGES):
        colour = list(COLOURS)[number % 3]
        image = np.random.default_rng(number).integers(100, 109, (SIZE, SIZE, 3), np.uint8)
        image[:, : SIZE // 2] = COLOURS[colour]
        name = f"images/{number:03}.png"
        save_png(folder / name, image)
        split = "test" if number >= 50 else "train"
        captions = [f"A {colour} wall next to a grey floor.", HOSTILE] if text else []
        lines.append({"file_name": name, "split": split, "captions": captions})
    write_json_lines(folder / "metadata.jsonl", lines)
    return folder


def make_tokenizer(seed: int = 0, **changes: Any) -> Tokenizer:
    """A small untrained tokenizer whose entries lie where its features are, so that several are used."""
    torch.manual_seed(seed)
    table = {"name": "learned", "entries": 12, "width": 8, "init": "features"}
    values = {"net": NET, "codebook": table, "quantizer": {"name": "nearest"}, **changes}
    if values.get("align"):
        values["text_width"] = 6
    return Tokenizer(build(TokenizerConfig, values, "test"))


def save_model(
    tokenizer: Tokenizer, folder: Path, images: Tensor, store: TextStore | None = None, size: int | None = SIZE
) -> Path:
    """Start the codebooks from images, and write the model's folder."""
    tokenizer.load_vocabulary(store)
    tokenizer.train()
    with torch.no_grad():
        tokenizer.quantize(images)
    metadata: dict[str, Any] = {} if size is None else {"size": size}
    if store is not None:
        metadata["text"] = store.manifest.model_dump(mode="json")
    tokenizer.eval().save_pretrained(folder, metadata=metadata)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a text store; to be read only."""
    folder = draw(tmp_path_factory.mktemp("explored") / "walls")
    texts = {record.file_name: record.text or "" for record in FolderDataset(folder)}
    build_store(texts, LetterEncoder(), "pattern", folder / "text")
    return folder


@pytest.fixture(scope="session")
def pixels(data: Path) -> Tensor:
    """The images of the data set."""
    from tavq.data.loader import load_image_batch

    dataset = FolderDataset(data)
    return load_image_batch(dataset, [record.file_name for record in dataset][:24], SIZE)


@pytest.fixture(scope="session")
def plain(data: Path, pixels: Tensor) -> Path:
    """A tokenizer without alignment."""
    return save_model(make_tokenizer(), data.parent / "plain", pixels)


@pytest.fixture(scope="session")
def aligned(data: Path, pixels: Tensor) -> Path:
    """A tokenizer with the aligner of TA-VQ and a codebook for each level."""
    tokenizer = make_tokenizer(1, align=ALIGN, hierarchy={"codebook": "own"})
    return save_model(tokenizer, data.parent / "aligned", pixels, TextStore.open(data / "text"))


Open = Callable[..., Explorer]


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep stores."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def explorer(data: Path, plain: Path, aligned: Path, stores: Path) -> Explorer:
    """Two models on the data set; to be read only."""
    return tavq.open_explorer([plain, aligned], data=data, store=stores)


@pytest.fixture(scope="session")
def multi_part() -> dict[str, Any]:
    """The settings of a quantizer of several parts, by name."""
    return {name: dict(quantizers[name].compatible_codebook) for name in quantizers if quantizers[name].multi_part}


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> Iterator[TestClient]:
    """Asks a server of both models, without its guard."""
    with TestClient(make_api(explorer)) as client:
        yield client


def get(client: TestClient, path: str, **query: Any) -> Any:
    """The answer at a path of the API."""
    answer = client.get(path if path.startswith(API) else f"{API}{path}", params=query or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def addresses(value: Any) -> Iterator[str]:
    """All addresses in an answer."""
    if isinstance(value, dict):
        for part in value.values():
            yield from addresses(part)
    elif isinstance(value, list):
        for part in value:
            yield from addresses(part)
    elif isinstance(value, str) and value.startswith(API):
        yield value
