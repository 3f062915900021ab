"""Images of one colour each without metadata, and the server's description of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tavq.data.images import save_png


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[int], Path]:
    """A folder of `count` images: 00.png with grey level 0, 01.png with 5, and so on."""

    def write(count: int) -> Path:
        for number in range(count):
            save_png(tmp_path / "data" / f"{number:02}.png", np.full((12, 16, 3), 5 * number, np.uint8))
        return tmp_path / "data"

    return write
