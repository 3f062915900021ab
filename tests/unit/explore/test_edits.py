"""Edits of grids, and the strings that hold them."""

import base64
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tavq.explore.edits import Editor, hash_key, pack_edit, remove_cells, remove_code, unpack_edit
from tavq.explore.errors import BadRequest
from tavq.explore.requests import MAX_SHARE, Operation

ENTRIES = (5, 3)
PART_OF = np.repeat([0, 1], ENTRIES)
SHA = "ab" * 32
PARSE: TypeAdapter[Operation] = TypeAdapter(Operation)


def grid(seed: int = 0, height: int = 4, width: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(0, 5, (height, width)), random.integers(5, 8, (height, width))], axis=2)


def edit(codes: np.ndarray, *operations: dict[str, Any]) -> np.ndarray:
    editor = Editor(PART_OF, lambda image: grid(int(image)), lambda share: grid(int(share)))
    return editor.apply(codes, [PARSE.validate_python(operation) for operation in operations])


def test_each_operation_by_hand() -> None:
    codes = grid()
    assert np.array_equal(edit(codes, {"op": "swap", "first": 5, "second": 7}, {"op": "open", "share": "3"}), grid(3))
    painted = edit(codes, {"op": "paint", "cells": [[0, 0], [1, 2]], "code": 6})
    assert painted[0, 0].tolist() == [codes[0, 0, 0], 6]
    assert (painted != codes).sum() <= 2
    replaced = edit(codes, {"op": "replace", "code": 1, "by": 2})
    assert np.array_equal(replaced, np.where(codes == 1, 2, codes))
    swapped = edit(codes, {"op": "swap", "first": 5, "second": 7})
    assert np.array_equal(swapped, np.where(codes == 5, 7, np.where(codes == 7, 5, codes)))
    copied = edit(codes, {"op": "copy", "image": "1", "row": 0, "column": 1, "height": 2, "width": 2,
                          "to_row": 3, "to_column": 4})  # fmt: skip
    assert copied[3, 4].tolist() == grid(1)[0, 1].tolist()  # what leaves the grid is cut off
    assert (copied != codes).any(axis=2).sum() <= 1
    assert np.array_equal(codes, grid())


def test_a_swap_done_twice_and_no_operation_change_nothing() -> None:
    swap = {"op": "swap", "first": 0, "second": 4}
    assert np.array_equal(edit(grid(), swap, swap), grid())
    assert np.array_equal(edit(grid()), grid())


def test_removed_cells_take_the_most_frequent_code_around_them() -> None:
    codes = np.array([[1, 1, 2], [1, 0, 2], [1, 3, 3]])[:, :, None]
    hole = np.zeros((3, 3), bool)
    hole[1, 1] = True
    assert remove_cells(codes, hole)[1, 1, 0] == 1
    assert remove_code(codes, np.ones((3, 3), bool), np.zeros(5, int), 3)[2].ravel().tolist() == [1, 1, 0]
    everything = np.ones((3, 3), bool)
    assert np.array_equal(remove_cells(codes, everything), codes)  # nothing is left to take


def test_a_wide_hole_is_filled_from_its_border() -> None:
    codes = np.zeros((1, 6, 1), int)
    codes[0, 2:, 0] = 4
    assert remove_code(codes, np.ones((1, 6), bool), np.zeros(5, int), 4).ravel().tolist() == [0] * 6


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"op": "paint", "cells": [[0, 9]], "code": 0}, "no position 0, 9; the grid has 4 x 5"),
        ({"op": "paint", "cells": [[0, 0]], "code": 8}, "no code 8; codes are 0 to 7"),
        ({"op": "replace", "code": 0, "by": 5}, "of different parts"),
        ({"op": "swap", "first": 9, "second": 0}, "no code 9"),
        ({"op": "remove_code", "code": 8}, "no code 8"),
        ({"op": "copy", "row": 4, "column": 0, "to_row": 0, "to_column": 0}, "outside the grid"),
        ({"op": "copy", "row": 0, "column": 0, "to_row": 0, "to_column": 5}, "outside the grid"),
    ],
)
def test_what_does_not_fit_is_refused(operation: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        edit(grid(), operation)


# --- share strings ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7)), max_size=12))
def test_a_share_string_holds_the_edit(places: list[tuple[int, int, int]]) -> None:
    paints = [{"op": "paint", "cells": [[row, column]], "code": code} for row, column, code in places]
    before, after = grid(), edit(grid(), *paints)
    shared = unpack_edit(pack_edit(SHA, "17", "images/ü.png", before, after))
    assert np.array_equal(shared.apply(before, PART_OF), after)
    assert (shared.image, shared.key, shared.model.hex()) == ("17", hash_key("images/ü.png"), SHA[:24])


@given(st.binary(max_size=200))
def test_any_bytes_are_an_edit_or_refused(data: bytes) -> None:
    for share in (base64.urlsafe_b64encode(data).decode(), base64.urlsafe_b64encode(zlib.compress(data)).decode()):
        try:
            unpack_edit(share).apply(grid(), PART_OF)
        except BadRequest:
            continue


@pytest.mark.parametrize("share", ["", "A", "ä", "../../etc", "AAAA", "%00"])
def test_other_texts_are_refused(share: str) -> None:
    with pytest.raises(BadRequest, match="share string"):
        unpack_edit(share)


def test_a_share_string_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(bytes(40_000_000), 9)).decode()
    with pytest.raises(BadRequest, match="share string"):
        unpack_edit(bomb)


def test_an_altered_edit_is_refused() -> None:
    after = grid()
    after[3, 4] = [4, 7]
    shared = unpack_edit(pack_edit(SHA, "0", "a", grid(1), grid(2)))
    with pytest.raises(BadRequest, match="does not fit"):
        shared.apply(grid(height=2), PART_OF)
    with pytest.raises(BadRequest, match="does not fit"):
        shared.apply(grid(1), PART_OF[::-1])


def test_an_edit_that_a_string_cannot_hold_is_refused() -> None:
    random = np.random.default_rng(0)
    large, other = (random.integers(0, 1 << 20, (128, 128, 1)) for _ in range(2))
    with pytest.raises(BadRequest, match=f"a share string of {MAX_SHARE} holds"):
        pack_edit(SHA, "0", "a", large, other)
