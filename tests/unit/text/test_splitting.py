"""Blocks of texts, split in this process or in others."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from tavq.core.errors import DataError
from tavq.text import splitting
from tavq.text.granularity import split
from tavq.text.splitting import Pair, group_texts, hash_pairs, hash_text, split_block, split_blocks

WITHOUT_UNITS = [
    ("none", "", "no usable text"),
    ("blank", " \n\t", "only white space or invisible characters in its text"),
    ("invisible", "\u200b\u2066", "only white space or invisible characters in its text"),
    ("sign", "!", "no word or number in its text"),
    ("emoji", "😀", "no word or number in its text"),
]

PAIRS = [(f"{n}.png", f"A red car {n} and {n % 3} blue dogs. It rains.") for n in range(20)]


def test_blocks_end_at_a_number_of_texts_or_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "BLOCK_TEXTS", 3)
    monkeypatch.setattr(splitting, "BLOCK_CHARACTERS", 100)
    lengths = [1, 1, 1, 1, 99, 1, 200_000, 1]
    found = [[len(text) for _, text in block] for block in group_texts((str(n), "x" * n) for n in lengths)]
    assert found == [[1, 1, 1], [1, 99], [1, 200_000], [1]]


def test_a_block_holds_the_units_of_its_texts() -> None:
    block = split_block("pattern", [*PAIRS[:3], *((name, text) for name, text, _ in WITHOUT_UNITS)])
    tensors = block.tensors
    assert block.dropped == [(name, reason) for name, _, reason in WITHOUT_UNITS]
    assert block.texts == [text for _, text in PAIRS[:3]]
    assert bytes(tensors["keys"]) == b"0.png1.png2.png"
    assert tensors["text_hashes"].tolist() == [hash_text(text) for _, text in PAIRS[:3]]
    for name in ("words", "phrases", "sentences"):
        starts = tensors[f"{name}/text_offsets"].tolist()
        texts = [bytes(tensors[f"{name}/text"][a:b]).decode() for a, b in itertools.pairwise(starts)]
        assert len(set(texts)) == len(texts)
        ids = np.split(tensors[f"{name}/ids"], tensors[f"{name}/offsets"][1:-1])
        assert [tuple(texts[row] for row in rows) for rows in ids] == [split(text)[name] for _, text in PAIRS[:3]]


def test_other_pairs_have_another_hash() -> None:
    assert hash_pairs([("a", "bc")]) != hash_pairs([("ab", "c")])
    assert hash_pairs([("a", "b"), ("c", "d")]) != hash_pairs([("c", "d"), ("a", "b")])
    assert hash_pairs([("a", "b")]) == hash_pairs([("a", "b")])


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 33])
def test_one_process_splits_every_block(count: int) -> None:
    """Few blocks and many take different ways; a text that is dropped on one of them is lost without a word."""
    blocks = [[(f"{n}.png", f"A red car {n}.")] for n in range(count)]
    found = [bytes(block.tensors["keys"]).decode() for block in split_blocks("pattern", blocks, jobs=1)]
    assert found == [f"{n}.png" for n in range(count)]


@pytest.mark.slow
def test_several_processes_give_the_same_blocks_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "BLOCKS_FOR_PROCESSES", 2)
    monkeypatch.setattr(splitting, "BLOCK_TEXTS", 3)
    taken = []

    def work() -> Iterator[list[Pair]]:
        for block in group_texts(PAIRS):
            taken.append(len(taken))
            yield block

    found = []
    for block in split_blocks("pattern", work(), jobs=2):
        found.append(block)
        assert len(taken) - len(found) <= 4  # read ahead as far as the processes need, no farther
    expected = [split_block("pattern", pairs) for pairs in group_texts(PAIRS)]
    assert len(found) == len(expected) == 7
    for one, other in zip(found, expected, strict=True):
        assert one.texts == other.texts
        for name, array in other.tensors.items():
            np.testing.assert_array_equal(one.tensors[name], array)


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "BLOCKS_FOR_PROCESSES", 2)
    with pytest.raises(DataError, match="is not valid text"):
        list(split_blocks("pattern", [[("a", "b")], [("", "c")]], jobs=2))
