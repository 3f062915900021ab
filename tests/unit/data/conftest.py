"""A folder data set of small images whose colour tells which one it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.data.images import save_png


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes `count` images of 20 x 16 pixels, number i filled with the value i, and their metadata."""

    def write(count: int = 7, changes: dict[int, dict[str, Any]] | None = None) -> Path:
        lines = []
        for number in range(count):
            name = f"images/{number}.png"
            image = np.full((16, 20, 3), number, np.uint8)
            image[:, :, 1] = 10 * np.arange(20)  # tells where a crop was made
            save_png(tmp_path / name, image)
            record = {"file_name": name, "captions": [f"image {number}"]}
            lines.append(json.dumps(record | (changes or {}).get(number, {})))
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return write
