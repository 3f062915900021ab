"""Corrects the tags that the tagger, trained on news text, gets wrong in captions."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tavq.text.tagging import load_tagger
from tavq.text.vocabulary import (
    ACTIONS,
    BASES,
    COLOURS,
    FUNCTION,
    OPENERS,
    PRONOMINAL,
    SCAFFOLD,
    SHOWS,
    STAYING,
)

NOUN = frozenset(("NN", "NNS", "NNP", "NNPS"))
FINITE = frozenset(("VBZ", "VBP", "VBD", "MD"))
NOMINAL = frozenset((*NOUN, "JJ", "JJR", "JJS", "VBN"))
OBJECT = frozenset(("DT", "PRP$", "PRP"))
AFTER_SHOWS = frozenset(("JJ", "CD", "NN", "NNS", "VBG", "VBN", '"', "``", "''"))
CLOSED = frozenset(("IN", "DT", "PRP", "PRP$", "TO", "CC", "MD", "WP", "WRB", "EX", "RB", "VBZ", "VBP", "VBD"))
QUOTES = frozenset("\"'“”‘’«»")


class Context(NamedTuple):
    """A token whose tag is in doubt, in its sentence; the tags to its left are already corrected."""

    tokens: Sequence[str]
    tags: Sequence[str]
    position: int

    @property
    def token(self) -> str:
        return self.tokens[self.position]

    @property
    def tag(self) -> str:
        return self.tags[self.position]

    @property
    def previous_word(self) -> str:
        return self.tokens[self.position - 1].lower() if self.position else ""

    @property
    def next_word(self) -> str:
        return self.tokens[self.position + 1].lower() if self.position + 1 < len(self.tokens) else "."

    @property
    def previous_tag(self) -> str:
        return self.tags[self.position - 1] if self.position else ""

    @property
    def next_tag(self) -> str:
        return self.tags[self.position + 1] if self.position + 1 < len(self.tags) else "."

    def lacks_verb(self) -> bool:
        """Whether the clause has no finite verb, so that this token may be it."""
        start = end = self.position
        while start and not opens_clause(self.tokens, self.tags, start):
            start -= 1
        while end + 1 < len(self.tags) and not opens_clause(self.tokens, self.tags, end + 1):
            end += 1
        return FINITE.isdisjoint(self.tags[start : end + 1])


def opens_clause(tokens: Sequence[str], tags: Sequence[str], index: int) -> bool:
    """Whether a clause begins here: "while", "who", a semicolon; "and", "but" if a new subject may follow."""
    if tags[index] == "CC":
        return index + 1 < len(tags) and tags[index + 1] in ("DT", "PRP$", "PRP")
    return tokens[index].lower() in OPENERS


def correct_tags(tokens: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The tags of one sentence after the corrections, applied from left to right."""
    found = [*map(restore_tag, tokens, tags)]
    fixed = [tag for tag, _ in found]
    for index, (_, correct) in enumerate(found):
        if correct is not None:
            fixed[index] = correct(Context(tokens, fixed, index))
    return fixed


@lru_cache(maxsize=65536)
def restore_tag(token: str, tag: str) -> tuple[str, Callable[[Context], str] | None]:
    """The tag, and the function that corrects it in context.

    The lexicon's tag is restored if the rules changed that of a function word ("of", "near") or a number.
    """
    lower = token.lower()
    if token.isdigit():
        tag = "CD"
    elif lower in ("'s", "’s") and tag != "VBZ":
        tag = "POS"
    elif lower in FUNCTION and tag not in CLOSED and (tag != "WDT" or lower != "that"):
        known = load_tagger().tag_word(lower)
        tag = known if known in CLOSED else tag
    by_tag = TAG_CORRECTIONS.get(tag) if needs_correction(token, tag) else None
    return tag, WORD_CORRECTIONS.get(lower) or by_tag


def needs_correction(token: str, tag: str) -> bool:
    """Whether the correction for the tag could change it for this token; asked once per token to save time."""
    tagger, lower = load_tagger(), token.lower()
    known = tagger.tag_word(token)
    if tag == "NN":
        return token in COLOURS or token in BASES or known in ("JJ", "VBG") or is_verb(token)
    if tag == "JJ":
        return "-" in lower or tagger.tag_word(lower) != "JJ" or tagger.lexicon.get(lower) is None
    if tag == "VBZ":
        return lower not in FUNCTION and lower.endswith("s")
    return known in ("JJ", "NN") if tag == "RB" else True


@lru_cache(maxsize=65536)
def is_verb(base: str) -> bool:
    """Whether the lexicon has a form of the word as a verb: "line" by "lining" or "lined"."""
    lexicon = load_tagger().lexicon
    stem = base.removesuffix("e")
    borrowed = stem == base and lexicon.get(f"{base}e") is not None  # "caring" is of "care", not of "car"
    own = lexicon.get(f"{stem}ing") == "VBG" or lexicon.get(f"{stem}ed") in ("VBN", "VBD")
    doubled = lexicon.get(f"{base}{base[-1:]}ing") == "VBG"
    return lexicon.get(base) == "VB" or doubled or (own and not borrowed)


def tag_plural_noun(context: Context) -> str:
    """NNS or VBZ: "the image features", "a man rides his bicycle", "a dog leaps over a log"."""
    if context.previous_tag not in NOUN:
        return "NNS"
    lower, next_tag = context.token.lower(), context.next_tag
    takes = next_tag in OBJECT and context.next_word not in ("all", "each")
    if context.previous_word in SCAFFOLD or takes or (lower in SHOWS and next_tag in AFTER_SHOWS):
        return "VBZ"
    acts = lower in ACTIONS and next_tag in ("IN", "TO", "RB", "RP", ".", ",", "VBG")
    return "VBZ" if acts and context.lacks_verb() else "NNS"


def tag_noun(context: Context) -> str:
    """NN, JJ, VBG or a verb: "dark green", "in a black top sitting on a chair", "trees line the street"."""
    token, previous_tag, next_tag = context.token, context.previous_tag, context.next_tag
    if token in COLOURS or (next_tag == "," and previous_tag == "DT" and load_tagger().tag_word(token) == "JJ"):
        return "JJ"
    has_subject = previous_tag == "NNS" and next_tag in ("DT", "PRP$", "PRP", "JJ", "CD", "RB")
    if has_subject and token.islower() and is_verb(token):
        return "VBP"
    if next_tag not in ("IN", "DT", "PRP$", "PRP", "TO", "RB", "RP") or previous_tag in ("", "DT", "PRP$", "IN"):
        return "NN"
    if token.endswith("ing") and load_tagger().tag_word(token) == "VBG":
        return "VBG"
    return "VB" if token in BASES and context.lacks_verb() else "NN"


def tag_third_person(context: Context) -> str:
    """VBZ, or NNS where a verb is impossible: "the leaves", "two sinks", "yellow leaves float"."""
    lower = context.token.lower()
    counted = context.previous_tag == "CD" and context.previous_word != "one" and not context.previous_word.isdigit()
    quantified = context.next_word in ("all", "both", "each") and context.previous_tag != "PRP"
    owned = context.previous_word in ("the", "these", "those") or context.previous_tag == "PRP$"
    alone = context.next_tag in FINITE or context.next_tag in (".", ",") or lower == "leaves"
    described = context.previous_tag == "JJ" and alone and lower not in SHOWS and context.next_tag not in OBJECT
    return "NNS" if counted or owned or described or quantified else "VBZ"


def tag_participle(context: Context) -> str:
    """VBN, VBD, VB or VBP as NN ("a set of stairs", "the word 'STOP'") or VBN ("with curled tips")."""
    if context.previous_word in QUOTES and context.next_word in QUOTES:
        return "NN"
    known = load_tagger().tag_word(context.token)
    if context.tag in ("VB", "VBP") and context.previous_tag in ("NNS", "IN") and known == "NN":
        acts = context.previous_tag == "NNS" and is_verb(context.token) and context.previous_word != "sports"
        return context.tag if acts else "NN"
    previous_tag, next_tag, regular = context.previous_tag, context.next_tag, is_regular(context.token.lower())
    if context.tag == "VBD" and not previous_tag:
        return "VBN" if regular else "NN"
    headed = next_tag in ("IN", ".", ",", "CC", "POS") or (previous_tag == "DT" and next_tag in FINITE)
    if previous_tag in ("DT", "PRP$", "JJ") and headed and not regular:
        return "NN"
    listed = next_tag == "," and previous_tag in ("DT", "PRP$", "JJ") and regular
    attributive = listed or (previous_tag in ("DT", "PRP$", "JJ", "IN") and next_tag in ("NN", "NNS", "JJ"))
    coordinated = previous_tag == "CC" and next_tag == "NN" and regular
    return "VBN" if context.tag == "VBD" and (attributive or coordinated) else context.tag


@lru_cache(maxsize=65536)
def is_regular(participle: str) -> bool:
    """Whether the word is a known verb with -ed ("adorned") and so not a noun, as "sled" and "set" may be."""
    lexicon = load_tagger().lexicon
    stem = participle.removesuffix("ed")
    bases = (stem, f"{stem}e", stem[:-1])
    return stem != participle and any(len(base) > 2 and lexicon.get(base) is not None for base in bases)


def tag_gerund(context: Context) -> str:
    """VBG only for words in -ing: the rules also tag "football" and "line" so."""
    return "VBG" if context.token.lower().endswith("ing") else tag_noun(context)


def tag_adverb(context: Context) -> str:
    """RB, or the lexicon's tag if that is an adjective or a noun: the rules tag "dark" as an adverb."""
    known = load_tagger().tag_word(context.token)
    stays = context.token in STAYING and context.next_tag not in NOMINAL
    return known if known in ("JJ", "NN") and not stays else "RB"


def tag_adjective(context: Context) -> str:
    """JJ, or NN if it ends a noun phrase and is not an adjective itself: "a sink.", "a fire hydrant", "a t-shirt"."""
    token, previous_tag, next_tag = context.token, context.previous_tag, context.next_tag
    lower = token.lower()
    known = load_tagger().tag_word(lower)
    if known == "RB" and (lower.endswith("ly") or lower == "also"):
        return "RB"
    if next_tag in NOMINAL or previous_tag not in ("DT", "PRP$", "JJ", "CD", "NN", "NNP", "VBN", "VBG"):
        return "JJ"
    if context.previous_word in PRONOMINAL or lower in STAYING or (previous_tag == "VBG" and known != "VB"):
        return "JJ"
    if known == "VB" or (next_tag not in ("CC", ",") and load_tagger().lexicon.get(lower) is None and lower.isalpha()):
        return "NN"
    last = lower.rpartition("-")[2] if "-" in lower else ""
    return "NN" if last and load_tagger().lexicon.get(last) in ("NN", "NNS") else "JJ"


def tag_can(context: Context) -> str:
    """MD, or NN: "a trash can", "a can of soda"."""
    held = context.previous_word in (
        "a",
        "the",
        "trash",
        "garbage",
        "watering",
        "soda",
        "beer",
        "spray",
        "tin",
        "paint",
    )
    return "NN" if context.next_word == "of" or (held and context.next_tag not in ("VB", "PRP", "RB")) else "MD"


def tag_back(context: Context) -> str:
    """RB, or JJ and NN: "the back door", "on its back"."""
    if context.previous_tag not in ("DT", "PRP$"):
        return "RB"
    return "JJ" if precedes_noun(context) else "NN"


def precedes_noun(context: Context) -> bool:
    """Whether the noun phrase continues after the word."""
    return context.next_tag in NOMINAL or context.next_word in ("left", "right")


def tag_front_or_top(context: Context) -> str:
    """RB in "in front of" and "on top of"; else JJ or NN: "the front wheel", "the top of the hill"."""
    preposition = "in" if context.token.lower() == "front" else "on"
    if context.previous_word == preposition and context.next_tag not in NOUN:
        return "RB"
    return "JJ" if precedes_noun(context) else "NN"


def tag_left_or_right(context: Context) -> str:
    """NN for the side: "from left to right.", "on the left,"; else corrected by its tag."""
    if context.previous_tag in ("IN", "TO") and context.next_tag in ("TO", "CC", ".", ",", ":"):
        return "NN"
    if context.previous_tag == "DT" and context.next_word == "one":
        return "JJ"
    correct = TAG_CORRECTIONS.get(context.tag)
    return correct(context) if correct else context.tag


def tag_one(context: Context) -> str:
    """CD, or PRP if it replaces a noun: "the right one is bare"."""
    if context.token.lower() == "ones":
        return "PRP"
    described = context.previous_tag in ("DT", "JJ", "JJR", "JJS") or context.previous_word in ("left", "right")
    return "PRP" if described and context.next_tag not in NOMINAL else "CD"


WORD_CORRECTIONS: dict[str, Callable[[Context], str]] = {
    "can": tag_can,
    "back": tag_back,
    "front": tag_front_or_top,
    "top": tag_front_or_top,
    "left": tag_left_or_right,
    "right": tag_left_or_right,
    "one": tag_one,
    "ones": tag_one,
}

TAG_CORRECTIONS: dict[str, Callable[[Context], str]] = {
    "NNS": tag_plural_noun,
    "NN": tag_noun,
    "VBZ": tag_third_person,
    "VBG": tag_gerund,
    "RB": tag_adverb,
    "JJ": tag_adjective,
    "VBD": tag_participle,
    "VBN": tag_participle,
    "VB": tag_participle,
    "VBP": tag_participle,
}
