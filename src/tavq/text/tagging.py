"""Part-of-speech tagging by TextBlob's lexicon and Brill rules, applied by table lookup instead of one by one."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

EDGE = "STAART"
"""Word and tag of the three padding tokens before and after a sentence, spelled as in the rules."""

# Which tokens a rule of each kind reads, as offsets from the token's word in the flat list word, tag, word, tag, …:
# the token's own word is 0 and its tag 1, so the previous tag is -1 and the next word 2. One offset is compared
# with the rule's first argument, two with both; several entries are alternatives.
OFFSETS: Mapping[str, tuple[tuple[int, ...], ...]] = {
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

# Offsets that are read → what is found there → (position of the rule, new tag).
Table = dict[tuple[int, ...], dict[Any, tuple[int, str]]]


class Lookups(NamedTuple):
    """The tables of one tag: of rules that read one offset, and of rules that read two."""

    single: tuple[tuple[int, dict[Any, tuple[int, str]]], ...]
    double: tuple[tuple[int, int, dict[Any, tuple[int, str]]], ...]


class Rules(NamedTuple):
    """The contextual rules that change one tag: those for any word, all rules, and the words that need all."""

    common: Lookups
    all: Lookups
    words: frozenset[str]


def compile_rules(rules: Iterable[Sequence[str]]) -> dict[str, Rules]:
    """Group Brill's contextual rules by the tag they change.

    A rule reads the tag that a token had before any rule changed it, so the last matching rule wins: a table keeps the
    rule's position, and the highest position found decides. Rules for the tag `*` are in all tables.
    """
    listed = list(rules)
    tables: dict[str, Table] = {rule[0]: {} for rule in listed}
    for position, (old, new, kind, *arguments) in enumerate(listed):
        for table in tables.values() if old == "*" else (tables[old],):
            for offsets in OFFSETS[kind.lower()]:
                key: Any = arguments[0] if len(offsets) == 1 else tuple(arguments[:2])
                table.setdefault(offsets, {})[key] = (position, new)
    return {tag: _group_by_word(table) for tag, table in tables.items()}


def _group_by_word(table: Table) -> Rules:
    """Set rules for certain words apart; most rules are such, and other words skip their lookups."""
    of_words = [(offsets, found) for offsets, found in table.items() if 0 in offsets]
    words = {key if len(offsets) == 1 else key[offsets.index(0)] for offsets, found in of_words for key in found}
    common = {offsets: found for offsets, found in table.items() if 0 not in offsets}
    return Rules(_make_lookups(common), _make_lookups(table), frozenset(words))


def _make_lookups(table: Table) -> Lookups:
    single = [(offsets[0], found) for offsets, found in table.items() if len(offsets) == 1]
    double = [(offsets[0], offsets[1], found) for offsets, found in table.items() if len(offsets) == 2]
    return Lookups(tuple(single), tuple(double))


NO_RULES = _group_by_word({})


class Tagger:
    """Penn Treebank tags from TextBlob's lexicon, its morphological rules and its contextual rules.

    TextBlob's own `PatternTagger` ships the contextual rules and does not apply them ("the stem" stays a verb).
    """

    def __init__(self) -> None:
        from textblob.en import lexicon  # takes a second to import, so it is imported on first use

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # TextBlob does not close its files
            lexicon.get("")  # each table reads its file on first use
            list(lexicon.morphology)
            self.rules = compile_rules(lexicon.context)
        self.lexicon = lexicon

    def tag(self, words: Sequence[str]) -> list[str]:
        """The tag of each word of one sentence."""
        if not words:
            return []
        return self.apply_rules(words, [self.tag_word(words[0], True), *map(self.tag_word, words[1:])])

    @lru_cache(maxsize=65536)  # noqa: B019 - the one Tagger lives as long as the process
    def tag_word(self, word: str, first: bool = False) -> str:
        """The tag of a word without context; the first word of a sentence is looked up in lower case."""
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
        return self._tag_by_shape(lower)

    def _tag_by_shape(self, lower: str) -> str:
        return str(self.lexicon.morphology.apply([lower, "NN"])[1])

    def apply_rules(self, words: Sequence[str], tags: Sequence[str]) -> list[str]:
        """Apply the contextual rules from left to right; a rule sees the changed tags to its left."""
        flat = [EDGE] * 6
        for word, tag in zip(words, tags, strict=True):
            flat += (word, tag)
        flat += [EDGE] * 6
        by_tag, any_tag = self.rules, self.rules.get("*", NO_RULES)
        for base in range(6, len(flat) - 6, 2):
            rules = by_tag.get(flat[base + 1], any_tag)
            single, double = rules.all if flat[base] in rules.words else rules.common
            best, new = -1, flat[base + 1]
            for offset, table in single:
                found = table.get(flat[base + offset])
                if found is not None and found[0] > best:
                    best, new = found
            for offset, other, table in double:
                found = table.get((flat[base + offset], flat[base + other]))
                if found is not None and found[0] > best:
                    best, new = found
            flat[base + 1] = new
        return flat[7:-6:2]


@cache
def load_tagger() -> Tagger:
    """The tagger, loaded once per process."""
    return Tagger()
