"""Hostile image files end in one DataError that names the file and the reason."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tavq.core.errors import DataError
from tavq.data.images import check_image, load_image, load_segmentation


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def image(path: Path, **options: object) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, **options)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("text.jpg", b"<html>not found</html>", "not an image"),
        ("empty.png", b"", "not an image"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        ("bomb.png", png_header(9_000, 9_000), "64,000,000"),
        ("huge_bomb.png", png_header(60_000, 60_000), "64,000,000"),
        ("thin.png", png_header(1, 100_000), "20 times"),
        ("flat.png", png_header(100_000, 1), "20 times"),
    ],
)
def test_refused_before_decoding(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (load_image, load_segmentation, check_image):
        with pytest.raises(DataError, match=rf"{name}: .*{reason}"):
            read(tmp_path / name)


def test_missing_file_folder_and_pipe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        load_image(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(DataError, match="it is not a file"):
            load_image(path)


@pytest.mark.filterwarnings("ignore")  # Pillow also warns of the broken header it met
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
def test_every_cut_is_seen_by_check_or_harmless(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    whole = image(path)
    complete = load_image(path)
    for length in [*range(0, 64, 3), *range(64, len(whole) - 16, 97)]:
        path.write_bytes(whole[:length])
        for read in (load_image, check_image):
            with pytest.raises(DataError, match=path.name):
                read(path)
    for length in range(len(whole) - 16, len(whole)):
        path.write_bytes(whole[:length])
        try:
            check_image(path)
        except DataError:
            continue
        np.testing.assert_array_equal(load_image(path), complete)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["jpg", "png", "webp", "bmp", "gif", "tiff"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_changed_bytes_give_a_image_or_a_data_error(
    tmp_path: Path, suffix: str, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path / f"a.{suffix}"
    data = bytearray(image(path))
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(bytes(data))
    for read in (load_image, load_segmentation, check_image):
        try:
            read(path)
        except DataError as error:
            assert path.name in str(error)  # noqa: PT017
