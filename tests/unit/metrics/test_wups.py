"""WUPS: on a small tree by hand, on WordNet equal to the script of its authors."""

import json
import random
import tarfile
from functools import total_ordering
from pathlib import Path
from typing import Any

import pytest

from tavq.metrics import wups as module
from tavq.metrics.wups import Wups


@total_ordering
class Sense:
    """A node of a tree of nouns with the interface of NLTK's reader."""

    def __init__(self, name: str, *above: "Sense") -> None:
        self.name, self.above = name, list(above)

    def __lt__(self, other: "Sense") -> bool:
        return self.name < other.name

    def hypernyms(self) -> list["Sense"]:
        return self.above

    def instance_hypernyms(self) -> list["Sense"]:
        return []

    def min_depth(self) -> int:
        return 1 + min((sense.min_depth() for sense in self.above), default=-1)

    def max_depth(self) -> int:
        return 1 + max((sense.max_depth() for sense in self.above), default=-1)


ENTITY = Sense("entity")
ANIMAL = Sense("animal", ENTITY)
DOG, CAT = Sense("dog", ANIMAL), Sense("cat", ANIMAL)
TOY = Sense("toy", ENTITY)
POODLE = Sense("poodle", DOG)
TREE = {
    "dog": [DOG],
    "hound": [DOG],
    "cat": [CAT, Sense("cat.toy", TOY)],
    "toy": [TOY],
    "poodle": [POODLE],
    "animal": [ANIMAL],
}


@pytest.fixture
def wups(monkeypatch: pytest.MonkeyPatch) -> Wups:
    class Nouns:
        def synsets(self, word: str, pos: str) -> list[Sense]:
            assert pos == "n"
            return TREE.get(word, [])

    monkeypatch.setattr(module, "open_wordnet", lambda place: Nouns())
    return Wups()


@pytest.mark.parametrize(
    ("answer", "truth", "similarity"),
    [
        ("dog", "dog", 1),
        ("unheard-of", "unheard-of", 1),
        ("dog", "hound", 1),  # one sense
        ("dog", "cat", 2 * 2 / (3 + 3)),  # they meet in `animal`, the second from the root; both are third
        ("dog", "toy", 2 * 1 / (3 + 2)),
        ("cat", "toy", 2 * 2 / (3 + 2)),  # the nearer of a cat's two senses
        ("poodle", "dog", 2 * 3 / (4 + 3)),
        ("poodle", "animal", 2 * 2 / (4 + 2)),
        ("dog", "unheard-of", 0),
        ("", "dog", 0),
    ],
)
def test_similarity_by_hand(wups: Wups, answer: str, truth: str, similarity: float) -> None:
    assert wups(answer, truth, 0.0) == pytest.approx(similarity)
    assert wups(truth, answer, 0.0) == pytest.approx(similarity)
    assert wups(answer, truth, 0.9) == pytest.approx(similarity if similarity >= 0.9 else similarity / 10)


def test_a_similarity_at_the_threshold_counts_fully(wups: Wups) -> None:
    assert wups("poodle", "dog", 6 / 7) == 6 / 7


def test_sets_by_hand(wups: Wups) -> None:
    assert wups("dog, cat", "cat,dog", 0.9) == 1
    assert wups("dog", "dog,cat", 0.0) == pytest.approx(2 / 3)  # true words: 1 x 2/3; answered: 1
    assert wups("dog,cat", "dog", 0.0) == pytest.approx(2 / 3)
    assert wups("dog,toy", "cat,toy", 0.0) == pytest.approx(min(max(2 / 3, 4 / 5) * 1, 2 / 3 * 1))
    assert wups("dog,dog", "dog", 0.0) == 1


@pytest.fixture(scope="module")
def nltk_data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Extracts only WordNet from an archive of NLTK's data, once."""
    folder = tmp_path_factory.mktemp("nltk_data")

    def unpack(archive: Path) -> Path:
        if not (folder / "corpora").exists():
            with tarfile.open(archive) as file:
                names = [part for part in file.getmembers() if "corpora/wordnet/" in part.name]
                file.extractall(folder, names, filter="data")
        return next(folder.rglob("corpora")).parent

    return unpack


@pytest.mark.real_data
def test_pairs_of_answers_against_the_script_of_the_authors(real_data: Path, nltk_data: Any) -> None:
    pairs = json.loads((real_data / "wups/wups_pairs.json").read_text())["pairs_wup0_wup09"]
    wups = Wups(nltk_data(real_data / "language/nltk_data_ready.tar.gz"))
    assert len(pairs) == 3335
    for a, b, at_zero, at_nine in pairs:
        assert [round(wups(a, b, threshold), 6) for threshold in (0.0, 0.9)] == [at_zero, at_nine], (a, b)


@pytest.mark.real_data
def test_senses_of_wordnet_against_nltk(real_data: Path, nltk_data: Any) -> None:
    wups = Wups(nltk_data(real_data / "language/nltk_data_ready.tar.gz"))
    draw = random.Random(1)
    senses = [sense for word in ("man", "bank", "dog", "chef", "water") for sense in wups.senses(word)]
    senses += [up for sense in senses for path in sense.hypernym_paths() for up in path]
    for _ in range(500):
        a, b = draw.choices(senses, k=2)
        assert wups._wu_palmer(a, b) == a.wup_similarity(b), (a, b)
