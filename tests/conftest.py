"""Shapes in signatures are checked while tests run, and no test reaches the network."""

import gc
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy two-core machine are many times slower

import numpy as np
import pytest
import shape_checker  # noqa: F401  (before the hook: it makes checks lazy)
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a busy machine is no fault of the code
install_import_hook("tavq", "shape_checker.check")
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-of-each",
        action="store_true",
        help="Run each contract test for its first part only, and no test that is marked slow.",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--one-of-each"):
        return
    seen: set[tuple[Path, str]] = set()
    kept, left = [], []
    for item in items:
        name = (item.path, getattr(item, "originalname", item.name))
        again = "contracts" in item.path.parts and name in seen
        seen.add(name)
        (left if again or item.get_closest_marker("slow") else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_collection_finish() -> None:
    """What is there for all tests is left out when unused objects are sought, which took a twelfth of their time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Frozen objects would outlive Python, and extension modules write to the terminal of every one of theirs."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"A test tried to reach {address}; tests use no network.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Conversions and the indices of shards are kept in folders of the tests, not in those of the user."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patched.setenv("TAVQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, or a skip where there is none."""
    folder = os.environ.get("TAVQ_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TAVQ_REAL_DATA does not point to the real data sets")
    return Path(folder)


@pytest.fixture
def corpora(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NLTK data that the splitter `corpora` reads."""
    import nltk

    with tarfile.open(real_data / "language" / "nltk_data_ready.tar.gz") as archive:
        wanted = [name for name in archive.getmembers() if "wordnet" not in name.name and "conll" not in name.name]
        archive.extractall(tmp_path, wanted, filter="data")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder data set of its own for each test: 10 images for training, 3 for val and 3 for test."""
    return _write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that change nothing in it."""
    return _write_images(tmp_path_factory.mktemp("data") / "images")


COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220), "yellow": (230, 220, 60)}
SHAPES: dict[str, Callable[..., Any]] = {
    "square": lambda y, x: (abs(y - 16) < 9) & (abs(x - 16) < 9),
    "disc": lambda y, x: (y - 16) ** 2 + (x - 16) ** 2 < 90,
    "stripe": lambda y, x: abs(x - y) < 6,
    "cross": lambda y, x: (abs(y - 16) < 4) | (abs(x - 16) < 4),
}


def _write_images(folder: Path) -> Path:
    from tavq.data.images import save_png

    y, x = np.mgrid[:32, :32]
    lines = []
    for number, split in enumerate(["train"] * 10 + ["val"] * 3 + ["test"] * 3):
        colour, shape = list(COLOURS)[number % 4], list(SHAPES)[number // 4]
        image = np.random.default_rng(number).integers(90, 120, (32, 32, 3), np.uint8)
        image[SHAPES[shape](y, x)] = COLOURS[colour]
        save_png(folder / f"images/{number}.png", image)
        text = f"A {colour} {shape} stands on grey ground. The {shape} is bright, and the ground is dull."
        record = {"file_name": f"images/{number}.png", "split": split, "captions": [f"A {colour} {shape}."]}
        lines.append(json.dumps(record | {"long_text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
