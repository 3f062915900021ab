"""Shards that were built apart become the store that one process builds."""

from pathlib import Path

import numpy as np
import pytest

from tavq.core.errors import DataError, FileError, UsageError
from tavq.interfaces import GRANULARITIES
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.merging import find_shards, merge_stores
from tavq.text.store import TextStore

TEXTS = {
    "1.png": "A red car. The dog sees a red car.",
    "2.png": "A red car and a blue dog.",
    "3.png": "It rains.",
    "4.png": "?",
    "5.png": "The dog sees a red car. Two blue bowls of soup.",
}


def parts(encoder: TextEncoder, out: Path, count: int, whole: bool = False) -> list[Path]:
    for number in range(1, count + 1):
        texts = dict([*TEXTS.items()][number - 1 :: count])
        build_store(texts, encoder, "pattern", out.with_name(f"{out.name}-{number}-of-{count}"), whole)
    return find_shards(out)


@pytest.mark.parametrize("whole", [False, True])
def test_merged_shards_equal_one_store(whole: bool, tiny: TextEncoder, tmp_path: Path) -> None:
    merge_stores(parts(tiny, tmp_path / "text", 3, whole), tmp_path / "text")
    merged = TextStore.open(tmp_path / "text", verify=True)
    one = build_store(TEXTS, tiny, "pattern", tmp_path / "one", whole)
    assert merged.manifest.units == one.manifest.units
    assert merged.manifest.faults == one.manifest.faults
    assert sorted(merged.faults()) == sorted(one.faults())
    assert sorted(merged.keys) == sorted(one.keys)
    assert merged.matches(TEXTS.items(), tiny, "pattern", whole)
    for key in one.keys:
        assert merged.units(key) == one.units(key)
        found, expected = merged.vectors(key), one.vectors(key)
        assert found.keys() == expected.keys()
        for name in found.keys() - {"full_text/ids"}:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
        if whole:
            tokens, others = merged.vocabulary("tokens")[0], one.vocabulary("tokens")[0]
            named = [tokens[row] for row in found["full_text/ids"]]
            assert named == [others[row] for row in expected["full_text/ids"]]
    for name in GRANULARITIES:
        assert sorted(merged.vocabulary(name)[0]) == sorted(one.vocabulary(name)[0])
    assert not (tmp_path / "text.building").exists()


def test_shards_are_found_by_their_names(tiny: TextEncoder, tmp_path: Path) -> None:
    out = tmp_path / "text"
    with pytest.raises(UsageError, match=r"There are no shards of .*text \(text-1-of-N"):
        find_shards(out)
    found = parts(tiny, out, 2)
    assert [path.name for path in found] == ["text-1-of-2", "text-2-of-2"]
    (tmp_path / "text-2-of-2").rename(tmp_path / "aside")
    with pytest.raises(UsageError, match=r"Of the 2 shards of .*text these are missing: 2\."):
        find_shards(out)
    (tmp_path / "aside").rename(tmp_path / "text-3-of-3")
    with pytest.raises(UsageError, match=r"Found shards of .*text from different splits \(of 2 and of 3\)"):
        find_shards(out)


def test_shards_that_do_not_match_are_refused(tiny: TextEncoder, tmp_path: Path) -> None:
    one = build_store(TEXTS, tiny, "pattern", tmp_path / "one")
    same = build_store(TEXTS, tiny, "pattern", tmp_path / "same")
    half = build_store({"new.png": "A cat."}, tiny, "pattern", tmp_path / "half", float16=True)
    with pytest.raises(DataError, match=r"The key '\d\.png' occurs twice\. The shards must be of different images"):
        merge_stores([one.folder, same.folder], tmp_path / "text")
    with pytest.raises(UsageError, match=r"one and .*half differ in float16: False and True"):
        merge_stores([one.folder, half.folder], tmp_path / "text")
    path = same.folder / "store.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FileError, match="was altered or truncated"):
        merge_stores([one.folder, same.folder], tmp_path / "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "one", "same"]
