"""Exact search gives what a plain sort of exact scores gives, whatever the blocks, the ties and the dtype."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.ops import topk as module
from tavq.ops.topk import topk_dot_products


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def plain(queries: np.ndarray, table: np.ndarray, count: int) -> tuple[list[list[int]], list[list[float]]]:
    """Sums without rounding, sorted by score and then by place."""
    rows, scores = [], []
    for query in queries:
        sums = [math.fsum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in table]
        rounded = [float(np.float32(value)) for value in sums]
        order = sorted(range(len(table)), key=lambda place: (-rounded[place], place))[:count]
        rows.append(order)
        scores.append([rounded[place] for place in order])
    return rows, scores


def test_by_hand() -> None:
    table = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    best = topk_dot_products(np.array([[1, 0], [0, 2]], np.float32), table, 3)
    assert best.rows.tolist() == [[0, 1, 3], [2, 1, 3]]
    np.testing.assert_allclose(best.scores, [[1, 0.6, 0.6], [2, 1.6, 1.6]], rtol=1e-7)


@pytest.mark.parametrize("rows_a_block", [1, 3, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_blocks_change_nothing(rows_a_block: int, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    table, queries = unit(draw.normal(size=(50, 24))).astype(dtype), unit(draw.normal(size=(5, 24)))
    table[[7, 31, 40]] = table[20]  # ties
    queries[1] = table[20]
    monkeypatch.setattr(module, "BLOCK_BYTES", rows_a_block * 24 * 4)
    monkeypatch.setattr(module, "QUERIES", 2)
    best = topk_dot_products(queries, table, 6)
    rows, scores = plain(queries, table, 6)
    assert best.rows.tolist() == rows
    assert best.scores.tolist() == scores
    assert rows[1][:4] == [7, 20, 31, 40]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nearly_equal_scores_are_distinguished(data: st.DataObject) -> None:
    """Rows that differ by a few last bits: a float32 product alone would put them in any order."""
    seed, count, block = (data.draw(st.integers(*ends)) for ends in ((0, 10_000), (1, 9), (1, 40)))
    draw = np.random.default_rng(seed)
    base = unit(draw.normal(size=(1, 64)))
    table = base.repeat(30, axis=0)
    for row in table:
        places = draw.integers(64, size=3)
        row[places] = np.nextafter(row[places], draw.choice([-1, 1], size=3).astype(np.float32))
    query = unit(draw.normal(size=(1, 64)) + base)
    saved, module.BLOCK_BYTES = module.BLOCK_BYTES, block * 256
    try:
        best = topk_dot_products(query, table, count, max_norm=1.001)
    finally:
        module.BLOCK_BYTES = saved
    rows, scores = plain(query, table, count)
    assert best.rows.tolist() == rows
    assert best.scores.tolist() == scores


def test_equal_rows_come_in_their_order() -> None:
    table = np.full((100, 4), 0.5, np.float32)
    assert topk_dot_products(table[:1], table, 5).rows.tolist() == [[0, 1, 2, 3, 4]]


def test_fewer_rows_than_asked_and_none() -> None:
    table = np.eye(3, dtype=np.float32)
    assert topk_dot_products(table[1:2], table, 10).rows.tolist() == [[1, 0, 2]]
    assert topk_dot_products(table, table[:0], 2).rows.shape == (3, 0)
    assert topk_dot_products(table[:0], table, 2).rows.shape[0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_never_found(bad: float) -> None:
    table = np.eye(4, dtype=np.float32)
    table[0, 0] = table[2, 1] = bad
    queries = np.array([[1, 0.5, 0.25, 0.1], [0, 0, 0, 1]], np.float32)
    assert topk_dot_products(queries[:1], table, 3).rows.tolist() == [[1, 3]]
    assert set(topk_dot_products(queries, table, 1).rows[:, 0].tolist()) == {1, 3}


def test_a_mapped_table_gives_what_it_gives_in_memory(tmp_path: Path) -> None:
    table = unit(np.random.default_rng(1).normal(size=(40, 8)))
    file = TensorFileWriter(tmp_path / "a.safetensors", {"rows": ("<f4", table.shape)}, {})
    file.write("rows", 0, table)
    file.close()
    mapped = MappedTensors(tmp_path / "a.safetensors")["rows"]
    first, second = topk_dot_products(table[:3], table, 5), topk_dot_products(table[:3], mapped, 5)
    assert first.rows.tolist() == second.rows.tolist()
    assert first.scores.tolist() == second.scores.tolist()


@pytest.mark.parametrize("kind", ["<f4", "<f2"])
def test_memory_is_that_of_a_block(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width = 200_000, 32
    file = TensorFileWriter(tmp_path / "a.safetensors", {"rows": (kind, (rows, width))}, {})
    file.write("rows", 777, np.full((1, width), 0.1))
    file.close()
    mapped = MappedTensors(tmp_path / "a.safetensors")["rows"]
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 20)
    query = np.full((2, width), 0.1, np.float32)
    topk_dot_products(query, mapped[:10], 3)  # imports
    tracemalloc.start()
    best = topk_dot_products(query, mapped, 3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert best.rows.tolist() == [[777, 0, 1]] * 2
    assert most < 4 << 20  # the table has 26 or 13 MB; torch's block is not counted here


def test_a_float32_product_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the margin 0, rows that the product rounds apart would change places."""
    draw = np.random.default_rng(3)
    base = unit(draw.normal(size=(1, 256)))
    table = np.concatenate([base] * 400)
    table[np.arange(400), draw.integers(256, size=400)] *= np.float32(1 + 2**-22)
    query = unit(draw.normal(size=(1, 256)) + base)
    right = topk_dot_products(query, table, 20).rows.tolist()
    assert right == plain(query, table, 20)[0]
    monkeypatch.setattr(module, "_error_bound", lambda width: 0.0)
    assert topk_dot_products(query, table, 20).rows.tolist() != right
