"""Many callers at once, bad images among theirs: each gets what it would get alone, and memory stays bounded."""

import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from tavq.api.tokenizers import encode_folder
from tavq.core.config import build
from tavq.core.errors import DataError
from tavq.tokenizer import Tokenizer, TokenizerConfig

CALLERS, ROUNDS = 6, 4
MAX_GROWTH = 80_000  # kB between the first and the last round


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
    settings = {"net": net, "codebook": {"name": "learned", "entries": 32, "width": 4}}
    torch.manual_seed(0)
    Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(folder, metadata={"size": 32})
    return folder


def spoil(folder: Path) -> None:
    """Add files that are called images and cannot be read, and one that is far larger than the others."""
    good = (folder / "images" / "0.png").read_bytes()
    (folder / "bad").mkdir()
    for name, content in {
        "cut": good[: len(good) // 2],
        "empty": b"",
        "text": b"<script>",
        "flipped": good[::-1],
    }.items():
        (folder / "bad" / f"{name}.png").write_bytes(content)
    Image.new("L", (9000, 8000)).save(folder / "bad" / "bomb.png")


def test_concurrent_callers_get_what_each_gets_alone(model: Path, shared_images: Path, tmp_path: Path) -> None:
    good, mixed = tmp_path / "good", tmp_path / "mixed"
    for folder in (good, mixed):
        shutil.copytree(shared_images / "images", folder / "images")
    spoil(mixed)
    alone = encode_folder(model, good)

    def call(number: int) -> None:
        if number % 3 == 0:
            with pytest.raises(DataError, match=r"5 of 5 images in .* cannot be read"):
                encode_folder(model, mixed / "bad")
            return
        found = encode_folder(model, mixed if number % 3 == 1 else good)
        kept = [index for index, key in enumerate(found.keys) if key.startswith("images/")]
        assert len(kept) == len(found.keys) == len(alone.keys)
        assert torch.equal(found.indices[kept], alone.indices)

    peaks = []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(call, range(CALLERS)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[-1] - peaks[0] < MAX_GROWTH, peaks


def test_one_model_serves_many_threads(model: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(model)
    batches = [torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in range(12)]
    alone = [tokenizer.encode(batch) for batch in batches]
    with ThreadPoolExecutor(CALLERS) as pool:
        together = list(pool.map(tokenizer.encode, batches))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
