"""Parts of speech by TextBlob's lexicon and Brill rules, applied by look-up instead of one rule after the other."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

EDGE = "STAART"
"""Word and tag of the three places before and after a sentence, as the rules spell it."""

# Where a rule of each kind looks, as offsets from the token's word in the flat list word, tag, word, tag, …:
# the token's own word is 0 and its tag 1, so the previous tag is -1 and the next word 2. One offset is compared
# with the rule's first argument, two with both; several places are alternatives.
PLACES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "prevtag": ((-1,),),
    "nexttag": ((3,),),
    "prev2tag": ((-3,),),
    "next2tag": ((5,),),
    "prev1or2tag": ((-1,), (-3,)),
    "next1or2tag": ((3,), (5,)),
    "prev1or2or3tag": ((-1,), (-3,), (-5,)),
    "next1or2or3tag": ((3,), (5,), (7,)),
    "surroundtag": ((-1, 3),),
    "curwd": ((0,),),
    "prevwd": ((-2,),),
    "nextwd": ((2,),),
    "prev1or2wd": ((-2,), (-4,)),
    "next1or2wd": ((2,), (4,)),
    "wdprevtag": ((-1, 0),),
    "wdnexttag": ((0, 3),),
    "wdand2aft": ((0, 4),),
    "wdand2tagbfr": ((-3, 0),),
    "wdand2tagaft": ((0, 5),),
    "lbigram": ((-2, 0),),
    "rbigram": ((0, 2),),
    "prevbigram": ((-3, -1),),
    "nextbigram": ((3, 5),),
}

# The place looked at → what is found there → (position of the rule, new tag).
Table = dict[tuple[int, ...], dict[Any, tuple[int, str]]]


class Lookups(NamedTuple):
    """The tables of one tag: by one place, and by two."""

    single: tuple[tuple[int, dict[Any, tuple[int, str]]], ...]
    double: tuple[tuple[int, int, dict[Any, tuple[int, str]]], ...]


class Rules(NamedTuple):
    """The contextual rules that change one tag: those for any word, all of them, and the words that need all."""

    common: Lookups
    all: Lookups
    words: frozenset[str]


def compile_rules(rules: Iterable[Sequence[str]]) -> dict[str, Rules]:
    """Brill's contextual rules by the tag they change.

    A rule reads the tag a token had before any rule touched it, so among the rules that match, the last one wins:
    a table keeps the rule's position and the highest position found decides. Rules of the tag `*` are in all tables.
    """
    listed = list(rules)
    tables: dict[str, Table] = {rule[0]: {} for rule in listed}
    for position, (old, new, kind, *arguments) in enumerate(listed):
        for table in tables.values() if old == "*" else (tables[old],):
            for place in PLACES[kind.lower()]:
                key: Any = arguments[0] if len(place) == 1 else tuple(arguments[:2])
                table.setdefault(place, {})[key] = (position, new)
    return {tag: _by_word(table) for tag, table in tables.items()}


def _by_word(table: Table) -> Rules:
    """Most rules are for certain words: other words are spared their look-ups."""
    worded = [(place, found) for place, found in table.items() if 0 in place]
    words = {key if len(place) == 1 else key[place.index(0)] for place, found in worded for key in found}
    common = {place: found for place, found in table.items() if 0 not in place}
    return Rules(_lookups(common), _lookups(table), frozenset(words))


def _lookups(table: Table) -> Lookups:
    return Lookups(
        tuple((place[0], found) for place, found in table.items() if len(place) == 1),
        tuple((place[0], place[1], found) for place, found in table.items() if len(place) == 2),
    )


NO_RULES = _by_word({})


class Tagger:
    """Penn Treebank tags from TextBlob's lexicon, its morphological rules and its contextual rules.

    TextBlob's own `PatternTagger` ships the contextual rules and does not apply them ("the stem" stays a verb).
    """

    def __init__(self) -> None:
        from textblob.en import lexicon  # takes a second to import: only who splits text pays

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # TextBlob leaves closing its files to the collector
            lexicon.get("")  # each reads its file when first used
            list(lexicon.morphology)
            self.rules = compile_rules(lexicon.context)
        self.lexicon = lexicon

    def tag(self, words: Sequence[str]) -> list[str]:
        """The tag of each word of one sentence."""
        return self.contextual(words, [self.lexical(words[0], True), *map(self.lexical, words[1:])] if words else [])

    @lru_cache(maxsize=65536)  # noqa: B019 - one Tagger lives as long as the process
    def lexical(self, word: str, first: bool = False) -> str:
        """The tag of a word on its own; the first word of a sentence is looked up in lower case."""
        lower = word.lower()
        known = self.lexicon.get(lower) if first or word.isupper() else None
        known = known or self.lexicon.get(word)
        if known:
            return str(known)
        if word[:1].isdigit():
            return "CD" if not word[-1:].isalpha() else "JJ"
        if "-" in word:
            return "NN" if word.endswith(("-up", "-off", "-on")) else "JJ"
        if word.istitle() and not first:
            return "NNP"
        return self._of_shape(lower)

    def _of_shape(self, lower: str) -> str:
        token = ["", "NN"]
        token[0] = lower
        return str(self.lexicon.morphology.apply(token)[1])

    def contextual(self, words: Sequence[str], tags: Sequence[str]) -> list[str]:
        """The tags after the contextual rules: left to right, seeing the changed tags to the left."""
        flat = [EDGE] * 6
        for word, tag in zip(words, tags, strict=True):
            flat += (word, tag)
        flat += [EDGE] * 6
        of_tag, others = self.rules, self.rules.get("*", NO_RULES)
        for base in range(6, len(flat) - 6, 2):
            rules = of_tag.get(flat[base + 1], others)
            single, double = rules.all if flat[base] in rules.words else rules.common
            best, new = -1, flat[base + 1]
            for place, table in single:
                found = table.get(flat[base + place])
                if found is not None and found[0] > best:
                    best, new = found
            for place, other, table in double:
                found = table.get((flat[base + place], flat[base + other]))
                if found is not None and found[0] > best:
                    best, new = found
            flat[base + 1] = new
        return flat[7:-6:2]


@cache
def load_tagger() -> Tagger:
    """The tagger, read once."""
    return Tagger()
