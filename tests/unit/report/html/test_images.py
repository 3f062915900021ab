"""Images in pages: the bytes that come back, the places of tiles, and crops of originals."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tavq.data.images import save_png
from tavq.inspection.pixels import as_bytes, crop, data_uri
from tavq.report.html.images import GREY, colours_of, sheet


def decoded(uri: str) -> tuple[str, np.ndarray]:
    head, _, body = uri.partition(",")
    return head, np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def noise(y: int, x: int) -> np.ndarray:
    return np.random.default_rng(y).integers(0, 256, (y, x, 3), np.uint8)


def test_small_images_come_back_exactly_and_large_ones_nearly() -> None:
    head, image = decoded(data_uri(noise(16, 24)))
    assert head == "data:image/png;base64"
    assert np.array_equal(image, noise(16, 24))
    smooth = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 200, 3)).copy()
    head, image = decoded(data_uri(smooth))
    assert head == "data:image/jpeg;base64"
    assert np.abs(image.astype(int) - smooth).mean() < 2


def test_what_leaves_the_range_is_cut_off() -> None:
    assert as_bytes(torch.tensor([-1.0, 0.0, 2.0])[:, None, None]).tolist() == [[[0, 128, 255]]]


def test_tiles_stand_in_rows() -> None:
    tiles = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    canvas = sheet(tiles, columns=2)
    assert canvas.shape == (2 * 3 + 1, 2 * 4 + 1, 3)
    assert (canvas[1:3, 1:4] == 10).all()
    assert (canvas[1:3, 5:8] == 20).all()
    assert (canvas[4:6, 1:4] == 30).all()
    assert (canvas[4:6, 5:8] == GREY).all()


def test_a_crop_is_taken_from_the_centre_square_at_the_files_resolution(tmp_path: Path) -> None:
    image = noise(32, 64)  # the tokenizer saw the centre 32 x 32 at 16 px
    save_png(tmp_path / "a.png", image)
    found = crop(tmp_path / "a.png", 16, (4, 2, 8, 6))
    assert np.array_equal(found, image[4:12, 16 + 8 : 16 + 16])


def test_a_crop_stops_at_the_border_and_small_files_are_enlarged_as_the_tokenizer_saw_them(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", noise(16, 16))
    assert np.array_equal(crop(tmp_path / "a.png", 16, (-4, -4, 4, 4)), noise(16, 16)[:4, :4])
    assert np.array_equal(crop(tmp_path / "a.png", 16, (12, 8, 20, 24)), noise(16, 16)[8:, 12:])
    save_png(tmp_path / "b.png", noise(8, 8))
    assert crop(tmp_path / "b.png", 16, (0, 0, 16, 16)).shape == (16, 16, 3)


def test_near_entries_have_near_colours() -> None:
    torch.manual_seed(0)
    centres = torch.randn(3, 12) * 5
    colours = colours_of(torch.cat([centre + 0.01 * torch.randn(10, 12) for centre in centres])).astype(int)
    groups = colours.reshape(3, 10, 3)
    assert np.ptp(groups, axis=1).max() < 12
    assert min(np.abs(groups[a, 0] - groups[b, 0]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 60


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (5, 1), (5, 2), (4, 4)])
def test_any_codebook_has_colours(shape: tuple[int, int]) -> None:
    assert colours_of(torch.randn(*shape, generator=torch.Generator().manual_seed(0))).shape == (shape[0], 3)
    assert colours_of(torch.zeros(shape)).shape == (shape[0], 3)
